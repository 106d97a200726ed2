"""Background work uses the language model only while nobody waits for it."""

from __future__ import annotations

import asyncio

import pytest

from sidejudge_server.judges.slack import Slack


class Work:
    """Counts its attempts and ends when told to."""

    def __init__(self):
        self.attempts = 0
        self.cancelled = asyncio.Event()
        self.started = asyncio.Event()
        self.finish = asyncio.Event()

    async def __call__(self):
        """Wait to be told."""
        self.attempts += 1
        self.started.set()
        try:
            await self.finish.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        return self.attempts


def test_work_waits_for_a_free_slot():
    """It begins when an evaluation has ended and returns what it returns."""

    async def scenario():
        slack, work = Slack(1), Work()
        slack.enter()
        running = asyncio.create_task(slack.run(work))
        for _ in range(5):
            await asyncio.sleep(0)
        assert work.attempts == 0
        slack.leave()
        await work.started.wait()
        work.finish.set()
        return await running

    assert asyncio.run(scenario()) == 1


def test_an_evaluation_that_needs_the_slot_gets_it_at_once():
    """The call is cancelled and made again when the evaluation has ended."""

    async def scenario():
        slack, work = Slack(2), Work()
        slack.enter()
        running = asyncio.create_task(slack.run(work))
        await work.started.wait()
        work.started.clear()
        slack.enter()
        await work.cancelled.wait()
        slack.leave()
        await work.started.wait()
        work.finish.set()
        assert await running == 2
        return work.attempts

    assert asyncio.run(scenario()) == 2


def test_errors_are_those_of_the_work():
    """Whoever asked for the work hears why it failed."""

    async def fails():
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        asyncio.run(Slack(1).run(fails))


def test_cancelling_the_caller_cancels_the_work():
    """Nothing goes on when the server stops."""

    async def scenario():
        slack, work = Slack(1), Work()
        running = asyncio.create_task(slack.run(work))
        await work.started.wait()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        return work.cancelled.is_set()

    assert asyncio.run(scenario())
