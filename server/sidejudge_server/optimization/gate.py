"""The gate: is a candidate better than the version that serves? Pure functions of held-out outcomes.

Both versions judge the same held-out (test) examples, which neither the search nor the refit has
seen. The candidate passes if all of this holds:

* minimum_improvement: its observed quality is at least 5 points higher;
* significance: one-sided p < 0.05, exact McNemar for verdicts, paired t for scores;
* train_validation_gap: it is not more than 5 points better on training than on validation
  examples, beyond doubt: blocked only when the lower end of the gap's 95 % interval is above 0.05
  (with 50 + 50 examples the gap's standard error is 8 points, so the bare number would block one
  well-fitting candidate in four).

What comes out if it does not: no_improvement when the difference is not positive or the upper end of
its interval is below 5 points, overfit when the gap blocks, else not_enough_evidence with the number
of further held-out examples that would settle it at 80 % power.

Quality of an answer is 1 or 0 (right verdict or not), or 1 - |score - label|. Intervals: Wilson for
accuracies, Tango's score interval for the paired difference of verdicts, Student's t for scores. The
gate looks once, so intervals for a fixed number of pairs are enough; for scores without any spread
the betting confidence sequence steps in.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from scipy import stats as distributions

from sidejudge_server.optimization.paired_interval import paired_score_interval
from sidejudge_server.stats.betting import betting_interval
from sidejudge_server.stats.outcome import CannotSay, Interval
from sidejudge_server.stats.paired import mcnemar, paired_t
from sidejudge_server.stats.power import required_pairs
from sidejudge_server.stats.proportions import newcombe, wilson

__all__ = [
    "Estimate",
    "GateCheck",
    "GateDecision",
    "Outcome",
    "decide",
]

MINIMUM_IMPROVEMENT = 0.05
SIGNIFICANCE = 0.05
MAXIMUM_GAP = 0.05
POWER = 0.8

_TOLERANCE = 1e-9
"""0.05 as a difference of floating-point means may come out a hair below 0.05."""
_ASSUMED_DISCORDANCE = 0.2
_ASSUMED_SPREAD = 0.25
"""Used to plan when there are no pairs to measure them on."""
_TEST_SHARE = 0.4


class Outcome(StrEnum):
    """What the gate says."""

    IMPROVED = "improved"
    NO_IMPROVEMENT = "no_improvement"
    NOT_ENOUGH_EVIDENCE = "not_enough_evidence"
    OVERFIT = "overfit"


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number with its 95 % interval."""

    value: float
    lower: float
    upper: float


@dataclass(frozen=True, slots=True)
class GateCheck:
    """One condition; ``observed`` None if it could not be computed.

    That counts as not passed, but for the gap: it blocks only when it is beyond doubt.
    """

    name: str
    observed: float | None
    threshold: float
    passed: bool
    detail: str


@dataclass(frozen=True, slots=True)
class GateDecision:
    """The decision and all that it rests on.

    Attributes:
        outcome: What came out.
        summary: One sentence for people.
        deployed: True once the candidate serves because of it.
        checks: The conditions.
        metric: ``accuracy`` or ``score_accuracy``.
        pair_count: Held-out examples that both versions judged.
        baseline: Quality of the version that serves.
        candidate: Quality of the candidate.
        difference: Candidate minus baseline.
        p_value: One-sided; None if it cannot be told, such as without discordant pairs.
        wins: Pairs on which only the candidate was right, or it was nearer.
        losses: The reverse.
        additional_examples_needed: Held-out examples that would settle it; 0 if settled.
    """

    outcome: Outcome
    summary: str
    deployed: bool
    checks: tuple[GateCheck, ...]
    metric: str
    pair_count: int
    baseline: Estimate
    candidate: Estimate
    difference: Estimate
    p_value: float | None
    wins: int
    losses: int
    additional_examples_needed: int

    def to_json(self) -> dict[str, Any]:
        """Return the fields as a JSON object."""
        return asdict(self)


