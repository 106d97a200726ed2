"""Interval of the difference of two paired proportions at a fixed number of pairs."""

from __future__ import annotations

import math

from scipy import optimize
from scipy import stats as distributions

from sidejudge_server.stats.outcome import CannotSay, Interval

__all__ = ["paired_score_interval"]

_EDGE = 1 - 1e-12


def paired_score_interval(
    wins: int, losses: int, *, pairs: int, alpha: float = 0.05
) -> Interval | CannotSay:
    """Return Tango's score interval of P(win) - P(loss).

    All differences that the score test does not reject: at 0 that is the chi-square form of McNemar's
    test, so the interval agrees with the gate's test up to the test's discreteness. It needs no
    discordant pairs: with none it is that of a proportion of 0. Source: Tango, Statistics in Medicine
    17 (1998), equations 18 to 21. It holds at the one look that the gate takes; evidence that keeps
    growing needs `stats.betting` instead, whose intervals are about 1.5 times as wide.

    Args:
        wins: Pairs on which only the new one was right.
        losses: Pairs on which only the old one was right.
        pairs: All pairs.
        alpha: One minus the coverage, two-sided.

    Returns:
        The interval within -1..1; `CannotSay` without pairs.

    Raises:
        ValueError: The counts are impossible.
    """
    if min(wins, losses) < 0 or wins + losses > pairs:
        raise ValueError(f"impossible counts: {wins} + {losses} of {pairs}")
    if pairs == 0:
        return CannotSay("no pairs: the difference may be anything")
    z = float(distributions.norm.isf(alpha / 2))
    estimate = (wins - losses) / pairs

    def excess(delta: float, side: float) -> float:
        return side * _statistic(wins, losses, pairs=pairs, delta=delta) - z

    def end(side: float) -> float:
        edge = -side * _EDGE
        if abs(estimate) >= _EDGE and estimate * edge > 0:
            return edge / _EDGE
        if excess(edge, side) <= 0:
            return edge / _EDGE
        start = max(-_EDGE, min(_EDGE, estimate))
        return float(optimize.brentq(excess, start, edge, args=(side,), xtol=1e-12))

    return Interval(end(1.0), end(-1.0))


def _statistic(wins: int, losses: int, *, pairs: int, delta: float) -> float:
    """Return the score statistic of the hypothesis that the difference is ``delta``."""
    b = -wins - losses + (2 * pairs - wins + losses) * delta
    c = -losses * delta * (1 - delta)
    root = math.sqrt(max(0.0, b * b - 8 * pairs * c))
    # The most likely P(loss) under the hypothesis; written to keep digits when b is positive.
    loss = (root - b) / (4 * pairs) if b <= 0 else -2 * c / (root + b)
    variance = pairs * max(0.0, 2 * loss + delta * (1 - delta))
    distance = wins - losses - pairs * delta
    if variance <= 0:
        return math.copysign(math.inf, distance) if distance else 0.0
    return distance / math.sqrt(variance)
