"""Tests on pairs: two judges, or two versions of one, on the same items."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from sidejudge_server.stats.outcome import CannotSay, Interval

__all__ = [
    "McNemar",
    "McNemarChiSquare",
    "PairedT",
    "Wilcoxon",
    "mcnemar",
    "mcnemar_chi_square",
    "paired_t",
    "wilcoxon",
]

# Differences that spread less than this, relative to their size, are equal up to rounding.
_ROUNDING = 1e-12


@dataclass(frozen=True, slots=True)
class McNemar:
    """Exact McNemar test on discordant pairs.

    Attributes:
        wins: Pairs on which only the new one was right.
        losses: Pairs on which only the old one was right.
        p_two_sided: Against "a discordant pair is a coin toss".
        p_new_better: One-sided, against "the new one is not better".
        p_mid: Two-sided mid-p: less conservative, not exact; for information.
    """

    wins: int
    losses: int
    p_two_sided: float
    p_new_better: float
    p_mid: float


@dataclass(frozen=True, slots=True)
class PairedT:
    """Paired t-test of the mean difference, new minus old.

    Attributes:
        mean: Mean difference.
        interval: Its two-sided interval.
        t: Statistic with ``degrees`` degrees of freedom.
        degrees: Pairs minus one.
        p_two_sided: Against "the mean difference is 0".
        p_new_better: One-sided, against "the mean difference is not positive".
    """

    mean: float
    interval: Interval
    t: float
    degrees: int
    p_two_sided: float
    p_new_better: float


def mcnemar(wins: int, losses: int) -> McNemar | CannotSay:
    """Test discordant pairs against a fair coin, exactly (binomial).

    Args:
        wins: Pairs on which only the new one was right.
        losses: Pairs on which only the old one was right.

    Returns:
        The test; `CannotSay` if no pair is discordant, whatever the number of pairs.

    Raises:
        ValueError: A count is negative.
    """
    if wins < 0 or losses < 0:
        raise ValueError(f"counts must not be negative: {wins}, {losses}")
    discordant = wins + losses
    if discordant == 0:
        return CannotSay(
            "no discordant pair: both were right or wrong on the same items"
        )
    smaller = min(wins, losses)
    tail = float(stats.binom.cdf(smaller, discordant, 0.5))
    exact = min(1.0, 2 * tail)
    return McNemar(
        wins=wins,
        losses=losses,
        p_two_sided=exact,
        p_new_better=float(stats.binom.sf(wins - 1, discordant, 0.5)),
        p_mid=exact - float(stats.binom.pmf(smaller, discordant, 0.5)),
    )


def paired_t(
    differences: Sequence[float], *, alpha: float = 0.05
) -> PairedT | CannotSay:
    """Test the mean of paired differences, new minus old, against 0.

    Args:
        differences: One number an item; average repeats of an item first.
        alpha: One minus the coverage of the two-sided interval, in (0, 1).

    Returns:
        The test; `CannotSay` with fewer than two pairs or when all differences are equal,
        where t is not defined.

    Raises:
        ValueError: A difference is not finite.
    """
    values = np.asarray(differences, dtype=float)
    if not np.isfinite(values).all():
        raise ValueError("differences must be finite numbers")
    pairs = len(values)
    if pairs < 2:  # noqa: PLR2004 - a spread needs two values
        return CannotSay(f"{pairs} pairs: a t-test needs at least 2")
    mean = float(values.mean())
    spread = float(values.std(ddof=1))
    if spread <= _ROUNDING * float(np.abs(values).max()):
        return CannotSay(f"all {pairs} differences equal {mean:g}: there is no spread")
    error = spread / pairs**0.5
    degrees = pairs - 1
    t = mean / error
    half = float(stats.t.isf(alpha / 2, degrees)) * error
    return PairedT(
        mean=mean,
        interval=Interval(mean - half, mean + half),
        t=t,
        degrees=degrees,
        p_two_sided=2 * float(stats.t.sf(abs(t), degrees)),
        p_new_better=float(stats.t.sf(t, degrees)),
    )


@dataclass(frozen=True, slots=True)
class McNemarChiSquare:
    """McNemar's chi-square test, plain and with continuity correction; for comparison only.

    Where wins and losses are equal nothing is corrected, so that p is 1 (as R has it).
    """

    statistic: float
    p_value: float
    corrected: float
    corrected_p: float


@dataclass(frozen=True, slots=True)
class Wilcoxon:
    """Wilcoxon's signed-rank test.

    Attributes:
        statistic: The smaller one of the sums of ranks of positive and of negative differences.
        p_value: Two-sided, by the normal approximation with ties and without continuity correction.
    """

    statistic: float
    p_value: float


def mcnemar_chi_square(wins: int, losses: int) -> McNemarChiSquare | CannotSay:
    """Test discordant pairs by chi-square; `mcnemar` is exact and the one to use.

    Returns:
        The test; `CannotSay` if no pair is discordant.

    Raises:
        ValueError: A count is negative.
    """
    if wins < 0 or losses < 0:
        raise ValueError(f"counts must not be negative: {wins}, {losses}")
    if not wins + losses:
        return CannotSay("no discordant pairs")
    gap = abs(wins - losses)
    plain = gap**2 / (wins + losses)
    corrected = max(0, gap - 1) ** 2 / (wins + losses)
    return McNemarChiSquare(
        plain,
        float(stats.chi2.sf(plain, 1)),
        corrected,
        float(stats.chi2.sf(corrected, 1)),
    )


def wilcoxon(differences: Sequence[float]) -> Wilcoxon | CannotSay:
    """Test whether paired differences lie around 0, by their ranks; zeros are left out.

    Returns:
        The test; `CannotSay` if all differences are 0.

    Raises:
        ValueError: A difference is not finite.
    """
    values = np.asarray(differences, dtype=float)
    if not np.isfinite(values).all():
        raise ValueError("differences must be finite numbers")
    if not values.any():
        return CannotSay("all differences are 0: ranks say nothing")
    found = stats.wilcoxon(
        values, zero_method="wilcox", correction=False, method="asymptotic"
    )
    return Wilcoxon(float(found.statistic), float(found.pvalue))
