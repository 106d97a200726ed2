"""Plug-in confidence sequences of bounded means agree with the reference."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidejudge_server.stats.bounded_sequences import (
    empirical_bernstein_interval,
    hedged_capital_interval,
)
from sidejudge_server.stats.outcome import CannotSay
from tests.stats.vectors import load


def test_intervals_agree_with_the_vectors():
    """The reference searches a grid of 1/1000 and adds one step to each side."""
    vectors = load("cs_bounded_confseq")
    for case, expected in vectors.cases:
        for look, n in enumerate(case["report_at"]):
            x, alpha = case["x"][:n], case["alpha"]
            hedged = hedged_capital_interval(x, alpha=alpha)
            bernstein = empirical_bernstein_interval(x, alpha=alpha)
            got = {
                "betting_lower": hedged.low,
                "betting_upper": hedged.high,
                "predmix_eb_lower": bernstein.low,
                "predmix_eb_upper": bernstein.high,
            }
            assert got == pytest.approx(
                {key: values[look] for key, values in expected.items()},
                abs=vectors.tolerance,
            )
            # The exact ends lie within the reference's last step.
            assert -1e-9 <= hedged.low - expected["betting_lower"][look] <= 1e-3
            assert -1e-9 <= expected["betting_upper"][look] - hedged.high <= 1e-3


@pytest.mark.parametrize(
    "interval", [hedged_capital_interval, empirical_bernstein_interval]
)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=60))
@settings(max_examples=40, deadline=None)
def test_turning_the_scale_around_turns_the_interval_around(interval, values):
    """Scores and one minus the scores are the same evidence."""
    got = interval(values)
    mirrored = interval([1 - value for value in values])
    assert 0 <= got.low < got.high <= 1
    assert got.low == pytest.approx(1 - mirrored.high, abs=1e-7)
    assert got.high == pytest.approx(1 - mirrored.low, abs=1e-7)


@pytest.mark.parametrize(
    "interval", [hedged_capital_interval, empirical_bernstein_interval]
)
def test_no_values_say_nothing_and_one_value_little(interval):
    """Without values the mean may be anything; one value excludes hardly any."""
    assert isinstance(interval([]), CannotSay)
    one = interval([1.0])
    assert one.high == 1.0
    assert one.low < 0.1


@pytest.mark.parametrize(
    "interval", [hedged_capital_interval, empirical_bernstein_interval]
)
@pytest.mark.parametrize(
    ("values", "alpha"), [([1.01], 0.05), ([math.nan], 0.05), ([0.5], 0.0)]
)
def test_values_out_of_range_are_refused(interval, values, alpha):
    """A bet on them could lose more than all."""
    with pytest.raises(ValueError, match=r"within|alpha"):
        interval(values, alpha=alpha)


def test_many_values_of_little_spread_are_told_precisely():
    """Bets learn the spread: 500 scores within 0.8 +- 0.05 give an interval of a few hundredths."""
    values = np.random.default_rng(5).uniform(0.75, 0.85, 500)
    hedged = hedged_capital_interval(values)
    assert 0.8 in hedged
    assert hedged.high - hedged.low < 0.03
