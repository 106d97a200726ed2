"""Sample size and power of unpaired tests and of t-tests, by their usual formulas."""

from __future__ import annotations

import math
from collections.abc import Callable

from scipy import optimize, special, stats

from sidejudge_server.stats.outcome import CannotSay
from sidejudge_server.stats.two_proportions import cohens_h

__all__ = [
    "arcsine_power",
    "arcsine_sample_size",
    "pooled_power",
    "pooled_sample_size",
    "t_test_sample_size",
]

_LARGEST = 1e9


def arcsine_power(
    rate_a: float, rate_b: float, n_a: float, *, ratio: float = 1.0, alpha: float = 0.05
) -> float:
    """Return the power of the two-sided z-test on arcsine-transformed rates (Cohen's h).

    Args:
        rate_a: Of the baseline, 0..1.
        rate_b: Of the candidate.
        n_a: Units of the baseline.
        ratio: n_b / n_a.
        alpha: Level, in (0, 1).
    """
    shift = cohens_h(rate_a, rate_b) * math.sqrt(n_a * ratio / (1 + ratio))
    z = float(special.ndtri(1 - alpha / 2))
    return float(special.ndtr(shift - z) + special.ndtr(-shift - z))


def arcsine_sample_size(
    rate_a: float,
    rate_b: float,
    *,
    power: float = 0.8,
    ratio: float = 1.0,
    alpha: float = 0.05,
) -> float | CannotSay:
    """Return n_a at which `arcsine_power` reaches a power; not rounded.

    Returns:
        The number; `CannotSay` for equal rates.
    """
    return _least(
        lambda n: arcsine_power(rate_a, rate_b, n, ratio=ratio, alpha=alpha), power
    )


def pooled_power(
    rate_a: float, rate_b: float, n: float, *, alpha: float = 0.05
) -> float:
    """Return the power of the two-sided z-test with pooled variance, n units an arm.

    The rejection in the wrong direction is left out, as R's power.prop.test does.
    """
    pooled = (rate_a + rate_b) / 2
    z = float(special.ndtri(1 - alpha / 2))
    alone = math.sqrt(rate_a * (1 - rate_a) + rate_b * (1 - rate_b))
    gap = math.sqrt(n) * abs(rate_b - rate_a)
    return float(special.ndtr((gap - z * math.sqrt(2 * pooled * (1 - pooled))) / alone))


def pooled_sample_size(
    rate_a: float, rate_b: float, *, power: float = 0.8, alpha: float = 0.05
) -> float | CannotSay:
    """Return n an arm at which `pooled_power` reaches a power, in closed form; not rounded.

    n = (z_a sqrt(2 p q) + z_b sqrt(p1 q1 + p2 q2))^2 / (p2 - p1)^2.
    """
    if rate_a == rate_b:
        return CannotSay("equal rates: no number of units tells them apart")
    pooled = (rate_a + rate_b) / 2
    z_alpha, z_power = float(special.ndtri(1 - alpha / 2)), float(special.ndtri(power))
    root = z_alpha * math.sqrt(2 * pooled * (1 - pooled)) + z_power * math.sqrt(
        rate_a * (1 - rate_a) + rate_b * (1 - rate_b)
    )
    return (root / (rate_b - rate_a)) ** 2


def t_test_sample_size(
    cohens_d: float, *, paired: bool, power: float = 0.8, alpha: float = 0.05
) -> float | CannotSay:
    """Return the units an arm (or pairs) that a two-sided t-test needs; not rounded.

    Args:
        cohens_d: Difference of means over the deviation (of the differences, if paired).
        paired: Whether units are pairs.
        power: In (0, 1).
        alpha: Level, in (0, 1).
    """

    def reached(n: float) -> float:
        df = n - 1 if paired else 2 * n - 2
        shift = abs(cohens_d) * math.sqrt(n if paired else n / 2)
        bar = float(stats.t.ppf(1 - alpha / 2, df))
        return float(stats.nct.sf(bar, df, shift) + stats.nct.cdf(-bar, df, shift))

    return _least(reached, power, low=2.0)


def _least(
    reached: Callable[[float], float], power: float, *, low: float = 1e-3
) -> float | CannotSay:
    high = 2 * low
    while reached(high) < power:
        high *= 2
        if high > _LARGEST:
            return CannotSay("no number of units reaches the power")
    return float(
        optimize.brentq(
            lambda n: reached(n) - power, max(low, high / 2), high, xtol=1e-9
        )
        if reached(max(low, high / 2)) < power
        else high / 2
    )
