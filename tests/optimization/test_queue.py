"""Optimizations as a service, on a real database with real processes."""

from __future__ import annotations

import asyncio
import json
import os
import re
import select
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from sidejudge_server.errors import (
    ConflictError,
    FailedPreconditionError,
    InvalidRequestError,
    InvalidTokenError,
    NotFoundError,
)
from sidejudge_server.judges.kinds import (
    KINDS,
    JudgeSpec,
    curated_instructions,
    initial_program,
)
from sidejudge_server.judges.types import JudgeKind
from sidejudge_server.optimization.plan import (
    InstructionSource,
    OptimizationConfig,
)
from sidejudge_server.optimization.queue import CreateOptimization
from sidejudge_server.optimization.spec import EventKind
from sidejudge_storage import OptimizationFilter
from tests.optimization import toy_workers
from tests.optimization.service_setup import running
from tests.stand_in import running_stand_in

pytestmark = pytest.mark.slow

_SAFETY = CreateOptimization("safety")
_ROOT = Path(__file__).parents[2]


def _kinds(events):
    return [event.kind.value for event in events]


def test_run_is_on_disk_with_its_first_event_before_it_is_answered(tmp_path):
    """A caller that reads at once finds the run, and a watcher has something to see."""

    async def scenario():
        async with running(tmp_path) as server:
            await server.train()
            record = await server.service.create(_SAFETY)
            stored = await server.storage.optimizations.get(record.optimization_id)
            events = await server.storage.optimizations.events(
                record.optimization_id, after_sequence=0, limit=1
            )
            return record, stored, events

    record, stored, events = asyncio.run(scenario())
    assert stored == record
    assert (record.state, record.phase, record.baseline_version) == (
        "running",
        "preparing",
        1,
    )
    assert [(e.sequence, e.kind) for e in events] == [(1, "phase_changed")]
    config = json.loads(record.config_json)
    assert config["num_trials"] > 0
    assert config["seed"] == 9
    dataset = json.loads(record.dataset_json)
    assert sum(dataset[f"{s}_count"] for s in ("train", "validation", "test")) == 100


def test_improvement_becomes_a_version_and_serves_if_asked(tmp_path):
    """The version says where it comes from; the gate's verb is in the history."""

    async def scenario():
        async with running(tmp_path, entry=toy_workers.improves) as server:
            await server.train()
            record = await server.service.create(
                replace(_SAFETY, deploy_if_better=True)
            )
            events = await server.watch_all(record.optimization_id, after=0)
            version = server.registry.get_version("safety")
            history = server.registry.deployments("safety")
            return record, events, version, history

    record, events, version, history = asyncio.run(scenario())
    assert [e.sequence for e in events] == list(range(1, len(events) + 1))
    assert events[-1].kind is EventKind.FINISHED
    ended = events[-1].record
    assert (ended.state, ended.candidate_version, ended.phase) == ("succeeded", 2, "")
    assert json.loads(ended.decision_json)["deployed"] is True
    assert ended.ended_at >= ended.started_at
    assert (version.version, version.origin, version.parent_version) == (
        2,
        "optimization",
        1,
    )
    assert version.optimization_id == record.optimization_id
    assert version.model == "openai/stand-in"
    assert version.data_digest == json.loads(record.dataset_json)["digest"]
    assert version.metrics == {"test.accuracy": 0.9}
    assert (history[-1].verb, history[-1].version) == ("gate", 2)


def test_improvement_is_not_deployed_unasked(tmp_path):
    """It is kept as a version only."""

    async def scenario():
        async with running(tmp_path, entry=toy_workers.improves) as server:
            await server.train()
            record = await server.service.create(_SAFETY)
            events = await server.watch_all(record.optimization_id)
            return events[-1].record, server.registry.get("safety")

    ended, judge = asyncio.run(scenario())
    assert ended.candidate_version == 2
    assert judge.deployed_version == 1
    assert json.loads(ended.decision_json)["deployed"] is False


