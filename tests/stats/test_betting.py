"""E-values and confidence sequences agree with the definitions."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidejudge_server.stats import betting
from sidejudge_server.stats.outcome import CannotSay
from tests.stats.vectors import load


def test_betting_mixture_agrees_with_the_vectors():
    """Mixture of constant bets against a mean."""
    vectors = load("evalue_betting_mixture")
    for case, expected in vectors.cases:
        assert pytest.approx(case["bet_fractions"]) == betting.BET_FRACTIONS
        got = betting.betting_log_e(case["d"], mean=case["m"])
        wealths = betting.betting_log_wealths(case["d"], mean=case["m"])
        assert {
            "log_e_mixture": got,
            "log_wealth_first_bet": wealths[0],
            "log_wealth_last_bet": wealths[-1],
        } == pytest.approx(expected, abs=vectors.tolerance)


def test_confidence_sequence_agrees_with_the_vectors():
    """Interval and e-values of win, loss and tie counts."""
    vectors = load("cs_paired_betting_mixture")
    for case, expected in vectors.cases:
        assert len(expected) == 5
        wins, losses, ties = case["wins"], case["losses"], case["ties"]
        got = betting.betting_interval_of_counts(
            wins, losses, ties=ties, alpha=case["alpha"]
        )
        assert got.low == pytest.approx(expected["lower"], abs=vectors.tolerance)
        assert got.high == pytest.approx(expected["upper"], abs=vectors.tolerance)
        for key, mean, alternative in (
            ("log_e_at_zero", 0.0, "two-sided"),
            ("log_e_mean_gt_0", 0.0, "greater"),
            ("log_e_mean_gt_0_05", 0.05, "greater"),
        ):
            e = betting.betting_log_e_of_counts(
                wins, losses, ties=ties, mean=mean, alternative=alternative
            )
            assert e == pytest.approx(expected[key], abs=vectors.tolerance)


def test_confidence_sequence_of_a_known_case():
    """12 wins, 2 losses, 86 ties at 95 %: computed independently at high precision."""
    got = betting.betting_interval_of_counts(12, 2, ties=86)
    assert got.low == pytest.approx(-0.02242348365, abs=1e-9)
    assert got.high == pytest.approx(0.23879570719, abs=1e-9)


@given(
    st.lists(st.sampled_from([-1.0, -0.4, 0.0, 0.25, 1.0]), min_size=1, max_size=40),
    st.randoms(use_true_random=False),
)
@settings(max_examples=40, deadline=None)
def test_order_does_not_matter(values, random):
    """The same values in another order are the same evidence."""
    shuffled = list(values)
    random.shuffle(shuffled)
    assert betting.betting_log_e(shuffled) == pytest.approx(
        betting.betting_log_e(values), abs=1e-9
    )


@given(
    st.integers(0, 60), st.integers(0, 60), st.integers(0, 200), st.floats(0.01, 0.5)
)
@settings(max_examples=25, deadline=None)
def test_interval_is_where_the_e_value_is_below_one_over_alpha(
    wins, losses, ties, alpha
):
    """Ends within +-1 have E = 1/alpha, and the sample mean is always inside."""
    got = betting.betting_interval_of_counts(wins, losses, ties=ties, alpha=alpha)
    total = wins + losses + ties
    if total == 0:
        assert isinstance(got, CannotSay)
        return
    assert (wins - losses) / total in got
    for end in (got.low, got.high):
        if abs(end) < 1:
            e = betting.betting_log_e_of_counts(wins, losses, ties=ties, mean=end)
            assert e == pytest.approx(-math.log(alpha), abs=1e-5)


def test_all_wins_reach_the_end_of_the_range():
    """A mean of 1 cannot be excluded by wins alone; 0 can."""
    got = betting.betting_interval_of_counts(30, 0, ties=0)
    assert got.high == 1.0
    assert got.low > 0.5


def test_no_evidence_is_one():
    """E starts at 1, and its anytime p is 1 only because nothing was seen."""
    assert betting.betting_log_e([]) == pytest.approx(0)
    assert betting.anytime_p(-3.0) == 1.0
    assert betting.anytime_p(math.log(20)) == pytest.approx(0.05)


@pytest.mark.parametrize("values", [[1.01], [float("nan")], [float("-inf")]])
def test_values_out_of_range_are_refused(values):
    """A bet on a value outside -1..1 could lose more than all."""
    with pytest.raises(ValueError, match="within"):
        betting.betting_log_e(values)
