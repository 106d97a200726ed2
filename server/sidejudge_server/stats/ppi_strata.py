"""PPI++ over strata, and means from labels that were chosen with known probabilities.

Sources: stratified prediction-powered inference (Fisch et al., 2024) and active statistical inference
(Zrnic and Candes, 2024).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from scipy import special

from sidejudge_server.stats.moments import Moments
from sidejudge_server.stats.outcome import CannotSay, Interval
from sidejudge_server.stats.ppi import LabelledSums, ppi_point

__all__ = ["MeanEstimate", "active_mean", "stratified_mean"]


@dataclass(frozen=True, slots=True)
class MeanEstimate:
    """A mean with its error and t interval."""

    estimate: float
    standard_error: float
    interval: Interval


def stratified_mean(
    strata: Sequence[LabelledSums], *, alpha: float = 0.05
) -> MeanEstimate | CannotSay:
    """Estimate a mean as the weighted sum of `ppi_mean` in each stratum.

    Strata weigh as many units as they have, labelled and not; df = labels - strata.

    Returns:
        The mean; `CannotSay` if a stratum has fewer than two labels or no unit without one.
    """
    labels = sum(stratum.n for stratum in strata)
    total = labels + sum(stratum.unlabelled for stratum in strata)
    df = labels - len(strata)
    if df < 1:
        return CannotSay("needs more labels than strata")
    estimate = variance = 0.0
    for stratum in strata:
        if stratum.n < 2 or stratum.unlabelled < 1:  # noqa: PLR2004 - a spread needs two labels
            return CannotSay("each stratum needs two labels and a unit without label")
        weight = (stratum.n + stratum.unlabelled) / total
        of_stratum, error = ppi_point(stratum)
        estimate += weight * of_stratum
        variance += (weight * error) ** 2
    return _with_interval(estimate, math.sqrt(variance), df, alpha)


def active_mean(
    judged: Sequence[float],
    labels: Sequence[float | None],
    probabilities: Sequence[float | None],
    *,
    alpha: float = 0.05,
) -> MeanEstimate | CannotSay:
    """Estimate a mean from labels that were asked for with known probabilities.

    The mean of f + (y - f) xi / pi over all items. Without the probabilities the labels of
    uncertain items would be taken for typical ones.

    Args:
        judged: f of each item.
        labels: y, None where there is no label.
        probabilities: pi with which the label was asked for, in (0, 1]; needed with a label.
        alpha: One minus the coverage.

    Returns:
        The mean with a t interval, df = labels - 1; `CannotSay` with fewer than two labels.

    Raises:
        ValueError: A label has no probability.
    """
    values, count = [], 0
    for f, y, pi in zip(judged, labels, probabilities, strict=True):
        if y is None:
            values.append(f)
            continue
        if pi is None or not 0 < pi <= 1:
            raise ValueError(f"a label needs its inclusion probability, got {pi}")
        count += 1
        values.append(f + (y - f) / pi)
    if count < 2:  # noqa: PLR2004 - a spread needs two labels
        return CannotSay("needs two labels")
    found = Moments.of(values)
    return _with_interval(found.mean, math.sqrt(found.squared_error), count - 1, alpha)


def _with_interval(
    estimate: float, error: float, df: int, alpha: float
) -> MeanEstimate:
    half = float(special.stdtrit(df, 1 - alpha / 2)) * error
    return MeanEstimate(estimate, error, Interval(estimate - half, estimate + half))
