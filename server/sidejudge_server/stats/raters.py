"""Agreement among several raters, some of whom may not have rated every item.

Ratings come by item; None is a missing rating. Items with fewer than two ratings say nothing.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np
from scipy import stats

from sidejudge_server.stats.outcome import CannotSay, Interval

__all__ = [
    "GwetAC1",
    "IntraclassCorrelation",
    "Scale",
    "fleiss_kappa",
    "gwet_ac1",
    "intraclass_correlation",
    "krippendorff_alpha",
]

Scale = Literal["nominal", "ordinal", "interval", "ratio"]
Ratings = Sequence[Sequence[float | None]]

_ONE_CATEGORY = "all ratings are of one category: agreement by chance is certain"


@dataclass(frozen=True, slots=True)
class GwetAC1:
    """Gwet's AC1, which unlike kappa keeps its meaning where one category is rare."""

    estimate: float
    standard_error: float
    interval: Interval


@dataclass(frozen=True, slots=True)
class IntraclassCorrelation:
    """Shrout and Fleiss' intraclass correlations of single ratings.

    Attributes:
        one_way: ICC(1): raters differ from item to item.
        agreement: ICC(2,1): the same raters, absolute agreement.
        agreement_interval: Its 95 % interval (McGraw and Wong 1996).
        consistency: ICC(3,1): the same raters, constant offsets forgiven.
    """

    one_way: float
    agreement: float
    agreement_interval: Interval
    consistency: float


def krippendorff_alpha(ratings: Ratings, *, scale: Scale) -> float | CannotSay:
    """Return 1 - observed / expected disagreement (Krippendorff 2011).

    Args:
        ratings: By item; None is missing.
        scale: How far apart two values are: not at all or entirely, by ranks, by difference, or
            by difference over sum.

    Returns:
        Alpha; `CannotSay` if no item has two ratings or all are equal.
    """
    items = [[r for r in item if r is not None] for item in ratings]
    items = [item for item in items if len(item) > 1]
    if not items:
        return CannotSay("no item has two ratings")
    counts = Counter(rating for item in items for rating in item)
    distance = _distance(counts, scale)
    total = sum(counts.values())
    observed = math.fsum(
        2
        * math.fsum(distance(a, b) for a, b in combinations(item, 2))
        / (len(item) - 1)
        for item in items
    )
    expected = math.fsum(
        counts[a] * counts[b] * distance(a, b) * 2 for a, b in combinations(counts, 2)
    ) / (total - 1)
    if expected == 0:
        return CannotSay(_ONE_CATEGORY)
    return 1 - observed / expected


def fleiss_kappa(counts: Sequence[Sequence[int]]) -> float | CannotSay:
    """Return Fleiss' kappa.

    Args:
        counts: Number of raters by item (rows) and category; all items have the same number.

    Returns:
        Kappa; `CannotSay` without items, with one rater, or if all ratings are of one category.

    Raises:
        ValueError: Items have different numbers of raters.
    """
    table = np.asarray(counts, dtype=float)
    if table.size == 0:
        return CannotSay("no items")
    raters = table.sum(axis=1)
    if not (raters == raters[0]).all():
        raise ValueError("all items need the same number of raters")
    m = float(raters[0])
    if m < 2:  # noqa: PLR2004 - agreement needs two
        return CannotSay("agreement needs two raters")
    shares = table.sum(axis=0) / table.sum()
    by_chance = float((shares**2).sum())
    if by_chance >= 1:
        return CannotSay(_ONE_CATEGORY)
    agreed = float((((table**2).sum(axis=1) - m) / (m * (m - 1))).mean())
    return (agreed - by_chance) / (1 - by_chance)


