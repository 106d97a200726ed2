"""Evidence that stays valid however often one looks: e-values and confidence sequences.

An e-value is the wealth of a gambler who bets against a hypothesis at fair odds. If the
hypothesis holds, wealth of 1/alpha or more is ever reached with probability at most alpha
(Ville), so looking after every sample is free. All functions here are pure functions of counts
or of a set of values: no order, no hidden state, the same after a restart. They return natural
logarithms, because wealth overflows.

Source: the mixture of fixed bets in the style of Waudby-Smith and Ramdas, JRSS B 86 (2024), but
with constant bet fractions, so that the result does not depend on the order of the samples. The
sign test of discordant pairs is in `sidejudge_server.stats.evidence`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special

from sidejudge_server.stats.evidence import POSITIVE_FRACTIONS
from sidejudge_server.stats.outcome import CannotSay, Interval

__all__ = [
    "BET_FRACTIONS",
    "anytime_p",
    "betting_interval",
    "betting_interval_of_counts",
    "betting_interval_of_histogram",
    "betting_log_e",
    "betting_log_e_of_counts",
    "betting_log_e_of_histogram",
    "betting_log_wealths",
]

Alternative = Literal["two-sided", "greater"]
_Floats = NDArray[np.float64]

_POSITIVE = np.array(POSITIVE_FRACTIONS)
# Half on each side.
BET_FRACTIONS: tuple[float, ...] = (*(-_POSITIVE[::-1]).tolist(), *_POSITIVE.tolist())

# Nearest to +-1 that an end of a confidence sequence is looked for; beyond it counts as +-1.
_EDGE = 1e-12


def betting_log_e(
    values: Sequence[float],
    *,
    mean: float = 0.0,
    alternative: Alternative = "two-sided",
) -> float:
    """Return ln E of bounded differences against a mean.

    Args:
        values: Differences within -1..1.
        mean: The hypothesis: the mean equals this ("two-sided") or is at most this ("greater");
            in (-1, 1).
        alternative: Which of the two.

    Returns:
        Natural logarithm; 0 without values.

    Raises:
        ValueError: A value or the mean is out of range or not a number.
    """
    points, weights = _checked(values)
    return _log_e(points, weights, mean=_checked_mean(mean), alternative=alternative)


def betting_log_wealths(
    values: Sequence[float], *, mean: float = 0.0
) -> tuple[float, ...]:
    """Return ln of what each of `BET_FRACTIONS` has made of 1; `betting_log_e` averages them.

    They add up over parts of the data: two parts' sums are those of the whole.

    Args:
        values: Differences within -1..1.
        mean: What is bet against, in (-1, 1).

    Raises:
        ValueError: A value or the mean is out of range or not a number.
    """
    points, weights = _checked(values)
    wealths = _log_wealths(
        points, weights, mean=_checked_mean(mean), alternative="two-sided"
    )
    return tuple(wealths.tolist())


def betting_log_e_of_counts(
    wins: int,
    losses: int,
    *,
    ties: int,
    mean: float = 0.0,
    alternative: Alternative = "two-sided",
) -> float:
    """Return ln E as `betting_log_e` does, of +1 for each win, -1 for each loss, 0 for each tie."""
    points, weights = _counted(wins, losses, ties)
    return _log_e(points, weights, mean=_checked_mean(mean), alternative=alternative)


def betting_log_e_of_histogram(
    histogram: Sequence[tuple[float, int]],
    *,
    mean: float = 0.0,
    alternative: Alternative = "two-sided",
) -> float:
    """Return ln E as `betting_log_e` does, of values with how often each of them came."""
    points, weights = _weighted(histogram)
    return _log_e(points, weights, mean=_checked_mean(mean), alternative=alternative)


def betting_interval_of_histogram(
    histogram: Sequence[tuple[float, int]], *, alpha: float = 0.05
) -> Interval | CannotSay:
    """Return the confidence sequence as `betting_interval` does; see `betting_log_e_of_histogram`."""
    points, weights = _weighted(histogram)
    return _interval(points, weights, alpha=alpha)


def betting_interval(
    values: Sequence[float], *, alpha: float = 0.05
) -> Interval | CannotSay:
    """Return the confidence sequence of the mean of bounded differences.

    It covers the mean at all sample sizes at once with probability at least 1 - alpha.

    Args:
        values: Differences within -1..1.
        alpha: One minus the coverage, in (0, 1).

    Returns:
        All means whose e-value is below 1/alpha, which is an interval because the wealth of
        every bet is convex in the mean; `CannotSay` without values.

    Raises:
        ValueError: A value is out of range or not a number.
    """
    points, weights = _checked(values)
    return _interval(points, weights, alpha=alpha)


def betting_interval_of_counts(
    wins: int, losses: int, *, ties: int, alpha: float = 0.05
) -> Interval | CannotSay:
    """Return the confidence sequence as `betting_interval` does, from counts of pairs."""
    points, weights = _counted(wins, losses, ties)
    return _interval(points, weights, alpha=alpha)


def anytime_p(log_e: float) -> float:
    """Return min(1, 1/E): a p-value that stays valid when looked at repeatedly."""
    return math.exp(-max(0.0, log_e))


def _log_e(
    points: _Floats, weights: _Floats, *, mean: float, alternative: Alternative
) -> float:
    log_wealth = _log_wealths(points, weights, mean=mean, alternative=alternative)
    return float(special.logsumexp(log_wealth) - math.log(len(log_wealth)))


def _log_wealths(
    points: _Floats, weights: _Floats, *, mean: float, alternative: Alternative
) -> _Floats:
    fractions = np.asarray(
        BET_FRACTIONS if alternative == "two-sided" else _POSITIVE, dtype=float
    )[:, None]
    # 1 + lambda (d - mean) with lambda = f/(1+mean) or f/(1-mean), written without the
    # difference that loses digits near the ends.
    odds = np.where(fractions > 0, (1 + points) / (1 + mean), (1 - points) / (1 - mean))
    size = np.abs(fractions)
    wealths: _Floats = (np.log1p(-size + size * odds) * weights).sum(axis=1)
    return wealths


def _interval(
    points: _Floats, weights: _Floats, *, alpha: float
) -> Interval | CannotSay:
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must be in (0, 1): {alpha}")
    total = float(weights.sum())
    if total == 0:
        return CannotSay("no pairs: the mean difference may be anything")
    limit = -math.log(alpha)

    def excess(mean: float) -> float:
        return _log_e(points, weights, mean=mean, alternative="two-sided") - limit

    # At the sample mean every bet has lost, so this is inside (Jensen).
    inside = float((points * weights).sum() / total)
    return Interval(
        _end(excess, inside=inside, edge=-1.0), _end(excess, inside=inside, edge=1.0)
    )


def _end(excess: Callable[[float], float], *, inside: float, edge: float) -> float:
    """Return where ``excess`` turns positive between ``inside`` and +-1, or +-1."""
    nearly = edge * (1 - _EDGE)
    if abs(inside) >= 1 - _EDGE:
        if inside * edge > 0:
            return edge
        inside = -nearly
    if excess(nearly) <= 0:
        return edge
    return float(optimize.brentq(excess, inside, nearly, xtol=1e-12, rtol=1e-14))


def _checked(values: Sequence[float]) -> tuple[_Floats, _Floats]:
    points = np.asarray(values, dtype=float)
    if not (np.abs(points) <= 1).all():  # also refuses NaN
        raise ValueError("differences must be numbers within -1..1")
    return points, np.ones_like(points)


def _checked_mean(mean: float) -> float:
    if not -1 < mean < 1:
        raise ValueError(f"the mean must be in (-1, 1): {mean}")
    return mean


def _counted(wins: int, losses: int, ties: int) -> tuple[_Floats, _Floats]:
    if min(wins, losses, ties) < 0:
        raise ValueError(f"counts must not be negative: {wins}, {losses}, {ties}")
    return np.array([1.0, -1.0, 0.0]), np.array([wins, losses, ties], dtype=float)


def _weighted(histogram: Sequence[tuple[float, int]]) -> tuple[_Floats, _Floats]:
    if any(count < 0 for _, count in histogram):
        raise ValueError("counts must not be negative")
    points, _ = _checked([value for value, _ in histogram])
    return points, np.array([count for _, count in histogram], dtype=float)
