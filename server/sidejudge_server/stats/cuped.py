"""Less noise by what was known before: regression on a covariate of before the experiment (CUPED).

Only for unpaired comparisons: pairs remove that noise already. Source: Deng, Xu, Kohavi and Walker,
WSDM 2013.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sidejudge_server.stats.moments import Moments
from sidejudge_server.stats.outcome import CannotSay

__all__ = ["Adjusted", "Ancova", "JointMoments", "ancova", "cuped"]


@dataclass(frozen=True, slots=True)
class JointMoments:
    """Moments of an outcome y and of a covariate x of the same units.

    Attributes:
        y: Of the outcome.
        x: Of the covariate.
        covariance: With n - 1 in the denominator.
    """

    y: Moments
    x: Moments
    covariance: float

    @classmethod
    def of(cls, y: Sequence[float], x: Sequence[float]) -> JointMoments:
        """Return the moments of paired values."""
        ys, xs = Moments.of(y), Moments.of(x)
        products = math.fsum(
            (a - ys.mean) * (b - xs.mean) for a, b in zip(y, x, strict=True)
        )
        return cls(ys, xs, products / max(1, ys.n - 1))

    @classmethod
    def of_sums(
        cls, n: int, *, y: float, yy: float, x: float, xx: float, xy: float
    ) -> JointMoments:
        """Return the moments of sums, sums of squares and the sum of products."""
        ys, xs = Moments.of_sums(n, y, yy), Moments.of_sums(n, x, xx)
        return cls(ys, xs, (xy - n * ys.mean * xs.mean) / max(1, n - 1))


@dataclass(frozen=True, slots=True)
class Adjusted:
    """Both arms with what the covariate explains taken away.

    Attributes:
        theta: Slope that was used.
        a: Moments of y - theta x of the baseline.
        b: Of the candidate.
    """

    theta: float
    a: Moments
    b: Moments

    @property
    def effect(self) -> float:
        """Difference of the adjusted means."""
        return self.b.mean - self.a.mean

    @property
    def standard_error(self) -> float:
        """Of the effect."""
        return math.sqrt(self.a.squared_error + self.b.squared_error)


@dataclass(frozen=True, slots=True)
class Ancova:
    """Effect of the arm in a regression on arm and centred covariate with interaction-free slope.

    ``standard_error`` is robust to unequal variances (HC2).
    """

    effect: float
    standard_error: float


def cuped(
    a: JointMoments, b: JointMoments, *, pooled: bool = True
) -> Adjusted | CannotSay:
    """Adjust both arms by one slope, the covariance of y and x over the variance of x.

    Args:
        a: The baseline.
        b: The candidate.
        pooled: Whether the moments of both arms together make the slope (their means included);
            else the sums of the arms' own covariances and variances do, as GrowthBook has it.

    Returns:
        The adjusted arms; `CannotSay` with fewer than two units in an arm or without spread of x.
    """
    if min(a.y.n, b.y.n) < 2:  # noqa: PLR2004 - a variance needs two values
        return CannotSay("each arm needs two units")
    if pooled:
        covariance, variance = _pooled(a, b)
    else:
        covariance = (a.covariance * (a.y.n - 1) + b.covariance * (b.y.n - 1)) / (
            a.y.n + b.y.n - 2
        )
        variance = (a.x.variance * (a.y.n - 1) + b.x.variance * (b.y.n - 1)) / (
            a.y.n + b.y.n - 2
        )
    if variance <= 0:
        return CannotSay("the covariate is the same for all units: it explains nothing")
    theta = covariance / variance
    return Adjusted(theta, _adjusted(a, theta), _adjusted(b, theta))


def ancova(
    y_a: Sequence[float],
    x_a: Sequence[float],
    y_b: Sequence[float],
    x_b: Sequence[float],
) -> Ancova | CannotSay:
    """Return the arm's effect by least squares of y on arm and x."""
    arm = np.array([0.0] * len(y_a) + [1.0] * len(y_b))
    x, y = np.array([*x_a, *x_b]), np.array([*y_a, *y_b])
    design = np.column_stack([np.ones_like(arm), arm, x])
    if np.linalg.matrix_rank(design) < design.shape[1] or len(y) <= design.shape[1]:
        return CannotSay("arm and covariate do not vary on their own")
    inverse = np.linalg.inv(design.T @ design)
    coefficients = inverse @ design.T @ y
    residuals = y - design @ coefficients
    leverage = np.einsum("ij,jk,ik->i", design, inverse, design)
    weights = residuals**2 / (1 - leverage)
    covariance = inverse @ (design.T * weights) @ design @ inverse
    return Ancova(float(coefficients[1]), math.sqrt(float(covariance[1, 1])))


def _pooled(a: JointMoments, b: JointMoments) -> tuple[float, float]:
    n = a.y.n + b.y.n
    mean_y = (a.y.n * a.y.mean + b.y.n * b.y.mean) / n
    mean_x = (a.x.n * a.x.mean + b.x.n * b.x.mean) / n
    covariance = variance = 0.0
    for arm in (a, b):
        off_y, off_x = arm.y.mean - mean_y, arm.x.mean - mean_x
        covariance += arm.covariance * (arm.y.n - 1) + arm.y.n * off_y * off_x
        variance += arm.x.variance * (arm.x.n - 1) + arm.x.n * off_x**2
    return covariance / (n - 1), variance / (n - 1)


def _adjusted(arm: JointMoments, theta: float) -> Moments:
    variance = arm.y.variance + theta**2 * arm.x.variance - 2 * theta * arm.covariance
    return Moments(arm.y.n, arm.y.mean - theta * arm.x.mean, max(0.0, variance))
