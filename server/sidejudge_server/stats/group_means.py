"""A mean with its interval, where items of one group belong together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

__all__ = ["group_mean"]

_SEED = 20260801


def group_mean(
    values: ArrayLike, groups: Sequence[str], *, replicates: int = 1000
) -> tuple[float, float, float]:
    """Return a mean and its 95 % percentile interval over groups drawn with replacement.

    Args:
        values: At least one.
        groups: Of the same items. With one group the interval has no width.
        replicates: How often groups are drawn, with a fixed seed.
    """
    given = np.asarray(values, dtype=float)
    _, places = np.unique(np.asarray(groups), return_inverse=True)
    sums, sizes = np.bincount(places, weights=given), np.bincount(places)
    count = len(sizes)
    rng = np.random.default_rng(_SEED)
    drawn = rng.multinomial(count, np.full(count, 1 / count), size=replicates)
    low, high = np.quantile((drawn @ sums) / (drawn @ sizes), [0.025, 0.975])
    return float(given.mean()), float(low), float(high)
