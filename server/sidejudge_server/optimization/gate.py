"""The gate: is a candidate better than the version that serves? Pure functions of held-out outcomes.

Both versions judge the same held-out (test) examples, which neither the search nor the refit has
seen. The candidate passes if all of this holds:

* minimum_improvement: its observed quality is at least 5 points higher;
* significance: the one-sided p-value, exact McNemar for verdicts, paired t for scores, is below a
  bar that shrinks with every use of the same examples, see `training.held_out`;
  With fewer than 150 pairs the bar is twice as high, but what passes goes into shadow: it serves once
  its evidence, which later corrections add to, reaches 20, see `shadow_evidence`;
* better_than_one_answer: it tells the labels apart: its balanced accuracy is above that of giving one
  verdict to everything, which may well be more accurate than a poor baseline;
* train_validation_gap: it is not more than 5 points better on training than on validation
  examples, beyond doubt: blocked only when the lower end of the gap's 95 % interval is above 0.05
  (with 50 + 50 examples the gap's standard error is 8 points, so the bare number would block one
  well-fitting candidate in four).

What comes out if it does not: no_improvement when the difference is not positive, the upper end of
its interval is below 5 points or one answer to everything would do as well, overfit when the gap blocks, else not_enough_evidence with the number
of further held-out examples that would settle it at 80 % power.

Quality of an answer is 1 or 0 (right verdict or not), or 1 - |score - label|.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from sidejudge_server.optimization.gate_decision import (
    Estimate,
    GateCheck,
    GateDecision,
    Outcome,
    Stage,
)
from sidejudge_server.optimization.gate_estimates import (
    estimated_difference,
    estimated_gap,
    estimated_quality,
    variance,
)
from sidejudge_server.optimization.gate_plan import additional_examples
from sidejudge_server.optimization.gate_summary import summarise
from sidejudge_server.optimization.shadow_evidence import BAR, Evidence
from sidejudge_server.stats.outcome import CannotSay
from sidejudge_server.stats.paired import mcnemar, paired_t
from sidejudge_server.stats.spending import use_number
from sidejudge_server.training.held_out import (
    FULL_PAIRS,
    fresh_labels_needed,
    gate_bar,
)

__all__ = ["decide"]

MINIMUM_IMPROVEMENT = 0.05
MAXIMUM_GAP = 0.05

_FEWEST_LABELS = 2
_ONE_ANSWER = 2
"""Place of the check in the decision's."""

_TOLERANCE = 1e-9
"""0.05 as a difference of floating-point means may come out a hair below 0.05."""


