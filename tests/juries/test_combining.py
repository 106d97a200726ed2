"""Votes and means, by hand."""

import pytest

from sidejudge_server.judges.types import Verdict
from sidejudge_server.juries.combining import combine
from sidejudge_server.juries.types import JuryMode, MemberAnswer

PASS, PARTIAL, FAIL = Verdict.PASS, Verdict.PARTIAL, Verdict.FAIL


def said(verdict, confidence=None):
    return MemberAnswer("e", verdict, confidence, None)


def test_a_vote_goes_to_the_heavier_side_and_a_tie_to_the_worse_verdict():
    answers = [said(PASS, 0.9), said(FAIL, 0.6), said(FAIL, 0.6)]
    found = combine(answers, [1 / 3] * 3, JuryMode.VOTE, binary=True)
    assert found.verdict is FAIL
    assert found.confidence == pytest.approx((0.1 + 0.6 + 0.6) / 3)
    assert found.disagreement == pytest.approx(2 / 3)
    heavy = combine(answers, [0.6, 0.2, 0.2], JuryMode.VOTE, binary=True)
    assert heavy.verdict is PASS
    tie = combine(answers[:2], [0.5, 0.5], JuryMode.VOTE, binary=True)
    assert tie.verdict is FAIL


def test_a_mean_listens_to_how_sure_members_are():
    answers = [said(PASS, 0.95), said(FAIL, 0.55), said(FAIL, 0.55)]
    found = combine(answers, [1 / 3] * 3, JuryMode.AVERAGE, binary=True)
    assert found.verdict is PASS
    assert found.confidence == pytest.approx((0.95 + 0.45 + 0.45) / 3)


def test_disagreement_lowers_the_confidence():
    weights = [0.5, 0.5]
    agree = combine(
        [said(PASS, 0.9), said(PASS, 0.9)], weights, JuryMode.VOTE, binary=True
    )
    differ = combine(
        [said(PASS, 0.9), said(FAIL, 0.9)], weights, JuryMode.VOTE, binary=True
    )
    assert agree.confidence == pytest.approx(0.9)
    assert agree.disagreement == 0
    assert differ.confidence == pytest.approx(0.5)
    assert differ.disagreement == 1


def test_a_bare_verdict_counts_as_certain_and_partial_is_a_verdict():
    found = combine(
        [said(PARTIAL), said(PARTIAL), said(PASS)],
        [1 / 3] * 3,
        JuryMode.AVERAGE,
        binary=False,
    )
    assert found.verdict is PARTIAL
    assert found.confidence == pytest.approx(2 / 3)


def test_scores_are_averaged_by_weight():
    answers = [MemberAnswer("e", None, None, score) for score in (0.2, 0.8)]
    found = combine(answers, [0.25, 0.75], JuryMode.AVERAGE, binary=True)
    assert found.score == pytest.approx(0.65)
    assert found.disagreement == pytest.approx(0.424264, abs=1e-6)
    alone = combine(answers[:1], [1.0], JuryMode.AVERAGE, binary=True)
    assert alone.disagreement is None