def decide(
    baseline: Sequence[float],
    candidate: Sequence[float],
    *,
    train: Sequence[float],
    validation: Sequence[float],
    scores: bool,
) -> GateDecision:
    """Compare a candidate with the version that serves.

    Args:
        baseline: Quality of each held-out answer of the version that serves, 0..1.
        candidate: Of the candidate, in the same order.
        train: Quality of the candidate on training examples, without its own demonstrations.
        validation: Quality of the candidate on validation examples.
        scores: True for 1 - |error|; False for right (1) or wrong (0).

    Raises:
        ValueError: The two versions judged different numbers of examples.
    """
    if len(baseline) != len(candidate):
        raise ValueError(f"{len(baseline)} and {len(candidate)} answers are no pairs")
    pairs = len(baseline)
    differences = [new - old for old, new in zip(baseline, candidate, strict=True)]
    wins = sum(d > _TOLERANCE for d in differences)
    losses = sum(d < -_TOLERANCE for d in differences)
    difference = _difference(differences, wins=wins, losses=losses, scores=scores)
    p_value, why_no_p = _p_value(differences, wins=wins, losses=losses, scores=scores)
    checks = (
        _improvement_check(difference, pairs=pairs),
        _significance_check(p_value, why_no_p=why_no_p, scores=scores),
        _gap_check(train, validation, scores=scores),
    )
    outcome = _outcome(checks, difference=difference, pairs=pairs)
    needed = 0
    if outcome is Outcome.NOT_ENOUGH_EVIDENCE:
        needed = _additional(differences, wins=wins, losses=losses, scores=scores)
    old, new = _quality(baseline, scores=scores), _quality(candidate, scores=scores)
    return GateDecision(
        outcome=outcome,
        summary=_summary(
            outcome,
            old=old,
            new=new,
            difference=difference,
            pairs=pairs,
            p_value=p_value,
            needed=needed,
            scores=scores,
        ),
        deployed=False,
        checks=checks,
        metric="score_accuracy" if scores else "accuracy",
        pair_count=pairs,
        baseline=old,
        candidate=new,
        difference=difference,
        p_value=p_value,
        wins=wins,
        losses=losses,
        additional_examples_needed=needed,
    )


def _outcome(
    checks: tuple[GateCheck, ...], *, difference: Estimate, pairs: int
) -> Outcome:
    if pairs and (
        difference.value <= _TOLERANCE or difference.upper < MINIMUM_IMPROVEMENT
    ):
        return Outcome.NO_IMPROVEMENT
    gap = checks[-1]
    if gap.observed is not None and not gap.passed:
        return Outcome.OVERFIT
    if all(check.passed for check in checks):
        return Outcome.IMPROVED
    return Outcome.NOT_ENOUGH_EVIDENCE


def _improvement_check(difference: Estimate, *, pairs: int) -> GateCheck:
    return GateCheck(
        "minimum_improvement",
        difference.value if pairs else None,
        MINIMUM_IMPROVEMENT,
        bool(pairs) and difference.value >= MINIMUM_IMPROVEMENT - _TOLERANCE,
        "observed difference on held-out examples, candidate minus baseline",
    )


def _significance_check(
    p_value: float | None, *, why_no_p: str, scores: bool
) -> GateCheck:
    test = "paired t" if scores else "exact McNemar"
    detail = f"one-sided p of the {test} test; must be below the bar"
    return GateCheck(
        "significance",
        p_value,
        SIGNIFICANCE,
        p_value is not None and p_value < SIGNIFICANCE,
        f"{detail}: {why_no_p}" if why_no_p else detail,
    )


def _gap_check(
    train: Sequence[float], validation: Sequence[float], *, scores: bool
) -> GateCheck:
    gap = _gap(train, validation, scores=scores)
    if gap is None:
        return GateCheck(
            "train_validation_gap",
            None,
            MAXIMUM_GAP,
            passed=True,
            detail="cannot be told: no training examples outside the demonstrations",
        )
    return GateCheck(
        "train_validation_gap",
        gap.value,
        MAXIMUM_GAP,
        gap.lower <= MAXIMUM_GAP,
        f"training minus validation, 95 % interval {gap.lower:+.3f} to {gap.upper:+.3f}; "
        "blocks only if the lower end is above the bar",
    )


def _gap(
    train: Sequence[float], validation: Sequence[float], *, scores: bool
) -> Estimate | None:
    if not train or not validation:
        return None
    if scores:
        return _welch(validation, train)
    found = newcombe(
        round(sum(validation)),
        len(validation),
        successes_new=round(sum(train)),
        trials_new=len(train),
    )
    if isinstance(found, CannotSay):
        return None
    return Estimate(found.estimate, found.interval.low, found.interval.high)


def _welch(old: Sequence[float], new: Sequence[float]) -> Estimate | None:
    """Return the difference of two independent means with Welch's interval; None if too few."""
    if min(len(old), len(new)) < 2:  # noqa: PLR2004 - a spread needs two values
        return None
    part_old, part_new = (_variance(v) / len(v) for v in (old, new))
    value = _mean(new) - _mean(old)
    total = part_old + part_new
    if total <= 0:
        return Estimate(value, value, value)
    degrees = total**2 / (part_old**2 / (len(old) - 1) + part_new**2 / (len(new) - 1))
    half = float(distributions.t.isf(0.025, degrees)) * math.sqrt(total)
    return Estimate(value, value - half, value + half)


