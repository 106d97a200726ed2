"""Maps that make probabilities mean what they say, fitted on labels.

Which one: none below 30 labels; temperature up to 200; from 200 whichever of temperature, Platt and beta
has the smaller cross-validated log loss. Isotonic alone not below 1,000. The Venn-Abers interval is
valid without assumptions, and its width says how many labels are missing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special

from sidejudge_server.stats.outcome import CannotSay

__all__ = [
    "BetaMap",
    "IsotonicMap",
    "PlattMap",
    "TemperatureMap",
    "VennAbers",
    "fit_beta",
    "fit_isotonic",
    "fit_platt",
    "fit_temperature",
    "venn_abers",
]

_EDGE = 1e-12
_Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class TemperatureMap:
    """sigmoid(logit(p) / temperature); above 1 it takes confidence away."""

    temperature: float

    def __call__(self, p: float) -> float:
        """Return the mapped probability."""
        return float(special.expit(_logit(p) / self.temperature))


@dataclass(frozen=True, slots=True)
class PlattMap:
    """sigmoid(slope logit(p) + intercept)."""

    slope: float
    intercept: float

    def __call__(self, p: float) -> float:
        """Return the mapped probability."""
        return float(special.expit(self.slope * _logit(p) + self.intercept))


@dataclass(frozen=True, slots=True)
class BetaMap:
    """sigmoid(a ln p - b ln(1 - p) + c), a and b not negative (Kull, Silva Filho, Flach 2017)."""

    a: float
    b: float
    c: float

    def __call__(self, p: float) -> float:
        """Return the mapped probability."""
        q = min(1 - _EDGE, max(_EDGE, p))
        return float(
            special.expit(self.a * math.log(q) - self.b * math.log1p(-q) + self.c)
        )


@dataclass(frozen=True, slots=True)
class IsotonicMap:
    """The best rising step function, linear between its knots."""

    knots: tuple[float, ...]
    values: tuple[float, ...]

    def __call__(self, p: float) -> float:
        """Return the mapped probability."""
        return float(np.interp(p, self.knots, self.values))


@dataclass(frozen=True, slots=True)
class VennAbers:
    """Two probabilities, one of which is calibrated; ``merged`` is p1 / (1 - p0 + p1)."""

    low: float
    high: float

    @property
    def merged(self) -> float:
        """One probability made of both."""
        return self.high / (1 - self.low + self.high)


def fit_temperature(p: Sequence[float], y: Sequence[int]) -> TemperatureMap | CannotSay:
    """Fit a temperature by maximum likelihood.

    Returns:
        The map; `CannotSay` without outcomes of both kinds, or if the best temperature is 0 or
        infinite. So for the other fits.
    """
    logits, outcomes = _logits(p), np.asarray(y, dtype=float)
    if (problem := _problem(outcomes)) is not None:
        return problem

    def loss(log_inverse: float) -> float:
        z = logits * math.exp(log_inverse)
        return float((np.logaddexp(0, z) - outcomes * z).sum())

    found = optimize.minimize_scalar(
        loss, bounds=(-7, 7), method="bounded", options={"xatol": 1e-10}
    )
    if abs(found.x) > 6.9:  # noqa: PLR2004 - the edge of the search
        return CannotSay(
            "the probabilities say nothing of these outcomes, or everything"
        )
    return TemperatureMap(math.exp(-float(found.x)))


def fit_platt(p: Sequence[float], y: Sequence[int]) -> PlattMap | CannotSay:
    """Fit slope and intercept on the logits by maximum likelihood, unpenalised."""
    outcomes = np.asarray(y, dtype=float)
    if (problem := _problem(outcomes)) is not None:
        return problem
    found = _logistic(np.column_stack([_logits(p), np.ones(len(outcomes))]), outcomes)
    if found is None:
        return CannotSay(
            "the outcomes can be told apart perfectly: the slope has no bound"
        )
    return PlattMap(float(found[0]), float(found[1]))


def fit_beta(p: Sequence[float], y: Sequence[int]) -> BetaMap | CannotSay:
    """Fit the beta map by maximum likelihood; a negative coefficient is left out and refitted."""
    outcomes = np.asarray(y, dtype=float)
    if (problem := _problem(outcomes)) is not None:
        return problem
    kept = np.clip(np.asarray(p, dtype=float), _EDGE, 1 - _EDGE)
    parts = [np.log(kept), -np.log1p(-kept)]
    used = [0, 1]
    while True:
        columns = [parts[i] for i in used] + [np.ones(len(outcomes))]
        found = _logistic(np.column_stack(columns), outcomes)
        if found is None:
            return CannotSay("the outcomes can be told apart perfectly: no bound")
        negative = [i for place, i in enumerate(used) if found[place] < 0]
        if not negative:
            break
        used.remove(min(negative, key=lambda i: float(found[used.index(i)])))
    slopes = {i: float(found[place]) for place, i in enumerate(used)}
    return BetaMap(slopes.get(0, 0.0), slopes.get(1, 0.0), float(found[-1]))


def fit_isotonic(p: Sequence[float], y: Sequence[int]) -> IsotonicMap | CannotSay:
    """Fit the best rising step function (pool adjacent violators)."""
    outcomes = np.asarray(y, dtype=float)
    if not len(outcomes):
        return CannotSay("no labels")
    knots, means, weights = _merged(np.asarray(p, dtype=float), outcomes)
    fitted = optimize.isotonic_regression(means, weights=weights).x
    return IsotonicMap(tuple(knots.tolist()), tuple(fitted.tolist()))


def venn_abers(
    p: Sequence[float], y: Sequence[int], *, at: float
) -> VennAbers | CannotSay:
    """Return the Venn-Abers pair at a probability: isotonic fits with the item added as 0 and as 1."""
    if not len(p):
        return CannotSay("no labels")
    ends = []
    for label in (0, 1):
        found = fit_isotonic([*p, at], [*y, label])
        if isinstance(found, CannotSay):
            return found
        ends.append(found(at))
    return VennAbers(ends[0], ends[1])


def _merged(p: _Floats, y: _Floats) -> tuple[_Floats, _Floats, _Floats]:
    """Return distinct probabilities with the mean and number of their outcomes."""
    knots, places, counts = np.unique(p, return_inverse=True, return_counts=True)
    sums = np.bincount(places, weights=y)
    return knots, sums / counts, counts.astype(float)


def _logistic(design: _Floats, outcomes: _Floats) -> _Floats | None:
    """Return the coefficients of an unpenalised logistic regression, None if they have no bound."""
    weights = np.zeros(design.shape[1])
    for _ in range(100):
        chance = special.expit(design @ weights)
        gradient = design.T @ (outcomes - chance)
        curvature = (design.T * (chance * (1 - chance))) @ design
        try:
            step = np.linalg.solve(curvature, gradient)
        except np.linalg.LinAlgError:
            return None
        weights = weights + step
        if np.abs(weights).max() > 1e6:  # noqa: PLR2004 - it runs away
            return None
        if np.abs(step).max() < 1e-12:  # noqa: PLR2004 - converged
            break
    return weights


def _problem(outcomes: _Floats) -> CannotSay | None:
    if not 0 < outcomes.sum() < len(outcomes):
        return CannotSay("needs outcomes of both kinds")
    return None


def _logits(p: Sequence[float]) -> _Floats:
    kept = np.clip(np.asarray(p, dtype=float), _EDGE, 1 - _EDGE)
    logits: _Floats = special.logit(kept)
    return logits


def _logit(p: float) -> float:
    return float(special.logit(min(1 - _EDGE, max(_EDGE, p))))
