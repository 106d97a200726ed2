"""How much of the spread of repeated measurements is noise: one-way components of variance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sidejudge_server.stats.outcome import CannotSay

__all__ = ["Components", "variance_components"]


@dataclass(frozen=True, slots=True)
class Components:
    """Variance within items and between them, and the share of the first: 1 - ICC(1), 0..1."""

    within: float
    between: float

    @property
    def noise_share(self) -> float:
        """Share of the variance that is noise; 0 without any variance."""
        total = self.within + self.between
        return self.within / total if total else 0.0


def variance_components(items: Sequence[Sequence[float]]) -> Components | CannotSay:
    """Return the components of repeated values, by analysis of variance (Searle, Casella, McCulloch 1992).

    Args:
        items: The values of each item, two or more; their number may differ from item to item.

    Returns:
        The components, a negative one between items set to 0; `CannotSay` with fewer than two items.

    Raises:
        ValueError: An item has fewer than two values.
    """
    if any(len(values) < 2 for values in items):  # noqa: PLR2004 - see the docstring
        raise ValueError("each item needs two values or more")
    if len(items) < 2:  # noqa: PLR2004 - see the docstring
        return CannotSay("needs two items that were measured twice or more")
    sizes: NDArray[np.float64] = np.array(
        [len(values) for values in items], dtype=float
    )
    means = np.array([np.mean(values) for values in items])
    total = sizes.sum()
    grand = float((sizes * means).sum() / total)
    inside = sum(
        float(((np.asarray(v) - m) ** 2).sum())
        for v, m in zip(items, means, strict=True)
    )
    within = inside / float(total - len(items))
    rows = float((sizes * (means - grand) ** 2).sum()) / (len(items) - 1)
    typical = float(total - (sizes**2).sum() / total) / (len(items) - 1)
    return Components(within, max(0.0, (rows - within) / typical))
