"""E-values that grow pair by pair, without numpy or scipy: the serving process keeps them.

An e-value is the wealth of a gambler who bets against a hypothesis at fair odds, see
`sidejudge_server.stats.betting`, which has the rest. These are functions of counts or of sums, so
that a few numbers in a row of the database are all the state there is.

Sources: sign test, the beta mixture of Robbins 1970; bounded means, the mixture of fixed bets in
the style of Waudby-Smith and Ramdas, JRSS B 86 (2024), with constant bet fractions.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

__all__ = [
    "POSITIVE_FRACTIONS",
    "bet_log_e",
    "bet_sums",
    "sign_log_e",
    "sign_log_e_new_better",
]

_LEAST, _MOST, _BETS = 0.02, 0.95, 15
POSITIVE_FRACTIONS: tuple[float, ...] = tuple(
    _LEAST * (_MOST / _LEAST) ** (i / (_BETS - 1)) for i in range(_BETS)
)
"""Shares of the wealth that are bet. Small ones notice small effects late, large ones large effects
early."""


def sign_log_e(wins: int, losses: int, *, prior: int = 1) -> float:
    """Return ln E against "a discordant pair is a fair coin", two-sided.

    Args:
        wins: Discordant pairs for the new one.
        losses: Discordant pairs against it.
        prior: Both parameters of the Beta prior on P(win); larger looks for smaller effects.

    Returns:
        Natural logarithm; 0 without discordant pairs: no evidence either way.

    Raises:
        ValueError: A count is negative or the prior is not positive.
    """
    if wins < 0 or losses < 0:
        raise ValueError(f"counts must not be negative: {wins}, {losses}")
    if prior < 1:
        raise ValueError(f"the prior must be positive: {prior}")
    return (
        (wins + losses) * math.log(2)
        + _log_beta(prior + wins, prior + losses)
        - _log_beta(prior, prior)
    )


def sign_log_e_new_better(wins: int, losses: int, *, prior: int = 1) -> float:
    """Return ln E against "the new one wins at most half of the discordant pairs".

    The prior is that of `sign_log_e`, truncated to P(win) > 1/2.

    Returns:
        Natural logarithm; 0 without discordant pairs.

    Raises:
        ValueError: A count is negative or the prior is not positive.
    """
    two_sided = sign_log_e(wins, losses, prior=prior)
    # P(Beta(a, b) > 1/2) = P(Binomial(a + b - 1, 1/2) < a), exactly, for whole a and b.
    a, b = prior + wins, prior + losses
    coins = a + b - 1
    ways = (1 << coins) - _ways(coins, b) if b < a else _ways(coins, a)
    return two_sided + math.log(ways) - (coins - 1) * math.log(2)


def bet_sums(differences: Iterable[float]) -> tuple[float, ...]:
    """Return ln wealth of each bet on a positive mean, which adds up over pairs.

    Args:
        differences: New minus old, within -1..1; their negatives for bets on a negative mean.

    Raises:
        ValueError: A difference is out of range or not a number.
    """
    values = list(differences)
    if not all(-1 <= value <= 1 for value in values):  # also refuses NaN
        raise ValueError("differences must be numbers within -1..1")
    return tuple(
        math.fsum(math.log1p(fraction * value) for value in values)
        for fraction in POSITIVE_FRACTIONS
    )


def bet_log_e(sums: Sequence[float]) -> float:
    """Return ln E against "the mean difference is at most 0", from `bet_sums`."""
    highest = max(sums)
    return highest + math.log(
        math.fsum(math.exp(value - highest) for value in sums) / len(sums)
    )


def _log_beta(a: int, b: int) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)


def _ways(coins: int, below: int) -> int:
    """Return in how many ways fewer than so many of the coins show heads."""
    total = ways = 0
    for heads in range(below):
        ways = ways * (coins - heads + 1) // heads if heads else 1
        total += ways
    return total
