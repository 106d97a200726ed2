"""Policies at work, on a real database with real worker processes and a clock of their own."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import pytest

from sidejudge_server.errors import ConflictError, InvalidRequestError, NotFoundError
from sidejudge_server.judges.codec import input_to_json
from sidejudge_server.judges.kinds import JudgeSpec
from sidejudge_server.judges.types import ArtifactInput, JudgeKind
from sidejudge_server.optimization.budget import OptimizationBudget
from sidejudge_server.optimization.plan import OptimizationConfig
from sidejudge_server.optimization.policies import PolicyService
from sidejudge_server.optimization.queue import CreateOptimization
from sidejudge_server.optimization.scheduler import PolicyScheduler
from sidejudge_server.training.corrections import Correction
from sidejudge_storage import OptimizationFilter
from tests.optimization.service_setup import Running, running
from tests.optimization.toy_workers import (
    dies,
    finds_nothing,
    searches_until_cancelled,
)
from tests.storage import samples

pytestmark = pytest.mark.slow

_ON = {"enabled": True, "min_new_examples": 60, "cool_down": timedelta(hours=1)}


class _Clock:
    """Stands still until it is moved."""

    def __init__(self):
        self.now = datetime.now(UTC)

    def __call__(self):
        return self.now

    def advance(self, **by):
        self.now += timedelta(**by)


class _Watched:
    """A running service with policies, and the ways to teach it and to wait for it."""

    def __init__(self, server: Running, clock: _Clock):
        self.server = server
        self.clock = clock
        self.policies = PolicyService(
            server.storage,
            server.registry,
            server.feedback,
            server.service,
            server.service._settings,
            clock=clock,
        )
        self.scheduler = PolicyScheduler(self.policies, clock=clock)
        self.policies.listeners.append(self.scheduler.wake)
        server.service.on_ended(self.scheduler.wake)
        server.feedback.on_imported(self.scheduler.wake)
        self._number = 0
        self._ends = asyncio.Queue()
        server.service.on_ended(self._ends.put_nowait)

    async def teach(self, count, *, wrong=6):
        """Judge items and record what they should have been, ``wrong`` of them otherwise."""
        evaluations = []
        for index in range(count):
            self._number += 1
            passes = index % 2 == 0
            item = ArtifactInput(artifact=f"item {self._number}", context="A context.")
            right = "pass" if passes else "fail"
            judged = ("fail" if passes else "pass") if index < wrong else right
            record = samples.evaluation(
                judge_id="safety",
                created_at=self.clock(),
                input_json=input_to_json(item),
                verdict=judged,
                group_key="",
            )
            evaluations.append((record, right))
        await self.server.storage.write(*(record for record, _ in evaluations))
        await self.server.feedback.record_batch(
            [
                Correction(evaluation_id=record.evaluation_id, verdict=right)
                for record, right in evaluations
            ]
        )
        await self.server.feedback.settle()

    async def correct(self, count, *, wrong=6):
        """Teach, and wait for what the policy makes of it."""
        await self.teach(count, wrong=wrong)
        await self.look()

    async def look(self):
        self.scheduler.wake("safety")
        await self.scheduler.idle()

    async def runs(self):
        return await self.server.storage.optimizations.list(
            OptimizationFilter(judge_id="safety"), before=None, limit=99
        )

    async def end(self):
        """Wait for the end of a run and what the policy makes of it."""
        await self._ends.get()
        await self.look()


@asynccontextmanager
async def _watched(path, *, clock=None, entry=finds_nothing):
    async with running(path, entry=entry) as server:
        watched = _Watched(server, clock or _Clock())
        await watched.scheduler.start()
        yield watched
        await watched.scheduler.close()


def test_enough_feedback_starts_a_run_with_its_reason(tmp_path):
    """And not before; the run says who started it and why, and so does the policy."""

    async def scenario():
        async with _watched(tmp_path) as watched:
            await watched.policies.update("safety", _ON)
            await watched.correct(50)
            before = await watched.runs()
            waiting = await watched.policies.get("safety")
            await watched.correct(10)
            runs = await watched.runs()
            return before, waiting, runs, await watched.policies.get("safety")

    before, waiting, runs, after = asyncio.run(scenario())
    assert before == []
    assert waiting.ruling.waiting_for == "10 more examples: 50 of 60 are new"
    assert waiting.last is None
    (run,) = runs
    assert run.trigger_source == "policy"
    assert run.trigger_reason == (
        "60 new examples, 12 of them disagreements, since the judge exists"
    )
    assert after.last.optimization_id == run.optimization_id
    assert (after.situation.new_examples, after.situation.new_disagreements) == (0, 0)


def test_imported_examples_wake_the_policy_too(tmp_path):
    """What is imported counts, but shows no disagreement."""

    async def scenario():
        async with _watched(tmp_path) as watched:
            await watched.policies.update("safety", {**_ON, "min_disagreements": 0})
            await watched.server.train(count=60)
            await watched.scheduler.idle()
            return await watched.runs()

    (run,) = asyncio.run(scenario())
    assert run.trigger_reason.startswith("60 new examples, 0 of them disagreements")


def test_agreement_alone_starts_nothing(tmp_path):
    """A judge that is right has nothing to learn."""

    async def scenario():
        async with _watched(tmp_path) as watched:
            await watched.policies.update("safety", _ON)
            await watched.correct(70, wrong=2)
            return await watched.runs(), await watched.policies.get("safety")

    runs, state = asyncio.run(scenario())
    assert runs == []
    assert "3 more disagreements" in state.ruling.waiting_for


def test_paused_policy_starts_nothing_until_it_is_resumed(tmp_path):
    """The reason of the pause is shown; resuming is enough to start what is due."""

    async def scenario():
        async with _watched(tmp_path) as watched:
            await watched.policies.update("safety", _ON)
            paused = await watched.policies.pause("safety", "ann: audit")
            await watched.correct(60)
            before = await watched.runs()
            await watched.policies.resume("safety")
            await watched.scheduler.idle()
            return paused, before, await watched.runs()

    paused, before, after = asyncio.run(scenario())
    assert paused.policy.paused
    assert "ann: audit" in paused.ruling.waiting_for
    assert before == []
    assert len(after) == 1


def test_a_pause_waits_for_a_run_that_is_being_started(tmp_path, monkeypatch):
    """Whoever was told that the policy is paused sees every run that it has started."""

    class Lock(asyncio.Lock):
        """Says when somebody has to wait for it."""

        def __init__(self):
            super().__init__()
            self.waited_for = asyncio.Event()

        async def acquire(self):
            if self.locked():
                self.waited_for.set()
            return await super().acquire()

    async def scenario():
        async with _watched(tmp_path, entry=searches_until_cancelled) as watched:
            service, lock = watched.server.service, Lock()
            watched.policies._locks["safety"] = lock
            await watched.policies.update("safety", _ON)
            deciding, go_on = asyncio.Event(), asyncio.Event()
            create = service.create

            async def slow(command):
                deciding.set()
                await go_on.wait()
                return await create(command)

            monkeypatch.setattr(service, "create", slow)
            await watched.teach(60)
            watched.scheduler.wake("safety")
            await asyncio.wait_for(deciding.wait(), 20)
            pausing = asyncio.create_task(watched.policies.pause("safety"))
            waiting = asyncio.create_task(lock.waited_for.wait())
            await asyncio.wait({pausing, waiting}, return_when=asyncio.FIRST_COMPLETED)
            waiting.cancel()
            go_on.set()
            paused = await asyncio.wait_for(pausing, 20)
            await watched.scheduler.idle()
            return paused, await watched.runs()

    paused, runs = asyncio.run(scenario())
    assert paused.policy.paused
    assert [r.optimization_id for r in runs] == [paused.last.optimization_id]


def test_cool_down_holds_the_next_run_back(tmp_path):
    """From the end of the run before, whoever started it."""

    async def scenario():
        async with _watched(tmp_path) as watched:
            await watched.correct(60)
            by_hand = await watched.server.service.create(CreateOptimization("safety"))
            await watched.end()
            await watched.policies.update("safety", _ON)
            await watched.correct(60)
            cooling = await watched.policies.get("safety")
            during = await watched.runs()
            watched.clock.advance(minutes=61)
            await watched.look()
            return by_hand, cooling, during, await watched.runs()

    by_hand, cooling, during, after = asyncio.run(scenario())
    assert "the cool-down, until" in cooling.ruling.waiting_for
    assert [r.optimization_id for r in during] == [by_hand.optimization_id]
    assert len(after) == 2
    assert f"since optimizations/{by_hand.optimization_id}" in after[0].trigger_reason


def test_daily_budget_holds_back_and_what_is_left_of_it_bounds_the_run(tmp_path):
    """Spend of the policy's own runs counts for 24 hours; that of others does not."""
    budget = OptimizationBudget(max_lm_calls=2_000, max_duration_s=600.0)

    async def scenario():
        async with _watched(tmp_path) as watched:
            spent = [
                samples.optimization(
                    judge_id="safety",
                    state="failed",
                    trigger_source=source,
                    progress_json=json.dumps({"lm_calls": calls}),
                    created_at=watched.clock() - timedelta(hours=hours),
                )
                for source, calls, hours in (
                    ("policy", 2_000, 20),
                    ("policy", 500, 10),
                    ("caller", 9_000, 1),
                )
            ]
            await watched.server.storage.write(*spent)
            await watched.policies.update("safety", {**_ON, "daily_budget": budget})
            await watched.correct(60)
            waiting = await watched.policies.get("safety")
            before = await watched.runs()
            watched.clock.advance(hours=4, minutes=1)
            await watched.look()
            return waiting, len(before), await watched.runs()

    waiting, before, after = asyncio.run(scenario())
    assert "2500 of 2000 calls are made" in waiting.ruling.waiting_for
    assert before == 3
    assert len(after) == 4
    assert json.loads(after[0].budget_json) == {
        **budget.to_json(),
        "max_lm_calls": 1_500,
    }


