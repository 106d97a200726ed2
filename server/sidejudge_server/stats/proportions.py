"""Confidence intervals of one proportion and of the difference of two independent ones."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

from sidejudge_server.stats.outcome import CannotSay, Interval

__all__ = ["Difference", "newcombe", "wilson"]


@dataclass(frozen=True, slots=True)
class Difference:
    """A difference, new minus old, with its interval."""

    estimate: float
    interval: Interval


def wilson(successes: int, trials: int, *, alpha: float = 0.05) -> Interval | CannotSay:
    """Return Wilson's score interval of a proportion.

    Args:
        successes: 0..trials.
        trials: Number of independent trials.
        alpha: One minus the coverage, two-sided, in (0, 1).

    Returns:
        The interval, within 0..1; `CannotSay` without trials.

    Raises:
        ValueError: The counts are impossible.
    """
    _check_counts(successes, trials)
    if trials == 0:
        return CannotSay("no trials: a proportion needs at least one")
    z = float(stats.norm.isf(alpha / 2))
    rate = successes / trials
    scale = 1 + z * z / trials
    centre = (rate + z * z / (2 * trials)) / scale
    half = (
        z * np.sqrt(rate * (1 - rate) / trials + z * z / (4 * trials * trials)) / scale
    )
    return Interval(max(0.0, float(centre - half)), min(1.0, float(centre + half)))


def newcombe(
    successes_old: int,
    trials_old: int,
    *,
    successes_new: int,
    trials_new: int,
    alpha: float = 0.05,
) -> Difference | CannotSay:
    """Return the difference of two independent proportions, new minus old.

    The interval is Newcombe's hybrid of two Wilson intervals (Statistics in Medicine 17, 1998,
    method 10): unlike Wald's it stays within -1..1 and holds its coverage in small samples.

    Returns:
        The difference; `CannotSay` if a side has no trials.

    Raises:
        ValueError: The counts are impossible.
    """
    old = wilson(successes_old, trials_old, alpha=alpha)
    new = wilson(successes_new, trials_new, alpha=alpha)
    if isinstance(old, CannotSay) or isinstance(new, CannotSay):
        return CannotSay("one side has no trials: a difference needs at least one each")
    rate_old = successes_old / trials_old
    rate_new = successes_new / trials_new
    estimate = rate_new - rate_old
    low = estimate - float(np.hypot(rate_new - new.low, old.high - rate_old))
    high = estimate + float(np.hypot(new.high - rate_new, rate_old - old.low))
    return Difference(estimate, Interval(low, high))


def _check_counts(successes: int, trials: int) -> None:
    if not 0 <= successes <= trials:
        raise ValueError(f"impossible counts: {successes} of {trials}")
