"""What becomes of a run when its events or its end cannot be written, or not as they are."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace

import pytest

from sidejudge_server.errors import ConflictError, ServerStoppingError
from sidejudge_server.optimization.queue import CreateOptimization
from sidejudge_server.optimization.run_log import LiveRun
from sidejudge_server.optimization.spec import EventKind
from sidejudge_storage import WriteFailedError
from tests.optimization import toy_workers
from tests.optimization.service_setup import running

pytestmark = pytest.mark.slow

_SAFETY = CreateOptimization("safety")


def _kinds(events):
    return [event.kind.value for event in events]


@pytest.mark.parametrize("refused", [1, 2])
def test_end_that_could_not_be_stored_is_tried_again_as_it_was(
    tmp_path, monkeypatch, refused
):
    """The deployment that was stored before is the run's own and no reason to warn."""
    monkeypatch.setattr("sidejudge_server.optimization.runner._RETRY_S", 0.01)

    async def scenario():
        async with running(tmp_path, entry=toy_workers.improves) as server:
            await server.train()
            write, left = server.storage.write, refused

            async def full_disk(*commands):
                nonlocal left
                kinds = {getattr(command, "kind", "") for command in commands}
                if left and EventKind.FINISHED.value in kinds:
                    left -= 1
                    raise WriteFailedError("no space left on device")
                await write(*commands)

            monkeypatch.setattr(server.storage, "write", full_disk)
            record = await server.service.create(
                replace(_SAFETY, deploy_if_better=True)
            )
            events = await server.watch_all(record.optimization_id, after=0)
            return events, left, server.registry

    events, left, registry = asyncio.run(scenario())
    assert left == 0
    assert json.loads(events[-1].record.decision_json)["deployed"] is True
    assert _kinds(events)[-2:] == ["best_improved", "finished"]
    assert len(registry.list_versions("safety")) == 2
    assert [d.version for d in registry.deployments("safety")][-2:] == [1, 2]


def _refusing(server, monkeypatch, kind, *, times):
    """Make the database refuse events of a kind so often; return the count left and a signal."""
    write, left, refused = server.storage.write, [times], asyncio.Event()

    async def full_disk(*commands):
        kinds = {getattr(command, "kind", "") for command in commands}
        if left[0] and kind.value in kinds:
            left[0] -= 1
            refused.set()
            raise WriteFailedError("no space left on device")
        await write(*commands)

    monkeypatch.setattr(server.storage, "write", full_disk)
    return left, refused


@pytest.mark.parametrize("kind", [EventKind.TRIAL_COMPLETED, EventKind.BEST_IMPROVED])
def test_event_that_could_not_be_stored_comes_later_in_its_place(
    tmp_path, monkeypatch, kind
):
    """Its worker goes on, and what it says meanwhile follows in order."""
    monkeypatch.setattr("sidejudge_server.optimization.runner._RETRY_S", 0.01)

    async def scenario():
        async with running(tmp_path, entry=toy_workers.improves) as server:
            await server.train()
            left, _ = _refusing(server, monkeypatch, kind, times=3)
            record = await server.service.create(_SAFETY)
            return left, await server.watch_all(record.optimization_id, after=0)

    left, events = asyncio.run(scenario())
    assert left == [0]
    assert _kinds(events)[-4:] == [
        "phase_changed",
        "trial_completed",
        "best_improved",
        "finished",
    ]
    assert [e.sequence for e in events] == list(range(1, len(events) + 1))
    ended = events[-1].record
    assert (ended.state, ended.resume_count) == ("succeeded", 0)


def test_cancel_ends_a_run_whose_events_are_never_stored(tmp_path, monkeypatch):
    """It is not held up by an event that the database never takes."""
    monkeypatch.setattr("sidejudge_server.optimization.runner._RETRY_S", 0.01)

    async def scenario():
        async with running(tmp_path) as server:
            await server.train()
            _, refused = _refusing(
                server, monkeypatch, EventKind.TRIAL_COMPLETED, times=10**9
            )
            record = await server.service.create(_SAFETY)
            await asyncio.wait_for(refused.wait(), 20)
            await server.service.cancel(record.optimization_id)
            events = server.watch_all(record.optimization_id)
            return (await asyncio.wait_for(events, 20))[-1].record

    assert asyncio.run(scenario()).state == "cancelled"


def test_stop_of_the_server_leaves_a_run_whose_event_waits_to_the_next_start(
    tmp_path, monkeypatch
):
    """The run does not fail, and no event is lost."""

    async def before():
        async with running(tmp_path) as server:
            await server.train()
            _, refused = _refusing(
                server, monkeypatch, EventKind.TRIAL_COMPLETED, times=10**9
            )
            record = await server.service.create(_SAFETY)
            await asyncio.wait_for(refused.wait(), 20)
            return record.optimization_id

    async def after(run_id):
        async with running(tmp_path, entry=toy_workers.improves) as server:
            return await server.watch_all(run_id, after=0)

    events = asyncio.run(after(asyncio.run(before())))
    assert events[-1].record.state == "succeeded"
    assert _kinds(events).count("trial_completed") == 1


