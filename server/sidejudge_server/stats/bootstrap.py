"""Bootstrap intervals: of any statistic, from replicates that the caller draws."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from scipy import special

from sidejudge_server.stats.outcome import CannotSay, Interval

__all__ = ["bca_interval", "percentile_interval", "replicates_of"]


def replicates_of(
    values: Sequence[float],
    statistic: Callable[[Sequence[float]], float],
    *,
    count: int = 2000,
    seed: int,
) -> list[float]:
    """Return a statistic of ``count`` samples drawn with replacement; the same for the same seed.

    Values must be independent: of repeats of one item give their mean.
    """
    rng = np.random.default_rng(seed)
    data = np.asarray(values, dtype=float)
    return [
        float(statistic(data[rng.integers(0, len(data), len(data))].tolist()))
        for _ in range(count)
    ]


def percentile_interval(
    replicates: Sequence[float], *, alpha: float = 0.05
) -> Interval | CannotSay:
    """Return the alpha/2 and 1 - alpha/2 quantiles of replicates (linear interpolation)."""
    if not len(replicates):
        return CannotSay("no replicates")
    low, high = np.quantile(np.asarray(replicates), [alpha / 2, 1 - alpha / 2])
    return Interval(float(low), float(high))


def bca_interval(
    values: Sequence[float],
    statistic: Callable[[Sequence[float]], float],
    replicates: Sequence[float],
    *,
    alpha: float = 0.05,
) -> Interval | CannotSay:
    """Return the bias-corrected and accelerated interval (Efron, JASA 82 (1987)).

    The bias z0 comes from the share of replicates below the estimate, ties counting half, the
    acceleration from the jackknife.

    Args:
        values: The sample.
        statistic: What is estimated.
        replicates: Its values on samples drawn with replacement.
        alpha: One minus the coverage, in (0, 1).

    Returns:
        The interval; `CannotSay` with fewer than three values, or if all replicates are equal or
        lie on one side of the estimate.
    """
    if len(values) < 3 or not len(replicates):  # noqa: PLR2004 - the jackknife leaves one out
        return CannotSay("the jackknife needs at least three values")
    estimate = statistic(values)
    drawn = np.asarray(replicates, dtype=float)
    below = float((drawn < estimate).sum() + (drawn <= estimate).sum())
    share = below / (2 * len(drawn))
    if not 0 < share < 1 or drawn.min() == drawn.max():
        return CannotSay("all replicates lie on one side of the estimate")
    left_out = np.array(
        [statistic([*values[:i], *values[i + 1 :]]) for i in range(len(values))]
    )
    pull = left_out.mean() - left_out
    spread = float((pull**2).sum())
    acceleration = 0.0 if spread == 0 else float((pull**3).sum()) / (6 * spread**1.5)
    bias = float(special.ndtri(share))
    ends = []
    for quantile in (alpha / 2, 1 - alpha / 2):
        z = bias + float(special.ndtri(quantile))
        ends.append(float(special.ndtr(bias + z / (1 - acceleration * z))))
    low, high = np.quantile(drawn, ends)
    if not (math.isfinite(low) and math.isfinite(high)):
        return CannotSay("the replicates are not finite")
    return Interval(float(low), float(high))
