"""How many more held-out examples it would take to settle what the gate could not."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from scipy import stats as distributions

from sidejudge_server.optimization.gate_estimates import mean, variance
from sidejudge_server.stats.outcome import CannotSay
from sidejudge_server.stats.power import required_pairs
from sidejudge_server.stats.spending import use_number
from sidejudge_server.training.held_out import (
    ASSUMED_DISCORDANCE,
    ASSUMED_SPREAD,
    FULL_PAIRS,
    gate_bar,
)

__all__ = ["additional_examples"]

POWER = 0.8


def additional_examples(
    differences: Sequence[float],
    *,
    wins: int,
    losses: int,
    scores: bool,
    minimum: float,
    shared: Sequence[int],
) -> int:
    """Return how many more pairs would settle it, at least a quarter of those there are.

    Planned for the larger of the observed difference and the minimum at the observed discordance
    or spread, 80 % power, and the bar of the next use: of the same examples with a few more, or of
    so many more that earlier uses count no longer, whichever needs less. When the plan says that
    there were enough already, chance was in the way; fewer than a quarter more would hardly change
    the picture.

    Args:
        differences: Candidate minus baseline.
        wins: Pairs for the candidate.
        losses: Pairs against it.
        scores: True for scores.
        minimum: The improvement that is asked for.
        shared: For each use so far, this one included, how many of the pairs it looked at.
    """
    pairs = len(differences)
    effect = max(mean(differences) if pairs else 0.0, minimum)
    settling = (
        _settling_scores(differences, effect)
        if scores
        else _settling_verdicts((wins + losses) / pairs if pairs else None, effect)
    )
    fresh = 2 * max(shared, default=0) + 1
    ways = []
    # Where the bar changes: earlier uses count no longer, the gate alone may decide.
    for size in {pairs, fresh, max(FULL_PAIRS, pairs), max(FULL_PAIRS, fresh)}:
        bar = gate_bar(size, use_number(size, shared))
        found = max(size, settling(bar))
        # So many may be under a bar that is harder to pass.
        if gate_bar(found, use_number(found, shared)) >= bar:
            ways.append(found)
    return max(min(ways) - pairs, math.ceil(pairs / 4), 1)


def _settling_verdicts(
    discordance: float | None, effect: float
) -> Callable[[float], int]:
    """Return how many pairs reach the power at a bar, by bar."""
    differing = max(ASSUMED_DISCORDANCE if discordance is None else discordance, effect)

    def settling(alpha: float) -> int:
        planned = required_pairs(
            p_win=(differing + effect) / 2,
            p_loss=(differing - effect) / 2,
            power=POWER,
            alpha=alpha,
            alternative="new-better",
        )
        return 0 if isinstance(planned, CannotSay) else planned

    return settling


def _settling_scores(
    differences: Sequence[float], effect: float
) -> Callable[[float], int]:
    seen = math.sqrt(variance(differences)) if len(differences) > 1 else 0.0
    spread = seen or ASSUMED_SPREAD

    def settling(alpha: float) -> int:
        z = float(distributions.norm.isf(alpha) + distributions.norm.ppf(POWER))
        return math.ceil((z * spread / effect) ** 2)

    return settling
