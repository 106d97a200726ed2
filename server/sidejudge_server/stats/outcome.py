"""What a statistical question is answered with when it has no answer, and intervals."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["CannotSay", "Interval"]


@dataclass(frozen=True, slots=True)
class CannotSay:
    """The data cannot answer; never stands for "no difference", p = 1 or p = 0.

    Attributes:
        reason: Why, in words that a user can act on.
    """

    reason: str


@dataclass(frozen=True, slots=True)
class Interval:
    """A closed interval."""

    low: float
    high: float

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high
