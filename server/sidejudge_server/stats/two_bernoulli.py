"""Two rates from their counts alone, valid at all looks together and for any order of the units."""

from __future__ import annotations

import math
from collections.abc import Callable

from scipy import optimize

from sidejudge_server.stats.outcome import CannotSay, Interval

__all__ = ["rate_difference_interval", "rate_difference_log_e"]

_EDGE = 1e-12


def rate_difference_log_e(
    hits_a: int, n_a: int, hits_b: int, n_b: int, *, margin: float = 0.0
) -> float:
    """Return ln E against "the rate of B exceeds that of A by at most ``margin``".

    For each pair of rates the product of the two Beta(1, 1) mixtures (Robbins) is an e-process,
    in whatever order the units of A and B come; its least value over all pairs that the hypothesis
    allows is one for the hypothesis. Less powerful than pairs in order of arrival, and in need of
    nothing but four counts.

    Args:
        hits_a: Units of A with the property.
        n_a: All units of A.
        hits_b: Units of B with the property.
        n_b: All units of B.
        margin: In (-1, 1).

    Returns:
        Natural logarithm; at most 0 while the rates do not contradict the hypothesis.

    Raises:
        ValueError: Impossible counts or margin.
    """
    _check(hits_a, n_a, hits_b, n_b)
    if not -1 < margin < 1:
        raise ValueError(f"the margin must be in (-1, 1): {margin}")
    if n_a == 0 or n_b == 0:
        return 0.0
    best_a, best_b = hits_a / n_a, hits_b / n_b
    if best_b - best_a <= margin:
        return _log_mixture(hits_a, n_a, best_a) + _log_mixture(hits_b, n_b, best_b)
    low, high = max(0.0, -margin), min(1.0, 1 - margin)
    found = optimize.minimize_scalar(
        lambda rate: (
            _log_mixture(hits_a, n_a, rate) + _log_mixture(hits_b, n_b, rate + margin)
        ),
        bounds=(low, high),
        method="bounded",
        options={"xatol": 1e-12},
    )
    return float(found.fun)


def rate_difference_interval(
    hits_a: int, n_a: int, hits_b: int, n_b: int, *, alpha: float = 0.05
) -> Interval | CannotSay:
    """Return the always-valid interval of the rate of B minus that of A.

    All differences that the one-sided e-values at alpha/2 each do not exclude.

    Returns:
        The interval within -1..1; `CannotSay` without units in both arms.

    Raises:
        ValueError: Impossible counts, or alpha not in (0, 1).
    """
    _check(hits_a, n_a, hits_b, n_b)
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must be in (0, 1): {alpha}")
    if n_a == 0 or n_b == 0:
        return CannotSay("an arm has no units: the difference may be anything")
    bar = -math.log(alpha / 2)
    observed = hits_b / n_b - hits_a / n_a

    def above(difference: float) -> float:
        return rate_difference_log_e(hits_a, n_a, hits_b, n_b, margin=difference) - bar

    def below(difference: float) -> float:
        return rate_difference_log_e(hits_b, n_b, hits_a, n_a, margin=-difference) - bar

    edge = 1 - 1e-9
    inside = min(edge, max(-edge, observed))
    low = -1.0 if above(-edge) <= 0 else _root(above, -edge, inside)
    high = 1.0 if below(edge) <= 0 else _root(below, inside, edge)
    return Interval(low, high)


def _root(excess: Callable[[float], float], low: float, high: float) -> float:
    return float(optimize.brentq(excess, low, high, xtol=1e-10))


def _log_mixture(hits: int, n: int, rate: float) -> float:
    """Return ln of B(1 + S, 1 + n - S) / (p^S (1 - p)^(n - S))."""
    p = min(1 - _EDGE, max(_EDGE, rate))
    log_beta = math.lgamma(1 + hits) + math.lgamma(1 + n - hits) - math.lgamma(2 + n)
    return log_beta - hits * math.log(p) - (n - hits) * math.log1p(-p)


def _check(hits_a: int, n_a: int, hits_b: int, n_b: int) -> None:
    if not (0 <= hits_a <= n_a and 0 <= hits_b <= n_b):
        raise ValueError(f"impossible counts: {hits_a}/{n_a}, {hits_b}/{n_b}")
