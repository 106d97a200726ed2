"""Rates of events and stratified tables at one fixed look."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from scipy import special, stats

from sidejudge_server.stats.outcome import CannotSay

__all__ = [
    "MantelHaenszel",
    "RateRatio",
    "Stratum",
    "mantel_haenszel",
    "poisson_rate_ratio",
]


@dataclass(frozen=True, slots=True)
class RateRatio:
    """Rate of B over rate of A, with the exact two-sided p-value of equal rates."""

    ratio: float
    p_value: float


@dataclass(frozen=True, slots=True)
class Stratum:
    """Passes and failures of both arms in one stratum, such as a tenant or a kind of task."""

    a_pass: int
    a_fail: int
    b_pass: int
    b_fail: int


@dataclass(frozen=True, slots=True)
class MantelHaenszel:
    """The Cochran-Mantel-Haenszel test without continuity correction.

    Attributes:
        statistic: Chi-square with one degree of freedom.
        p_value: Two-sided.
        odds_ratio: Common odds ratio of A over B.
    """

    statistic: float
    p_value: float
    odds_ratio: float


def poisson_rate_ratio(
    events_a: int, exposure_a: float, events_b: int, exposure_b: float
) -> RateRatio | CannotSay:
    """Compare two rates of events: given their sum, the events of B are binomial.

    Args:
        events_a: Of the baseline.
        exposure_a: Time or units over which they were counted, above 0.
        events_b: Of the candidate.
        exposure_b: Likewise.

    Returns:
        The ratio; `CannotSay` without events of A, where it has no bound.

    Raises:
        ValueError: A count is negative or an exposure not positive.
    """
    if min(events_a, events_b) < 0 or not min(exposure_a, exposure_b) > 0:
        raise ValueError("counts must not be negative and exposures above 0")
    if not events_a:
        return CannotSay("the baseline has no events: the ratio has no bound")
    share = exposure_b / (exposure_a + exposure_b)
    found = stats.binomtest(events_b, events_a + events_b, share)
    ratio = (events_b / exposure_b) / (events_a / exposure_a)
    return RateRatio(ratio, float(found.pvalue))


def mantel_haenszel(strata: Sequence[Stratum]) -> MantelHaenszel | CannotSay:
    """Compare two arms over strata that differ in difficulty.

    Returns:
        The test; `CannotSay` if no stratum has units of both arms and of both outcomes.

    Raises:
        ValueError: A count is negative.
    """
    gap = variance = above = below = 0.0
    for s in strata:
        cells = (s.a_pass, s.a_fail, s.b_pass, s.b_fail)
        if min(cells) < 0:
            raise ValueError(f"counts must not be negative: {s}")
        n = sum(cells)
        a, passes = s.a_pass + s.a_fail, s.a_pass + s.b_pass
        if n < 2:  # noqa: PLR2004 - one unit can't be compared
            continue
        gap += s.a_pass - a * passes / n
        variance += a * (n - a) * passes * (n - passes) / (n * n * (n - 1))
        above += s.a_pass * s.b_fail / n
        below += s.a_fail * s.b_pass / n
    if variance == 0:
        return CannotSay("no stratum has units of both arms and of both outcomes")
    statistic = gap * gap / variance
    odds = math.inf if below == 0 else above / below
    return MantelHaenszel(statistic, float(special.chdtrc(1, statistic)), odds)
