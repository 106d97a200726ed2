"""Who gets the next free worker: first come, first served, but people before policies."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from dataclasses import dataclass, field

__all__ = ["POLICY", "WorkerSlots"]

POLICY = "policy"
"""``trigger_source`` of a run that nobody waits for."""


@dataclass(order=True, slots=True)
class _Waiter:
    """Sorts by whether a policy asked and then by when."""

    by_policy: bool
    number: int
    turn: asyncio.Future[None] = field(compare=False)


class WorkerSlots:
    """A number of workers and an ordered queue for them. Belongs to one event loop."""

    def __init__(self, count: int) -> None:
        """Start with all workers free.

        Args:
            count: How many there are, at least 1.
        """
        self._free = count
        self._numbers = itertools.count()
        self._waiters: list[_Waiter] = []

    @property
    def is_full(self) -> bool:
        """Whether a further run would have to wait."""
        return self._free <= len(self._waiting())

    async def acquire(self, trigger_source: str) -> None:
        """Take a worker as soon as it is this one's turn; `release` gives it back.

        Args:
            trigger_source: Of the run, caller or policy.
        """
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiter = _Waiter(trigger_source == POLICY, next(self._numbers), turn)
        heapq.heappush(self._waiters, waiter)
        self._hand_out()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.release()  # it was given a worker in the moment in which it went away
            raise

    def release(self) -> None:
        """Give a worker back."""
        self._free += 1
        self._hand_out()

    def _hand_out(self) -> None:
        while self._free and self._waiters:
            waiter = heapq.heappop(self._waiters)
            if not waiter.turn.done():  # else it went away
                self._free -= 1
                waiter.turn.set_result(None)

    def _waiting(self) -> list[_Waiter]:
        return [w for w in self._waiters if not w.turn.done()]
