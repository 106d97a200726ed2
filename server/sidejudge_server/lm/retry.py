"""When to ask again: exponential backoff with full jitter, and what the server asks for."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

__all__ = ["Backoff", "retry_after_s"]


@dataclass(frozen=True, slots=True)
class Backoff:
    """Waits before further attempts.

    Full jitter, as in "Exponential Backoff And Jitter" (AWS Architecture Blog, 2015): uniform
    between 0 and a bound that doubles. A server's own wish is a lower bound.

    Attributes:
        base_s: Bound before the second attempt.
        cap_s: Greatest bound.
        longest_wait_s: A server that wants a longer wait than this is not waited for.
        random: Source of the jitter; a seeded one makes waits repeatable.
    """

    base_s: float = 0.5
    cap_s: float = 20.0
    longest_wait_s: float = 60.0
    # Jitter spreads load and protects nothing.
    random: random.Random = field(default_factory=random.Random)

    def delay_s(self, attempt: int, *, asked_s: float | None) -> float | None:
        """Return how long to wait before an attempt, or None if waiting makes no sense.

        Args:
            attempt: Number of the attempt, 1 for the second.
            asked_s: Wait that the server asked for, if it did.
        """
        if asked_s is not None and asked_s > self.longest_wait_s:
            return None
        bound = min(self.cap_s, self.base_s * 2 ** (attempt - 1))
        jitter = self.random.uniform(0, bound)
        return jitter if asked_s is None else max(asked_s, jitter)


def retry_after_s(
    headers: Mapping[str, str], *, now: datetime | None = None
) -> float | None:
    """Return the seconds that a response asks to wait: at least 0, None if it says nothing usable.

    Args:
        headers: Of the response, looked up without regard to case by the mapping itself.
        now: Against which a date counts; None for the present.
    """
    if (milliseconds := _number(headers.get("retry-after-ms"))) is not None:
        return milliseconds / 1000
    text = headers.get("retry-after")
    if not text:
        return None
    if (seconds := _number(text)) is not None:
        return seconds
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - (now or datetime.now(UTC))).total_seconds())


def _number(text: str | None) -> float | None:
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if math.isfinite(number) and number >= 0 else None
