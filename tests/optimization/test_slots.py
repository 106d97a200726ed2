"""Who gets the next free worker."""

from __future__ import annotations

import asyncio

import pytest

from sidejudge_server.optimization.slots import WorkerSlots


def _order(asked, *, count=1):
    """Let sources ask in order while all workers are taken; return who gets one, in order."""

    async def scenario():
        slots = WorkerSlots(count)
        for _ in range(count):
            await slots.acquire("caller")
        served = []

        async def wait(name):
            await slots.acquire(name.rstrip("0123456789"))
            served.append(name)

        tasks = []
        for name in asked:
            tasks.append(asyncio.create_task(wait(name)))
            await asyncio.sleep(0)
        for _ in asked:
            slots.release()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        await asyncio.gather(*tasks)
        return served

    return asyncio.run(scenario())


def test_first_come_first_served():
    """Among people."""
    names = ["caller1", "caller2", "caller3"]
    assert _order(names) == names


def test_people_go_before_policies():
    """Whoever was there first; policies keep their order."""
    asked = ["policy1", "policy2", "caller1", "policy3", "caller2"]
    assert _order(asked) == ["caller1", "caller2", "policy1", "policy2", "policy3"]


def test_a_policy_waits_for_nobody_if_there_is_a_worker():
    """Only waiting runs are ordered."""

    async def scenario():
        slots = WorkerSlots(2)
        await slots.acquire("policy")
        full = slots.is_full
        await slots.acquire("caller")
        return full, slots.is_full

    assert asyncio.run(scenario()) == (False, True)


@pytest.mark.parametrize("given", [False, True])
def test_a_waiter_that_goes_away_takes_no_worker(given):
    """Neither before its turn nor in the moment of its turn."""

    async def scenario():
        slots = WorkerSlots(1)
        await slots.acquire("caller")
        gone = asyncio.create_task(slots.acquire("caller"))
        await asyncio.sleep(0)
        if given:
            slots.release()
            gone.cancel()
        else:
            gone.cancel()
            await asyncio.sleep(0)
            slots.release()
        with pytest.raises(asyncio.CancelledError):
            await gone
        free = not slots.is_full
        await asyncio.wait_for(slots.acquire("policy"), 5)
        return free

    assert asyncio.run(scenario())
