"""How much memory a worker may take: a limit inside the process, and a look at it from outside."""

from __future__ import annotations

import os
import resource
from contextlib import suppress
from pathlib import Path

__all__ = ["lift_memory_limit", "resident_bytes", "set_memory_limit"]

_HEADROOM_BYTES = 512 * 1024 * 1024
"""Thread stacks and allocator arenas are reserved but hardly used: about 300 MB of a usual worker."""


def set_memory_limit(resident_limit_bytes: int) -> None:
    """Make allocations fail that would take this process far beyond a limit, before the machine suffers.

    The kernel limits what is reserved, not what is used, so there is headroom above the limit; the
    server looks at what is used and keeps the limit itself.

    Args:
        resident_limit_bytes: What the process may use.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    wanted = resident_limit_bytes + _HEADROOM_BYTES
    soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    with suppress(ValueError, OSError):  # not every system has such a limit
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def lift_memory_limit() -> None:
    """Take the limit away, so that a process that has reached it can say so."""
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    with suppress(ValueError, OSError):  # as above
        resource.setrlimit(resource.RLIMIT_DATA, (hard, hard))


def resident_bytes(process_id: int) -> int | None:
    """Return the memory that a process uses; None if it has ended or the system does not tell."""
    try:
        pages = int(Path(f"/proc/{process_id}/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return None
    return pages * os.sysconf("SC_PAGE_SIZE")
