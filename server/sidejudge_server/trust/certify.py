"""The confidence above which a judge's answers meet a target, certified by fixed-sequence testing.

Thresholds are quantiles of confidences whose labels are not used, at coverages of 30 % to all, the
most confident first; see `stats.selective` for the test and its source.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy import special

from sidejudge_server.stats.outcome import CannotSay
from sidejudge_server.stats.selective import risk_p_value, walk_risks
from sidejudge_server.trust.types import Certificate, Reliability, Risk, Target

__all__ = ["certify", "risks"]

_COVERAGES = tuple(round(0.30 + 0.05 * i, 2) for i in range(15))
"""A start at 30 % covered most in simulation; one at the fewest labels or at 50 % less."""

_POWER = 0.8
_MOST_LABELS = 100_000


def risks(
    confidence: Sequence[float], wrong: Sequence[int], unlabelled: Sequence[float]
) -> tuple[Risk, ...]:
    """Count errors among the labelled items above each threshold.

    Args:
        confidence: Of labelled items.
        wrong: 1 where the judge was wrong, else 0.
        unlabelled: Confidences that give the thresholds; must not depend on ``wrong``.
    """
    given = np.asarray(unlabelled if len(unlabelled) else confidence, dtype=float)
    if not len(given):
        return ()
    sure, errors = np.asarray(confidence, dtype=float), np.asarray(wrong, dtype=int)
    found: list[Risk] = []
    for coverage in _COVERAGES:
        # An order statistic, so that ties are accepted together and the share is what it says.
        threshold = float(np.quantile(given, 1 - coverage, method="lower"))
        if found and threshold == found[-1].threshold:
            continue
        accepted = sure >= threshold
        found.append(
            Risk(
                threshold,
                int(accepted.sum()),
                int(errors[accepted].sum()),
                float((given >= threshold).mean()),
            )
        )
    return tuple(found)


def certify(reliability: Reliability, target: Target) -> Certificate:
    """Return the lowest threshold that holds with all above it, or why there is none.

    Args:
        reliability: What labels say.
        target: Agreement and assurance, both in (0.5, 1).
    """
    alpha, delta = 1 - target.agreement, 1 - target.assurance
    labels = reliability.labels
    candidates = _from_enough(reliability.risks, alpha=alpha, delta=delta)
    counts = [(r.threshold, r.errors, r.accepted) for r in candidates]
    found = walk_risks(counts, alpha=alpha, delta=delta)
    if isinstance(found, CannotSay):
        missing = _missing(reliability.risks, labels, alpha=alpha, delta=delta)
        reason = _why_not(candidates, target, labels, missing)
        return Certificate(target, None, 0.0, labels, 0, 0, missing, reason)
    chosen = next(r for r in candidates if r.threshold == found.threshold)
    reason = (
        f"answers with a confidence of at least {chosen.threshold:.4g} agree with people in at"
        f" least {target.agreement:.0%} of cases, with an assurance of {target.assurance:.0%}:"
        f" {chosen.errors} of {chosen.accepted} labelled ones were wrong; about"
        f" {chosen.coverage:.0%} of all answers are that confident"
    )
    return Certificate(
        target, chosen.threshold, chosen.coverage, labels, chosen.accepted,
        chosen.errors, None, reason,
    )  # fmt: skip


def _from_enough(
    found: Sequence[Risk], *, alpha: float, delta: float
) -> Sequence[Risk]:
    """Leave out thresholds with so few labels that one error would end the walk.

    How many there are does not depend on which of them are wrong, so the order stays fixed
    without the labels.
    """
    needed = _accepted_needed(1, alpha=alpha, delta=delta)
    for index, risk in enumerate(found):
        if risk.accepted >= needed:
            return found[index:]
    return found[-1:]


def _accepted_needed(errors: int, *, alpha: float, delta: float) -> int:
    """Return how many accepted labels certify with so many errors."""
    n = errors + 1
    while risk_p_value(errors, n, alpha=alpha) > delta:
        n += 1
    return n


def _missing(
    found: Sequence[Risk], labels: int, *, alpha: float, delta: float
) -> int | None:
    """Return about how many more audit labels a certificate takes, None if none would do.

    With so many the walk starts at the highest threshold, which must pass by itself.
    """
    accepted, errors, coverage = 0, 0, _COVERAGES[0]
    if found:
        accepted, errors, coverage = (
            found[0].accepted,
            found[0].errors,
            found[0].coverage,
        )
    # With few labels the rate is pulled to half of what is allowed, which is worth 10 labels, and
    # none is taken to be lower: who hears of too few labels is disappointed, not helped.
    rate = max(alpha / 2, (errors + 10 * alpha / 2) / (accepted + 10))
    if rate >= alpha:
        return None
    needed = _accepted_for_power(rate, alpha=alpha, delta=delta)
    if needed is None:
        return None
    return max(1, round(needed / max(coverage, 0.05)) - labels)


def _accepted_for_power(rate: float, *, alpha: float, delta: float) -> int | None:
    """Return the accepted labels with which a judge of this error rate passes 4 times in 5."""
    low, high = 1, _MOST_LABELS

    def passes(n: int) -> bool:
        # The most errors with which n labels certify.
        most = math.floor(special.bdtrik(delta, n, alpha)) + 1
        while most >= 0 and risk_p_value(most, n, alpha=alpha) > delta:
            most -= 1
        return most >= 0 and float(special.bdtr(most, n, rate)) >= _POWER

    if not passes(high):
        return None
    while low < high:  # nearly monotone: whole errors make small steps back
        middle = (low + high) // 2
        low, high = (low, middle) if passes(middle) else (middle + 1, high)
    return low


def _why_not(
    candidates: Sequence[Risk], target: Target, labels: int, missing: int | None
) -> str:
    asked = f"{target.agreement:.0%} agreement at {target.assurance:.0%} assurance"
    if not labels:
        seen = "there are no audit labels of this version with this model"
    elif not candidates:
        seen = "its labelled answers have no confidence"
    else:
        first = candidates[0]
        seen = (
            f"of {first.accepted} labelled answers with a confidence of at least"
            f" {first.threshold:.4g}, {first.errors} were wrong"
        )
    if missing is not None:
        advice = f"about {missing} more audit labels may do"
    else:
        advice = (
            "more labels alone will not do: its most confident answers are wrong too often; ask for"
            " less, or optimize the judge"
        )
    return f"no threshold can be certified for {asked}: {seen}; {advice}"