def test_queued_run_whose_start_cannot_be_stored_gives_its_worker_back(
    tmp_path, monkeypatch
):
    """It fails with the cause, and the next run does not wait for ever."""

    async def scenario():
        async with running(tmp_path, max_workers=1) as server:
            for judge in ("safety", "relevance"):
                await server.train(judge)
            first = await server.service.create(_SAFETY)
            queued = await server.service.create(CreateOptimization("relevance"))
            write = server.storage.write

            async def full_disk(*commands):
                for command in commands:
                    of_queued = (
                        getattr(command, "optimization_id", "")
                        == queued.optimization_id
                    )
                    if of_queued and command.kind == EventKind.PHASE_CHANGED.value:
                        raise WriteFailedError("no space left on device")
                await write(*commands)

            monkeypatch.setattr(server.storage, "write", full_disk)
            await server.service.cancel(first.optimization_id)
            failed = (await server.watch_all(queued.optimization_id))[-1].record
            await server.watch_all(first.optimization_id)  # it counts until its end
            next_one = await server.service.create(CreateOptimization("relevance"))
            return failed, next_one

    failed, next_one = asyncio.run(scenario())
    assert failed.state == "failed"
    assert json.loads(failed.error_json)["reason"] == "STORAGE_UNAVAILABLE"
    assert next_one.state == "running"


def test_result_that_cannot_be_kept_ends_its_run_with_the_reason(tmp_path):
    """Whatever a worker comes to, its watchers see an end and the judge is free again."""

    async def scenario():
        async with running(
            tmp_path, entry=toy_workers.answers_what_no_judge_can_be
        ) as server:
            await server.train()
            record = await server.service.create(_SAFETY)
            events = await asyncio.wait_for(
                server.watch_all(record.optimization_id, after=0), 20
            )
            again = await server.service.create(_SAFETY)
            return events[-1].record, again, server.registry.get_version("safety", 2)

    ended, again, kept = asyncio.run(scenario())
    assert (ended.state, ended.candidate_version) == ("failed", 2)
    assert "instructions" in json.loads(ended.error_json)["message"]
    assert again.state == "running"
    assert kept.program.instructions == "Better instructions of a toy worker."


async def _ended_with_faults(server, monkeypatch, *, in_rows):
    """Run to an end that meets faults in the registry, and in its first rows if asked to."""
    left = in_rows

    async def broken(*_args, **_kwargs):
        raise KeyError("a fault of the registry")

    monkeypatch.setattr(server.registry, "add_version", broken)
    append = LiveRun.append

    async def fragile(run, kind, payload, *more, **changes):
        nonlocal left
        if left and kind is EventKind.FINISHED:
            left -= 1
            raise KeyError("a fault of the row")
        await append(run, kind, payload, *more, **changes)

    monkeypatch.setattr(LiveRun, "append", fragile)
    record = await server.service.create(_SAFETY)
    async with asyncio.timeout(20):
        return await server.watch_all(record.optimization_id, after=0)


def test_run_whose_best_cannot_be_kept_either_still_ends(tmp_path, monkeypatch):
    """With the bare reason, and the judge is free for another run."""

    async def scenario():
        async with running(tmp_path, entry=toy_workers.improves) as server:
            await server.train()
            events = await _ended_with_faults(server, monkeypatch, in_rows=0)
            return events[-1], await server.service.create(_SAFETY)

    last, again = asyncio.run(scenario())
    assert last.kind is EventKind.FINISHED
    assert (last.record.state, last.record.candidate_version) == ("failed", None)
    assert json.loads(last.record.error_json)["message"].endswith("KeyError")
    assert again.state == "running"


def test_run_that_cannot_be_ended_keeps_its_judge_until_the_next_start(
    tmp_path, monkeypatch
):
    """No second run of the judge comes beside it; those of others are not held up."""

    async def before():
        async with running(
            tmp_path, entry=toy_workers.improves, max_workers=1
        ) as server:
            await server.train()
            await server.train("relevance")
            with pytest.raises(ServerStoppingError):
                await _ended_with_faults(server, monkeypatch, in_rows=1)
            with pytest.raises(ConflictError) as refused:
                await server.service.create(_SAFETY)
            other = await server.service.create(CreateOptimization("relevance"))
            active = server.service.active_run("safety")
            return active, refused.value, other.state

    async def after(run_id):
        async with running(tmp_path, entry=toy_workers.improves) as server:
            return (await server.watch_all(run_id))[-1].record

    run_id, refused, other = asyncio.run(before())
    monkeypatch.undo()
    ended = asyncio.run(after(run_id))
    assert refused.metadata == {"optimization": f"optimizations/{run_id}"}
    assert other == "running"
    assert (ended.state, ended.candidate_version) == ("succeeded", 2)