def test_a_budget_that_does_not_reach_the_gate_is_not_spent(tmp_path):
    """A run that ends before it can prove anything would be wasted."""

    async def scenario():
        async with _watched(tmp_path) as watched:
            tiny = OptimizationBudget(max_lm_calls=10)
            await watched.policies.update("safety", {**_ON, "daily_budget": tiny})
            await watched.correct(60)
            return await watched.runs(), await watched.policies.get("safety")

    runs, state = asyncio.run(scenario())
    assert runs == []
    assert "max_lm_calls of 10 does not reach the gate" in state.ruling.waiting_for


def test_data_that_are_not_ready_hold_back_with_their_problem(tmp_path):
    """What a caller would be told, the policy says too."""

    async def scenario():
        async with _watched(tmp_path) as watched:
            await watched.policies.update("safety", {**_ON, "min_new_examples": 10})
            await watched.correct(10)
            return await watched.runs(), await watched.policies.get("safety")

    runs, state = asyncio.run(scenario())
    assert runs == []
    assert "10 examples count, an optimization needs 20" in state.ruling.waiting_for


def test_a_run_that_is_going_holds_back(tmp_path):
    """One run a judge; its end is the next moment to look."""

    async def scenario():
        async with _watched(tmp_path, entry=searches_until_cancelled) as watched:
            await watched.correct(60)
            run = await watched.server.service.create(CreateOptimization("safety"))
            await watched.policies.update("safety", {**_ON, "cool_down": timedelta()})
            await watched.correct(60)
            state = await watched.policies.get("safety")
            before = await watched.runs()
            watched.clock.advance(minutes=1)
            await watched.server.service.cancel(run.optimization_id)
            await watched.end()
            return run, state, before, await watched.runs()

    run, state, before, after = asyncio.run(scenario())
    name = f"optimizations/{run.optimization_id}"
    assert state.ruling.waiting_for == f"{name} to end"
    assert len(before) == 1
    assert len(after) == 2
    assert after[0].trigger_source == "policy"