def decide(
    baseline: Sequence[float],
    candidate: Sequence[float],
    *,
    train: Sequence[float],
    validation: Sequence[float],
    scores: bool,
    shared: Sequence[int] = (),
    differs: bool = True,
    labels: Sequence[str] = (),
) -> GateDecision:
    """Compare a candidate with the version that serves.

    Args:
        baseline: Quality of each held-out answer of the version that serves, 0..1.
        candidate: Of the candidate, in the same order.
        train: Quality of the candidate on training examples, without its own demonstrations.
        validation: Quality of the candidate on validation examples.
        scores: True for 1 - |error|; False for right (1) or wrong (0).
        shared: For each earlier use of held-out examples, how many of these it looked at.
        differs: False if the run came to no candidate; then the examples were not used.
        labels: The right verdicts of the held-out examples; none for scores, or to leave out the
            check that needs them.

    Raises:
        ValueError: The two versions judged different numbers of examples, or there are labels for
            another number.
    """
    if len(baseline) != len(candidate):
        raise ValueError(f"{len(baseline)} and {len(candidate)} answers are no pairs")
    pairs = len(baseline)
    differences = [new - old for old, new in zip(baseline, candidate, strict=True)]
    wins = sum(d > _TOLERANCE for d in differences)
    losses = sum(d < -_TOLERANCE for d in differences)
    difference = estimated_difference(
        differences, wins=wins, losses=losses, scores=scores
    )
    p_value, why_no_p = _p_value(differences, wins=wins, losses=losses, scores=scores)
    use = use_number(pairs, shared)
    alpha = gate_bar(pairs, use)
    checks = (
        _improvement_check(difference, pairs=pairs),
        _significance_check(p_value, alpha, why_no_p=why_no_p, scores=scores),
        _one_answer_check(candidate, labels),
        _gap_check(train, validation, scores=scores),
    )
    outcome = _outcome(checks, difference=difference, pairs=pairs)
    spent = (*shared, pairs) if differs else tuple(shared)
    needed = 0
    if outcome is Outcome.NOT_ENOUGH_EVIDENCE:
        needed = additional_examples(
            differences,
            wins=wins,
            losses=losses,
            scores=scores,
            minimum=MINIMUM_IMPROVEMENT,
            shared=spent,
        )
    fresh = fresh_labels_needed(
        pairs,
        spent,
        scores=scores,
        discordance=(wins + losses) / pairs if pairs else None,
        difference=difference.value,
        spread=math.sqrt(variance(differences)) if pairs > 1 else None,
    )
    old = estimated_quality(baseline, scores=scores)
    new = estimated_quality(candidate, scores=scores)
    used = use if differs else use - 1
    evidence = Evidence.of(differences, scores=scores)
    stage = _stage(outcome, evidence)
    return GateDecision(
        outcome=outcome,
        summary=summarise(
            outcome,
            old=old,
            new=new,
            difference=difference,
            pairs=pairs,
            p_value=p_value,
            needed=needed,
            scores=scores,
            use=use if differs else 1,
            alpha=alpha,
            fresh_labels=fresh,
            stage=stage,
            e_value=evidence.e_value,
            one_answer=not checks[_ONE_ANSWER].passed,
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
        use_count=used,
        alpha=alpha,
        fresh_labels_needed=fresh,
        stage=stage,
        e_value=evidence.e_value if pairs else None,
        bet_sums=evidence.sums,
    )


def _stage(outcome: Outcome, evidence: Evidence) -> Stage:
    if outcome is not Outcome.IMPROVED:
        return Stage.NONE
    enough = evidence.pairs >= FULL_PAIRS or evidence.e_value >= BAR
    return Stage.FULL if enough else Stage.SHADOW


def _outcome(
    checks: tuple[GateCheck, ...], *, difference: Estimate, pairs: int
) -> Outcome:
    if pairs and (
        difference.value <= _TOLERANCE or difference.upper < MINIMUM_IMPROVEMENT
    ):
        return Outcome.NO_IMPROVEMENT
    if not checks[_ONE_ANSWER].passed:
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
    p_value: float | None, alpha: float, *, why_no_p: str, scores: bool
) -> GateCheck:
    test = "paired t" if scores else "exact McNemar"
    detail = f"one-sided p of the {test} test; must be below the bar"
    return GateCheck(
        "significance",
        p_value,
        alpha,
        p_value is not None and p_value < alpha,
        f"{detail}: {why_no_p}" if why_no_p else detail,
    )


def _one_answer_check(candidate: Sequence[float], labels: Sequence[str]) -> GateCheck:
    """Compare the balanced accuracy, the mean of the accuracies by label, with that of one answer."""
    by_label: dict[str, list[float]] = {}
    if labels:
        for label, worth in zip(labels, candidate, strict=True):
            by_label.setdefault(label, []).append(worth)
    if len(by_label) < _FEWEST_LABELS:
        return GateCheck(
            "better_than_one_answer",
            None,
            0.0,
            passed=True,
            detail="cannot be told: the held-out examples do not have two labels",
        )
    balanced = sum(sum(w) / len(w) for w in by_label.values()) / len(by_label)
    chance = 1 / len(by_label)
    return GateCheck(
        "better_than_one_answer",
        balanced,
        chance,
        balanced > chance + _TOLERANCE,
        "balanced accuracy of the candidate; giving one verdict to everything has the bar",
    )


def _gap_check(
    train: Sequence[float], validation: Sequence[float], *, scores: bool
) -> GateCheck:
    gap = estimated_gap(train, validation, scores=scores)
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


def _p_value(
    differences: Sequence[float], *, wins: int, losses: int, scores: bool
) -> tuple[float | None, str]:
    """Return the one-sided p-value, or None and why."""
    test = paired_t(differences) if scores else mcnemar(wins, losses)
    if isinstance(test, CannotSay):
        return None, test.reason
    return test.p_new_better, ""
