"""Whether the arms got the units that they should have got: sample ratio mismatch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from sidejudge_server.stats.outcome import CannotSay

__all__ = ["ChiSquare", "sample_ratio_chi_square", "sample_ratio_log_e"]

DEFAULT_CONCENTRATION = 100.0
_SUM_TOLERANCE = 1e-9


@dataclass(frozen=True, slots=True)
class ChiSquare:
    """A chi-square statistic with its p-value."""

    statistic: float
    p_value: float


def sample_ratio_chi_square(
    counts: Sequence[int], weights: Sequence[float]
) -> ChiSquare | CannotSay:
    """Test at one fixed look whether counts come from a split (Pearson's chi-square).

    Args:
        counts: Units by arm.
        weights: Share of each arm; they add up to 1. Arms of weight 0 are left out, and so are
            their degrees of freedom.

    Returns:
        Statistic and p-value; `CannotSay` without units or with fewer than two arms.

    Raises:
        ValueError: Counts are negative or weights no shares, or an arm of weight 0 has units.
    """
    from scipy import special

    kept = _checked(counts, weights)
    total = sum(count for count, _ in kept)
    if total == 0 or len(kept) < 2:  # noqa: PLR2004 - one arm has nothing to be compared with
        return CannotSay("no units in two arms: nothing to compare the split with")
    statistic = math.fsum(
        (count - total * weight) ** 2 / (total * weight) for count, weight in kept
    )
    return ChiSquare(statistic, float(special.chdtrc(len(kept) - 1, statistic)))


def sample_ratio_log_e(
    counts: Sequence[int],
    weights: Sequence[float],
    *,
    concentration: float = DEFAULT_CONCENTRATION,
) -> float:
    """Return ln E against "the units follow the split", valid at all looks together.

    E = Gamma(k) / Gamma(k + n) prod Gamma(k w_i + x_i) / Gamma(k w_i) / prod w_i^x_i: a
    Dirichlet-multinomial around the split against the split itself (Lindon and Malek,
    arXiv 2011.03567). It is a function of the counts: the order does not matter.

    Args:
        counts: Units by arm.
        weights: Share of each arm; they add up to 1.
        concentration: k; larger values look for smaller deviations.

    Returns:
        Natural logarithm; 0 without units.

    Raises:
        ValueError: As `sample_ratio_chi_square`, or the concentration is not positive.
    """
    if not concentration > 0:
        raise ValueError(f"the concentration must be positive: {concentration}")
    kept = _checked(counts, weights)
    total = sum(count for count, _ in kept)
    log_e = math.lgamma(concentration) - math.lgamma(concentration + total)
    for count, weight in kept:
        prior = concentration * weight
        log_e += math.lgamma(prior + count) - math.lgamma(prior)
        log_e -= count * math.log(weight)
    return log_e


def _checked(
    counts: Sequence[int], weights: Sequence[float]
) -> list[tuple[int, float]]:
    if len(counts) != len(weights):
        raise ValueError(f"{len(counts)} counts for {len(weights)} weights")
    if any(count < 0 for count in counts):
        raise ValueError(f"counts must not be negative: {list(counts)}")
    shares = all(math.isfinite(w) and w >= 0 for w in weights)
    if not shares or abs(math.fsum(weights) - 1) > _SUM_TOLERANCE:
        raise ValueError(f"weights must be shares that add up to 1: {list(weights)}")
    if any(count and not weight for count, weight in zip(counts, weights, strict=True)):
        raise ValueError("an arm of weight 0 has units")
    return [
        (count, weight) for count, weight in zip(counts, weights, strict=True) if weight
    ]
