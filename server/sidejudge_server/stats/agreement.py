"""Agreement of a judge with people: two raters, of whom the first one is taken to be right."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

from sidejudge_server.stats.outcome import CannotSay, Interval
from sidejudge_server.stats.proportions import wilson

__all__ = [
    "BinaryAgreement",
    "Kappa",
    "Rate",
    "binary_agreement",
    "cohen_kappa",
    "confusion",
    "mean_absolute_error",
    "percent_agreement",
    "rank_correlations",
    "weighted_kappa",
]

Weights = Literal["linear", "quadratic"]
_Counts = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Rate:
    """A proportion with Wilson's interval; both None without units to take it of."""

    estimate: float | None
    interval: Interval | None


@dataclass(frozen=True, slots=True)
class BinaryAgreement:
    """How well a judge finds what is positive; say which verdict that is (for safety: fail).

    Attributes:
        tpr: True positive rate (recall): of what people call positive, what the judge does.
        tnr: True negative rate: likewise of what is negative.
        precision: Of what the judge calls positive, what people do.
        f1: Harmonic mean of tpr and precision; None if it is not defined.
        balanced_accuracy: Mean of tpr and tnr; None likewise.
        mcc: Matthews' correlation; None if one of the four margins is empty.
    """

    tpr: Rate
    tnr: Rate
    precision: Rate
    f1: float | None
    balanced_accuracy: float | None
    mcc: float | None


@dataclass(frozen=True, slots=True)
class Kappa:
    """Cohen's kappa with its large-sample error (Fleiss, Cohen and Everitt 1969)."""

    estimate: float
    standard_error: float
    interval: Interval


def confusion(
    human: Sequence[int], judge: Sequence[int], *, categories: Sequence[int]
) -> _Counts:
    """Return counts by category of the human (rows) and of the judge (columns).

    Raises:
        ValueError: Lengths differ or a rating is none of the categories.
    """
    places = {category: i for i, category in enumerate(categories)}
    table = np.zeros((len(places), len(places)))
    for row, column in zip(human, judge, strict=True):
        if row not in places or column not in places:
            raise ValueError(f"{row} or {column} is not one of {list(categories)}")
        table[places[row], places[column]] += 1
    return table


def percent_agreement(table: _Counts) -> float | CannotSay:
    """Return the share of items on which both agree."""
    total = table.sum()
    return float(np.trace(table) / total) if total else CannotSay("no items")


def cohen_kappa(table: _Counts, *, alpha: float = 0.05) -> Kappa | CannotSay:
    """Return agreement beyond chance: (p_o - p_e) / (1 - p_e).

    Returns:
        Kappa; `CannotSay` without items or if both use a single category only, where agreement by
        chance is certain.
    """
    total = table.sum()
    if not total:
        return CannotSay("no items")
    p = table / total
    rows, columns = p.sum(axis=1), p.sum(axis=0)
    by_chance = float(rows @ columns)
    if by_chance >= 1:
        return CannotSay("both use one category only: agreement by chance is certain")
    kappa = (float(np.trace(p)) - by_chance) / (1 - by_chance)
    on = float((np.diag(p) * (1 - (rows + columns) * (1 - kappa)) ** 2).sum())
    off_weights = (columns[:, None] + rows[None, :]) ** 2
    off = float((p * off_weights).sum() - (np.diag(p) * np.diag(off_weights)).sum())
    variance = (
        on + (1 - kappa) ** 2 * off - (kappa - by_chance * (1 - kappa)) ** 2
    ) / (total * (1 - by_chance) ** 2)
    error = math.sqrt(max(0.0, variance))
    half = float(special.ndtri(1 - alpha / 2)) * error
    return Kappa(kappa, error, Interval(kappa - half, kappa + half))


def weighted_kappa(table: _Counts, *, weights: Weights) -> float | CannotSay:
    """Return kappa with disagreement weighted by the distance of the categories' positions.

    1 - sum(w observed) / sum(w expected), w = |i - j| or its square. Quadratic weights are the ones
    for pass, partial, fail.
    """
    total = table.sum()
    if not total:
        return CannotSay("no items")
    p = table / total
    steps = np.abs(np.subtract.outer(np.arange(len(p)), np.arange(len(p)))).astype(
        float
    )
    distance = steps if weights == "linear" else steps**2
    expected = float((distance * np.outer(p.sum(axis=1), p.sum(axis=0))).sum())
    if expected == 0:
        return CannotSay("both use one category only: agreement by chance is certain")
    return 1 - float((distance * p).sum()) / expected


def binary_agreement(
    true_positive: int,
    false_negative: int,
    false_positive: int,
    true_negative: int,
    *,
    alpha: float = 0.05,
) -> BinaryAgreement:
    """Return rates with Wilson intervals from the four counts.

    Raises:
        ValueError: A count is negative.
    """
    tp, fn, fp, tn = true_positive, false_negative, false_positive, true_negative
    if min(tp, fn, fp, tn) < 0:
        raise ValueError("counts must not be negative")
    tpr = _rate(tp, tp + fn, alpha)
    tnr = _rate(tn, tn + fp, alpha)
    precision = _rate(tp, tp + fp, alpha)
    margins = math.prod((tp + fn, tn + fp, tp + fp, tn + fn))
    both = tpr.estimate is not None and tnr.estimate is not None
    return BinaryAgreement(
        tpr=tpr,
        tnr=tnr,
        precision=precision,
        f1=2 * tp / (2 * tp + fp + fn) if 2 * tp + fp + fn else None,
        balanced_accuracy=((tpr.estimate or 0.0) + (tnr.estimate or 0.0)) / 2
        if both
        else None,
        mcc=(tp * tn - fp * fn) / math.sqrt(margins) if margins else None,
    )


def mean_absolute_error(
    human: Sequence[float], judge: Sequence[float]
) -> float | CannotSay:
    """Return the mean distance of two ratings."""
    pairs = list(zip(human, judge, strict=True))
    if not pairs:
        return CannotSay("no items")
    return math.fsum(abs(a - b) for a, b in pairs) / len(pairs)


def rank_correlations(
    human: Sequence[float], judge: Sequence[float]
) -> tuple[float, float] | CannotSay:
    """Return Spearman's rho and Kendall's tau-b.

    Returns:
        Both; `CannotSay` with fewer than two items or if one rater gives all the same.
    """
    if len(human) < 2 or len(set(human)) < 2 or len(set(judge)) < 2:  # noqa: PLR2004 - ranks need two values
        return CannotSay("ranks need two different values of each rater")
    return (
        float(stats.spearmanr(human, judge).statistic),
        float(stats.kendalltau(human, judge).statistic),
    )


def _rate(hits: int, n: int, alpha: float) -> Rate:
    found = wilson(hits, n, alpha=alpha)
    if isinstance(found, CannotSay):
        return Rate(None, None)
    return Rate(hits / n, found)
