"""Count, mean and variance: what SQL aggregates and what tests of means need."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["Moments"]


@dataclass(frozen=True, slots=True)
class Moments:
    """A sample's size, mean and variance.

    Attributes:
        n: Number of values.
        mean: 0 without values.
        variance: With n - 1 in the denominator; 0 with fewer than two values.
    """

    n: int
    mean: float
    variance: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Moments:
        """Return the moments of values.

        Raises:
            ValueError: A value is not finite.
        """
        sample = [float(value) for value in values]
        if not all(math.isfinite(value) for value in sample):
            raise ValueError("values must be finite")
        if not sample:
            return cls(0, 0.0, 0.0)
        mean = math.fsum(sample) / len(sample)
        squares = math.fsum((value - mean) ** 2 for value in sample)
        return cls(len(sample), mean, squares / max(1, len(sample) - 1))

    @classmethod
    def of_sums(cls, n: int, total: float, squares: float) -> Moments:
        """Return the moments of a sum and a sum of squares."""
        if n == 0:
            return cls(0, 0.0, 0.0)
        mean = total / n
        spread = max(0.0, squares - n * mean * mean)
        return cls(n, mean, spread / max(1, n - 1))

    @property
    def squared_error(self) -> float:
        """Of the mean: variance / n."""
        return self.variance / self.n if self.n else math.inf
