"""The gate's table of outcomes, with literal numbers."""

from __future__ import annotations

import math

import pytest

from sidejudge_server.optimization.gate import decide
from sidejudge_server.optimization.gate_decision import GateDecision, Outcome, Stage
from sidejudge_server.stats.outcome import CannotSay
from sidejudge_server.stats.power import required_pairs

# Candidate as good on training as on validation examples: no gap.
_FLAT = [1.0] * 8 + [0.0] * 2


def _verdicts(
    wins: int, losses: int, *, pairs: int, train=_FLAT, validation=_FLAT
) -> GateDecision:
    """Both right on the ties."""
    ties = pairs - wins - losses
    baseline = [0.0] * wins + [1.0] * losses + [1.0] * ties
    candidate = [1.0] * wins + [0.0] * losses + [1.0] * ties
    return decide(baseline, candidate, train=train, validation=validation, scores=False)


def _check(decision: GateDecision, name: str):
    return next(check for check in decision.checks if check.name == name)


def test_clear_gain_is_improved():
    """12 wins against 2 losses in 100: +10 points, P(X >= 12 | 14) = 106/16384."""
    decision = _verdicts(12, 2, pairs=100)
    assert decision.outcome is Outcome.IMPROVED
    assert decision.p_value == pytest.approx(106 / 16384, rel=1e-12)
    assert decision.difference.value == pytest.approx(0.10)
    assert decision.difference.lower > 0
    assert decision.baseline.value == pytest.approx(0.88)
    assert decision.candidate.value == pytest.approx(0.98)
    assert (decision.wins, decision.losses, decision.pair_count) == (12, 2, 100)
    assert decision.additional_examples_needed == 0
    assert not decision.deployed
    assert decision.metric == "accuracy"


@pytest.mark.parametrize(
    ("wins", "losses", "p_value", "outcome"),
    [
        (10, 0, 1 / 1024, Outcome.IMPROVED),  # 0.00098, exactly +5 points
        (9, 0, 1 / 512, Outcome.NOT_ENOUGH_EVIDENCE),  # 0.00195, +4.5 points
        (16, 6, 110056 / 2**22, Outcome.IMPROVED),  # 0.0262, +5 points
        (18, 8, 2533987 / 2**26, Outcome.NOT_ENOUGH_EVIDENCE),  # 0.0378, +5 points
    ],
)
def test_boundary_of_improvement_and_significance(wins, losses, p_value, outcome):
    """At least +5 points and p below 0.0304, 6 / pi^2 of 0.05, are both needed."""
    decision = _verdicts(wins, losses, pairs=200)
    assert decision.p_value == pytest.approx(p_value, rel=1e-12)
    assert decision.outcome is outcome


def test_significant_but_small_gain_does_not_pass():
    """Five thousand pairs can prove +2 points; that is not the 5 that a deployment needs."""
    decision = _verdicts(110, 10, pairs=5000)
    assert decision.p_value is not None
    assert decision.p_value < 1e-6
    assert decision.difference.upper < 0.05
    assert decision.outcome is Outcome.NO_IMPROVEMENT


def test_identical_answers_give_no_p_value():
    """Without a discordant pair there is no test, which is not the same as p = 1."""
    decision = _verdicts(0, 0, pairs=80)
    assert decision.outcome is Outcome.NO_IMPROVEMENT
    assert decision.p_value is None
    significance = _check(decision, "significance")
    assert significance.observed is None
    assert not significance.passed
    assert "discordant" in significance.detail


def test_worse_candidate_is_no_improvement():
    """A negative difference needs no further examples."""
    decision = _verdicts(3, 9, pairs=60)
    assert decision.outcome is Outcome.NO_IMPROVEMENT
    assert decision.difference.value == pytest.approx(-0.1)
    assert decision.additional_examples_needed == 0


def test_no_pairs_cannot_tell():
    """Without held-out examples nothing is decided and nothing pretends to be measured."""
    decision = decide([], [], train=_FLAT, validation=_FLAT, scores=False)
    assert decision.outcome is Outcome.NOT_ENOUGH_EVIDENCE
    assert decision.p_value is None
    assert _check(decision, "minimum_improvement").observed is None
    assert decision.additional_examples_needed > 0
    assert (decision.difference.lower, decision.difference.upper) == (-1.0, 1.0)


def test_evidence_still_needed_is_planned_from_what_was_seen():
    """12 wins, 6 losses in 60: +10 points at discordance 0.3, planned for 80 % power.

    With 121 examples or more this use counts no longer, so the bar is that of a first use.
    """
    decision = _verdicts(12, 6, pairs=60)
    assert decision.outcome is Outcome.NOT_ENOUGH_EVIDENCE
    planned = required_pairs(
        p_win=0.2,
        p_loss=0.1,
        power=0.8,
        alpha=0.05 * 6 / math.pi**2,
        alternative="new-better",
    )
    assert not isinstance(planned, CannotSay)
    assert planned > 121
    assert decision.additional_examples_needed == planned - 60
    assert str(decision.additional_examples_needed) in decision.summary


