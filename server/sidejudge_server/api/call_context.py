"""What every handler may ask about the call it serves: its id and the time it has left."""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import Iterable
from contextvars import ContextVar

__all__ = ["call_id", "call_id_of", "deadline", "remaining_s"]

call_id: ContextVar[str] = ContextVar("call_id", default="")
"""The `x-request-id` of the call, from the caller or made here."""

deadline: ContextVar[float | None] = ContextVar("deadline", default=None)
"""When the call ends, on the clock of the event loop; None for never."""

_USABLE_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}", re.ASCII)


def remaining_s() -> float | None:
    """Return the seconds until the call's deadline, at least 0; None without a deadline."""
    end = deadline.get()
    if end is None:
        return None
    return max(0.0, end - asyncio.get_running_loop().time())


def call_id_of(metadata: Iterable[tuple[str, str | bytes]] | None) -> str:
    """Return the caller's `x-request-id` if it is harmless to log, else a new one."""
    for key, value in metadata or ():
        if key == "x-request-id" and isinstance(value, str):
            if _USABLE_ID.fullmatch(value):
                return value
            break
    return secrets.token_hex(16)
