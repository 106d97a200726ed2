"""Finish what must not be left half done when a caller goes away."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

__all__ = ["run_to_end"]

T = TypeVar("T")

# The event loop keeps only weak references to tasks.
_running: set[asyncio.Task[Any]] = set()


async def run_to_end(work: Coroutine[Any, Any, T]) -> T:
    """Await work that goes on to its end although the caller is cancelled.

    A write that was sent is not taken back by cancellation, so what follows it must happen too.
    """
    task = asyncio.ensure_future(work)
    _running.add(task)
    task.add_done_callback(_finished)
    return await asyncio.shield(task)


def _finished(task: asyncio.Task[Any]) -> None:
    _running.discard(task)
    if not task.cancelled():
        task.exception()  # marks it as seen; the caller, if still there, has it too
