"""p-values adjusted for their number; all take them in any order and keep it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

__all__ = [
    "benjamini_hochberg",
    "benjamini_yekutieli",
    "bonferroni",
    "hochberg",
    "holm",
    "hommel",
]


def bonferroni(p_values: Sequence[float]) -> list[float]:
    """Return p times their number, at most 1.

    Raises:
        ValueError: A p-value is not in 0..1; so in all functions here.
    """
    _check(p_values)
    return [min(1.0, len(p_values) * p) for p in p_values]


def holm(p_values: Sequence[float]) -> list[float]:
    """Control the family-wise error under any dependence (Holm, Scand. J. Statist. 6 (1979)).

    Valid for anytime p-values too, because it needs nothing but their validity.
    """
    order = _ascending(p_values)
    n, highest = len(order), 0.0
    adjusted = [0.0] * n
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, (n - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted


def hochberg(p_values: Sequence[float]) -> list[float]:
    """Control the family-wise error of independent tests (Hochberg, Biometrika 75 (1988))."""
    return _step_up(p_values, lambda n, rank: float(n - rank))


def hommel(p_values: Sequence[float]) -> list[float]:
    """Control the family-wise error of independent tests (Hommel, Biometrika 75 (1988))."""
    order = _ascending(p_values)
    n = len(order)
    ascending = [p_values[index] for index in order]
    found = list(ascending)
    for size in range(n, 1, -1):
        # Simes' bound of the `size` largest ones; the smaller ones share its slope.
        tail = range(n - size, n)
        bound = min(size * ascending[i] / (i - (n - size) + 1) for i in tail)
        for i in range(n):
            mine = bound if i >= n - size else min(bound, size * ascending[i])
            found[i] = max(found[i], mine)
    adjusted = [0.0] * n
    for index, p in zip(order, found, strict=True):
        adjusted[index] = min(1.0, p)
    return adjusted


def benjamini_hochberg(p_values: Sequence[float]) -> list[float]:
    """Control the false discovery rate of independent tests (JRSS B 57 (1995))."""
    return _step_up(p_values, lambda n, rank: n / (rank + 1))


def benjamini_yekutieli(p_values: Sequence[float]) -> list[float]:
    """Control the false discovery rate under any dependence (Ann. Statist. 29 (2001))."""
    harmonic = math.fsum(1 / i for i in range(1, len(p_values) + 1))
    return _step_up(p_values, lambda n, rank: harmonic * n / (rank + 1))


def _step_up(
    p_values: Sequence[float], scale: Callable[[int, int], float]
) -> list[float]:
    order = _ascending(p_values)
    n, lowest = len(order), 1.0
    adjusted = [0.0] * n
    for rank in range(n - 1, -1, -1):
        index = order[rank]
        lowest = min(lowest, scale(n, rank) * p_values[index])
        adjusted[index] = lowest
    return adjusted


def _ascending(p_values: Sequence[float]) -> list[int]:
    _check(p_values)
    return sorted(range(len(p_values)), key=lambda i: p_values[i])


def _check(p_values: Sequence[float]) -> None:
    if not all(0 <= p <= 1 for p in p_values):  # also refuses NaN
        raise ValueError(f"p-values must be numbers in 0..1: {list(p_values)}")
