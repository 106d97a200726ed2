"""A confidence above which a judge may be trusted, with a guarantee: fixed-sequence testing.

With probability 1 - delta over the labels, accepted answers are wrong at most with probability alpha, if the
labelled items are a random sample. Thresholds and their order must be fixed without these labels.
Source: fixed-sequence testing in Learn then Test (Angelopoulos et al. 2021), as in "Trust or
Escalate" (ICLR 2025); unlike the code beside that paper, nothing is certified if the first test fails.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from sidejudge_server.stats.outcome import CannotSay

__all__ = [
    "SelectiveThreshold",
    "risk_p_value",
    "risk_upper_bound",
    "select_threshold",
    "walk_risks",
]


@dataclass(frozen=True, slots=True)
class SelectiveThreshold:
    """A certified threshold.

    Attributes:
        threshold: Accept answers of at least this confidence.
        accepted: Labelled items that are accepted.
        errors: Of these, wrong.
        p_values: Of all thresholds that were tested, in order.
        passed: How many of them hold.
    """

    threshold: float
    accepted: int
    errors: int
    p_values: tuple[float, ...]
    passed: int


def risk_p_value(errors: int, n: int, *, alpha: float) -> float:
    """Return P(at most so many errors) if the risk were alpha: small means that it is lower.

    1 without items.
    """
    if not 0 <= errors <= n:
        raise ValueError(f"impossible counts: {errors} of {n}")
    return float(special.bdtr(errors, n, alpha)) if n else 1.0


def risk_upper_bound(errors: int, n: int, *, delta: float) -> float:
    """Return the exact upper bound (Clopper-Pearson) of a risk at 1 - delta; 1 without items."""
    if not 0 <= errors <= n:
        raise ValueError(f"impossible counts: {errors} of {n}")
    if errors == n:
        return 1.0
    return float(special.betaincinv(errors + 1, n - errors, 1 - delta))


def select_threshold(
    confidence: Sequence[float],
    error: Sequence[int],
    thresholds: Sequence[float],
    *,
    alpha: float,
    delta: float,
) -> SelectiveThreshold | CannotSay:
    """Walk thresholds in the given order while each test passes at delta, and keep the last one.

    Args:
        confidence: Of labelled items.
        error: 1 where the judge was wrong, else 0.
        thresholds: In the order of testing, fixed before.
        alpha: Risk that accepted answers may have.
        delta: Probability that the guarantee does not hold.

    Returns:
        The threshold; `CannotSay` if not even the first one can be certified, with about how many
        more accepted labels without error would do.

    Raises:
        ValueError: Lengths differ.
    """
    if len(confidence) != len(error):
        raise ValueError(f"{len(confidence)} confidences for {len(error)} errors")
    sure, wrong = np.asarray(confidence, dtype=float), np.asarray(error, dtype=int)
    counts = []
    for threshold in thresholds:
        accepted = sure >= threshold
        counts.append((threshold, int(wrong[accepted].sum()), int(accepted.sum())))
    return walk_risks(counts, alpha=alpha, delta=delta)


def walk_risks(
    counts: Sequence[tuple[float, int, int]], *, alpha: float, delta: float
) -> SelectiveThreshold | CannotSay:
    """Do what `select_threshold` does, given what was counted.

    Args:
        counts: Threshold, errors and accepted labels, in the order of testing.
        alpha: As there.
        delta: As there.
    """
    p_values: list[float] = []
    best: tuple[float, int, int] | None = None
    for threshold, errors, n in counts:
        p_values.append(risk_p_value(errors, n, alpha=alpha))
        if p_values[-1] > delta:
            break
        best = threshold, n, errors
    if best is None:
        return CannotSay(_missing(counts, alpha=alpha, delta=delta))
    passed = len(p_values) - (p_values[-1] > delta)
    return SelectiveThreshold(best[0], best[1], best[2], tuple(p_values), passed)


def _missing(
    counts: Sequence[tuple[float, int, int]], *, alpha: float, delta: float
) -> str:
    if not counts:
        return "no thresholds to test"
    threshold, errors, n = counts[0]
    needed = n
    while risk_p_value(errors, needed, alpha=alpha) > delta:
        needed += 1
    return (
        f"no threshold can be certified: at {threshold:g} there are {errors} errors in {n}"
        f" accepted labels; {needed - n} more without error would do"
    )