def test_version_deployed_meanwhile_is_not_overruled(tmp_path):
    """The gate compared with another version than the one that serves now."""

    async def scenario():
        async with running(tmp_path, max_workers=1) as server:
            await server.train()
            await server.train("relevance")
            first = await server.service.create(CreateOptimization("relevance"))
            record = await server.service.create(
                replace(_SAFETY, deploy_if_better=True)
            )
            program = server.registry.get_version("safety").program
            changed = replace(program, instructions="Written by hand meanwhile.")
            version = await server.registry.add_version("safety", changed)
            await server.registry.deploy(
                "safety", version.version, author="a", reason="r"
            )
            server.executor._entry = toy_workers.improves
            await server.service.cancel(first.optimization_id)
            events = await server.watch_all(record.optimization_id, after=0)
            return record, events, server.registry.get("safety")

    record, events, judge = asyncio.run(scenario())
    assert record.state == "queued"
    assert judge.deployed_version == 2
    assert events[-1].record.candidate_version == 3
    assert json.loads(events[-1].record.decision_json)["deployed"] is False
    assert "deployed during the run" in events[-2].payload["message"]


def test_any_position_can_be_resumed_live_and_afterwards(tmp_path):
    """Exactly the events after the token, however often, also when the run has ended."""

    async def scenario():
        async with running(tmp_path) as server:
            await server.train()
            record = await server.service.create(_SAFETY)
            run_id = record.optimization_id
            await server.watch_until(run_id, EventKind.BEST_IMPROVED)
            live = asyncio.gather(
                *(server.watch_all(run_id, after=position) for position in range(4))
            )
            await server.service.cancel(run_id)
            suffixes = await live
            last = suffixes[0][-1].sequence
            afterwards = [
                await server.watch_all(run_id, after=position)
                for position in range(last + 1)
            ]
            snapshot = await server.watch_all(run_id)
            trials = await server.service.list_trials(run_id, limit=10)
            return suffixes, afterwards, snapshot, trials

    suffixes, afterwards, snapshot, trials = asyncio.run(scenario())
    log = _kinds(suffixes[0])
    assert log[0] == "phase_changed"
    assert log[-1] == "finished"
    for position, events in enumerate(suffixes):
        assert _kinds(events) == log[position:]
        assert [e.sequence for e in events] == list(range(position + 1, len(log) + 1))
    for position, events in enumerate(afterwards):
        assert _kinds(events) == log[position:]
    assert _kinds(snapshot) == ["snapshot", "finished"]
    assert [e.sequence for e in snapshot] == [len(log) - 1, len(log)]
    assert [t.kind for t in trials] == ["trial_completed"]


def test_watch_without_token_begins_with_a_snapshot_and_then_beats(tmp_path):
    """A watcher hears something at least every heartbeat, with the run's spend."""

    async def scenario():
        async with running(tmp_path, heartbeat_s=0.05) as server:
            await server.train()
            record = await server.service.create(_SAFETY)
            await server.watch_until(record.optimization_id, EventKind.BEST_IMPROVED)
            events = server.service.watch(record.optimization_id)
            seen = [await anext(events) for _ in range(3)]
            while seen[-1].kind is not EventKind.HEARTBEAT:
                seen.append(await anext(events))
            await events.aclose()
            return seen

    seen = asyncio.run(scenario())
    assert seen[0].kind is EventKind.SNAPSHOT
    assert seen[0].record.state == "running"
    beat = seen[-1]
    assert beat.sequence == seen[-2].sequence
    assert beat.payload["progress"]["lm_calls"] == 7


