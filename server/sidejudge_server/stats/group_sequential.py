"""Bounds for a z statistic that is looked at a few times, planned in advance.

An alternative to `betting` and `confidence_sequences` where the largest sample and the looks are
fixed before the start: more powerful then, and without any guarantee when one looks oftener or goes
on longer.

Source: error spending of Lan and DeMets (Biometrika 70 (1983)); Kim and DeMets' power family
(Biometrika 74 (1987)); the recursive integration of Armitage, McPherson and Rowe (1969), here with
Gauss-Legendre nodes over the region of continuation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special

__all__ = [
    "Spending",
    "group_sequential_bounds",
    "obrien_fleming_spending",
    "power_spending",
]

Spending = Callable[[float, float], float]
"""How much of an error rate may be spent by a fraction of the information: f(fraction, alpha)."""

_Floats = NDArray[np.float64]

_CLOSEST = 1e-3
"""Closest looks: nearer ones need a finer grid than is kept here."""

_TAIL = 8.0
"""Standard deviations beyond which a density is left out: 1e-15 of it."""

_HIGHEST = 38.0
"""Bound whose tail is still a number."""

_FEWEST_NODES, _MOST_NODES, _NODES_PER_DEVIATION = 64, 1500, 6


def power_spending(power: float) -> Spending:
    """Return alpha t^power; 1 spends evenly (about Pocock), 3 late (about O'Brien-Fleming).

    Raises:
        ValueError: The power is not above 0.
    """
    if not 0 < power < math.inf:
        raise ValueError(f"the power must be above 0: {power}")
    return lambda fraction, alpha: alpha * fraction**power


def obrien_fleming_spending(fraction: float, alpha: float) -> float:
    """Return 2 - 2 Phi(z / sqrt(t)), z the upper alpha/2 point: nearly all is kept for the end."""
    z = -float(special.ndtri(alpha / 2))
    return 2 * float(special.ndtr(-z / math.sqrt(fraction)))


def group_sequential_bounds(
    fractions: Sequence[float],
    *,
    alpha: float = 0.05,
    sides: int = 2,
    spending: Spending = obrien_fleming_spending,
) -> tuple[float, ...]:
    """Return the bound of z for each planned look; reject where z (or its size) reaches it.

    Args:
        fractions: Information at each look as a fraction of the largest planned one: rising, in
            (0, 1], at least 1/1000 apart.
        alpha: Error rate of all looks together, in (0, 1).
        sides: 1 to reject large z; 2 to reject z of a large size.
        spending: Share of alpha that may be spent by then, never falling.

    Returns:
        As many bounds as looks.

    Raises:
        ValueError: An argument is out of its range, or spending is not rising.
    """
    _check(fractions, alpha, sides)
    bounds: list[float] = []
    nodes, density = np.zeros(1), np.ones(1)
    spent = before = 0.0
    for look, fraction in enumerate(fractions):
        allowed = spending(fraction, alpha)
        step = math.sqrt(fraction - before)
        bound = _bound(
            nodes,
            density,
            step=step,
            fraction=fraction,
            spend=allowed - spent,
            sides=sides,
        )
        bounds.append(bound)
        if look + 1 < len(fractions):
            next_step = math.sqrt(fractions[look + 1] - fraction)
            nodes, density = _continue(
                nodes,
                density,
                step=step,
                fraction=fraction,
                bound=bound,
                sides=sides,
                next_step=next_step,
            )
        spent, before = allowed, fraction
    return tuple(bounds)


def _bound(
    nodes: _Floats,
    density: _Floats,
    *,
    step: float,
    fraction: float,
    spend: float,
    sides: int,
) -> float:
    """Return the bound that streams which have gone on cross with probability ``spend``."""
    if not spend > 0:
        raise ValueError("the spending must rise from look to look")
    root = math.sqrt(fraction)

    def excess(bound: float) -> float:
        crossed = special.ndtr((nodes - bound * root) / step)
        if sides == 2:  # noqa: PLR2004 - two sides
            crossed = crossed + special.ndtr((-nodes - bound * root) / step)
        return float((density * crossed).sum()) - spend

    low = 0.0 if sides == 2 else -_TAIL  # noqa: PLR2004 - two sides
    return float(optimize.brentq(excess, low, _HIGHEST, xtol=1e-10))


def _continue(
    nodes: _Floats,
    density: _Floats,
    *,
    step: float,
    fraction: float,
    bound: float,
    sides: int,
    next_step: float,
) -> tuple[_Floats, _Floats]:
    """Return nodes and weighted density of the streams that have not crossed at a look."""
    root = math.sqrt(fraction)
    top = min(bound, _TAIL) * root
    bottom = -top if sides == 2 else -_TAIL * root  # noqa: PLR2004 - two sides
    # Both the density that came and the kernel that follows have to be resolved.
    finest = min(step, next_step)
    count = math.ceil(_NODES_PER_DEVIATION * (top - bottom) / finest)
    points, weights = np.polynomial.legendre.leggauss(
        min(_MOST_NODES, max(_FEWEST_NODES, count))
    )
    half = (top - bottom) / 2
    onward = bottom + half * (points + 1)
    kernel = np.exp(-0.5 * ((onward[:, None] - nodes[None, :]) / step) ** 2)
    kernel /= step * math.sqrt(2 * math.pi)
    return onward, half * weights * (kernel @ density)


def _check(fractions: Sequence[float], alpha: float, sides: int) -> None:
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must be in (0, 1): {alpha}")
    if sides not in (1, 2):
        raise ValueError(f"sides must be 1 or 2: {sides}")
    if not fractions:
        raise ValueError("no looks")
    steps = np.diff([0.0, *fractions])
    if not (
        (steps >= _CLOSEST - 1e-12).all() and fractions[-1] <= 1
    ):  # also refuses NaN
        raise ValueError(
            f"looks must rise within (0, 1], at least {_CLOSEST} apart: {list(fractions)}"
        )
