"""Means from few labels and many judgments: prediction-powered inference (PPI++).

The judgments f of all units tell how the labelled units lie among them; the labels y tell how far the
judgments are off. Unbiased whatever the judge is worth, as long as the labelled units are a random
sample of all. Sources: Angelopoulos, Duchi and Zrnic, PPI++ (arXiv 2311.01453); the smoothing for
binary quantities is our own and rests on a coverage grid that the tests repeat: at 20 labels the
published interval covers in 29 % of the draws at its worst point, the smoothed one in 92 %.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from scipy import special

from sidejudge_server.stats.outcome import CannotSay, Interval

__all__ = [
    "BinaryCells",
    "LabelledSums",
    "PpiEstimate",
    "ppi_binary_smoothed",
    "ppi_mean",
    "ppi_point",
]


@dataclass(frozen=True, slots=True)
class PpiEstimate:
    """An estimated mean.

    Attributes:
        estimate: The mean.
        standard_error: Its error.
        interval: At 1 - alpha, for one look.
        weight: lambda: how much the judgments count, 0 (not at all) to 1.
    """

    estimate: float
    standard_error: float
    interval: Interval
    weight: float


@dataclass(frozen=True, slots=True)
class BinaryCells:
    """Labelled units by label y and judgment f, and the judgments of the others.

    Attributes:
        both: y = 1 and f = 1.
        label_only: y = 1 and f = 0.
        judge_only: y = 0 and f = 1.
        neither: y = 0 and f = 0.
        unlabelled: Units without label.
        unlabelled_hits: Of these, with f = 1.
    """

    both: int
    label_only: int
    judge_only: int
    neither: int
    unlabelled: int
    unlabelled_hits: int

    @property
    def n(self) -> int:
        """Labelled units."""
        return self.both + self.label_only + self.judge_only + self.neither

    def sums(self) -> LabelledSums:
        """Return the same as sums."""
        hits = self.both + self.judge_only
        return LabelledSums(
            n=self.n,
            y=self.both + self.label_only,
            yy=self.both + self.label_only,
            f=hits,
            ff=hits,
            yf=self.both,
            unlabelled=self.unlabelled,
            fu=self.unlabelled_hits,
            ffu=self.unlabelled_hits,
        )


@dataclass(frozen=True, slots=True)
class LabelledSums:
    """Sums over labelled units (y, f and their products) and over the judgments of the others."""

    n: int
    y: float
    yy: float
    f: float
    ff: float
    yf: float
    unlabelled: int
    fu: float
    ffu: float


def ppi_binary_smoothed(
    cells: BinaryCells, *, alpha: float = 0.05
) -> PpiEstimate | CannotSay:
    """Estimate a rate, with half a pseudo unit in each of the four cells.

    lambda as in `ppi_mean`; D = y - lambda f over the n + 2 smoothed units has mean mu and
    variance v; theta = lambda (sum f_u + 1) / (N + 2) + mu;
    se^2 = lambda^2 var(f_u) / N + v / (n + 2); normal interval, cut to 0..1.

    Returns:
        The estimate; `CannotSay` without labels or without unlabelled units.

    Raises:
        ValueError: Impossible counts, or alpha not in (0, 1).
    """
    counts = (cells.both, cells.label_only, cells.judge_only, cells.neither)
    if min(*counts, cells.unlabelled_hits) < 0 or (
        cells.unlabelled_hits > cells.unlabelled
    ):
        raise ValueError(f"impossible counts: {cells}")
    sums = cells.sums()
    problem = _problem(sums, alpha, fewest=1)
    if problem is not None:
        return problem
    weight = _weight(sums)
    smoothed = sums.n + 2
    values = (
        (1 - weight, counts[0]),
        (1.0, counts[1]),
        (-weight, counts[2]),
        (0.0, counts[3]),
    )
    mean = math.fsum(value * (count + 0.5) for value, count in values) / smoothed
    variance = (
        math.fsum((value - mean) ** 2 * (count + 0.5) for value, count in values)
        / smoothed
    )
    rate = sums.fu / sums.unlabelled
    estimate = weight * (sums.fu + 1) / (sums.unlabelled + 2) + mean
    error = math.sqrt(
        weight**2 * rate * (1 - rate) / sums.unlabelled + variance / smoothed
    )
    half = float(special.ndtri(1 - alpha / 2)) * error
    return PpiEstimate(
        estimate, error, Interval(estimate - half, estimate + half), weight
    )


def ppi_mean(
    sums: LabelledSums,
    *,
    alpha: float = 0.05,
    weight: float | None = None,
    student: bool = True,
) -> PpiEstimate | CannotSay:
    """Estimate a mean.

    theta = lambda mean(f_u) + mean(y - lambda f);
    se^2 = lambda^2 var(f_u) / N + var(y - lambda f) / n with population variances;
    lambda = clip(cov(y, f) / ((1 + n/N) var(f)), 0, 1), where var(f) is that of all judgments
    with n - 1.

    Args:
        sums: Labelled and unlabelled units.
        alpha: One minus the coverage, in (0, 1).
        weight: lambda; None for the best one. 1 is plain PPI.
        student: Whether to take the t quantile with n - 1 degrees of freedom instead of the normal
            one.

    Returns:
        The estimate; `CannotSay` with fewer than two labels or without unlabelled units. With
        binary values and few labels it covers too rarely: use `ppi_binary_smoothed`.

    Raises:
        ValueError: alpha is not in (0, 1).
    """
    problem = _problem(sums, alpha, fewest=2)
    if problem is not None:
        return problem
    chosen = _weight(sums) if weight is None else weight
    estimate, error = ppi_point(sums, chosen)
    if error == 0:
        return CannotSay(
            "all labels are equal and so are all judgments: no error to judge by"
        )
    quantile = (
        special.stdtrit(sums.n - 1, 1 - alpha / 2)
        if student
        else special.ndtri(1 - alpha / 2)
    )
    half = float(quantile) * error
    return PpiEstimate(
        estimate, error, Interval(estimate - half, estimate + half), chosen
    )


def ppi_point(sums: LabelledSums, weight: float | None = None) -> tuple[float, float]:
    """Return estimate and standard error of `ppi_mean`; there must be labels and judgments."""
    chosen = _weight(sums) if weight is None else weight
    n, unlabelled = sums.n, sums.unlabelled
    mean_u = sums.fu / unlabelled
    variance_u = max(0.0, sums.ffu / unlabelled - mean_u**2)
    mean_d = (sums.y - chosen * sums.f) / n
    squares_d = sums.yy - 2 * chosen * sums.yf + chosen**2 * sums.ff
    variance_d = max(0.0, squares_d / n - mean_d**2)
    error = math.sqrt(chosen**2 * variance_u / unlabelled + variance_d / n)
    return chosen * mean_u + mean_d, error


def _weight(sums: LabelledSums) -> float:
    n, unlabelled = sums.n, sums.unlabelled
    total = n + unlabelled
    f, ff = sums.f + sums.fu, sums.ff + sums.ffu
    variance = (ff - f * f / total) / (total - 1)
    if variance <= 0:
        return 0.0
    covariance = sums.yf / n - (sums.y / n) * (sums.f / n)
    return min(1.0, max(0.0, covariance / ((1 + n / unlabelled) * variance)))


def _problem(sums: LabelledSums, alpha: float, *, fewest: int) -> CannotSay | None:
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must be in (0, 1): {alpha}")
    if sums.n < fewest:
        return CannotSay(f"needs at least {fewest} labels; there are {sums.n}")
    if sums.unlabelled < 1:
        return CannotSay("there are no judgments without label that could help")
    return None
