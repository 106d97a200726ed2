"""How many pairs it takes: power of the exact McNemar test by full enumeration."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from scipy import stats

from sidejudge_server.stats.outcome import CannotSay

__all__ = ["mcnemar_power", "required_pairs"]

Alternative = Literal["two-sided", "new-better"]

# Numbers of discordant pairs with less probability than this in a tail are left out.
_NEGLIGIBLE = 1e-12


def mcnemar_power(
    pairs: int,
    *,
    p_win: float,
    p_loss: float,
    alpha: float = 0.05,
    alternative: Alternative = "two-sided",
) -> float:
    """Return the probability that the exact McNemar test rejects.

    Args:
        pairs: Number of items that both judge.
        p_win: Probability that only the new one is right on an item.
        p_loss: Probability that only the old one is.
        alpha: Level of the test, in (0, 1).
        alternative: The two-sided test (either direction counts) or "the new one is better".

    Returns:
        0..1; 0 without pairs or without discordance, where the test can never reject.

    Raises:
        ValueError: The probabilities are impossible.
    """
    discordance = _discordance(p_win, p_loss)
    if pairs <= 0 or discordance == 0:
        return 0.0
    counts = np.arange(
        int(stats.binom.ppf(_NEGLIGIBLE, pairs, discordance)),
        int(stats.binom.isf(_NEGLIGIBLE, pairs, discordance)) + 1,
    )
    tail = alpha / 2 if alternative == "two-sided" else alpha
    # Largest number of losses that still rejects; -1 if none does.
    critical = stats.binom.ppf(tail, counts, 0.5)
    # ppf rounds up to the first count whose probability reaches the tail.
    too_many = stats.binom.cdf(critical, counts, 0.5) > tail * (1 + 1e-12)
    critical = np.where(too_many, critical - 1, critical)
    share = p_win / discordance
    rejects = stats.binom.cdf(critical, counts, 1 - share)
    if alternative == "two-sided":
        rejects = rejects + stats.binom.cdf(critical, counts, share)
    return float((stats.binom.pmf(counts, pairs, discordance) * rejects).sum())


def required_pairs(
    *,
    p_win: float,
    p_loss: float,
    power: float = 0.8,
    alpha: float = 0.05,
    alternative: Alternative = "two-sided",
    limit: int = 1_000_000,
) -> int | CannotSay:
    """Return how many pairs the exact McNemar test needs for a power.

    Exact power is a slightly jagged function of the number of pairs; the answer reaches the
    power, and a number a few pairs smaller may reach it too.

    Returns:
        Number of pairs; `CannotSay` if no number up to ``limit`` does it, such as for equal
        probabilities.

    Raises:
        ValueError: The probabilities are impossible.
    """
    _discordance(p_win, p_loss)
    if p_win == p_loss or (alternative == "new-better" and p_win < p_loss):
        return CannotSay(
            f"with {p_win:.3g} wins against {p_loss:.3g} losses a pair there is nothing to find"
        )

    def reached(pairs: int) -> bool:
        got = mcnemar_power(
            pairs, p_win=p_win, p_loss=p_loss, alpha=alpha, alternative=alternative
        )
        return got >= power

    high = 8
    while not reached(high):
        if high >= limit:
            return CannotSay(f"more than {limit} pairs")
        high = min(limit, math.ceil(high * 1.5))
    low = 0
    while high - low > 1:
        middle = (low + high) // 2
        if reached(middle):
            high = middle
        else:
            low = middle
    return high


def _discordance(p_win: float, p_loss: float) -> float:
    if not (p_win >= 0 and p_loss >= 0 and p_win + p_loss <= 1 + 1e-9):
        raise ValueError(f"impossible probabilities: {p_win}, {p_loss}")
    return min(1.0, p_win + p_loss)