def test_cancel_keeps_the_best_and_deploys_nothing(tmp_path):
    """Cancelling is idempotent and an ended run stays as it is."""

    async def scenario():
        async with running(tmp_path) as server:
            await server.train()
            record = await server.service.create(
                replace(_SAFETY, deploy_if_better=True)
            )
            run_id = record.optimization_id
            await server.watch_until(run_id, EventKind.BEST_IMPROVED)
            cancelling = await server.service.cancel(run_id)
            await server.service.cancel(run_id)
            events = await server.watch_all(run_id)
            again = await server.service.cancel(run_id)
            version = server.registry.get_version("safety", 2)
            return cancelling, events[-1], again, version, server

    cancelling, last, again, version, server = asyncio.run(scenario())
    assert cancelling.state == "cancelling"
    assert last.kind is EventKind.FINISHED
    assert (last.record.state, last.record.candidate_version) == ("cancelled", 2)
    assert last.record.error_json is None
    assert again == last.record
    assert version.program.instructions == "Better instructions of a toy worker."
    assert version.metrics == {"validation.score": 0.75}
    assert server.registry.get("safety").deployed_version == 1


def test_result_that_comes_after_a_cancel_is_kept_but_not_deployed(tmp_path):
    """Somebody who cancels wants no deployment, however late the cancel was."""

    async def scenario():
        async with running(
            tmp_path, entry=toy_workers.finishes_when_cancelled
        ) as server:
            await server.train()
            record = await server.service.create(
                replace(_SAFETY, deploy_if_better=True)
            )
            run_id = record.optimization_id
            await server.watch_until(run_id, EventKind.BEST_IMPROVED)
            await server.service.cancel(run_id)
            ended = (await server.watch_all(run_id))[-1].record
            return ended, server.registry.get("safety").deployed_version

    ended, deployed = asyncio.run(scenario())
    assert (ended.state, ended.candidate_version) == ("cancelled", 2)
    assert ended.decision_json is None
    assert deployed == 1


def test_one_run_a_judge_and_others_wait_for_a_worker(tmp_path):
    """A second run of the same judge is refused by name; that of another one waits."""

    async def scenario():
        async with running(tmp_path, max_workers=1) as server:
            await server.train()
            await server.train("relevance")
            first = await server.service.create(_SAFETY)
            with pytest.raises(ConflictError) as refused:
                await server.service.create(_SAFETY)
            second = await server.service.create(CreateOptimization("relevance"))
            listed = await server.service.list(
                OptimizationFilter(state="queued"), limit=10
            )
            await server.service.cancel(second.optimization_id)
            dropped = await server.watch_all(second.optimization_id, after=0)
            third = await server.service.create(CreateOptimization("relevance"))
            await server.service.cancel(first.optimization_id)
            started = await server.watch_until(
                third.optimization_id, EventKind.BEST_IMPROVED
            )
            return first, refused.value, second, listed, dropped, third, started

    first, refused, second, listed, dropped, third, started = asyncio.run(scenario())
    assert refused.reason == "OPTIMIZATION_IN_PROGRESS"
    assert refused.metadata == {
        "optimization": f"optimizations/{first.optimization_id}"
    }
    assert (second.state, second.phase, second.started_at) == ("queued", "", None)
    assert listed == [second]
    assert _kinds(dropped) == ["warning", "finished"]
    assert dropped[-1].record.state == "cancelled"
    assert third.state == "queued"
    assert started.sequence > 2


def test_repeated_request_starts_one_run(tmp_path):
    """The request_id gives the first answer again; with another judge it is refused."""

    async def scenario():
        async with running(tmp_path) as server:
            await server.train()
            command = replace(
                _SAFETY, request_id="7d0c6f6e-6d1c-4c9f-9a52-6a4b5b1d0001"
            )
            first, second = await asyncio.gather(
                server.service.create(command), server.service.create(command)
            )
            with pytest.raises(InvalidRequestError) as reused:
                await server.service.create(replace(command, deploy_if_better=True))
            return first, second, reused.value.reason

    first, second, reason = asyncio.run(scenario())
    assert first.optimization_id == second.optimization_id
    assert reason == "REQUEST_ID_REUSED"


