"""Optimizations as a service, on a real database with real processes."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace

import pytest

from sidejudge_server.errors import (
    ConflictError,
    FailedPreconditionError,
    InvalidRequestError,
    InvalidTokenError,
    NotFoundError,
)
from sidejudge_server.optimization.plan import (
    OptimizationConfig,
)
from sidejudge_server.optimization.queue import CreateOptimization
from sidejudge_server.optimization.spec import EventKind
from sidejudge_storage import OptimizationFilter
from tests.optimization.service_setup import running

pytestmark = pytest.mark.slow

_SAFETY = CreateOptimization("safety")


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


def test_run_that_waits_for_its_model_to_start_can_be_cancelled(tmp_path):
    """An embedded model takes long to load; a cancel does not wait for it."""

    async def scenario():
        asked = asyncio.Event()

        async def loading(_settings):
            asked.set()
            await asyncio.Event().wait()

        async with running(tmp_path, resolve_lm=loading) as server:
            await server.train()
            record = await server.service.create(_SAFETY)
            await asked.wait()
            await server.service.cancel(record.optimization_id)
            events = server.watch_all(record.optimization_id, after=0)
            return (await asyncio.wait_for(events, 20))[-1].record

    ended = asyncio.run(scenario())
    assert ended.state == "cancelled"
    assert ended.candidate_version is None


def test_cancel_that_meets_the_start_of_its_run_is_not_undone(tmp_path, monkeypatch):
    """Once it is on disk no row without it follows: a restart would go on with the run."""

    async def scenario():
        async with running(tmp_path, max_workers=1) as server:
            await server.train()
            await server.train("relevance")
            first = await server.service.create(CreateOptimization("relevance"))
            queued = await server.service.create(_SAFETY)
            run = server.service._live[queued.optimization_id]
            noting, starting = asyncio.Event(), asyncio.Event()
            write, append, rows = server.storage.write, run.append, []

            async def slow(*commands):
                for command in commands:
                    row = getattr(command, "record", None)
                    if getattr(row, "optimization_id", "") == run.run_id:
                        rows.append(row.state)
                        if row.state == "cancelling" and not noting.is_set():
                            noting.set()
                            await starting.wait()
                await write(*commands)

            async def seen(*args, **changes):
                if changes.get("state") == "running":
                    starting.set()
                await append(*args, **changes)

            monkeypatch.setattr(server.storage, "write", slow)
            monkeypatch.setattr(run, "append", seen)
            cancelling = asyncio.create_task(server.service.cancel(run.run_id))
            await noting.wait()
            await server.service.cancel(first.optimization_id)
            answered = await asyncio.wait_for(cancelling, 20)
            events = server.watch_all(run.run_id)
            ended = (await asyncio.wait_for(events, 20))[-1].record
            return answered, rows, ended

    answered, rows, ended = asyncio.run(scenario())
    assert answered.state == "cancelling"
    assert rows[0] == "cancelling"
    assert set(rows[1:-1]) <= {"cancelling"}
    assert rows[-1] == ended.state == "cancelled"


@pytest.mark.parametrize(
    ("sources", "places", "order"),
    [
        (("caller", "policy", "caller"), ["the next one", "the next one"], [0, 2, 1]),
        (
            ("policy", "caller", "policy"),
            ["the next one", "number 2 in the queue"],
            [0, 1, 2],
        ),
    ],
)
def test_runs_wait_in_order_and_people_go_before_policies(
    tmp_path, sources, places, order
):
    """The place is told when the run is created; a policy's run lets people pass."""
    judges = ("safety", "relevance", "minimality")

    async def scenario():
        async with running(tmp_path, max_workers=1) as server:
            runs = []
            for judge, source in zip(judges, sources, strict=True):
                await server.train(judge)
                command = CreateOptimization(judge, trigger_source=source)
                runs.append((await server.service.create(command)).optimization_id)
            told = []
            for run_id in runs[1:]:
                (event,) = await server.storage.optimizations.events(
                    run_id, after_sequence=0, limit=1
                )
                told.append(json.loads(event.payload_json)["message"])
            started = []
            for _ in runs:
                states = {r: (await server.service.get(r)).state for r in runs}
                (running_now,) = [r for r in runs if states[r] == "running"]
                started.append(runs.index(running_now))
                await server.service.cancel(running_now)
                await server.watch_all(running_now)
                waiting = [r for r in runs if states[r] == "queued"]
                if waiting:
                    await asyncio.wait(
                        [
                            asyncio.create_task(
                                server.watch_until(r, EventKind.PHASE_CHANGED)
                            )
                            for r in waiting
                        ],
                        return_when=asyncio.FIRST_COMPLETED,
                    )
            return told, started

    told, started = asyncio.run(scenario())
    assert [message.rpartition("; this is ")[2] for message in told] == places
    assert started == order


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
                async def training_data(self, judge_id, **options):
                    asked.set()
                    await go_on.wait()
                    return await server.feedback.training_data(judge_id, **options)

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
