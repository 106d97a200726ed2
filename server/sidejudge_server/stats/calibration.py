"""Do probabilities mean what they say? Measures of calibration and of discrimination.

Small samples make a calibrated judge look miscalibrated: with 50 labels the plug-in calibration error of
a perfect one is .106 on average. Report the Brier score, the AUROC and the *debiased* error.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

from sidejudge_server.stats.outcome import CannotSay

__all__ = [
    "Spiegelhalter",
    "auroc",
    "brier_score",
    "debiased_squared_error",
    "expected_calibration_error",
    "log_loss",
    "smooth_calibration_error",
    "spiegelhalter",
]

_BINS = 10
_TINY = 1e-15
_GRID = 2_000
_Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Spiegelhalter:
    """Spiegelhalter's test of calibration; p one-sided, against "not overconfident"."""

    z: float
    p_value: float


def brier_score(p: Sequence[float], y: Sequence[int]) -> float | CannotSay:
    """Return the mean squared distance of probability and outcome; 0.25 is what 0.5 gets.

    Args:
        p: Probabilities, 0..1.
        y: Outcomes, 0 or 1. So in all functions here.

    Returns:
        The score; `CannotSay` without labels. So in all functions here.

    Raises:
        ValueError: Something is out of range or lengths differ. So in all functions here.
    """
    ps, ys = _checked(p, y)
    return float(((ps - ys) ** 2).mean()) if len(ps) else CannotSay("no labels")


def log_loss(p: Sequence[float], y: Sequence[int]) -> float | CannotSay:
    """Return the mean negative log-likelihood; probabilities are kept off 0 and 1 by 1e-15."""
    ps, ys = _checked(p, y)
    if not len(ps):
        return CannotSay("no labels")
    kept = np.clip(ps, _TINY, 1 - _TINY)
    return float(-(ys * np.log(kept) + (1 - ys) * np.log1p(-kept)).mean())


def auroc(p: Sequence[float], y: Sequence[int]) -> float | CannotSay:
    """Return the probability that a positive has the larger value, ties counting half.

    `CannotSay` also without outcomes of both kinds.
    """
    ps, ys = _checked(p, y)
    positives = int(ys.sum())
    negatives = len(ys) - positives
    if not positives or not negatives:
        return CannotSay("needs outcomes of both kinds")
    ranks = stats.rankdata(ps)
    above = float(ranks[ys == 1].sum()) - positives * (positives + 1) / 2
    return above / (positives * negatives)


def expected_calibration_error(
    p: Sequence[float], y: Sequence[int], *, equal_mass: bool, bins: int = _BINS
) -> float | CannotSay:
    """Return the plug-in calibration error: mean |frequency - mean probability| over bins.

    Args:
        p: Probabilities.
        y: Outcomes.
        equal_mass: Bins of equal numbers, else of equal widths.
        bins: How many.
    """
    ps, ys = _checked(p, y)
    if not len(ps):
        return CannotSay("no labels")
    return math.fsum(
        len(part) / len(ps) * abs(float(ys[part].mean() - ps[part].mean()))
        for part in _parts(ps, equal_mass=equal_mass, bins=bins)
    )


def debiased_squared_error(
    p: Sequence[float], y: Sequence[int], *, bins: int = _BINS
) -> float | CannotSay:
    """Return the squared calibration error without the share that chance has in it; may be negative.

    sum n_m/n [(ybar - pbar)^2 - ybar (1 - ybar) / (n_m - 1)] over bins of equal numbers (Kumar,
    Liang and Ma, NeurIPS 2019). `CannotSay` also with fewer than two labels a bin.
    """
    ps, ys = _checked(p, y)
    parts = _parts(ps, equal_mass=True, bins=bins)
    if not parts or min(len(part) for part in parts) < 2 or len(parts) < bins:  # noqa: PLR2004 - see the formula
        return CannotSay(
            f"needs two labels in each of {bins} bins; there are {len(ps)}"
        )
    total = 0.0
    for part in parts:
        mean = float(ys[part].mean())
        gap = mean - float(ps[part].mean())
        total += len(part) / len(ps) * (gap**2 - mean * (1 - mean) / (len(part) - 1))
    return total


def smooth_calibration_error(p: Sequence[float], y: Sequence[int]) -> float | CannotSay:
    """Return smECE: the calibration error smoothed at the scale at which it equals that scale.

    With a Gaussian kernel reflected at 0 and 1 (Blasiok and Nakkiran, ICLR 2024).
    """
    ps, ys = _checked(p, y)
    if not len(ps):
        return CannotSay("no labels")
    residuals = ys - ps
    grid = (np.arange(_GRID) + 0.5) / _GRID

    def error(scale: float) -> float:
        smoothed = np.zeros(_GRID)
        for shift in range(-2, 3):
            # Reflections of each point at both ends.
            for centre in (2 * shift + ps, 2 * shift - ps):
                z = (grid[:, None] - centre[None, :]) / scale
                smoothed += np.exp(-0.5 * z * z) @ residuals
        smoothed /= scale * math.sqrt(2 * math.pi) * len(ps)
        return float(np.abs(smoothed).mean())

    low, high = 1e-3, 1.0
    for _ in range(40):
        middle = (low + high) / 2
        if error(middle) > middle:
            low = middle
        else:
            high = middle
    return error((low + high) / 2)


def spiegelhalter(p: Sequence[float], y: Sequence[int]) -> Spiegelhalter | CannotSay:
    """Return Spiegelhalter's z: sum (y - p)(1 - 2p) over the root of sum (1 - 2p)^2 p (1 - p).

    `CannotSay` also if all probabilities are 0, 1/2 or 1.
    """
    ps, ys = _checked(p, y)
    spread = float(((1 - 2 * ps) ** 2 * ps * (1 - ps)).sum())
    if spread == 0:
        return CannotSay("the probabilities have no spread to judge by")
    z = float(((ys - ps) * (1 - 2 * ps)).sum()) / math.sqrt(spread)
    return Spiegelhalter(z, float(special.ndtr(-z)))


def _parts(ps: _Floats, *, equal_mass: bool, bins: int) -> list[NDArray[np.intp]]:
    if equal_mass:
        order = np.argsort(ps, kind="stable")
        return [part for part in np.array_split(order, bins) if len(part)]
    places = np.minimum((ps * bins).astype(int), bins - 1)
    return [np.flatnonzero(places == b) for b in range(bins) if (places == b).any()]


def _checked(p: Sequence[float], y: Sequence[int]) -> tuple[_Floats, _Floats]:
    ps, ys = np.asarray(p, dtype=float), np.asarray(y, dtype=float)
    if ps.shape != ys.shape:
        raise ValueError(f"{len(ps)} probabilities for {len(ys)} outcomes")
    if not ((ps >= 0) & (ps <= 1)).all():  # also refuses NaN
        raise ValueError("probabilities must be numbers in 0..1")
    if not np.isin(ys, (0.0, 1.0)).all():
        raise ValueError("outcomes must be 0 or 1")
    return ps, ys
