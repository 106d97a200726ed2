"""Two independent samples of numbers at one fixed look. Effects are B minus A."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from sidejudge_server.stats.moments import Moments
from sidejudge_server.stats.outcome import CannotSay, Interval

__all__ = [
    "EffectSizes",
    "MannWhitney",
    "Welch",
    "effect_sizes",
    "hodges_lehmann",
    "mann_whitney",
    "welch",
    "welch_ratio",
]

_TWO = 2


@dataclass(frozen=True, slots=True)
class Welch:
    """Welch's test of equal means.

    Attributes:
        effect: Mean of B minus mean of A.
        statistic: t.
        df: Degrees of freedom by Welch and Satterthwaite.
        p_value: Two-sided.
        p_greater: Of "B is not larger".
        interval: Of the effect, at 1 - alpha.
    """

    effect: float
    statistic: float
    df: float
    p_value: float
    p_greater: float
    interval: Interval


@dataclass(frozen=True, slots=True)
class MannWhitney:
    """The Mann-Whitney test with correction for ties and continuity.

    Attributes:
        u: U of B: pairs in which B is larger, ties counting half.
        p_value: Two-sided, by the normal approximation.
        superiority: P(B > A) + P(B = A) / 2.
    """

    u: float
    p_value: float
    superiority: float

    @property
    def cliffs_delta(self) -> float:
        """P(B > A) - P(B < A)."""
        return 2 * self.superiority - 1


@dataclass(frozen=True, slots=True)
class EffectSizes:
    """Standardised differences of means: Cohen's d with pooled deviation, and Hedges' g."""

    cohens_d: float
    hedges_g: float


def welch(a: Moments, b: Moments, *, alpha: float = 0.05) -> Welch | CannotSay:
    """Compare two means that may have different variances.

    Args:
        a: The baseline.
        b: The candidate.
        alpha: One minus the coverage of the interval, in (0, 1).

    Returns:
        The test; `CannotSay` with fewer than two values in a sample or without any spread.
    """
    if min(a.n, b.n) < _TWO:
        return CannotSay("a mean has no error with fewer than two values")
    variance = a.squared_error + b.squared_error
    if variance <= 0:
        return CannotSay(
            "all values of each sample are equal: there is no spread to judge by"
        )
    df = variance**2 / (a.squared_error**2 / (a.n - 1) + b.squared_error**2 / (b.n - 1))
    effect, error = b.mean - a.mean, math.sqrt(variance)
    statistic = effect / error
    half = float(stats.t.ppf(1 - alpha / 2, df)) * error
    return Welch(
        effect=effect,
        statistic=statistic,
        df=df,
        p_value=float(2 * stats.t.sf(abs(statistic), df)),
        p_greater=float(stats.t.sf(statistic, df)),
        interval=Interval(effect - half, effect + half),
    )


def welch_ratio(
    logs_a: Moments, logs_b: Moments, *, alpha: float = 0.05
) -> Welch | CannotSay:
    """Compare geometric means: `welch` on logarithms, with effect and interval as ratio minus 1.

    For latencies and costs, whose spread grows with their size.
    """
    found = welch(logs_a, logs_b, alpha=alpha)
    if isinstance(found, CannotSay):
        return found
    return Welch(
        effect=math.expm1(found.effect),
        statistic=found.statistic,
        df=found.df,
        p_value=found.p_value,
        p_greater=found.p_greater,
        interval=Interval(
            math.expm1(found.interval.low), math.expm1(found.interval.high)
        ),
    )


def mann_whitney(a: Sequence[float], b: Sequence[float]) -> MannWhitney | CannotSay:
    """Compare two samples by ranks.

    Returns:
        The test; `CannotSay` without values or if all are equal.
    """
    if not len(a) or not len(b):
        return CannotSay("a sample is empty")
    if min(*a, *b) == max(*a, *b):
        return CannotSay("all values are equal: ranks say nothing")
    found = stats.mannwhitneyu(
        b, a, use_continuity=True, alternative="two-sided", method="asymptotic"
    )
    u = float(found.statistic)
    return MannWhitney(u, float(found.pvalue), u / (len(a) * len(b)))


def effect_sizes(a: Moments, b: Moments) -> EffectSizes | CannotSay:
    """Return standardised differences of means.

    Hedges' correction is 1 - 3 / (4 (n_a + n_b) - 9).

    Returns:
        The sizes; `CannotSay` with fewer than two values in a sample or without spread.
    """
    if min(a.n, b.n) < _TWO:
        return CannotSay("a deviation needs two values in each sample")
    df = a.n + b.n - 2
    pooled = ((a.n - 1) * a.variance + (b.n - 1) * b.variance) / df
    if pooled <= 0:
        return CannotSay("all values of each sample are equal: there is no spread")
    cohen = (b.mean - a.mean) / math.sqrt(pooled)
    return EffectSizes(cohen, cohen * (1 - 3 / (4 * (a.n + b.n) - 9)))


def hodges_lehmann(a: Sequence[float], b: Sequence[float]) -> float | CannotSay:
    """Return the median of all differences of a value of B and one of A.

    Needs n_a times n_b numbers of memory.
    """
    if not len(a) or not len(b):
        return CannotSay("a sample is empty")
    return float(np.median(np.subtract.outer(np.asarray(b), np.asarray(a))))
