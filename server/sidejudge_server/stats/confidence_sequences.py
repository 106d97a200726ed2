"""Intervals that hold at all looks together, for one rate and for means of unbounded numbers.

The rate's are exact. Those of means rest on the central limit theorem: they are *asymptotic*, and
anything made of them has to say so. For skewed differences of bounded scores they fail where the
betting mixture (`sidejudge_server.stats.betting`) does not.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from scipy import optimize, special

from sidejudge_server.stats.moments import Moments
from sidejudge_server.stats.outcome import CannotSay, Interval

__all__ = [
    "MIN_ASYMPTOTIC",
    "MixtureTest",
    "bernoulli_sequence",
    "mean_difference_sequence",
    "mean_sequence",
    "mixture_precision",
    "tightest_precision",
    "tuned_bernoulli_sequence",
]

MIN_ASYMPTOTIC = 50
"""Fewest values of each sample for which the asymptotic sequence is offered."""

_EDGE = 1e-12
_LEAST_PRIOR = 1e-3


def bernoulli_sequence(
    hits: int, n: int, *, alpha: float = 0.05
) -> Interval | CannotSay:
    """Return the always-valid interval of a rate: Robbins' uniform mixture.

    All p with B(1 + S, 1 + n - S) / (p^S (1 - p)^(n - S)) < 1/alpha: a function of two counts, so
    that order and restarts do not matter.

    Returns:
        The interval within 0..1; `CannotSay` without units.

    Raises:
        ValueError: Impossible counts, or alpha not in (0, 1).
    """
    return _beta_sequence(hits, n, prior=(1.0, 1.0), alpha=alpha)


def tuned_bernoulli_sequence(
    hits: int,
    n: int,
    *,
    n_optimal: float,
    alpha: float = 0.05,
    alpha_optimal: float = 0.05,
) -> Interval | CannotSay:
    """Return an always-valid interval of a rate that is tightest near ``n_optimal`` units.

    The two-sided beta-binomial mixture of Howard, Ramdas, McAuliffe and Sekhon (Ann. Statist. 49
    (2021), proposition 7). Every p is tested with a prior of its own, Beta(k p, k (1 - p)) around
    it, k = n_optimal / (2 ln(1/a) + ln(1 + 2 ln(1/a))) - 1 with a = ``alpha_optimal``.

    Args:
        hits: Units with the property.
        n: All units.
        n_optimal: Number of units at which it is tightest, above 0.
        alpha: One minus the coverage, in (0, 1).
        alpha_optimal: Error rate at which it is tightest.

    Returns:
        The interval within 0..1; `CannotSay` without units.

    Raises:
        ValueError: Impossible counts, an error rate not in (0, 1), or ``n_optimal`` not above 0.
    """
    _check(hits, n, alpha)
    if not 0 < n_optimal < math.inf or not 0 < alpha_optimal < 1:
        raise ValueError(f"impossible tuning: {n_optimal} at {alpha_optimal}")
    if n == 0:
        return CannotSay("no units: the rate may be anything")
    logs = -2 * math.log(alpha_optimal)
    # A sequence tuned for fewer units than it takes to learn anything has next to no prior.
    weight = max(_LEAST_PRIOR, n_optimal / (logs + math.log1p(logs)) - 1)

    def log_mixture(p: float) -> float:
        prior = (weight * p, weight * (1 - p))
        return _log_beta_mixture(hits, n, p, prior)

    return _interval(hits, n, log_mixture, alpha)


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
    """Return rho^2 = (-2 ln alpha + ln(-2 ln alpha + 1)) / N*: about tightest at N* units."""
    return (-2 * math.log(alpha) + math.log(-2 * math.log(alpha) + 1)) / planned


def tightest_precision(alpha: float, planned: float) -> float:
    """Return the rho^2 that is tightest at N* units exactly; `mixture_precision` is close to it.

    (-W(-alpha^2 / e) - 1) / N*, with the lower branch of Lambert's W.
    """
    branch = float(special.lambertw(-(alpha**2) / math.e, -1).real)
    return (-branch - 1) / planned


def mean_sequence(
    sample: Moments,
    *,
    alpha: float = 0.05,
    precision: float,
    at_least: int = MIN_ASYMPTOTIC,
) -> Interval | CannotSay:
    """Return the asymptotic confidence sequence of one mean, as of differences within pairs.

    mean +- s sqrt(2 (n rho^2 + 1) ln(sqrt(n rho^2 + 1) / alpha)) / (n rho) (Waudby-Smith et al.,
    arXiv 2103.06476).

    Args:
        sample: Of the values, or of their logarithms.
        alpha: One minus the coverage, in (0, 1).
        precision: rho^2, above 0; see `mixture_precision`.
        at_least: Fewest values.

    Returns:
        The interval; `CannotSay` below ``at_least`` or without spread.

    Raises:
        ValueError: alpha not in (0, 1) or a precision not above 0.
    """
    _check_alpha(alpha)
    if not 0 < precision < math.inf:
        raise ValueError(f"the precision must be above 0: {precision}")
    if sample.n < at_least:
        return CannotSay(
            f"it rests on the central limit theorem and needs {at_least} values;"
            f" there are {sample.n}"
        )
    if sample.variance <= 0:
        return CannotSay("all values are equal: there is no spread to judge by")
    half = _half_width(sample.n, sample.squared_error, precision, alpha)
    return Interval(sample.mean - half, sample.mean + half)


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

    Raises:
        ValueError: alpha not in (0, 1).
    """
    _check_alpha(alpha)
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
    half = _half_width(units, squared_error, precision, alpha)
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
    return _interval(hits, n, lambda p: _log_beta_mixture(hits, n, p, prior), alpha)


def _log_beta_mixture(hits: int, n: int, p: float, prior: tuple[float, float]) -> float:
    """Return ln of the likelihood averaged over a Beta prior, relative to that of p."""
    a, b = prior
    of_data = special.betaln(a + hits, b + n - hits) - special.betaln(a, b)
    return float(of_data - hits * math.log(p) - (n - hits) * math.log1p(-p))


def _interval(
    hits: int, n: int, log_mixture: Callable[[float], float], alpha: float
) -> Interval:
    """Return where the mixture is below 1/alpha.

    It is at the observed rate, because no average of likelihoods is above the largest one.
    """

    def excess(p: float) -> float:
        return log_mixture(p) + math.log(alpha)

    rate = hits / n
    low = 0.0 if hits == 0 else _first_root(excess, rate, 0.0)
    high = 1.0 if hits == n else _first_root(excess, rate, 1.0)
    return Interval(low, high)


def _first_root(excess: Callable[[float], float], inside: float, end: float) -> float:
    """Return where ``excess`` turns positive between a point inside and an end."""
    start = min(1 - _EDGE, max(_EDGE, inside))
    stop = min(1 - _EDGE, max(_EDGE, end))
    if excess(stop) <= 0:
        return end
    return float(optimize.brentq(excess, start, stop, xtol=1e-13, rtol=1e-13))


def _half_width(
    units: int, squared_error: float, precision: float, alpha: float
) -> float:
    scale = units * precision
    return math.sqrt(
        2 * squared_error * (scale + 1) * math.log(math.sqrt(scale + 1) / alpha) / scale
    )


def _check(hits: int, n: int, alpha: float) -> None:
    if not 0 <= hits <= n:
        raise ValueError(f"impossible counts: {hits}/{n}")
    _check_alpha(alpha)


def _check_alpha(alpha: float) -> None:
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must be in (0, 1): {alpha}")
