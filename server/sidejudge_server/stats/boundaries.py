"""Curved boundaries that a sum of centred values crosses with probability at most alpha, ever.

The sum S_t has a variance process V_t ("intrinsic time"); ever S_t >= u(V_t) has probability at
most alpha. Confidence sequences for sub-Gaussian and sub-exponential values are made of them; ours
for rates and bounded values are tighter, see `confidence_sequences` and `betting`.

Source: Howard, Ramdas, McAuliffe and Sekhon, "Time-uniform, nonparametric, nonasymptotic confidence
sequences", Ann. Statist. 49 (2021).
"""

from __future__ import annotations

import math
from collections.abc import Callable

from scipy import optimize, special

__all__ = ["gamma_exponential_bound", "normal_mixture_bound", "poly_stitching_bound"]


def normal_mixture_bound(
    v: float, *, v_optimal: float, alpha: float = 0.05, sides: int = 2
) -> float:
    """Return the normal mixture boundary of sub-Gaussian sums, tightest near ``v_optimal``.

    Two-sided: sqrt((v + rho) (ln((v + rho) / rho) + 2 ln(1 / alpha))). One-sided: where the mixture
    over the positive half, 2 sqrt(rho / (v + rho)) exp(s^2 / (2 (v + rho))) Phi(s / sqrt(v + rho)),
    reaches 1 / alpha (propositions 5 and 6).

    Args:
        v: Intrinsic time, 0 or more.
        v_optimal: Where it is tightest, above 0.
        alpha: Error rate; in (0, 1), one-sided in (0, 1/2).
        sides: 1 for sums that get too large; 2 for their size.

    Raises:
        ValueError: An argument is out of its range.
    """
    _check(v, v_optimal, alpha, sides)
    rho = _rho(v_optimal, alpha if sides == 2 else 2 * alpha)  # noqa: PLR2004 - two sides
    if sides == 2:  # noqa: PLR2004 - two sides
        return math.sqrt((v + rho) * (math.log1p(v / rho) - 2 * math.log(alpha)))

    def log_mixture(s: float) -> float:
        z = s / math.sqrt(v + rho)
        return (
            0.5 * math.log(4 * rho / (v + rho)) + z * z / 2 + float(special.log_ndtr(z))
        )

    return _crossing(log_mixture, alpha, scale=math.sqrt(v + rho))


def gamma_exponential_bound(
    v: float, *, v_optimal: float, c: float, alpha: float = 0.05
) -> float:
    """Return the gamma mixture boundary of one-sided sub-exponential sums with scale ``c``.

    For values that are bounded above by c, as those of the empirical Bernstein bound (proposition 9).

    Args:
        v: Intrinsic time, 0 or more.
        v_optimal: Where it is about tightest, above 0.
        c: Scale, above 0.
        alpha: Error rate in (0, 1/2).

    Raises:
        ValueError: An argument is out of its range.
    """
    _check(v, v_optimal, alpha, 1)
    if not 0 < c < math.inf:
        raise ValueError(f"the scale must be above 0: {c}")
    prior = _rho(v_optimal, 2 * alpha) / c**2
    shape = v / c**2 + prior
    constant = (
        prior * math.log(prior)
        - math.lgamma(prior)
        - math.log(special.gammainc(prior, prior))
        + math.lgamma(shape)
        + v / c**2
    )

    def log_mixture(s: float) -> float:
        rate = s / c + shape
        inside = math.log(special.gammainc(shape, rate))
        return constant + inside - shape * math.log(rate) + s / c

    return _crossing(log_mixture, alpha, scale=c + math.sqrt(v))


def poly_stitching_bound(
    v: float,
    *,
    v_min: float,
    c: float = 0.0,
    alpha: float = 0.05,
    s: float = 1.4,
    eta: float = 2.0,
) -> float:
    """Return the polynomially stitched boundary, which grows like sqrt(v ln ln v).

    With l = s ln ln(eta v / v_min) + ln(zeta(s) / (alpha ln^s eta)), k1 = (eta^(1/4) +
    eta^(-1/4)) / sqrt 2 and k2 = (sqrt eta + 1) / 2: sqrt(k1^2 v l + (k2 c l)^2) + k2 c l
    (theorem 1). Below ``v_min`` it is that of ``v_min``.

    Args:
        v: Intrinsic time, 0 or more.
        v_min: Where it starts, above 0.
        c: Scale of sub-exponential sums; 0 for sub-Gaussian ones.
        alpha: Error rate, in (0, 1).
        s: Above 1; how fast the error rate is spent.
        eta: Above 1; spacing of the epochs.

    Raises:
        ValueError: An argument is out of its range.
    """
    _check(v, v_min, alpha, 2)
    if not (s > 1 and eta > 1 and 0 <= c < math.inf):
        raise ValueError(f"impossible shape: s {s}, eta {eta}, c {c}")
    time = max(v, v_min)
    level = (
        s * math.log(math.log(eta * time / v_min))
        + math.log(float(special.zeta(s)))
        - s * math.log(math.log(eta))
        - math.log(alpha)
    )
    k1 = (eta**0.25 + eta**-0.25) / math.sqrt(2)
    linear = (math.sqrt(eta) + 1) / 2 * c * level
    return math.sqrt(k1**2 * time * level + linear**2) + linear


def _rho(v_optimal: float, alpha: float) -> float:
    logs = -2 * math.log(alpha)
    return v_optimal / (logs + math.log1p(logs))


def _crossing(
    log_mixture: Callable[[float], float], alpha: float, *, scale: float
) -> float:
    """Return the s at which an increasing mixture reaches 1/alpha."""
    bar = -math.log(alpha)
    high = scale
    while log_mixture(high) < bar:
        high *= 2
    return float(optimize.brentq(lambda s: log_mixture(s) - bar, 0.0, high, xtol=1e-12))


def _check(v: float, positive: float, alpha: float, sides: int) -> None:
    if not 0 <= v < math.inf:
        raise ValueError(f"intrinsic time must be 0 or more: {v}")
    if not 0 < positive < math.inf:
        raise ValueError(f"the tuning point must be above 0: {positive}")
    if sides not in (1, 2):
        raise ValueError(f"sides must be 1 or 2: {sides}")
    if not 0 < alpha < (1 if sides == 2 else 0.5):  # noqa: PLR2004 - two sides
        raise ValueError(f"alpha is out of range: {alpha}")
