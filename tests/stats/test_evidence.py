"""Evidence from counts and sums is that of the definitions."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special

from sidejudge_server.stats import betting, evidence
from tests.stats.vectors import load


def test_sign_e_value_agrees_with_the_vectors():
    """Beta-binomial sign test, two-sided and one-sided."""
    vectors = load("evalue_sign_betabinomial")
    for case, expected in vectors.cases:
        assert expected.keys() == {"log_e_two_sided", "log_e_one_sided_wins"}
        counts = case["wins"], case["losses"]
        assert evidence.sign_log_e(*counts, prior=case["a"]) == pytest.approx(
            expected["log_e_two_sided"], abs=vectors.tolerance
        )
        got = evidence.sign_log_e_new_better(*counts, prior=case["a"])
        assert got == pytest.approx(
            expected["log_e_one_sided_wins"], abs=vectors.tolerance
        )


def test_sign_e_value_of_five_wins():
    """2^5 B(6,1)/B(1,1) = 32/6 two-sided; truncated to wins 2 (1 - 2^-6) times that."""
    assert math.exp(evidence.sign_log_e(5, 0)) == pytest.approx(32 / 6)
    assert math.exp(evidence.sign_log_e_new_better(5, 0)) == pytest.approx(
        32 / 6 * 2 * (63 / 64)
    )


@given(st.integers(0, 300), st.integers(0, 300))
@settings(max_examples=60, deadline=None)
def test_one_sided_sign_e_value_is_the_truncated_mixture(wins, losses):
    """The exact count of coin tosses equals the incomplete beta function."""
    upper = special.betainc(1 + losses, 1 + wins, 0.5)
    expected = (
        (wins + losses + 1) * math.log(2)
        + special.betaln(1 + wins, 1 + losses)
        + math.log(upper)
    )
    got = evidence.sign_log_e_new_better(wins, losses)
    assert got == pytest.approx(expected, abs=1e-8)


def test_sign_e_value_of_a_hopeless_candidate_is_finite():
    """A thousand losses leave next to nothing, but a number."""
    assert -1000 < evidence.sign_log_e_new_better(0, 1000) < -6


@pytest.mark.parametrize(
    ("wins", "losses", "prior", "message"),
    [(-1, 0, 1, "negative"), (0, -1, 1, "negative"), (1, 1, 0, "positive")],
)
def test_impossible_counts_are_refused(wins, losses, prior, message):
    """They come from a fault of the caller."""
    with pytest.raises(ValueError, match=message):
        evidence.sign_log_e_new_better(wins, losses, prior=prior)


@given(st.lists(st.floats(-1, 1), max_size=30), st.lists(st.floats(-1, 1), max_size=30))
@settings(max_examples=60, deadline=None)
def test_sums_of_two_parts_are_the_evidence_of_all(first, second):
    """What was kept of earlier pairs and the later pairs together give the betting mixture."""
    sums = np.add(evidence.bet_sums(first), evidence.bet_sums(second)).tolist()
    expected = betting.betting_log_e([*first, *second], alternative="greater")
    assert evidence.bet_log_e(sums) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("value", [1.01, -1.5, float("nan")])
def test_differences_out_of_range_are_refused(value):
    """A bet on them could lose more than all."""
    with pytest.raises(ValueError, match="within"):
        evidence.bet_sums([value])
