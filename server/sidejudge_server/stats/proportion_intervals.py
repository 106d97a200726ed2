"""Further intervals of one proportion, for comparison with Wilson's.

Wilson's interval (`sidejudge_server.stats.proportions.wilson`) is the one to use. These are what
other tools report: Clopper and Pearson never cover less than they say and are wide for it; Agresti
and Coull's is Wilson's centre with Wald's width; Jeffreys' is a Bayesian one; Wald's covers too
rarely near 0 and 1 and in small samples.
"""

from __future__ import annotations

import math

from scipy import special

from sidejudge_server.stats.outcome import CannotSay, Interval

__all__ = ["agresti_coull", "clopper_pearson", "jeffreys", "wald"]


def clopper_pearson(hits: int, n: int, *, alpha: float = 0.05) -> Interval | CannotSay:
    """Return the exact interval: all rates that an exact test at alpha does not reject.

    Returns:
        The interval; `CannotSay` without units. The same for all functions here.

    Raises:
        ValueError: Impossible counts, or alpha not in (0, 1). The same for all functions here.
    """
    if (problem := _problem(hits, n, alpha)) is not None:
        return problem
    low = 0.0 if hits == 0 else float(special.betaincinv(hits, n - hits + 1, alpha / 2))
    high = (
        1.0
        if hits == n
        else float(special.betaincinv(hits + 1, n - hits, 1 - alpha / 2))
    )
    return Interval(low, high)


def jeffreys(hits: int, n: int, *, alpha: float = 0.05) -> Interval | CannotSay:
    """Return the central interval of the Beta(1/2 + hits, 1/2 + misses) posterior."""
    if (problem := _problem(hits, n, alpha)) is not None:
        return problem
    a, b = hits + 0.5, n - hits + 0.5
    return Interval(
        float(special.betaincinv(a, b, alpha / 2)),
        float(special.betaincinv(a, b, 1 - alpha / 2)),
    )


def agresti_coull(hits: int, n: int, *, alpha: float = 0.05) -> Interval | CannotSay:
    """Return Wald's interval after adding z^2/2 hits and as many misses, cut to 0..1."""
    if (problem := _problem(hits, n, alpha)) is not None:
        return problem
    z2 = float(special.ndtri(1 - alpha / 2)) ** 2
    centre = (hits + z2 / 2) / (n + z2)
    half = math.sqrt(z2 * centre * (1 - centre) / (n + z2))
    return Interval(max(0.0, centre - half), min(1.0, centre + half))


def wald(hits: int, n: int, *, alpha: float = 0.05) -> Interval | CannotSay:
    """Return rate +- z standard errors, cut to 0..1."""
    if (problem := _problem(hits, n, alpha)) is not None:
        return problem
    rate = hits / n
    half = float(special.ndtri(1 - alpha / 2)) * math.sqrt(rate * (1 - rate) / n)
    return Interval(max(0.0, rate - half), min(1.0, rate + half))


def _problem(hits: int, n: int, alpha: float) -> CannotSay | None:
    if not 0 <= hits <= n:
        raise ValueError(f"impossible counts: {hits} of {n}")
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must be in (0, 1): {alpha}")
    return None if n else CannotSay("no units: the proportion may be anything")
