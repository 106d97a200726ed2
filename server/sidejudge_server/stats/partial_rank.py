"""Rank correlation of two things when a third is held fixed."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy import stats

from sidejudge_server.stats.outcome import CannotSay

__all__ = ["partial_rank_correlation"]

_CERTAIN = 1 - 1e-12


def partial_rank_correlation(
    x: Sequence[float], y: Sequence[float], given: Sequence[float]
) -> float | CannotSay:
    """Return Spearman's partial correlation of x and y given a third, -1..1.

    (r_xy - r_xz r_yz) / sqrt((1 - r_xz^2) (1 - r_yz^2)) of ranks with ties averaged.

    Returns:
        The correlation; `CannotSay` with fewer than four items, or where the third determines the
        ranks of x or of y, or either of them does not vary. A third that does not vary is left out.

    Raises:
        ValueError: Lengths differ.
    """
    if not len(x) == len(y) == len(given):
        raise ValueError(f"lengths differ: {len(x)}, {len(y)}, {len(given)}")
    if len(x) < 4 or len(set(x)) < 2 or len(set(y)) < 2:  # noqa: PLR2004 - see the docstring
        return CannotSay("needs four items and two different values of each")
    ranks = [stats.rankdata(values) for values in (x, y, given)]
    if len(set(given)) < 2:  # noqa: PLR2004 - nothing to hold fixed
        return float(np.corrcoef(ranks[0], ranks[1])[0, 1])
    table = np.corrcoef(ranks)
    xy, xz, yz = float(table[0, 1]), float(table[0, 2]), float(table[1, 2])
    if max(abs(xz), abs(yz)) >= _CERTAIN:
        return CannotSay("the third determines the ranks: nothing is left to correlate")
    return (xy - xz * yz) / math.sqrt((1 - xz**2) * (1 - yz**2))