def test_a_failed_run_uses_no_examples_up(tmp_path):
    """They are still new after the cool-down, and the run is tried again."""

    async def scenario():
        async with _watched(tmp_path, entry=dies) as watched:
            await watched.policies.update("safety", _ON)
            await watched.correct(60)
            (first,) = await watched.runs()
            await watched.end()
            cooling = await watched.policies.get("safety")
            watched.clock.advance(hours=2)
            await watched.look()
            return first, cooling, await watched.runs()

    first, cooling, after = asyncio.run(scenario())
    assert cooling.situation.new_examples == 60
    assert "cool-down" in cooling.ruling.waiting_for
    assert len(after) == 2
    assert after[0].trigger_reason == first.trigger_reason


def test_failing_runs_are_not_started_over_and_over(tmp_path):
    """Without a cool-down there is still a pause, twice as long after the next failure."""

    async def scenario():
        async with _watched(tmp_path, entry=dies) as watched:
            await watched.policies.update("safety", {**_ON, "cool_down": timedelta()})
            await watched.correct(60)
            seen = []
            for minutes in (10, 20):
                await asyncio.wait_for(watched.end(), 20)
                state = await watched.policies.get("safety")
                over = state.situation.last_end + timedelta(minutes=minutes)
                watched.clock.now = over - timedelta(seconds=1)
                await watched.look()
                before = len(await watched.runs())
                watched.clock.now = over
                await watched.look()
                after = len(await watched.runs())
                seen.append((state.ruling.waiting_for, before, after))
            return seen

    first, second = asyncio.run(scenario())
    assert "a pause after a failed run, until" in first[0]
    assert "a pause after 2 failed runs in a row, until" in second[0]
    assert (first[1:], second[1:]) == ((1, 2), (2, 3))


