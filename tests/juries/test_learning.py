"""Weights find who is right, and are used only where left-out labels are in favour."""

import numpy as np
import pytest

from sidejudge_server.judges.types import Verdict
from sidejudge_server.juries.learning import compare, fit_weights, learn
from sidejudge_server.juries.types import Ballot, JuryMode, MemberAnswer

PASS, FAIL = Verdict.PASS, Verdict.FAIL
VOTE, AVERAGE = JuryMode.VOTE, JuryMode.AVERAGE


def ballots(n, accuracies, *, seed=3, confidence=0.8):
    """Return ballots of members that err independently with these probabilities of being right."""
    rng = np.random.default_rng(seed)
    made = []
    for number in range(n):
        truth = PASS if rng.random() < 0.5 else FAIL
        other = FAIL if truth is PASS else PASS
        answers = tuple(
            MemberAnswer("e", truth if rng.random() < a else other, confidence, None)
            for a in accuracies
        )
        made.append(Ballot(answers, truth, None, f"g{number}"))
    return made


@pytest.mark.parametrize("mode", [VOTE, AVERAGE])
def test_the_member_that_is_right_gets_the_weight(mode):
    found = learn(ballots(300, [0.95, 0.55, 0.5]), mode, members=3, binary=True)
    assert found.learned
    assert found.labels == 300
    assert sum(found.values) == pytest.approx(1)
    assert found.values[0] > 0.6


def test_votes_weigh_the_log_odds_of_being_right():
    """9 of 10 and 6 of 10, each with one added: ln(10/2) and ln(7/5)."""
    made = []
    for number in range(10):
        first = PASS if number < 9 else FAIL
        second = PASS if number < 6 else FAIL
        answers = (
            MemberAnswer("a", first, None, None),
            MemberAnswer("b", second, None, None),
        )
        made.append(Ballot(answers, PASS, None, f"g{number}"))
    weights = np.log([10 / 2, 7 / 5])
    expected = weights / weights.sum()
    assert fit_weights(made, VOTE, binary=True) == pytest.approx(expected)


def test_few_labels_and_members_of_one_kind_leave_weights_equal():
    few = learn(ballots(29, [0.9, 0.5]), VOTE, members=2, binary=True)
    assert not few.learned
    assert few.values == (0.5, 0.5)
    assert "29 of the 30" in few.reason
    same = learn(ballots(60, [1.0, 1.0, 1.0]), VOTE, members=3, binary=True)
    assert not same.learned
    assert "not better" in same.reason


def test_members_that_are_worse_than_chance_count_nothing():
    found = fit_weights(ballots(200, [0.2, 0.9]), VOTE, binary=True)
    assert found[0] == 0
    nobody = fit_weights(ballots(200, [0.2, 0.3]), VOTE, binary=True)
    assert nobody == (0.5, 0.5)


def test_three_members_that_err_independently_are_better_than_each():
    found = compare(
        ballots(600, [0.75, 0.75, 0.75]), ["a", "b", "c"], scores=False, binary=True
    )
    rows = {row.name: row for row in found.rows}
    assert set(rows) >= {"a", "b", "c", "best member", "vote, equal weights"}
    # 0.75^3 + 3 * 0.75^2 * 0.25 = 0.84
    vote = rows["vote, equal weights"]
    assert vote.agreement.value == pytest.approx(0.84375, abs=0.03)
    assert vote.difference.low > 0
    assert rows["a"].difference is None


def test_a_jury_of_members_that_know_nothing_is_not_called_better():
    found = compare(ballots(200, [0.5, 0.5]), ["a", "b"], scores=False, binary=True)
    for row in found.rows:
        if row.difference is not None:
            assert row.difference.low <= 0


def test_scores_are_compared_by_their_distance():
    rng = np.random.default_rng(8)
    made = []
    for number in range(200):
        truth = rng.random()
        near = min(1.0, max(0.0, truth + rng.normal(0, 0.05)))
        answers = (
            MemberAnswer("a", None, None, near),
            MemberAnswer("b", None, None, rng.random()),
        )
        made.append(Ballot(answers, None, truth, f"g{number}"))
    weights = learn(made, AVERAGE, members=2, binary=True)
    assert weights.learned
    assert weights.values[0] > 0.8
    rows = {
        r.name: r for r in compare(made, ["near", "far"], scores=True, binary=True).rows
    }
    assert not any(name.startswith("vote") for name in rows)
    assert rows["near"].agreement.value > 0.9 > rows["far"].agreement.value


def test_without_labels_the_comparison_says_how_many_are_missing():
    found = compare(ballots(10, [0.5, 0.5]), ["a", "b"], scores=False, binary=True)
    assert found.rows == ()
    assert "label 20 more" in found.reason
