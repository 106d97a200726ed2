"""Decision rules and score maps fitted on validation answers."""

from __future__ import annotations

import math

import numpy as np
import pytest

from sidejudge_server.judges.decode import decide
from sidejudge_server.judges.types import (
    LabelOffsets,
    ScoreMap,
    Verdict,
    VerdictProbabilities,
)
from sidejudge_server.optimization.refit import fit_offsets, fit_score_map

_OLD = LabelOffsets()


def _binary(p_pass: float) -> VerdictProbabilities:
    return VerdictProbabilities(p_pass, 0.0, 1 - p_pass)


def _shifted_judge(count: int, *, shift: float, seed: int):
    """A judge that ranks well but whose P(pass) is shifted by ``shift`` nats."""
    generator = np.random.default_rng(seed)
    labels, answers = [], []
    for index in range(count):
        passes = index % 2 == 0
        logit = (1.5 if passes else -1.5) + generator.normal(0, 0.7) + shift
        labels.append(Verdict.PASS if passes else Verdict.FAIL)
        answers.append(_binary(1 / (1 + math.exp(-logit))))
    return answers, labels


def test_shifted_prior_is_undone():
    """A judge that says yes to everything but ranks well is right again after the refit."""
    answers, labels = _shifted_judge(60, shift=3.0, seed=1)
    fit = fit_offsets(answers, labels, binary=True, old=_OLD)
    before = np.mean(
        [
            decide(p, _OLD, binary=True).verdict is y
            for p, y in zip(answers, labels, strict=True)
        ]
    )
    after = np.mean(
        [
            decide(p, fit.offsets, binary=True).verdict is y
            for p, y in zip(answers, labels, strict=True)
        ]
    )
    assert before < 0.65
    assert after > 0.9
    assert fit.accuracy > 0.9
    assert -4.5 < fit.offsets.passed < -1.5
    assert not fit.kept


def test_good_rule_stays():
    """A rule that nothing beats out of fold is kept to the last digit."""
    answers, labels = _shifted_judge(60, shift=0.0, seed=2)
    fit = fit_offsets(answers, labels, binary=True, old=_OLD)
    if fit.kept:
        assert fit.offsets == _OLD
    assert abs(fit.offsets.passed) < 1.0
    perfect = [_binary(0.9 if y is Verdict.PASS else 0.1) for y in labels]
    kept = fit_offsets(perfect, labels, binary=True, old=LabelOffsets(0.3, 0.0))
    assert kept.kept
    assert kept.offsets == LabelOffsets(0.3, 0.0)
    assert kept.accuracy == 1.0


def test_noise_moves_nothing_out_of_fold():
    """With answers that know nothing, out-of-fold accuracy is not above what luck gives."""
    generator = np.random.default_rng(3)
    accuracies = []
    for _ in range(20):
        answers = [_binary(p) for p in generator.uniform(0.1, 0.9, 40)]
        labels = [Verdict.PASS, Verdict.FAIL] * 20
        accuracies.append(fit_offsets(answers, labels, binary=True, old=_OLD).accuracy)
    assert np.mean(accuracies) < 0.58


def test_partial_gets_its_own_offset():
    """A judge that never dares to say partly learns to."""
    generator = np.random.default_rng(4)
    answers, labels = [], []
    for index in range(90):
        label = (Verdict.PASS, Verdict.PARTIAL, Verdict.FAIL)[index % 3]
        logits = np.array([0.0, -2.0, 0.0]) + generator.normal(0, 0.3, 3)
        logits[index % 3] += 1.5
        p = np.exp(logits) / np.exp(logits).sum()
        answers.append(VerdictProbabilities(*p.tolist()))
        labels.append(label)
    fit = fit_offsets(answers, labels, binary=False, old=_OLD)
    assert fit.accuracy > 0.85
    assert fit.offsets.partial > 1.0


@pytest.mark.parametrize(
    ("answers", "labels"),
    [
        ([_binary(0.9)] * 9, [Verdict.FAIL] * 5 + [Verdict.PASS] * 4),
        ([_binary(0.9)] * 30, [Verdict.FAIL] * 30),
    ],
)
def test_too_little_to_learn_from_keeps_the_old_rule(answers, labels):
    """Fewer than ten answers, or a single label, teach nothing."""
    fit = fit_offsets(answers, labels, binary=True, old=LabelOffsets(0.5, 0.0))
    assert fit.kept
    assert fit.offsets == LabelOffsets(0.5, 0.0)


def test_unusable_answers_count_as_wrong():
    """They are no verdict, and never make a candidate look better."""
    answers = [_binary(0.9), None, _binary(0.1), None]
    labels = [Verdict.PASS, Verdict.PASS, Verdict.FAIL, Verdict.FAIL]
    fit = fit_offsets(answers, labels, binary=True, old=_OLD)
    assert fit.accuracy == 0.5
    assert fit.soft == pytest.approx(0.45)
    nothing = fit_offsets([None, None], labels[:2], binary=True, old=_OLD)
    assert (nothing.accuracy, nothing.quality, nothing.kept) == (0.0, 0.0, True)


def test_ties_are_read_as_the_decoder_reads_them():
    """P(pass) = P(fail) is fail: the contract says greater than."""
    fit = fit_offsets([_binary(0.5)] * 4, [Verdict.FAIL] * 4, binary=True, old=_OLD)
    assert fit.accuracy == 1.0
    assert decide(_binary(0.5), _OLD, binary=True).verdict is Verdict.FAIL


def test_fit_is_deterministic():
    """The same answers give the same rule."""
    answers, labels = _shifted_judge(40, shift=1.0, seed=5)
    first = fit_offsets(answers, labels, binary=True, old=_OLD)
    assert first == fit_offsets(answers, labels, binary=True, old=_OLD)


def test_harsh_grader_is_mapped_back():
    """Grades of (label - 0.2) / 1.5 give slope 1.5 and intercept 0.2."""
    labels = [0.2 + 0.03 * i for i in range(20)]
    raw = [(y - 0.2) / 1.5 for y in labels]
    fit = fit_score_map(raw, labels, old=ScoreMap())
    assert fit.score_map.slope == pytest.approx(1.5, abs=1e-5)
    assert fit.score_map.intercept == pytest.approx(0.2, abs=1e-5)
    assert fit.quality == pytest.approx(1.0, abs=1e-5)


def test_reversed_grader_gets_no_negative_slope():
    """Where the grades run against the labels the mean is the best that can be said."""
    labels = [i / 19 for i in range(20)]
    raw = [1 - y for y in labels]
    fit = fit_score_map(raw, labels, old=ScoreMap())
    assert fit.score_map.slope == 0.0
    assert fit.score_map.intercept == pytest.approx(0.5, abs=1e-6)


def test_right_grader_keeps_its_map():
    """A map that cannot get better stays."""
    labels = [i / 19 for i in range(20)]
    fit = fit_score_map(labels, labels, old=ScoreMap())
    assert fit.kept
    assert fit.score_map == ScoreMap()
    assert fit.quality == 1.0


def test_constant_grades_do_not_divide_by_zero():
    """Raw scores without any spread are moved to the mean label."""
    fit = fit_score_map([0.9] * 12, [0.1, 0.3] * 6, old=ScoreMap())
    assert fit.quality == pytest.approx(0.9, abs=0.01)
    assert not fit.kept


def test_unusable_grades_count_as_zero():
    """Half the answers missing halves the quality."""
    fit = fit_score_map([0.5, None], [0.5, 0.5], old=ScoreMap())
    assert fit.quality == 0.5
