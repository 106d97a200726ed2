"""A learned head is fitted only where it is better beyond doubt, and finds what is there."""

import math

import numpy as np
import pytest

from sidejudge_server.judges.types import (
    LabelOffsets,
    ScoreHead,
    ScoreMap,
    Verdict,
    VerdictHead,
    VerdictProbabilities,
)
from sidejudge_server.optimization.head import (
    MIN_EXAMPLES,
    MIN_STANDARD_ERRORS,
    Corpus,
    RuleResult,
    fit_score_head,
    fit_verdict_head,
)
from sidejudge_server.optimization.refit import fit_offsets, fit_score_map

CLUSTERS = 6


def similarities(rng, clusters):
    """Small for all pairs, larger within a cluster."""
    same = clusters[:, None] == clusters[None, :]
    size = (len(clusters), len(clusters))
    return np.clip(rng.beta(1.5, 12, size) + same * rng.beta(3, 6, size), 0, 1)


def fit_verdicts(truth, chances, similarity, *, groups=None, binary=True):
    verdicts = [Verdict(label) for label in truth]
    probabilities = [VerdictProbabilities(*chance) for chance in chances]
    groups = groups or [str(i) for i in range(len(truth))]
    rule = fit_offsets(probabilities, verdicts, binary=binary, old=LabelOffsets())
    return fit_verdict_head(
        probabilities,
        verdicts,
        groups=groups,
        corpus=Corpus(similarity, groups, verdicts=verdicts),
        rule=RuleResult(rule.worths, rule.right),
        binary=binary,
    )


def at_chance(rng, count):
    passed = rng.uniform(0.2, 0.8, count)
    return [(p, 0.0, 1 - p) for p in passed.tolist()]


def clustered(seed, count, *, lm):
    rng = np.random.default_rng(seed)
    clusters = rng.integers(CLUSTERS, size=count)
    truth = ["pass" if c % 2 else "fail" for c in clusters]
    return truth, lm(rng, count), similarities(rng, clusters)


def test_labels_of_similar_corrections_are_found_when_the_model_guesses():
    """What people corrected before is worth more than a model at chance."""
    truth, chances, similarity = clustered(1, 60, lm=at_chance)

    fit = fit_verdicts(truth, chances, similarity)

    assert fit.accepted
    assert isinstance(fit.head, VerdictHead)
    assert fit.head.vote_weight > 1.0
    assert sum(fit.right) / 60 > 0.85
    assert fit.gain >= MIN_STANDARD_ERRORS * fit.standard_error


@pytest.mark.slow
def test_head_declines_on_noise():
    """Neighbours that know nothing are not believed: one in forty at most."""
    accepted = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        truth = rng.choice(["pass", "fail"], size=40).tolist()
        similarity = similarities(rng, rng.integers(CLUSTERS, size=40))
        fit = fit_verdicts(truth, at_chance(rng, 40), similarity)
        accepted += fit is not None and fit.accepted

    assert accepted <= 1


def test_being_surer_of_the_same_verdicts_is_no_gain():
    """A head must make answers right, not only certain."""
    rng = np.random.default_rng(5)
    truth = rng.choice(["pass", "fail"], size=80).tolist()
    chances = [(0.8, 0, 0.2) if t == "pass" else (0.2, 0, 0.8) for t in truth]
    similarity = similarities(rng, rng.integers(CLUSTERS, size=80))

    fit = fit_verdicts(truth, chances, similarity)

    assert not fit.accepted
    assert fit.gain > 0.05
    assert sum(fit.right) == 80


def test_twins_of_one_group_do_not_answer_for_each_other():
    """A correction that exists twice, in one group, is no evidence that likeness helps."""
    rng = np.random.default_rng(7)
    pairs = rng.choice(["pass", "fail"], size=30)
    truth = np.repeat(pairs, 2).tolist()
    twins = np.repeat(np.arange(30), 2)
    similarity = np.where(twins[:, None] == twins[None, :], 1.0, 0.05)
    chances = at_chance(rng, 60)

    together = fit_verdicts(truth, chances, similarity, groups=[str(t) for t in twins])
    apart = fit_verdicts(truth, chances, similarity)

    assert not together.accepted
    assert apart.accepted