def test_policy_and_what_is_due_survive_a_restart(tmp_path):
    """What came while nobody looked starts a run when the server is back."""

    async def before():
        async with running(tmp_path, entry=finds_nothing) as server:
            watched = _Watched(server, _Clock())
            await watched.policies.update("safety", {**_ON, "deploy_if_better": True})
            await watched.teach(60)

    async def after():
        async with _watched(tmp_path) as watched:
            await watched.look()
            return await watched.runs(), await watched.policies.get("safety")

    asyncio.run(before())
    runs, state = asyncio.run(after())
    assert len(runs) == 1
    assert runs[0].deploy_if_better
    assert state.policy.enabled
    assert state.policy.min_new_examples == 60


def test_changes_are_checked_and_nobody_overwrites_another(tmp_path):
    """Ranges, the etag, the price of models and the judge."""

    async def scenario():
        async with _watched(tmp_path) as watched:
            policies = watched.policies
            first = await policies.get("safety")
            second = await policies.update("safety", _ON, etag=first.etag)
            assert second.etag != first.etag
            with pytest.raises(ConflictError) as outdated:
                await policies.update("safety", {"enabled": False}, etag=first.etag)
            assert outdated.value.reason == "ETAG_MISMATCH"
            with pytest.raises(InvalidRequestError) as wrong:
                await policies.update(
                    "safety",
                    {
                        "min_new_examples": 0,
                        "config": OptimizationConfig(seed=-1),
                        "daily_budget": OptimizationBudget(max_cost_usd=1.0),
                    },
                )
            for call in (
                policies.get("nobody"),
                policies.update("nobody", {}),
                policies.pause("nobody"),
                policies.resume("nobody"),
            ):
                with pytest.raises(NotFoundError):
                    await call
            unchanged = await policies.get("safety")
            assert unchanged.etag == second.etag
            assert unchanged.policy == second.policy
            return [v.field for v in wrong.value.violations]

    assert asyncio.run(scenario()) == [
        "optimization_policy.min_new_examples",
        "optimization_policy.daily_budget.max_cost_usd",
        "optimization_policy.config.seed",
    ]


def test_a_deleted_judge_is_not_optimized_by_its_policy(tmp_path):
    """Its policy stays, in case somebody looks, and is left alone."""

    async def scenario():
        async with _watched(tmp_path) as watched:
            registry = watched.server.registry
            await registry.create("mine", JudgeSpec(JudgeKind.SAFETY))
            await watched.policies.update("mine", _ON)
            before = await watched.policies.enabled()
            await registry.delete("mine")
            after = await watched.policies.enabled()
            return before, after, await watched.policies.start_if_due("mine")

    before, after, seen = asyncio.run(scenario())
    assert before == ["mine"]
    assert after == []
    assert seen is None