def test_caller_that_goes_away_while_creating_leaves_a_running_run(tmp_path):
    """A run is created as a whole or not at all, whoever still listens."""

    async def scenario():
        async with running(tmp_path) as server:
            await server.train()
            asked, go_on = asyncio.Event(), asyncio.Event()

            class Slow:
                async def training_data(self, judge_id):
                    asked.set()
                    await go_on.wait()
                    return await server.feedback.training_data(judge_id)

            server.service._training = Slow()
            caller = asyncio.create_task(server.service.create(_SAFETY))
            await asked.wait()
            caller.cancel()
            with pytest.raises(asyncio.CancelledError):
                await caller
            go_on.set()
            with pytest.raises(ConflictError):  # waits for the first to be created
                await server.service.create(_SAFETY)
            (record,) = await server.service.list(OptimizationFilter(), limit=10)
            event = await server.watch_until(
                record.optimization_id, EventKind.BEST_IMPROVED
            )
            return event.sequence

    assert asyncio.run(scenario()) > 1


def test_killed_worker_fails_its_run_and_no_other(tmp_path):
    """The exit code is told, the best version is kept, the other judge's run goes on."""

    async def scenario():
        async with running(tmp_path, max_workers=2) as server:
            await server.train()
            await server.train("relevance")
            victim = await server.service.create(_SAFETY)
            other = await server.service.create(CreateOptimization("relevance"))
            for run in (victim, other):
                await server.watch_until(run.optimization_id, EventKind.BEST_IMPROVED)
            os.kill(server.executor.status(victim.optimization_id).pid, signal.SIGKILL)
            failed = (await server.watch_all(victim.optimization_id))[-1].record
            alive = server.executor.status(other.optimization_id).alive
            state = (await server.service.get(other.optimization_id)).state
            return failed, alive, state

    failed, alive, state = asyncio.run(scenario())
    error = json.loads(failed.error_json)
    assert failed.state == "failed"
    assert error["reason"] == "WORKER_CRASHED"
    assert error["metadata"]["exit_code"] == "-9"
    assert failed.candidate_version == 2
    assert (alive, state) == (True, "running")


def test_too_little_data_is_refused_with_what_is_missing(tmp_path):
    """Nothing is stored for a run that cannot teach anything."""

    async def scenario():
        async with running(tmp_path) as server:
            await server.train(count=10)
            with pytest.raises(FailedPreconditionError) as refused:
                await server.service.create(_SAFETY)
            listed = await server.service.list(OptimizationFilter(), limit=10)
            return refused.value, listed

    refused, listed = asyncio.run(scenario())
    assert refused.reason == "TRAINING_SET_TOO_SMALL"
    assert refused.metadata == {"have": "10", "need": "20"}
    assert listed == []


def test_wrong_configuration_and_unknown_names_are_refused(tmp_path):
    """Each with its own error."""

    async def scenario():
        async with running(tmp_path) as server:
            config = OptimizationConfig(num_trials=0)
            with pytest.raises(InvalidRequestError):
                await server.service.create(replace(_SAFETY, config=config))
            with pytest.raises(NotFoundError) as judge:
                await server.service.create(CreateOptimization("nobody"))
            with pytest.raises(NotFoundError) as run:
                await server.service.cancel("nothing")
            await server.train()
            record = await server.service.create(_SAFETY)
            with pytest.raises(InvalidTokenError) as token:
                await server.watch_all(record.optimization_id, after=99)
            return judge.value.reason, run.value.reason, token.value.reason

    assert asyncio.run(scenario()) == (
        "JUDGE_NOT_FOUND",
        "OPTIMIZATION_NOT_FOUND",
        "INVALID_RESUME_TOKEN",
    )


def test_clean_shutdown_ends_runs_with_their_cause(tmp_path):
    """A run that a shutdown interrupts is failed, its best version kept, its events complete."""

    async def scenario():
        async with running(tmp_path) as server:
            await server.train()
            record = await server.service.create(_SAFETY)
            await server.watch_until(record.optimization_id, EventKind.BEST_IMPROVED)
        async with running(tmp_path) as server:
            return await server.watch_all(record.optimization_id, after=0)

    events = asyncio.run(scenario())
    ended = events[-1].record
    assert (ended.state, ended.candidate_version) == ("failed", 2)
    assert json.loads(ended.error_json)["reason"] == "SERVER_RESTARTED"
    assert [e.sequence for e in events] == list(range(1, len(events) + 1))


