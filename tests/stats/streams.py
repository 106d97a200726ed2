"""Many streams at once: how often a test that is looked at after every sample ever rejects."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

STREAMS = 2000


def most_allowed(alpha: float, streams: int = STREAMS) -> float:
    """Return alpha plus three standard errors of a rate that is alpha."""
    return alpha + 3 * float(np.sqrt(alpha * (1 - alpha) / streams))


ALPHA = 0.05
BAR = -math.log(ALPHA)
LIMIT = most_allowed(ALPHA)
MIN_NAIVE = 30
"""Samples before the textbook's tests are looked at: nobody believes them earlier."""


def publish(record_property: Callable[[str, object], None], **figures: float) -> None:
    """Keep figures with the test's result; they are listed at the end of the run."""
    for name, value in figures.items():
        record_property(name, round(value, 4))


def least_counts(
    rejects: Callable[[int, int], bool], looks: int, *, start: int = 0
) -> NDArray[np.int64]:
    """Return for n = 1..looks the least count of n at which a test rejects, else n + 1.

    For tests that reject from some count on, which does not fall as n grows; so a stream of counts
    is judged by the public function without calling it for each stream.

    Args:
        rejects: Whether so many of n are enough.
        looks: Largest n.
        start: Least count that may reject, for tests that also reject at small counts.
    """
    least = np.empty(looks, dtype=np.int64)
    count = start
    for n in range(1, looks + 1):
        count = min(count, n)
        while count <= n and not rejects(count, n):
            count += 1
        least[n - 1] = count
    return least


def first_looks(crossed: NDArray[np.bool_]) -> Floats:
    """Return the look (from 1) of each stream's first crossing, infinity if there is none."""
    return np.where(crossed.any(axis=1), crossed.argmax(axis=1) + 1.0, np.inf)


def running_t(values: Floats) -> Floats:
    """Return the t statistic of streams (rows) after each value."""
    n = np.arange(1, values.shape[1] + 1)
    mean = values.cumsum(axis=1) / n
    variance = ((values**2).cumsum(axis=1) - n * mean**2) / np.maximum(1, n - 1)
    return mean / np.sqrt(np.maximum(variance, 1e-30) / n)


def log_wealth_paths(fractions: Floats, values: Floats) -> tuple[Floats, Floats]:
    """Return the largest mean wealth of constant bets over all looks, and the wealth at the end.

    Args:
        fractions: Bets on a positive mean difference, negative ones on a negative one.
        values: Streams by looks.

    Returns:
        Largest mean over the bets by stream, and wealth by bet and stream.
    """
    wealth = np.ones((len(fractions), len(values)))
    most = np.ones(len(values))
    for look in range(values.shape[1]):
        wealth *= 1 + fractions[:, None] * values[None, :, look]
        np.maximum(most, wealth.mean(axis=0), out=most)
    return most, wealth
