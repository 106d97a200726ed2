"""Two independent proportions at one fixed look. Effects are B minus A.

Newcombe's interval (`sidejudge_server.stats.proportions.newcombe`) is the one to use.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from scipy import optimize, special, stats

from sidejudge_server.stats.outcome import CannotSay, Interval

__all__ = [
    "TwoProportions",
    "agresti_caffo",
    "cohens_h",
    "compare_proportions",
    "risk_ratio_interval",
    "score_interval",
    "wald_difference",
]

_EDGE = 1e-9


@dataclass(frozen=True, slots=True)
class TwoProportions:
    """Tests of equal proportions.

    Attributes:
        difference: Of the rates.
        z: With pooled variance.
        p_value: Of z, two-sided.
        p_greater: Of z, against "B is not larger".
        fisher_p: Fisher's exact test, two-sided.
        cohens_h: Difference of the arcsine-transformed rates.
    """

    difference: float
    z: float
    p_value: float
    p_greater: float
    fisher_p: float
    cohens_h: float


def cohens_h(rate_a: float, rate_b: float) -> float:
    """Return 2 asin sqrt(b) - 2 asin sqrt(a); .2 is small, .5 medium, .8 large (Cohen 1988)."""
    return 2 * math.asin(math.sqrt(rate_b)) - 2 * math.asin(math.sqrt(rate_a))


def compare_proportions(
    hits_a: int, n_a: int, hits_b: int, n_b: int
) -> TwoProportions | CannotSay:
    """Test whether two proportions are equal.

    Returns:
        The tests; `CannotSay` without units in both samples, or if all units are alike.

    Raises:
        ValueError: Impossible counts.
    """
    if (problem := _problem(hits_a, n_a, hits_b, n_b)) is not None:
        return problem
    a, b = hits_a / n_a, hits_b / n_b
    pooled = (hits_a + hits_b) / (n_a + n_b)
    variance = pooled * (1 - pooled) * (1 / n_a + 1 / n_b)
    if variance == 0:
        return CannotSay("all units are alike: there is no spread to judge by")
    z = (b - a) / math.sqrt(variance)
    table = [[hits_b, n_b - hits_b], [hits_a, n_a - hits_a]]
    return TwoProportions(
        difference=b - a,
        z=z,
        p_value=float(2 * special.ndtr(-abs(z))),
        p_greater=float(special.ndtr(-z)),
        fisher_p=float(stats.fisher_exact(table)[1]),
        cohens_h=cohens_h(a, b),
    )


def wald_difference(
    hits_a: int, n_a: int, hits_b: int, n_b: int, *, alpha: float = 0.05
) -> Interval | CannotSay:
    """Return difference +- z standard errors: covers too rarely in small samples."""
    if (problem := _problem(hits_a, n_a, hits_b, n_b)) is not None:
        return problem
    return _wald(hits_a / n_a, n_a, hits_b / n_b, n_b, alpha)


def agresti_caffo(
    hits_a: int, n_a: int, hits_b: int, n_b: int, *, alpha: float = 0.05
) -> Interval | CannotSay:
    """Return Wald's interval after adding a hit and a miss to each sample."""
    if (problem := _problem(hits_a, n_a, hits_b, n_b)) is not None:
        return problem
    return _wald(
        (hits_a + 1) / (n_a + 2), n_a + 2, (hits_b + 1) / (n_b + 2), n_b + 2, alpha
    )


def score_interval(
    hits_a: int, n_a: int, hits_b: int, n_b: int, *, alpha: float = 0.05
) -> Interval | CannotSay:
    """Return Miettinen and Nurminen's score interval of the difference (Stat. Med. 4 (1985)).

    All differences whose score statistic, with the factor N / (N - 1) on the variance, stays below
    z^2.
    """
    if (problem := _problem(hits_a, n_a, hits_b, n_b)) is not None:
        return problem
    total = n_a + n_b

    def statistic(difference: float) -> float:
        b = _constrained_rate(hits_a, n_a, hits_b, n_b, difference)
        a = min(1.0, max(0.0, b - difference))
        variance = (a * (1 - a) / n_a + b * (1 - b) / n_b) * total / (total - 1)
        gap = hits_b / n_b - hits_a / n_a - difference
        return math.inf if variance <= 0 else gap * gap / variance

    observed = hits_b / n_b - hits_a / n_a
    bar = _z(alpha) ** 2
    return Interval(
        _end(lambda d: statistic(d) - bar, observed, -1.0 + _EDGE, -1.0),
        _end(lambda d: statistic(d) - bar, observed, 1.0 - _EDGE, 1.0),
    )


