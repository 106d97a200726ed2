"""An error rate that is spent bit by bit over repeated use of the same examples.

Whoever tests one candidate after the other on the same held-out examples at 5 % each finds, in the
end, one that is better by chance alone. Use number k may spend the share 6 / (pi^2 k^2) of the
error rate; all shares together, however many uses there are, add up to 1 (Euler's sum of 1 / k^2).
So the probability that any of the uses lets something through that is not better stays below the
error rate, whatever the candidates have in common (Bonferroni).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

__all__ = [
    "best_mean_p",
    "best_sign_p",
    "fresh_pairs_needed",
    "spending_share",
    "use_number",
]

_FARTHEST = 20
"""How many times the examples there are, plus as many hundreds, are looked at for a way out."""


def spending_share(use: int) -> float:
    """Return the share of the error rate that a use may spend, in (0, 1).

    Args:
        use: Number of the use, from 1.

    Raises:
        ValueError: It is less than 1.
    """
    if use < 1:
        raise ValueError(f"uses count from 1: {use}")
    return 6 / (math.pi**2 * use**2)


def use_number(pairs: int, shared: Sequence[int]) -> int:
    """Return which use of some examples comes next.

    An earlier use counts if it looked at half of the examples or more. With examples that are only
    ever added, all uses until their number has doubled count each other, so each doubling has one
    error rate to spend.

    Args:
        pairs: How many examples there are now.
        shared: For each earlier use, how many of them it looked at.

    Returns:
        At least 1.
    """
    return 1 + sum(0 < pairs <= 2 * common for common in shared)


def fresh_pairs_needed(
    pairs: int,
    shared: Sequence[int],
    *,
    bar: Callable[[int, int], float],
    best_p: Callable[[int], float],
) -> int:
    """Return how many fresh examples it takes until the next use could reject at all.

    Fresh examples help twice: earlier uses cover a smaller part of what there is then, and more
    examples can prove more.

    Args:
        pairs: How many examples there are now.
        shared: For each earlier use, how many of them it looked at.
        bar: The bar of the p-value by number of examples and of the use.
        best_p: The least p-value that is plausible by number of examples.

    Returns:
        0 if the examples there are will do.
    """
    limit = _FARTHEST * (pairs + 100)
    for fresh in range(limit):
        size = pairs + fresh
        if best_p(size) < bar(size, use_number(size, shared)):
            return fresh
    return limit


def best_sign_p(discordance: float) -> Callable[[int], float]:
    """Return the one-sided p-value by number of pairs if all discordant ones are won.

    Args:
        discordance: Share of pairs on which only one of the two is right, 0..1.
    """
    return lambda pairs: 0.5 ** math.ceil(discordance * pairs - 1e-9)


def best_mean_p(effect: float, spread: float) -> Callable[[int], float]:
    """Return the one-sided p-value by number of pairs of a mean difference, by normal theory.

    Args:
        effect: The mean difference.
        spread: Standard deviation of the differences, above 0.
    """
    return lambda pairs: (
        0.5 * math.erfc(effect * math.sqrt(pairs) / (spread * math.sqrt(2)))
    )
