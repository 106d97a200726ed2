"""The evidence that a candidate is better than its baseline, of the gate and of later pairs alike.

For verdicts the one-sided sign e-value of discordant pairs, for scores the betting mixture of the
differences. Both stay valid however often one looks, so the pairs of the gate and those that come
later add up to one e-value: if the candidate is no better it ever reaches 20 with a probability of
at most 5 %. The same against the candidate, with wins and losses exchanged.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sidejudge_server.stats.evidence import (
    bet_log_e,
    bet_sums,
    sign_log_e_new_better,
)

__all__ = ["BAR", "Evidence"]

BAR = 20.0
"""What the e-value has to reach, for the candidate or against it."""

_TOLERANCE = 1e-9
_LARGEST = 690.0
"""ln of the largest e-value that is told apart from larger ones; a float ends at 709."""

BetSums = tuple[tuple[float, ...], tuple[float, ...]]


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known of the pairs.

    Attributes:
        wins: Pairs on which only the candidate was right, or nearer.
        losses: The reverse.
        pairs: All.
        sums: For scores the sums of bets for the candidate and against it; None for verdicts.
    """

    wins: int = 0
    losses: int = 0
    pairs: int = 0
    sums: BetSums | None = None

    @classmethod
    def of(cls, differences: Sequence[float], *, scores: bool) -> Evidence:
        """Return the evidence of pairs.

        Args:
            differences: Quality of the candidate minus that of the baseline, -1..1.
            scores: True for a judge that answers scores.
        """
        sums = None
        if scores:
            # The difference of two numbers in 0..1 may end a hair outside of -1..1.
            inside = [max(-1.0, min(1.0, d)) for d in differences]
            sums = bet_sums(inside), bet_sums(-d for d in inside)
        return cls(
            wins=sum(d > _TOLERANCE for d in differences),
            losses=sum(d < -_TOLERANCE for d in differences),
            pairs=len(differences),
            sums=sums,
        )

    @classmethod
    def of_decision(cls, decision: Mapping[str, Any]) -> Evidence:
        """Return the evidence of a gate.

        Args:
            decision: JSON of a `GateDecision`.
        """
        sums = decision.get("bet_sums")
        return cls(
            decision["wins"],
            decision["losses"],
            decision["pair_count"],
            (tuple(sums[0]), tuple(sums[1])) if sums else None,
        )

    def plus(self, other: Evidence) -> Evidence:
        """Return the evidence of both."""
        sums = self.sums
        if sums is not None and other.sums is not None:
            sums = (
                _added(sums[0], other.sums[0]),
                _added(sums[1], other.sums[1]),
            )
        return Evidence(
            self.wins + other.wins,
            self.losses + other.losses,
            self.pairs + other.pairs,
            sums,
        )

    @property
    def e_value(self) -> float:
        """That the candidate is better."""
        if self.sums is not None:
            return _capped(bet_log_e(self.sums[0]))
        return _capped(sign_log_e_new_better(self.wins, self.losses))

    @property
    def e_value_against(self) -> float:
        """That it is worse."""
        if self.sums is not None:
            return _capped(bet_log_e(self.sums[1]))
        return _capped(sign_log_e_new_better(self.losses, self.wins))


def _added(one: Sequence[float], other: Sequence[float]) -> tuple[float, ...]:
    return tuple(a + b for a, b in zip(one, other, strict=True))


def _capped(log_e: float) -> float:
    return math.exp(min(log_e, _LARGEST))
