"""Numbers that the gate compares, with their 95 % intervals.

Wilson for accuracies, Tango's score interval for the paired difference of verdicts, Newcombe's for
two independent accuracies, Student's t and Welch for scores. The gate looks once, so intervals for
a fixed number of pairs are enough; for scores without any spread the betting confidence sequence
steps in.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from scipy import stats as distributions

from sidejudge_server.optimization.gate_decision import Estimate
from sidejudge_server.optimization.paired_interval import paired_score_interval
from sidejudge_server.stats.betting import betting_interval
from sidejudge_server.stats.outcome import CannotSay, Interval
from sidejudge_server.stats.paired import paired_t
from sidejudge_server.stats.proportions import newcombe, wilson

__all__ = [
    "estimated_difference",
    "estimated_gap",
    "estimated_quality",
    "mean",
    "variance",
]


def estimated_difference(
    differences: Sequence[float], *, wins: int, losses: int, scores: bool
) -> Estimate:
    """Return the mean difference, candidate minus baseline; -1 to 1 without pairs."""
    if not differences:
        return Estimate(0.0, -1.0, 1.0)
    value = mean(differences)
    if scores:
        test = paired_t(differences)
        if not isinstance(test, CannotSay):
            low, high = test.interval.low, test.interval.high
            return Estimate(value, max(-1.0, low), min(1.0, high))
        interval = betting_interval([max(-1.0, min(1.0, d)) for d in differences])
    else:
        interval = paired_score_interval(wins, losses, pairs=len(differences))
    return _estimate(value, interval)


def estimated_quality(values: Sequence[float], *, scores: bool) -> Estimate:
    """Return the mean quality of answers; 0 to 1 without answers."""
    if not values:
        return Estimate(0.0, 0.0, 1.0)
    value = mean(values)
    if not scores:
        return _estimate(value, wilson(round(sum(values)), len(values)))
    if len(values) < 2:  # noqa: PLR2004 - a spread needs two values
        return Estimate(value, 0.0, 1.0)
    half = float(distributions.t.isf(0.025, len(values) - 1)) * math.sqrt(
        variance(values) / len(values)
    )
    return Estimate(value, max(0.0, value - half), min(1.0, value + half))


def estimated_gap(
    train: Sequence[float], validation: Sequence[float], *, scores: bool
) -> Estimate | None:
    """Return quality on training minus on validation examples; None if it cannot be told."""
    if not train or not validation:
        return None
    if scores:
        return _welch(validation, train)
    found = newcombe(
        round(sum(validation)),
        len(validation),
        successes_new=round(sum(train)),
        trials_new=len(train),
    )
    if isinstance(found, CannotSay):
        return None
    return Estimate(found.estimate, found.interval.low, found.interval.high)


def _welch(old: Sequence[float], new: Sequence[float]) -> Estimate | None:
    """Return the difference of two independent means with Welch's interval; None if too few."""
    if min(len(old), len(new)) < 2:  # noqa: PLR2004 - a spread needs two values
        return None
    part_old, part_new = (variance(v) / len(v) for v in (old, new))
    value = mean(new) - mean(old)
    total = part_old + part_new
    if total <= 0:
        return Estimate(value, value, value)
    degrees = total**2 / (part_old**2 / (len(old) - 1) + part_new**2 / (len(new) - 1))
    half = float(distributions.t.isf(0.025, degrees)) * math.sqrt(total)
    return Estimate(value, value - half, value + half)


def _estimate(value: float, interval: Interval | CannotSay) -> Estimate:
    if isinstance(interval, CannotSay):
        return Estimate(value, -1.0, 1.0)
    return Estimate(value, interval.low, interval.high)


def mean(values: Sequence[float]) -> float:
    """Return the mean of at least one number."""
    return math.fsum(values) / len(values)


def variance(values: Sequence[float]) -> float:
    """Return the variance of at least two numbers."""
    centre = mean(values)
    return math.fsum((v - centre) ** 2 for v in values) / (len(values) - 1)
