"""Intervals that hold at all looks together, for one rate and for means of unbounded numbers.

The rate's are exact. Those of means rest on the central limit theorem: they are *asymptotic*, and
anything made of them has to say so. For skewed differences of bounded scores they fail where the
betting mixture (`sidejudge_server.stats.betting`) does not.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from scipy import optimize, special

from sidejudge_server.stats.moments import Moments
from sidejudge_server.stats.outcome import CannotSay, Interval

__all__ = [
    "MIN_ASYMPTOTIC",
    "MixtureTest",
    "bernoulli_sequence",
    "mean_difference_sequence",
    "mixture_precision",
    "tuned_bernoulli_sequence",
]

MIN_ASYMPTOTIC = 50
"""Fewest values of each sample for which the asymptotic sequence is offered."""

_EDGE = 1e-12


def bernoulli_sequence(
    hits: int, n: int, *, alpha: float = 0.05
) -> Interval | CannotSay:
    """Return the always-valid interval of a rate: Robbins' uniform mixture.

    All p with B(1 + S, 1 + n - S) / (p^S (1 - p)^(n - S)) < 1/alpha.

    Returns:
        The interval within 0..1; `CannotSay` without units.

    Raises:
        ValueError: Impossible counts, or alpha not in (0, 1).
    """
    return _beta_sequence(hits, n, prior=(1.0, 1.0), alpha=alpha)


def tuned_bernoulli_sequence(
    hits: int, n: int, *, n_optimal: float, alpha: float = 0.05
) -> Interval | CannotSay:
    """Return an always-valid interval of a rate that is tightest near ``n_optimal`` units.

    The two-sided beta-binomial mixture of Howard, Ramdas, McAuliffe and Sekhon (Ann. Statist. 49
    (2021)): each end is tuned for the rate that it is tested at.
    """
    _check(hits, n, alpha)
    if n == 0:
        return CannotSay("no units: the rate may be anything")
    rate = hits / n

    def excess(p: float) -> float:
        return _tuned_log_mixture(hits, n, p, n_optimal, alpha) + math.log(alpha)

    low = 0.0 if hits == 0 else _first_root(excess, rate, 0.0)
    high = 1.0 if hits == n else _first_root(excess, rate, 1.0)
    return Interval(low, high)


@dataclass(frozen=True, slots=True)
class MixtureTest:
    """A difference of means with always-valid figures that are asymptotic.

    Attributes:
        effect: Mean of B minus mean of A.
        interval: At 1 - alpha, for all looks together.
        squared_error: Of the effect.
        units: n_a + n_b.
        precision: rho^2 of the mixture.
    """

    effect: float
    interval: Interval
    squared_error: float
    units: int
    precision: float

    def log_e(self, null: float = 0.0) -> float:
        """Return ln E against "the difference is ``null``"."""
        scale = self.units * self.precision
        z2 = (self.effect - null) ** 2 / self.squared_error
        return 0.5 * (z2 * scale / (scale + 1) - math.log1p(scale))

    def log_e_above(self, null: float = 0.0) -> float:
        """Return ln E against "the difference is at most ``null``"; never more than `log_e`."""
        return (
            self.log_e(null)
            if self.effect > null
            else -0.5 * math.log1p(self.units * self.precision)
        )


def mixture_precision(alpha: float, planned: float) -> float:
    """Return rho^2 = (-2 ln alpha + ln(-2 ln alpha + 1)) / N*: tightest near N* units."""
    return (-2 * math.log(alpha) + math.log(-2 * math.log(alpha) + 1)) / planned


def mean_difference_sequence(
    a: Moments,
    b: Moments,
    *,
    alpha: float = 0.05,
    planned: float = 1000.0,
    at_least: int = MIN_ASYMPTOTIC,
) -> MixtureTest | CannotSay:
    """Return the asymptotic confidence sequence of a difference of means.

    With N = n_a + n_b and V the squared error, half-width =
    sqrt(N V) sqrt(2 (N rho^2 + 1) ln(sqrt(N rho^2 + 1) / alpha) / (N rho)^2)
    (Waudby-Smith et al., arXiv 2103.06476; as GrowthBook does it). For latencies and costs give it
    the moments of logarithms.

    Args:
        a: The baseline.
        b: The candidate.
        alpha: One minus the coverage, in (0, 1).
        planned: N* at which it is tightest.
        at_least: Fewest values of each sample.

    Returns:
        The sequence; `CannotSay` below ``at_least`` or without spread.
    """
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must be in (0, 1): {alpha}")
    if min(a.n, b.n) < at_least:
        return CannotSay(
            f"it rests on the central limit theorem and needs {at_least} values of each arm;"
            f" there are {min(a.n, b.n)}"
        )
    squared_error = a.squared_error + b.squared_error
    if squared_error <= 0:
        return CannotSay(
            "all values of each arm are equal: there is no spread to judge by"
        )
    units = a.n + b.n
    precision = mixture_precision(alpha, planned)
    scale = units * precision
    half = math.sqrt(units * squared_error) * math.sqrt(
        2 * (scale + 1) * math.log(math.sqrt(scale + 1) / alpha) / (units * scale)
    )
    effect = b.mean - a.mean
    return MixtureTest(
        effect, Interval(effect - half, effect + half), squared_error, units, precision
    )


def _beta_sequence(
    hits: int, n: int, *, prior: tuple[float, float], alpha: float
) -> Interval | CannotSay:
    _check(hits, n, alpha)
    if n == 0:
        return CannotSay("no units: the rate may be anything")
    of_data = special.betaln(prior[0] + hits, prior[1] + n - hits) - special.betaln(
        *prior
    )

    def excess(p: float) -> float:
        q = min(1 - _EDGE, max(_EDGE, p))
        likelihood = hits * math.log(q) + (n - hits) * math.log1p(-q)
        return float(of_data - likelihood + math.log(alpha))

    rate = hits / n
    low = 0.0 if hits == 0 else _first_root(excess, rate, 0.0)
    high = 1.0 if hits == n else _first_root(excess, rate, 1.0)
    return Interval(low, high)


def _first_root(excess: object, inside: float, end: float) -> float:
    """Return where ``excess`` turns positive between a point inside and an end."""
    start = min(1 - _EDGE, max(_EDGE, inside))
    stop = min(1 - _EDGE, max(_EDGE, end))
    if excess(stop) <= 0:  # type: ignore[operator]
        return end
    return float(optimize.brentq(excess, start, stop, xtol=1e-13, rtol=1e-13))


def _tuned_log_mixture(
    hits: int, n: int, p: float, n_optimal: float, alpha: float
) -> float:
    raise NotImplementedError


def _check(hits: int, n: int, alpha: float) -> None:
    if not 0 <= hits <= n:
        raise ValueError(f"impossible counts: {hits}/{n}")
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must be in (0, 1): {alpha}")
