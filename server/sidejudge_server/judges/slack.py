"""Lets background work use the language model only while nobody waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

__all__ = ["Slack"]

T = TypeVar("T")


class Slack:
    """Knows how many evaluations are in progress. Belongs to one event loop."""

    def __init__(self, slots: int) -> None:
        """Start with nothing in progress.

        Args:
            slots: How many calls the language model takes at once, at least 1.
        """
        self._slots = slots
        self._in_progress = 0
        self._free = asyncio.Event()
        self._free.set()
        self._crowded = asyncio.Event()

    def enter(self) -> None:
        """Count an evaluation that begins."""
        self._in_progress += 1
        self._update()

    def leave(self) -> None:
        """Count an evaluation that has ended."""
        self._in_progress -= 1
        self._update()

    async def run(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Do some work while a slot is free, from the beginning again if the slot is needed.

        Args:
            work: Called for each attempt; its coroutine is cancelled when the last slot is taken.

        Returns:
            What the first attempt that was not cancelled returns, or raises.
        """
        while True:
            await self._free.wait()
            task = asyncio.create_task(work())
            crowded = asyncio.create_task(self._crowded.wait())
            try:
                await asyncio.wait({task, crowded}, return_when=asyncio.FIRST_COMPLETED)
                if task.done():
                    return task.result()
            finally:
                crowded.cancel()
                task.cancel()
                await asyncio.wait({task})
                if not task.cancelled():
                    task.exception()  # it came when the slot was already given away

    def _update(self) -> None:
        if self._in_progress < self._slots:
            self._free.set()
            self._crowded.clear()
        else:
            self._free.clear()
            self._crowded.set()
