"""Quality of one arm: from labels alone, and with the judge's help."""

from __future__ import annotations

import math
from collections.abc import Sequence

from scipy import stats

from sidejudge_server.experiments.report import Estimate
from sidejudge_server.stats.outcome import CannotSay, Interval
from sidejudge_server.stats.ppi import (
    BinaryCells,
    LabelledSums,
    PpiEstimate,
    ppi_binary_smoothed,
    ppi_mean,
)
from sidejudge_server.stats.proportions import wilson
from sidejudge_storage import JudgedSums, UnitMoments

__all__ = ["judge_corrected", "labels_only"]

_MIN_CONTINUOUS = 50
"""Labels from which PPI++ of numbers that are not 0 or 1 covers as it says."""


def labels_only(
    histogram: Sequence[tuple[float, int]],
    moments: UnitMoments | None,
    *,
    logs: bool = False,
) -> Estimate:
    """Estimate a metric's mean from an arm's labelled units.

    Args:
        histogram: Number of units by value; empty where ``logs`` is set.
        moments: Of the values or, with ``logs``, of their natural logarithms.
        logs: Whether the mean is geometric.
    """
    n = moments.n if moments is not None else 0
    if moments is None or n == 0:
        return Estimate(0, "none", cannot_say="no labelled units yet")
    if not logs and all(value in (0.0, 1.0) for value, _ in histogram):
        hits = sum(count for value, count in histogram if value == 1.0)
        found = wilson(hits, n)
        interval = None if isinstance(found, CannotSay) else found
        return Estimate(n, "Wilson", estimate=moments.mean, interval=interval)
    method = "t on logarithms" if logs else "t"
    shown = math.exp(moments.mean) if logs else moments.mean
    if n < 2 or moments.variance <= 0:  # noqa: PLR2004 - a deviation needs two values
        return Estimate(
            n,
            method,
            estimate=shown,
            cannot_say="interval: the values have no spread to judge by",
        )
    half = float(stats.t.ppf(0.975, n - 1)) * math.sqrt(moments.variance / n)
    low, high = moments.mean - half, moments.mean + half
    ends = Interval(math.exp(low), math.exp(high)) if logs else Interval(low, high)
    return Estimate(n, method, estimate=shown, interval=ends)


def judge_corrected(sums: JudgedSums | None, *, own_arms: bool) -> Estimate | None:
    """Estimate an arm's quality from few labels and the judgments of all its items.

    Args:
        sums: Labels and judgments; None if there are no judgments beside labels.
        own_arms: True if the judgment is the judge's answer about the arm's work, False if it is
            whether the arm's confidence in its own answer is in the upper half.

    Returns:
        The estimate or why there is none; None if there are no judgments at all.
    """
    if sums is None:
        return None
    helped_by = "the judge's answers" if own_arms else "confidence above its median"
    if sums.binary:
        found: PpiEstimate | CannotSay = ppi_binary_smoothed(_cells(sums))
        method = f"smoothed PPI++ with {helped_by}"
    else:
        found = (
            ppi_mean(_sums(sums))
            if sums.n >= _MIN_CONTINUOUS
            else CannotSay(
                f"needs {_MIN_CONTINUOUS} labels for values between 0 and 1; there are {sums.n}"
            )
        )
        method = f"PPI++ with {helped_by}"
    if isinstance(found, CannotSay):
        return Estimate(
            sums.n, method, judgments=sums.unlabelled, cannot_say=found.reason
        )
    return Estimate(
        sums.n,
        method,
        judgments=sums.unlabelled,
        estimate=found.estimate,
        interval=found.interval,
    )


def _cells(sums: JudgedSums) -> BinaryCells:
    both, labels, hits = round(sums.yf), round(sums.y), round(sums.f)
    return BinaryCells(
        both=both,
        label_only=labels - both,
        judge_only=hits - both,
        neither=sums.n - labels - hits + both,
        unlabelled=sums.unlabelled,
        unlabelled_hits=round(sums.fu),
    )


def _sums(sums: JudgedSums) -> LabelledSums:
    return LabelledSums(
        n=sums.n,
        y=sums.y,
        yy=sums.yy,
        f=sums.f,
        ff=sums.ff,
        yf=sums.yf,
        unlabelled=sums.unlabelled,
        fu=sums.fu,
        ffu=sums.ffu,
    )
