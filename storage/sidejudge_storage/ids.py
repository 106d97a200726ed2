"""Time-sortable ids: UUID version 7 (RFC 9562), increasing within the process."""

from __future__ import annotations

import secrets
import threading
import time
from datetime import datetime

__all__ = ["first_id", "new_id"]

_TAIL_BITS = 74  # 12 bits of rand_a and 62 of rand_b
_STEP_BITS = 32


class _IdSource:
    """Hands out ids, each greater than the one before."""

    def __init__(self) -> None:
        # Guards the last id: ids are made on the event loop and in worker threads.
        self._lock = threading.Lock()
        self._millis = 0
        self._tail = 0

    def next(self, now_millis: int) -> str:
        """Return an id of ``now_millis``, or of the latest time seen if that is later.

        Within a millisecond, or while the clock stands back, the random tail counts up by a
        random step (RFC 9562, 6.2, method 2), so ids stay unguessable and in order.
        """
        with self._lock:
            if now_millis > self._millis:
                self._millis = now_millis
                # The top bit starts clear, which leaves room for 2**41 steps.
                self._tail = secrets.randbits(_TAIL_BITS - 1)
            else:
                self._tail += 1 + secrets.randbits(_STEP_BITS)
                if self._tail >> _TAIL_BITS:
                    self._millis += 1
                    self._tail = secrets.randbits(_TAIL_BITS - 1)
            millis, tail = self._millis, self._tail
        value = (
            (millis & ((1 << 48) - 1)) << 80
            | 7 << 76
            | (tail >> 62) << 64
            | 0b10 << 62
            | tail & ((1 << 62) - 1)
        )
        digits = f"{value:032x}"
        return "-".join(
            (digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:])
        )


_source = _IdSource()


def new_id() -> str:
    """Return a new id: 36 characters, lower case hex with dashes, UUIDv7 layout.

    Ids sort by time as text; within the process each is greater than the one before, whatever
    the clock does.
    """
    return _source.next(time.time_ns() // 1_000_000)


def first_id(moment: datetime) -> str:
    """Return the beginning of ids of a moment: those made since then are greater, as text.

    Raises:
        ValueError: The moment has no zone.
    """
    if moment.tzinfo is None:
        raise ValueError(f"{moment.isoformat()} has no time zone")
    digits = f"{max(0, int(moment.timestamp() * 1000)):012x}"
    return f"{digits[:8]}-{digits[8:]}"
