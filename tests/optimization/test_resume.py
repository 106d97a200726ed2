"""Runs go on: after a restart by themselves, after another end when asked to."""

from __future__ import annotations

import asyncio
import json
import os
import select
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from sidejudge_server.errors import (
    ConflictError,
    FailedPreconditionError,
    InvalidRequestError,
    NotFoundError,
    ServerStoppingError,
)
from sidejudge_server.judges.kinds import JudgeSpec
from sidejudge_server.judges.types import JudgeKind
from sidejudge_server.optimization.queue import CreateOptimization
from sidejudge_server.optimization.resume import ResumeOptimization
from sidejudge_server.optimization.spec import EventKind
from sidejudge_storage import ReplaceOptimization, Storage
from tests.optimization import toy_workers
from tests.optimization.interrupted_runs import SAFETY, cancelled_run, interrupted_run
from tests.optimization.service_setup import running

pytestmark = pytest.mark.slow

_ROOT = Path(__file__).parents[2]
_FIRST_LIFE = ["phase_changed", "warning", "phase_changed", "trial_completed"]
_REQUEST = "7d0c6f6e-6d1c-4c9f-9a52-6a4b5b1d0001"


def _kinds(events):
    return [event.kind.value for event in events]


def test_run_goes_on_after_an_orderly_restart(tmp_path):
    """It stays as it is, its watchers are sent away, and what was said is not said again."""

    async def scenario():
        async with running(tmp_path) as server:
            await server.train()
            run_id = (await server.service.create(SAFETY)).optimization_id
            await server.watch_until(run_id, EventKind.BEST_IMPROVED)
            watcher = asyncio.create_task(server.watch_all(run_id))
            await asyncio.sleep(0)
            await server.service.close()
            with pytest.raises(ServerStoppingError) as sent_away:
                await watcher
            left = await server.storage.optimizations.get(run_id)
        async with running(tmp_path, entry=toy_workers.improves) as server:
            events = await server.watch_all(run_id, after=0)
            versions = server.registry.list_versions("safety")
            return sent_away.value, left, events, versions

    sent_away, left, events, versions = asyncio.run(scenario())
    assert sent_away.reason == "SERVER_STOPPING"
    assert (left.state, left.ended_at) == ("running", None)
    assert _kinds(events) == [*_FIRST_LIFE, "best_improved", "resumed", "finished"]
    assert [e.sequence for e in events] == list(range(1, len(events) + 1))
    resumed = events[-2].payload
    assert resumed["reason"] == "the server was restarted"
    assert (resumed["resume_count"], resumed["answers_kept"]) == (1, 0)
    ended = events[-1].record
    assert (ended.state, ended.resume_count) == ("succeeded", 1)
    assert ended.started_at == left.started_at
    assert len(versions) == 2


_SERVER = """
import asyncio, json, sys
from pathlib import Path
from sidejudge_server.optimization.executor import start_fork_server
from sidejudge_server.optimization.queue import CreateOptimization
from tests.optimization.service_setup import running

async def main():
    async with running(Path(sys.argv[1])) as server:
        await server.train()
        await server.train("relevance")
        record = await server.service.create(CreateOptimization("safety"))
        queued = await server.service.create(CreateOptimization("relevance"))
        await server.watch_until(record.optimization_id, "best_improved")
        status = server.executor.status(record.optimization_id)
        ids = [record.optimization_id, queued.optimization_id, status.pid]
        print(json.dumps(ids), flush=True)
        await asyncio.Event().wait()

if __name__ == "__main__":
    start_fork_server()
    asyncio.run(main())
"""


def test_killed_server_leaves_no_worker_and_all_its_runs_go_on(tmp_path):
    """After a SIGKILL nothing goes on unseen; the next start has running and queued runs again."""
    path = [str(_ROOT), *sys.path]
    with subprocess.Popen(  # noqa: S603 - our own code in our own interpreter
        [sys.executable, "-c", _SERVER, str(tmp_path)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path)},
    ) as server:
        try:
            run_id, queued_id, pid = json.loads(server.stdout.readline())
            watch = os.pidfd_open(pid)
        finally:
            server.kill()
    poll = select.poll()
    poll.register(watch, select.POLLIN)
    gone = bool(poll.poll(10_000))
    os.close(watch)

    async def restarted():
        async with running(tmp_path, entry=toy_workers.improves) as server:
            states = [(await server.service.get(i)).state for i in (run_id, queued_id)]
            events = await server.watch_all(run_id, after=0)
            later = await server.watch_all(queued_id, after=0)
            return states, events, later

    states, events, later = asyncio.run(restarted())
    assert gone
    assert states == ["running", "queued"]
    assert _kinds(events) == [*_FIRST_LIFE, "best_improved", "resumed", "finished"]
    assert events[-1].record.state == "succeeded"
    assert json.loads(events[-1].record.progress_json)["lm_calls"] == 7
    assert _kinds(later)[:3] == ["warning", "resumed", "phase_changed"]
    assert later[-1].record.state == "succeeded"
    assert later[-1].record.started_at is not None


def test_run_that_was_to_be_cancelled_is_cancelled_by_the_next_start(tmp_path):
    """Its best version is kept, and it may be resumed as any cancelled run."""

    async def scenario():
        run_id = await interrupted_run(tmp_path)
        storage = Storage.open(tmp_path / "test.duckdb")
        record = await storage.optimizations.get(run_id)
        await storage.write(ReplaceOptimization(replace(record, state="cancelling")))
        await storage.close()
        async with running(tmp_path) as server:
            events = await server.watch_all(run_id, after=0)
            again = await server.service.resume(ResumeOptimization(run_id))
            return events, again

    events, again = asyncio.run(scenario())
    ended = events[-1].record
    assert (ended.state, ended.candidate_version) == ("cancelled", 2)
    assert ended.error_json is None
    assert again.state == "running"