def test_small_gap_between_training_and_validation_does_not_block():
    """10 points on 20 examples each are within the noise."""
    decision = _verdicts(
        12,
        2,
        pairs=100,
        train=[1.0] * 18 + [0.0] * 2,
        validation=[1.0] * 16 + [0.0] * 4,
    )
    gap = _check(decision, "train_validation_gap")
    assert gap.observed == pytest.approx(0.1)
    assert gap.passed
    assert decision.outcome is Outcome.IMPROVED


def test_certain_gap_is_overfit():
    """98 % on training against 60 % on validation examples blocks a gain on held-out ones."""
    decision = _verdicts(
        12,
        2,
        pairs=100,
        train=[1.0] * 98 + [0.0] * 2,
        validation=[1.0] * 60 + [0.0] * 40,
    )
    assert not _check(decision, "train_validation_gap").passed
    assert decision.outcome is Outcome.OVERFIT


def test_missing_training_outcomes_do_not_block():
    """A candidate whose demonstrations use up the training examples has no gap to measure."""
    decision = _verdicts(12, 2, pairs=100, train=[])
    assert _check(decision, "train_validation_gap").observed is None
    assert decision.outcome is Outcome.IMPROVED


def test_scores_are_compared_by_paired_t():
    """Differences .2 .1 .0 .3 .15 .05: mean 0.1333, t = 3.0237 with 5 degrees of freedom."""
    baseline = [0.5, 0.6, 0.7, 0.4, 0.55, 0.65]
    gains = [0.2, 0.1, 0.0, 0.3, 0.15, 0.05]
    candidate = [b + g for b, g in zip(baseline, gains, strict=True)]
    decision = decide(
        baseline, candidate, train=candidate, validation=candidate, scores=True
    )
    assert decision.metric == "score_accuracy"
    assert decision.difference.value == pytest.approx(0.8 / 6)
    # One-sided p of t = 3.0237, df = 5 from the closed form of Student's distribution.
    mean = 0.8 / 6
    variance = sum((g - mean) ** 2 for g in gains) / 5
    t = mean / math.sqrt(variance / 6)
    theta = math.atan(t / math.sqrt(5))
    sine, cosine = math.sin(theta), math.cos(theta)
    inside = 2 / math.pi * (theta + sine * (cosine + 2 / 3 * cosine**3))
    assert decision.p_value == pytest.approx((1 - inside) / 2, rel=1e-9)
    assert (decision.wins, decision.losses) == (5, 0)
    assert decision.outcome is Outcome.IMPROVED


def test_equal_score_differences_cannot_be_tested():
    """A constant shift has no spread: no p-value, so it does not pass."""
    decision = decide(
        [0.5] * 10, [0.625] * 10, train=[0.6] * 5, validation=[0.6] * 5, scores=True
    )
    assert decision.p_value is None
    assert decision.outcome is Outcome.NOT_ENOUGH_EVIDENCE


def test_unpaired_outcomes_are_refused():
    """The gate compares answers to the same examples."""
    with pytest.raises(ValueError, match="no pairs"):
        decide([1.0], [], train=[], validation=[], scores=False)


def test_decision_is_plain_json():
    """It is stored as JSON."""
    document = _verdicts(12, 2, pairs=100).to_json()
    assert document["outcome"] == "improved"
    assert document["checks"][0]["name"] == "minimum_improvement"
    assert document["difference"].keys() == {"value", "lower", "upper"}


def test_one_verdict_for_everything_is_no_improvement():
    """However poor the baseline is: it may be more accurate, but it tells nothing apart."""
    labels = ["pass"] * 60 + ["fail"] * 40
    constant = [1.0] * 60 + [0.0] * 40
    decision = decide(
        [0.0] * 90 + [1.0] * 10,
        constant,
        train=constant,
        validation=constant,
        scores=False,
        labels=labels,
    )
    assert decision.outcome is Outcome.NO_IMPROVEMENT
    assert decision.stage is Stage.NONE
    check = _check(decision, "better_than_one_answer")
    assert (check.observed, check.threshold, check.passed) == (0.5, 0.5, False)
    assert "one verdict to everything" in decision.summary


def test_a_judge_that_tells_rare_failures_apart_may_be_less_accurate_than_one_answer():
    """With 95 % passes, 17 of 19 right and a failure found beat always saying pass."""
    labels = ["pass"] * 190 + ["fail"] * 10
    candidate = [1.0] * 178 + [0.0] * 12 + [1.0] * 9 + [0.0]
    decision = decide(
        [1.0] * 120 + [0.0] * 80,
        candidate,
        train=candidate,
        validation=candidate,
        scores=False,
        labels=labels,
    )
    assert decision.candidate.value < 0.95
    assert _check(decision, "better_than_one_answer").passed
    assert decision.outcome is Outcome.IMPROVED


def test_without_two_labels_the_gate_cannot_tell_labels_apart():
    """Then the check blocks nothing, and says why."""
    decision = decide(
        [0.0] * 60,
        [1.0] * 60,
        train=[1.0] * 9,
        validation=[1.0] * 9,
        scores=False,
        labels=["pass"] * 60,
    )
    check = _check(decision, "better_than_one_answer")
    assert check.observed is None
    assert check.passed
    assert decision.outcome is Outcome.IMPROVED