def _difference(
    differences: Sequence[float], *, wins: int, losses: int, scores: bool
) -> Estimate:
    if not differences:
        return Estimate(0.0, -1.0, 1.0)
    value = _mean(differences)
    if scores:
        test = paired_t(differences)
        if not isinstance(test, CannotSay):
            low, high = test.interval.low, test.interval.high
            return Estimate(value, max(-1.0, low), min(1.0, high))
        interval = betting_interval([max(-1.0, min(1.0, d)) for d in differences])
    else:
        interval = paired_score_interval(wins, losses, pairs=len(differences))
    return _estimate(value, interval)


def _p_value(
    differences: Sequence[float], *, wins: int, losses: int, scores: bool
) -> tuple[float | None, str]:
    """Return the one-sided p-value, or None and why."""
    test = paired_t(differences) if scores else mcnemar(wins, losses)
    if isinstance(test, CannotSay):
        return None, test.reason
    return test.p_new_better, ""


def _quality(values: Sequence[float], *, scores: bool) -> Estimate:
    if not values:
        return Estimate(0.0, 0.0, 1.0)
    value = _mean(values)
    if not scores:
        return _estimate(value, wilson(round(sum(values)), len(values)))
    if len(values) < 2:  # noqa: PLR2004 - a spread needs two values
        return Estimate(value, 0.0, 1.0)
    half = float(distributions.t.isf(0.025, len(values) - 1)) * math.sqrt(
        _variance(values) / len(values)
    )
    return Estimate(value, max(0.0, value - half), min(1.0, value + half))


def _additional(
    differences: Sequence[float], *, wins: int, losses: int, scores: bool
) -> int:
    """Return how many more pairs would settle it, at least a quarter of those there are.

    Planned for the larger of the observed difference and 5 points at the observed discordance or
    spread. When the plan says that there were enough already, chance was in the way; fewer than a
    quarter more would hardly change the picture.
    """
    pairs = len(differences)
    effect = max(_mean(differences) if pairs else 0.0, MINIMUM_IMPROVEMENT)
    if scores:
        spread = (
            math.sqrt(_variance(differences)) if pairs > 1 else _ASSUMED_SPREAD
        ) or _ASSUMED_SPREAD
        z = float(distributions.norm.isf(SIGNIFICANCE) + distributions.norm.ppf(POWER))
        needed = math.ceil((z * spread / effect) ** 2)
    else:
        discordance = (wins + losses) / pairs if pairs else _ASSUMED_DISCORDANCE
        discordance = max(discordance, effect)
        planned = required_pairs(
            p_win=(discordance + effect) / 2,
            p_loss=(discordance - effect) / 2,
            power=POWER,
            alpha=SIGNIFICANCE,
            alternative="new-better",
        )
        needed = pairs if isinstance(planned, CannotSay) else planned
    return max(needed - pairs, math.ceil(pairs / 4), 1)


def _summary(
    outcome: Outcome,
    *,
    old: Estimate,
    new: Estimate,
    difference: Estimate,
    pairs: int,
    p_value: float | None,
    needed: int,
    scores: bool,
) -> str:
    what = "score accuracy" if scores else "accuracy"
    if not pairs:
        return (
            "Cannot tell: there are no held-out examples; "
            f"about {needed} of them are needed."
        )
    p_text = "no p-value" if p_value is None else f"one-sided p = {p_value:.3g}"
    numbers = (
        f"{what} on {pairs} held-out examples went from {old.value:.1%} to {new.value:.1%} "
        f"({_points(difference.value)} points, 95 % interval {_points(difference.lower)} "
        f"to {_points(difference.upper)}, {p_text})"
    )
    match outcome:
        case Outcome.IMPROVED:
            return f"Improved: {numbers}."
        case Outcome.NO_IMPROVEMENT:
            return f"No improvement: {numbers}."
        case Outcome.OVERFIT:
            return (
                "Overfit: the candidate is more than 5 points better on training than on "
                f"validation examples beyond doubt; {numbers}."
            )
        case Outcome.NOT_ENOUGH_EVIDENCE:
            labels = math.ceil(needed / _TEST_SHARE)
            return (
                f"Cannot tell yet: {numbers}; about {needed} more held-out examples "
                f"(some {labels} new labels) would settle it."
            )


def _points(value: float) -> str:
    return f"{100 * value:+.1f}"


def _estimate(value: float, interval: Interval | CannotSay) -> Estimate:
    if isinstance(interval, CannotSay):
        return Estimate(value, -1.0, 1.0)
    return Estimate(value, interval.low, interval.high)


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _variance(values: Sequence[float]) -> float:
    mean = _mean(values)
    return math.fsum((v - mean) ** 2 for v in values) / (len(values) - 1)
