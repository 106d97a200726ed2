"""Looks at a worker from outside: does it still speak, and how much memory does it take?"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from sidejudge_server.optimization.memory_limit import resident_bytes

__all__ = ["Cause", "Watchdog", "WorkerLimits"]


class Cause(StrEnum):
    """Why the server ended a worker."""

    MEMORY = "memory"
    SILENCE = "silence"


@dataclass(frozen=True, slots=True)
class WorkerLimits:
    """What a worker may do, and how that is found out.

    Attributes:
        memory_bytes: Memory that it may use; None for any.
        silence_s: How long it may say nothing; None for ever.
        clock: Seconds, from any beginning.
        resident: Tells the memory that a process uses.
        look_every_s: Pause between two looks.
    """

    memory_bytes: int | None = None
    silence_s: float | None = None
    clock: Callable[[], float] = time.monotonic
    resident: Callable[[int], int | None] = resident_bytes
    look_every_s: float = 0.5


class Watchdog:
    """Watches one worker. `heard` may be called from another thread."""

    def __init__(self, limits: WorkerLimits) -> None:
        self._limits = limits
        self._last_heard = limits.clock()

    def heard(self) -> None:
        """Take note that the worker has said something."""
        self._last_heard = self._limits.clock()

    def verdict(self, process_id: int | None) -> Cause | None:
        """Return why the worker must be ended, None if it may go on.

        Args:
            process_id: Of the worker; None before it has one.
        """
        limits = self._limits
        silent_s = limits.clock() - self._last_heard
        if limits.silence_s is not None and silent_s > limits.silence_s:
            return Cause.SILENCE
        if limits.memory_bytes is None or process_id is None:
            return None
        used = limits.resident(process_id)
        return Cause.MEMORY if used is not None and used > limits.memory_bytes else None
