"""A model that does not answer for a while: runs wait for it."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from sidejudge_server.errors import (
    LMCredentialsError,
    LMRateLimitedError,
    LMRequestError,
    LMUnavailableError,
)
from sidejudge_server.lm.retry import Backoff
from sidejudge_server.optimization.budget import OptimizationBudget
from sidejudge_server.optimization.executor import LocalExecutor, start_fork_server
from sidejudge_server.optimization.outage import Outage
from tests.optimization.runs import make_spec
from tests.stand_in import running_stand_in


def _down(retry_after_s=None, kind=LMUnavailableError):
    return kind(
        "openai/x gave no answer",
        reason="LM_UNAVAILABLE",
        metadata={"model": "openai/x", "cause": "connection refused"},
        retry_after_s=retry_after_s,
    )


class _World:
    """A clock that only waits move on, and a model that is down until some time."""

    def __init__(self, *, up_at, error=None):
        self.now = 0.0
        self.up_at = up_at
        self.error = error or _down()
        self.asked = []
        self.waits = []
        self.heard = []
        self.waiting = []
        self.at_once = self.most_at_once = 0

    def clock(self):
        return self.now

    async def sleep(self, seconds):
        self.waits.append(seconds)
        await asyncio.sleep(0)
        self.now += seconds

    def warning(self, message):
        self.heard.append(message)

    def waiting_for(self, what):
        self.waiting.append(what)

    async def call(self):
        self.asked.append(self.now)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await asyncio.sleep(0)
        self.at_once -= 1
        if self.now < self.up_at:
            raise self.error
        return "answer"

    def outage(self, patience_s=900.0):
        return Outage(
            "openai/x",
            patience_s=patience_s,
            observer=self,
            backoff=_Longest(base_s=2.0, cap_s=60.0, longest_wait_s=patience_s),
            clock=self.clock,
            sleep=self.sleep,
        )


class _Longest(Backoff):
    """Waits as long as the jitter can be."""

    def delay_s(self, attempt, *, asked_s):
        if asked_s is not None and asked_s > self.longest_wait_s:
            return None
        bound = min(self.cap_s, self.base_s * 2 ** (attempt - 1))
        return bound if asked_s is None else max(asked_s, bound)


def test_a_model_that_fails_for_ten_minutes_and_returns_ends_nothing():
    """Every caller gets its answer; begin and end are told once."""
    world = _World(up_at=600.0)

    async def scenario():
        outage = world.outage()
        return await asyncio.gather(*(outage.ask(world.call) for _ in range(8)))

    assert asyncio.run(scenario()) == ["answer"] * 8
    assert world.waiting == ["openai/x", ""]
    began, ended = world.heard
    assert "does not answer (connection refused)" in began
    assert "15 minutes" in began
    assert "answers again after 1" in ended
    assert 600 <= world.now <= 660


def test_one_call_at_a_time_asks_a_model_that_is_down():
    """The others queue: some twenty questions in ten minutes, not hundreds."""
    world = _World(up_at=600.0)

    async def scenario():
        outage = world.outage()
        first = asyncio.create_task(outage.ask(world.call))
        await asyncio.sleep(0)
        others = [asyncio.create_task(outage.ask(world.call)) for _ in range(7)]
        await asyncio.gather(first, *others)

    asyncio.run(scenario())
    during = [at for at in world.asked if 0 < at < 600]
    assert len(during) < 20
    assert len(set(during)) == len(during)


def test_patience_has_an_end():
    """Then everybody gets the model's own error."""
    world = _World(up_at=1e9)

    async def scenario():
        outage = world.outage()
        return await asyncio.gather(
            *(outage.ask(world.call) for _ in range(3)), return_exceptions=True
        )

    assert asyncio.run(scenario()) == [world.error] * 3
    assert 900 <= world.now <= 960
    assert len(world.heard) == 1


def test_without_patience_the_first_failure_counts():
    """Nothing is waited for and nothing is told."""
    world = _World(up_at=1.0)
    with pytest.raises(LMUnavailableError):
        asyncio.run(world.outage(patience_s=0.0).ask(world.call))
    assert (world.waits, world.heard, world.waiting) == ([], [], [])