_SERVER = """
import asyncio, json, sys
from pathlib import Path
from sidejudge_server.optimization.executor import start_fork_server
from sidejudge_server.optimization.queue import CreateOptimization
from tests.optimization.service_setup import running

async def main():
    async with running(Path(sys.argv[1])) as server:
        await server.train()
        record = await server.service.create(CreateOptimization("safety"))
        await server.watch_until(record.optimization_id, "best_improved")
        status = server.executor.status(record.optimization_id)
        print(json.dumps([record.optimization_id, status.pid]), flush=True)
        await asyncio.Event().wait()

if __name__ == "__main__":
    start_fork_server()
    asyncio.run(main())
"""


def test_killed_server_leaves_no_worker_and_its_runs_end_at_the_next_start(tmp_path):
    """After a SIGKILL nothing goes on unseen, and the best version so far is kept once."""
    path = [str(_ROOT), *sys.path]
    with subprocess.Popen(  # noqa: S603 - our own code in our own interpreter
        [sys.executable, "-c", _SERVER, str(tmp_path)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path)},
    ) as server:
        try:
            run_id, pid = json.loads(server.stdout.readline())
            watch = os.pidfd_open(pid)
        finally:
            server.kill()
    poll = select.poll()
    poll.register(watch, select.POLLIN)
    gone = bool(poll.poll(10_000))
    os.close(watch)

    async def restarted():
        async with running(tmp_path) as server:
            record = await server.service.get(run_id)
            events = await server.watch_all(run_id, after=0)
            return record, events, server.registry.list_versions("safety")

    for _ in range(2):
        record, events, versions = asyncio.run(restarted())
        assert gone
        assert record.state == "failed"
        assert json.loads(record.error_json)["reason"] == "SERVER_RESTARTED"
        assert record.candidate_version == 2
        assert json.loads(record.progress_json)["lm_calls"] == 7
        assert len(versions) == 2
        assert [e.sequence for e in events] == list(range(1, len(events) + 1))
        assert _kinds(events)[-1] == "finished"
        assert _kinds(events).count("finished") == 1


def test_whole_run_with_the_real_worker(tmp_path):
    """From import to deployment: search, refit and gate against the stand-in."""
    definition = KINDS[JudgeKind.SAFETY]
    # A word that only one instruction has: with it in the prompt the stand-in judges well.
    curated = curated_instructions(initial_program(JudgeSpec(JudgeKind.SAFETY)))
    others = " ".join((definition.instructions, definition.question, *curated[1:]))
    word = max(
        set(re.findall(r"\w+", curated[0])) - set(re.findall(r"\w+", others)), key=len
    )

    async def scenario(base_url):
        async with running(tmp_path, base_url=base_url, entry=None) as server:
            await server.train(word=word)
            config = OptimizationConfig(
                num_trials=8,
                num_candidates=2,
                instruction_source=InstructionSource.CURATED,
            )
            record = await server.service.create(
                CreateOptimization("safety", config, deploy_if_better=True)
            )
            events = await server.watch_all(record.optimization_id, after=0)
            left = list(tmp_path.glob("*.runs/*"))
            return events, left, server.registry.get_version("safety")

    with running_stand_in() as lm:
        events, left, serving = asyncio.run(scenario(lm.base_url))
    assert [e.sequence for e in events] == list(range(1, len(events) + 1))
    ended = events[-1].record
    assert ended.state == "succeeded", ended
    decision = json.loads(ended.decision_json)
    assert (decision["outcome"], decision["deployed"]) == ("improved", True)
    assert decision["pair_count"] == 40
    assert serving.version == ended.candidate_version == 2
    assert word in serving.program.instructions
    progress = json.loads(ended.progress_json)
    assert progress["trials_completed"] == progress["trials_total"] == 8
    assert progress["lm_calls"] == lm.call_count
    assert left == []
