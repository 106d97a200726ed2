"""Evidence about the mean of a finite population while it is drawn without replacement.

The population is all that counts, as the examples of one evaluation are: once every value has been
seen, its mean is known, and the closer the draws come to the end, the less the rest can change. A
gambler who knows what is left bets against the mean; her wealth is an e-value at every moment, so
that looking after every draw is free (Ville).

Source: Waudby-Smith and Ramdas, "Confidence sequences for sampling without replacement", NeurIPS
2020, and "Estimating means of bounded random variables by betting", JRSS B 86 (2024), section 5.
Unlike there, the bets are a mixture of constant fractions of the largest fair bet, as in `betting`;
the smallest fractions are left out, because they pay only after hundreds of draws.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy import special

__all__ = ["FINITE_BET_FRACTIONS", "finite_mean_below_log_e"]

FINITE_BET_FRACTIONS: tuple[float, ...] = (0.25, 0.5, 0.75, 0.95)


def finite_mean_below_log_e(
    values: Sequence[float], *, population: int, mean: float = 0.0
) -> float:
    """Return the largest ln E so far against "the population's mean is at least this".

    Exact if the population came in random order. 1/E is an anytime-valid p-value of the hypothesis
    that the mean of all values, seen and unseen, is ``mean`` or more.

    Args:
        values: Those drawn so far, in order, within -1..1.
        population: How many there are in all, drawn or not.
        mean: The hypothesis; in (-1, 1).

    Returns:
        Natural logarithm of the largest wealth that the mixture has had, at least 0; infinity if
        the hypothesis has become impossible whatever the rest is.

    Raises:
        ValueError: A value or the mean is out of range or not a number, or more values than the
            population has.
    """
    drawn = np.asarray(values, dtype=float)
    if not (np.abs(drawn) <= 1).all():  # also refuses NaN
        raise ValueError("values must be numbers within -1..1")
    if not -1 < mean < 1:
        raise ValueError(f"the mean must be in (-1, 1): {mean}")
    if len(drawn) > population:
        raise ValueError(f"{len(drawn)} values of a population of {population}")
    if not len(drawn):
        return 0.0
    sums = np.concatenate([[0.0], np.cumsum(drawn)])
    left = population - np.arange(len(drawn) + 1)
    needed = mean * population - sums
    # Even if all that is left were 1. One ulp of rounding must not decide.
    if (needed > left + _ROUNDING * population).any():
        return math.inf
    # What the rest has to have on average, before each draw.
    expected = np.clip(needed[:-1] / left[:-1], -1.0, 1.0 - _ROUNDING)
    fractions = np.asarray(FINITE_BET_FRACTIONS)[:, None]
    # 1 + lambda (expected - value), lambda = fraction / (1 - expected): never negative.
    gains = np.log1p(fractions * (expected - drawn) / (1 - expected))
    # The hypothesis cannot fail any more: no bet.
    gains = np.where(expected <= -1.0, 0.0, gains)
    wealth = special.logsumexp(np.cumsum(gains, axis=1), axis=0) - math.log(
        len(FINITE_BET_FRACTIONS)
    )
    return max(0.0, float(wealth.max()))


_ROUNDING = 1e-9