@pytest.mark.parametrize("kind", [LMCredentialsError, LMRequestError])
def test_what_waiting_does_not_help_is_not_waited_for(kind):
    """A refused key or request comes back the same."""
    world = _World(up_at=1.0, error=_down(kind=kind))
    with pytest.raises(kind):
        asyncio.run(world.outage().ask(world.call))
    assert world.waits == []


def test_a_rate_limit_is_waited_for_as_long_as_it_asks():
    """Unless that is longer than the patience."""
    world = _World(up_at=250.0, error=_down(300.0, LMRateLimitedError))
    assert asyncio.run(world.outage().ask(world.call)) == "answer"
    assert world.waits == [300.0]
    world = _World(up_at=250.0, error=_down(1_000.0, LMRateLimitedError))
    with pytest.raises(LMRateLimitedError):
        asyncio.run(world.outage().ask(world.call))


def test_a_second_outage_is_a_new_one():
    """With its own patience and its own two events."""
    world = _World(up_at=100.0)

    async def scenario():
        outage = world.outage()
        await outage.ask(world.call)
        world.up_at = world.now + 800
        await outage.ask(world.call)

    asyncio.run(scenario())
    assert len(world.heard) == 4


def test_a_cancelled_call_stops_waiting_at_once():
    """And the next one takes over."""
    world = _World(up_at=10.0)
    slept = asyncio.Event()

    async def forever(seconds):
        if not slept.is_set():
            slept.set()
            await asyncio.Event().wait()
        world.now += seconds

    async def scenario():
        world.sleep = forever
        outage = world.outage()
        first = asyncio.create_task(outage.ask(world.call))
        await slept.wait()
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        return await outage.ask(world.call)

    assert asyncio.run(scenario()) == "answer"


@pytest.fixture
def lm():
    with running_stand_in() as stand_in:
        yield stand_in


async def _steer(spec, on_event):
    """Run a spec; ``on_event`` is called with the executor and each event."""
    executor = LocalExecutor()
    await executor.submit("run", spec.to_json())
    events = []
    async for event in executor.events("run"):
        events.append(dict(event))
        await on_event(executor, event)
    return events


def _waits(event):
    return event["kind"] == "progress" and bool(event["progress"]["waiting_for"])


@pytest.mark.slow
def test_a_run_goes_on_when_its_model_is_back(lm, tmp_path):
    """Over HTTP: 500 in the middle of the search, then answers again; nothing is scored 0."""
    start_fork_server()
    lm.fail_after(30)
    spec = replace(make_spec(lm.base_url, tmp_path), lm_outage_s=60.0)

    async def come_back(executor, event):
        del executor
        if _waits(event):
            lm.fail_after(None)

    events = asyncio.run(_steer(spec, come_back))
    assert events[-1]["kind"] == "result"
    assert events[-1]["decision"]["outcome"] == "improved"
    told = [e["message"] for e in events if e["kind"] == "warning"]
    assert any("does not answer" in message for message in told)
    assert any("answers again" in message for message in told)
    trials = [e["trial"] for e in events if e["kind"] == "trial_completed"]
    assert all(trial["score"] > 0 for trial in trials)


@pytest.mark.slow
def test_a_run_that_waits_can_be_cancelled(lm, tmp_path):
    """At once, by the worker itself."""
    start_fork_server()
    spec = make_spec(lm.base_url, tmp_path, model="openai/down")
    spec = replace(spec, lm_outage_s=600.0)

    async def cancel(executor, event):
        if _waits(event):
            await executor.cancel("run")

    assert asyncio.run(_steer(spec, cancel))[-1]["kind"] == "cancelled"


@pytest.mark.slow
def test_waiting_counts_as_time_of_the_run(lm, tmp_path):
    """The budget ends a run before the patience does."""
    start_fork_server()
    spec = make_spec(lm.base_url, tmp_path, model="openai/down")
    budget = OptimizationBudget(max_duration_s=2.0)
    spec = replace(spec, lm_outage_s=600.0, budget=budget)

    async def nothing(executor, event):
        del executor, event

    last = asyncio.run(_steer(spec, nothing))[-1]
    assert (last["kind"], last["stop_reason"]) == ("result", "max_duration")
