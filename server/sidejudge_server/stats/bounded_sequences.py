"""Confidence sequences of a bounded mean with bets that learn from the values before.

Predictable plug-in bets, "hedged capital" and the empirical Bernstein form. They depend on the order
of the values and need all of them; the mixture of `betting` needs only how often each value came, is
tighter for pairs, and is what experiments use. These are here to be compared with.

Source: Waudby-Smith and Ramdas, "Estimating means of bounded random variables by betting", JRSS B
86 (2024), theorems 2 and 3.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import optimize

from sidejudge_server.stats.outcome import CannotSay, Interval

__all__ = ["empirical_bernstein_interval", "hedged_capital_interval"]

_Floats = NDArray[np.float64]

_EDGE = 1e-9
_TRUNCATION = 0.5
_NO_VALUES = "no values: the mean may be anything"


def hedged_capital_interval(
    values: Sequence[float], *, alpha: float = 0.05
) -> Interval | CannotSay:
    """Return the hedged capital interval of a bounded mean at the last look.

    Capital K+ = prod(1 + l (x - m)) and K- = prod(1 - l (x - m)) with the bets of `_plug_in_bets` at
    alpha/2, cut at half of the largest fair bet; m is out where either reaches 2/alpha. K+ falls with
    m and K- rises, so each end is one root.

    Args:
        values: In order, within 0..1.
        alpha: One minus the coverage of all looks together, in (0, 1).

    Returns:
        The interval within 0..1; `CannotSay` without values.

    Raises:
        ValueError: A value is out of range or not a number, or alpha not in (0, 1).
    """
    x = _checked(values, alpha)
    if not len(x):
        return CannotSay(_NO_VALUES)
    bets = _plug_in_bets(x, alpha / 2)
    bar = math.log(2 / alpha)

    def excess(sample: _Floats, mean: float) -> float:
        cut = np.minimum(bets, _TRUNCATION / mean)
        return float(np.log1p(cut * (sample - mean)).sum()) - bar

    # The bets use distances to the mean only: those of 1 - x are the same.
    low = _lower_end(lambda mean: excess(x, mean))
    high = 1 - _lower_end(lambda mean: excess(1 - x, mean))
    return Interval(low, high)


def empirical_bernstein_interval(
    values: Sequence[float], *, alpha: float = 0.05
) -> Interval | CannotSay:
    """Return the empirical Bernstein interval of a bounded mean at the last look.

    Lower end (sum l x - ln(2/alpha) - sum (x - m^)^2 (-ln(1 - l) - l)) / sum l, with the running mean
    m^ before each value (0 before the first) and the bets of `_plug_in_bets` at alpha/2, cut at 1/2;
    the upper end is one minus that of 1 - x.

    Args:
        values: In order, within 0..1.
        alpha: One minus the coverage of all looks together, in (0, 1).

    Returns:
        The interval within 0..1; `CannotSay` without values.

    Raises:
        ValueError: A value is out of range or not a number, or alpha not in (0, 1).
    """
    x = _checked(values, alpha)
    if not len(x):
        return CannotSay(_NO_VALUES)
    bets = np.minimum(_TRUNCATION, _plug_in_bets(x, alpha / 2))
    cost = -np.log1p(-bets) - bets

    def low(sample: _Floats) -> float:
        before = np.append(0.0, np.cumsum(sample)[:-1] / np.arange(1, len(sample)))
        net = float((bets * sample - (sample - before) ** 2 * cost).sum())
        return max(0.0, (net - math.log(2 / alpha)) / float(bets.sum()))

    return Interval(low(x), 1 - low(1 - x))


def _plug_in_bets(x: _Floats, alpha: float) -> _Floats:
    """Return sqrt(2 ln(1/alpha) / (t ln(1 + t) s^2)), s^2 the variance before each value.

    Mean and variance start from one value that was not seen, at 1/2 with variance 1/4.
    """
    t = np.arange(1, len(x) + 1)
    means = (0.5 + np.cumsum(x)) / (t + 1)
    variance = (0.25 + np.cumsum((x - means) ** 2)) / (t + 1)
    before = np.append(0.25, variance[:-1])
    bets: _Floats = np.sqrt(-2 * math.log(alpha) / (t * np.log1p(t) * before))
    return bets


def _lower_end(excess: Callable[[float], float]) -> float:
    """Return where a falling ``excess`` reaches 0, within 0..1."""
    if excess(_EDGE) <= 0:
        return 0.0
    if excess(1 - _EDGE) > 0:
        return 1.0
    return float(optimize.brentq(excess, _EDGE, 1 - _EDGE, xtol=1e-12))


def _checked(values: Sequence[float], alpha: float) -> _Floats:
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must be in (0, 1): {alpha}")
    x = np.asarray(values, dtype=float)
    if not ((x >= 0) & (x <= 1)).all():  # also refuses NaN
        raise ValueError("values must be numbers within 0..1")
    return x
