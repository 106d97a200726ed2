"""The rollout's harm test agrees with the definition and bets on harm only."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidejudge_server.stats.harm import HARM_RATIOS, StageFailures, harm_log_e
from tests.stats.vectors import load


def test_harm_agrees_with_the_vectors():
    """One share, and shares that grow by stages."""
    vectors = load("evalue_rollout_harm")
    for case, expected in vectors.cases:
        assert expected.keys() == {"log_e"}
        assert pytest.approx(case["ratios"]) == HARM_RATIOS
        stages = [
            StageFailures(stage["failures_a"], stage["failures_b"], stage["share_b"])
            for stage in case.get("stages", [case])
        ]
        got = harm_log_e(stages, max_ratio=case["max_ratio_tolerated"])
        assert got == pytest.approx(expected["log_e"], abs=vectors.tolerance)


def test_without_failures_there_is_no_evidence():
    """E is 1."""
    assert harm_log_e([]) == pytest.approx(0)
    assert harm_log_e([StageFailures(0, 0, 0.05)]) == pytest.approx(0)


def test_one_failure_of_the_candidate_at_a_small_share():
    """At 5 % a ratio of 2 makes the candidate's failure 2 / 1.05 times as likely."""
    got = harm_log_e([StageFailures(0, 1, 0.05)], ratios=(2.0,))
    assert got == pytest.approx(math.log(2 / 1.05))


def test_a_tolerated_ratio_is_no_harm():
    """A better candidate never becomes evidence of harm, though some ratios are below the tolerance."""
    better = [StageFailures(4000, 1000, 0.5)]
    tolerated = harm_log_e(better, max_ratio=1.5)
    assert tolerated < 0
    # The mixture without care would bet on "less harm than tolerated" and win.
    careless = 4000 * math.log((1 - 1.05 / 2.05) / (1 - 1.5 / 2.5)) + 1000 * math.log(
        (1.05 / 2.05) / (1.5 / 2.5)
    )
    assert careless > math.log(1000)


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), max_size=8))
@settings(max_examples=60, deadline=None)
def test_stages_of_one_share_add_up(counts):
    """Only how many failures came at a share matters, not in how many parts they are told."""
    parts = [StageFailures(a, b, 0.1) for a, b in counts]
    whole = StageFailures(sum(a for a, _ in counts), sum(b for _, b in counts), 0.1)
    assert harm_log_e(parts) == pytest.approx(harm_log_e([whole]), abs=1e-9)


@pytest.mark.parametrize(
    "stage",
    [
        StageFailures(-1, 0, 0.5),
        StageFailures(0, -1, 0.5),
        StageFailures(1, 1, 0.0),
        StageFailures(1, 1, 1.0),
        StageFailures(1, 1, math.nan),
    ],
)
def test_impossible_failures_are_refused(stage):
    """A share of all or nothing has no one to compare with."""
    with pytest.raises(ValueError, match="impossible"):
        harm_log_e([stage])


@pytest.mark.parametrize("max_ratio", [0.9, math.nan])
def test_a_tolerance_below_equal_rates_is_refused(max_ratio):
    """The test is of harm, not of improvement."""
    with pytest.raises(ValueError, match="tolerated"):
        harm_log_e([], max_ratio=max_ratio)
