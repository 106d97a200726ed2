"""What answered requests took, to guess what others will take."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["Amount", "CallAverages"]

_MARGIN = 1.5
"""Prompts grow with demonstrations, so that a late call takes more than an average one."""


@dataclass(slots=True)
class Amount:
    """Tokens and money; no money counts as 0, which no bound of money allows (see `SpendMeter`)."""

    tokens: float = 0.0
    usd: float = 0.0

    def add(self, tokens: float, usd: float | None, *, sign: int = 1) -> None:
        """Add something, or take it away with ``sign`` -1."""
        self.tokens += sign * tokens
        self.usd += sign * (usd or 0.0)


@dataclass(slots=True)
class CallAverages:
    """Sums over answers, and one and a half of what an average one took; 0 without answers.

    Attributes:
        answers: Those of all lives of a run.
        total: What they took.
        timed: Answers of this life: how long those of earlier lives took is not known.
        seconds: How long those of this life took together.
    """

    answers: int = 0
    total: Amount = field(default_factory=Amount)
    timed: int = 0
    seconds: float = 0.0

    def add(self, tokens: float, usd: float | None, *, seconds: float) -> None:
        """Take note of an answer."""
        self.answers += 1
        self.total.add(tokens, usd)
        self.timed += 1
        self.seconds += seconds

    @property
    def call_tokens(self) -> float:
        """Tokens of a call."""
        return _MARGIN * self.total.tokens / self.answers if self.answers else 0.0

    @property
    def call_usd(self) -> float:
        """US dollars of a call."""
        return _MARGIN * self.total.usd / self.answers if self.answers else 0.0

    @property
    def call_seconds(self) -> float:
        """Seconds of a call."""
        return _MARGIN * self.seconds / self.timed if self.timed else 0.0