def gwet_ac1(
    ratings: Sequence[Sequence[int]], *, alpha: float = 0.05
) -> GwetAC1 | CannotSay:
    """Return Gwet's AC1 of complete ratings (Gwet, Br. J. Math. Stat. Psychol. 61 (2008)).

    Agreement by chance is sum pi_k (1 - pi_k) / (q - 1); the error treats items as the sample.

    Returns:
        AC1 with a t interval; `CannotSay` with fewer than two items or categories.
    """
    categories = sorted({rating for item in ratings for rating in item})
    n = len(ratings)
    if n < 2 or len(categories) < 2:  # noqa: PLR2004 - see the docstring
        return CannotSay("needs two items and two categories")
    counts = np.array(
        [[item.count(c) for c in categories] for item in map(list, ratings)]
    )
    m = counts.sum(axis=1, keepdims=True)
    shares = (counts / m).mean(axis=0)
    scale = 1 / (len(categories) - 1)
    by_chance = scale * float((shares * (1 - shares)).sum())
    agreed = ((counts * (counts - 1)).sum(axis=1) / (m * (m - 1))[:, 0]).astype(float)
    estimate = (float(agreed.mean()) - by_chance) / (1 - by_chance)
    chance_of_item = scale * ((counts / m) * (1 - shares)).sum(axis=1)
    influence = (agreed - by_chance) / (1 - by_chance) - 2 * (1 - estimate) * (
        chance_of_item - by_chance
    ) / (1 - by_chance)
    error = math.sqrt(float(((influence - estimate) ** 2).sum()) / (n * (n - 1)))
    half = float(stats.t.ppf(1 - alpha / 2, n - 1)) * error
    return GwetAC1(
        estimate, error, Interval(estimate - half, min(1.0, estimate + half))
    )


def intraclass_correlation(
    scores: Sequence[Sequence[float]], *, alpha: float = 0.05
) -> IntraclassCorrelation | CannotSay:
    """Return intraclass correlations of complete scores, items by raters.

    Returns:
        The correlations; `CannotSay` with fewer than two items or raters, or without any spread.
    """
    table = np.asarray(scores, dtype=float)
    if table.ndim != 2 or min(table.shape) < 2:  # noqa: PLR2004 - see the docstring
        return CannotSay("needs two items and two raters")
    n, k = table.shape
    mean = table.mean()
    rows = k * float(((table.mean(axis=1) - mean) ** 2).sum()) / (n - 1)
    columns = n * float(((table.mean(axis=0) - mean) ** 2).sum()) / (k - 1)
    total = float(((table - mean) ** 2).sum())
    if total == 0:
        return CannotSay("all scores are equal: there is no spread")
    within = (total - rows * (n - 1)) / (n * (k - 1))
    error = (total - rows * (n - 1) - columns * (k - 1)) / ((n - 1) * (k - 1))
    agreement = (rows - error) / (rows + (k - 1) * error + k * (columns - error) / n)
    return IntraclassCorrelation(
        one_way=(rows - within) / (rows + (k - 1) * within),
        agreement=agreement,
        agreement_interval=_agreement_interval(
            rows, columns, error, n=n, k=k, estimate=agreement, alpha=alpha
        ),
        consistency=(rows - error) / (rows + (k - 1) * error),
    )


def _agreement_interval(
    rows: float,
    columns: float,
    error: float,
    *,
    n: int,
    k: int,
    estimate: float,
    alpha: float,
) -> Interval:
    f = columns / error
    v = (
        (k - 1)
        * (n - 1)
        * (k * estimate * f + n * (1 + (k - 1) * estimate) - k * estimate) ** 2
        / (
            (n - 1) * k**2 * estimate**2 * f**2
            + (n * (1 + (k - 1) * estimate) - k * estimate) ** 2
        )
    )
    upper = float(stats.f.ppf(1 - alpha / 2, n - 1, v))
    lower = float(stats.f.ppf(1 - alpha / 2, v, n - 1))
    rest = k * columns + (k * n - k - n) * error
    low = n * (rows - upper * error) / (upper * rest + n * rows)
    high = n * (lower * rows - error) / (rest + n * lower * rows)
    return Interval(low, high)


def _distance(counts: Counter[float], scale: Scale) -> Callable[[float, float], float]:
    if scale == "nominal":
        return lambda a, b: float(a != b)
    if scale == "interval":
        return lambda a, b: (a - b) ** 2
    if scale == "ratio":
        return lambda a, b: 0.0 if a == b else ((a - b) / (a + b)) ** 2
    ordered = sorted(counts)
    reached: dict[float, float] = {}
    before = 0.0
    for value in ordered:
        # Middle of the ranks that the value takes.
        reached[value] = before + counts[value] / 2
        before += counts[value]
    return lambda a, b: (reached[a] - reached[b]) ** 2