def test_cancelled_run_goes_on_when_asked_to(tmp_path):
    """A watcher that saw its end hears what follows; the end keeps saying what it said."""

    async def scenario():
        async with running(tmp_path) as server:
            run_id = await cancelled_run(server)
            cancelled = await server.service.get(run_id)
            end = await server.storage.optimizations.last_sequence(run_id)
            server.executor._entry = toy_workers.improves
            resumed = await server.service.resume(ResumeOptimization(run_id))
            after_end = await server.watch_all(run_id, after=end)
            whole = await server.watch_all(run_id, after=0)
            versions = server.registry.list_versions("safety")
            left = list(tmp_path.glob("*.runs/*"))
            return cancelled, resumed, after_end, whole, versions, left

    cancelled, resumed, after_end, whole, versions, left = asyncio.run(scenario())
    assert (resumed.state, resumed.resume_count) == ("running", 1)
    assert (resumed.ended_at, resumed.outcome) == (None, "")
    assert _kinds(after_end) == ["resumed", "finished"]
    assert [e.sequence for e in whole] == list(range(1, len(whole) + 1))
    ends = [e.record for e in whole if e.kind is EventKind.FINISHED]
    assert ends[0] == cancelled
    assert ends[1].state == "succeeded"
    # What it found is what it had found before.
    assert (cancelled.candidate_version, ends[1].candidate_version) == (2, 2)
    assert len(versions) == 2
    assert left == []


def test_failed_run_goes_on_when_asked_to(tmp_path):
    """The error is gone with its cause."""

    async def scenario():
        async with running(tmp_path, entry=toy_workers.dies) as server:
            await server.train()
            run_id = (await server.service.create(SAFETY)).optimization_id
            failed = (await server.watch_all(run_id))[-1].record
            server.executor._entry = toy_workers.improves
            resumed = await server.service.resume(ResumeOptimization(run_id))
            ended = (await server.watch_all(run_id))[-1].record
            return failed, resumed, ended

    failed, resumed, ended = asyncio.run(scenario())
    assert json.loads(failed.error_json)["reason"] == "WORKER_CRASHED"
    assert failed.resume_count == 2
    assert (resumed.error_json, resumed.resume_count) == (None, 3)
    assert ended.state == "succeeded"


def test_asking_twice_resumes_once(tmp_path):
    """A repeat finds the run going; one that is going stays as it is."""

    async def scenario():
        async with running(tmp_path) as server:
            run_id = await cancelled_run(server)
            command = ResumeOptimization(run_id, request_id=_REQUEST)
            first, second = await asyncio.gather(
                server.service.resume(command), server.service.resume(command)
            )
            third = await server.service.resume(ResumeOptimization(run_id))
            with pytest.raises(InvalidRequestError) as reused:
                await server.service.resume(
                    ResumeOptimization("x", request_id=_REQUEST)
                )
            log = await server.storage.optimizations.events(
                run_id, after_sequence=0, limit=99, kinds=["resumed"]
            )
            return first, second, third, reused.value.reason, log

    first, second, third, reason, log = asyncio.run(scenario())
    assert first.resume_count == second.resume_count == third.resume_count == 1
    assert reason == "REQUEST_ID_REUSED"
    assert len(log) == 1


def test_runs_that_cannot_be_resumed_are_refused(tmp_path):
    """One that succeeded, one of a busy judge, and one that is unknown."""

    async def scenario():
        async with running(tmp_path) as server:
            service = server.service
            run_id = await cancelled_run(server)
            other = (await service.create(SAFETY)).optimization_id
            with pytest.raises(ConflictError) as busy:
                await service.resume(ResumeOptimization(run_id))
            await service.cancel(other)
            await server.watch_all(other)
            server.executor._entry = toy_workers.improves
            await service.resume(ResumeOptimization(other))
            await server.watch_all(other)
            with pytest.raises(FailedPreconditionError) as succeeded:
                await service.resume(ResumeOptimization(other))
            with pytest.raises(NotFoundError) as unknown:
                await service.resume(ResumeOptimization("nothing"))
            return busy.value, succeeded.value, unknown.value.reason, other

    busy, succeeded, unknown, other = asyncio.run(scenario())
    assert busy.reason == "OPTIMIZATION_IN_PROGRESS"
    assert busy.metadata == {"optimization": f"optimizations/{other}"}
    assert succeeded.reason == "OPTIMIZATION_NOT_RESUMABLE"
    assert succeeded.metadata["cause"] == "it has succeeded"
    assert unknown == "OPTIMIZATION_NOT_FOUND"


def test_run_of_a_deleted_judge_is_refused(tmp_path):
    """There is nothing to make better."""

    async def scenario():
        async with running(tmp_path) as server:
            spec = JudgeSpec(
                JudgeKind.CUSTOM, instructions="Look.", question="Is it good?"
            )
            await server.registry.create("mine", spec)
            await server.train("mine")
            run_id = (
                await server.service.create(CreateOptimization("mine"))
            ).optimization_id
            await server.service.cancel(run_id)
            await server.watch_all(run_id)
            await server.registry.delete("mine")
            with pytest.raises(FailedPreconditionError) as refused:
                await server.service.resume(ResumeOptimization(run_id))
            return refused.value.metadata["cause"]

    assert asyncio.run(scenario()) == "its judge was deleted"