def risk_ratio_interval(
    hits_a: int, n_a: int, hits_b: int, n_b: int, *, alpha: float = 0.05
) -> Interval | CannotSay:
    """Return Miettinen and Nurminen's score interval of rate B over rate A.

    Returns:
        The interval; `CannotSay` also without a hit in one of the samples.
    """
    if (problem := _problem(hits_a, n_a, hits_b, n_b)) is not None:
        return problem
    if not hits_a or not hits_b:
        return CannotSay("a sample has no hit: a ratio of rates has no bound")
    total = n_a + n_b
    rate_a, rate_b = hits_a / n_a, hits_b / n_b

    def statistic(log_ratio: float) -> float:
        ratio = math.exp(log_ratio)
        # The likelihood at this ratio is largest at the smaller root (Miettinen, Nurminen).
        first = ratio * total
        second = -(ratio * (n_b + hits_a) + n_a + hits_b)
        third = hits_a + hits_b
        a = (-second - math.sqrt(second**2 - 4 * first * third)) / (2 * first)
        b = min(1.0, ratio * a)
        variance = (
            (b * (1 - b) / n_b + ratio**2 * a * (1 - a) / n_a) * total / (total - 1)
        )
        gap = rate_b - ratio * rate_a
        return math.inf if variance <= 0 else gap * gap / variance

    observed, bar = math.log(rate_b / rate_a), _z(alpha) ** 2
    low = _end(lambda r: statistic(r) - bar, observed, observed - 30, -math.inf)
    high = _end(lambda r: statistic(r) - bar, observed, observed + 30, math.inf)
    return Interval(math.exp(low), math.exp(high))


def _constrained_rate(
    hits_a: int, n_a: int, hits_b: int, n_b: int, difference: float
) -> float:
    """Return the likeliest rate of B if it exceeds that of A by ``difference``.

    The root of a cubic in closed form (Miettinen and Nurminen 1985, appendix).
    """
    theta = n_a / n_b
    rate_a, rate_b = hits_a / n_a, hits_b / n_b
    cubic = 1 + theta
    square = -(1 + theta + rate_b + theta * rate_a + difference * (theta + 2))
    linear = (
        difference**2 + difference * (2 * rate_b + theta + 1) + rate_b + theta * rate_a
    )
    constant = -rate_b * difference * (1 + difference)
    third = square / (3 * cubic)
    v = third**3 - square * linear / (6 * cubic**2) + constant / (2 * cubic)
    u = math.copysign(math.sqrt(max(0.0, third**2 - linear / (3 * cubic))), v)
    angle = math.pi / 3
    if u:
        angle = (math.pi + math.acos(min(1.0, max(-1.0, v / u**3)))) / 3
    rate = 2 * u * math.cos(angle) - third
    return min(1.0, 1 + difference, max(0.0, difference, rate))


def _end(
    excess: Callable[[float], float], inside: float, stop: float, edge: float
) -> float:
    if excess(stop) <= 0:
        return edge
    return float(optimize.brentq(excess, inside, stop, xtol=1e-13))


def _wald(rate_a: float, n_a: int, rate_b: float, n_b: int, alpha: float) -> Interval:
    error = math.sqrt(rate_a * (1 - rate_a) / n_a + rate_b * (1 - rate_b) / n_b)
    half = _z(alpha) * error
    return Interval(max(-1.0, rate_b - rate_a - half), min(1.0, rate_b - rate_a + half))


def _z(alpha: float) -> float:
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must be in (0, 1): {alpha}")
    return float(special.ndtri(1 - alpha / 2))


def _problem(hits_a: int, n_a: int, hits_b: int, n_b: int) -> CannotSay | None:
    if not (0 <= hits_a <= n_a and 0 <= hits_b <= n_b):
        raise ValueError(f"impossible counts: {hits_a}/{n_a}, {hits_b}/{n_b}")
    if not n_a or not n_b:
        return CannotSay("a sample is empty: there is no difference")
    return None