def test_three_labels_are_told_apart():
    """Partial has a bias and votes of its own."""
    rng = np.random.default_rng(3)
    clusters = rng.integers(CLUSTERS, size=90)
    truth = [("pass", "partial", "fail")[c % 3] for c in clusters]
    raw = rng.dirichlet((4, 4, 4), size=90)

    fit = fit_verdicts(truth, raw, similarities(rng, clusters), binary=False)

    assert fit.accepted
    assert sum(fit.right) / 90 > 0.8


@pytest.mark.parametrize(
    "truth",
    [
        ["pass"] * 60,
        ["pass"] * 57 + ["fail"] * 3,
        ["pass", "fail"] * (MIN_EXAMPLES // 2 - 1),
        [],
    ],
)
def test_too_few_answers_or_labels_give_no_head(truth):
    """One label, or next to none of the other, teaches nothing."""
    rng = np.random.default_rng(1)
    similarity = np.zeros((len(truth), len(truth)))

    assert fit_verdicts(truth, at_chance(rng, len(truth)), similarity) is None


def test_no_corpus_gives_no_head():
    """A version that remembers nothing has nobody to ask."""
    rng = np.random.default_rng(1)
    verdicts = [Verdict.PASS, Verdict.FAIL] * 20
    probabilities = [VerdictProbabilities(*c) for c in at_chance(rng, 40)]

    assert (
        fit_verdict_head(
            probabilities,
            verdicts,
            groups=[str(i) for i in range(40)],
            corpus=Corpus(np.zeros((40, 0)), ()),
            rule=RuleResult([0.5] * 40, [0.5] * 40),
            binary=True,
        )
        is None
    )


def test_certain_probabilities_do_not_break_the_fit():
    """Saturated models say 0 and 1, and are wrong."""
    truth, _, similarity = clustered(2, 60, lm=at_chance)
    rng = np.random.default_rng(2)
    chances = [(1.0, 0.0, 0.0) if p else (0.0, 0.0, 1.0) for p in rng.random(60) < 0.5]

    fit = fit_verdicts(truth, chances, similarity)

    assert fit.accepted
    assert all(
        math.isfinite(c)
        for c in (fit.head.pass_bias, fit.head.lm_weight, fit.head.vote_weight)
    )


def fit_scores(raw, truth, similarity):
    groups = [str(i) for i in range(len(truth))]
    rule = fit_score_map(raw, truth, old=ScoreMap())
    return fit_score_head(
        raw,
        truth,
        groups=groups,
        corpus=Corpus(similarity, groups, scores=truth),
        rule=RuleResult(rule.worths, rule.worths),
    )


def test_scores_follow_similar_labels():
    """For a rubric the labels of neighbours pull the score."""
    rng = np.random.default_rng(4)
    clusters = rng.integers(CLUSTERS, size=60)
    truth = np.clip(clusters / 5 + rng.normal(0, 0.05, 60), 0, 1).tolist()
    raw = rng.uniform(0.3, 0.7, 60).tolist()

    fit = fit_scores(raw, truth, similarities(rng, clusters))

    assert fit.accepted
    assert isinstance(fit.head, ScoreHead)
    assert fit.head.label_weight > 0.5
    assert fit.gain > 0.1


def test_score_head_declines_when_the_map_is_right_already():
    """Neighbours add nothing to a grader that knows."""
    rng = np.random.default_rng(6)
    truth = rng.random(60).tolist()
    raw = np.clip(np.array(truth) + rng.normal(0, 0.02, 60), 0, 1).tolist()

    fit = fit_scores(raw, truth, similarities(rng, rng.integers(CLUSTERS, size=60)))

    assert not fit.accepted


def test_fit_is_deterministic():
    """A resumed run must end with the same bytes."""
    truth, chances, similarity = clustered(1, 60, lm=at_chance)

    assert fit_verdicts(truth, chances, similarity) == fit_verdicts(
        truth, chances, similarity
    )
