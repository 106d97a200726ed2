"""Intervals of proportions agree with independent implementations."""

from __future__ import annotations

import pytest

from sidejudge_server.stats.outcome import CannotSay
from sidejudge_server.stats.proportions import newcombe, wilson
from tests.stats.vectors import load


def test_wilson_agrees_with_the_vectors():
    """Statsmodels' Wilson interval, to its tolerance."""
    vectors = load("proportion_ci")
    for given, expected in vectors.cases:
        got = wilson(given["k"], given["n"], alpha=given["alpha"])
        assert [got.low, got.high] == pytest.approx(
            expected["wilson"], abs=vectors.tolerance
        )


def test_newcombe_agrees_with_the_vectors():
    """Statsmodels' Newcombe interval, to its tolerance."""
    vectors = load("two_proportions")
    for given, expected in vectors.cases:
        got = newcombe(
            given["k_a"],
            given["n_a"],
            successes_new=given["k_b"],
            trials_new=given["n_b"],
        )
        assert got.estimate == pytest.approx(expected["diff"], abs=vectors.tolerance)
        assert [got.interval.low, got.interval.high] == pytest.approx(
            expected["ci95_newcomb"], abs=vectors.tolerance
        )


def test_newcombe_gives_the_published_example():
    """Newcombe 1998, table II, example a: 56/70 less 48/80."""
    got = newcombe(48, 80, successes_new=56, trials_new=70)
    assert got.estimate == pytest.approx(0.2)
    assert got.interval.low == pytest.approx(0.0524, abs=5e-5)
    assert got.interval.high == pytest.approx(0.3339, abs=5e-5)


def test_wilson_of_all_or_none_stays_within_the_unit_interval():
    """At 0 of n the upper end is z^2/(n + z^2), and no end leaves 0..1."""
    none = wilson(0, 10)
    assert none.low == 0.0
    assert none.high == pytest.approx(3.841458820694124 / 13.841458820694124)
    assert wilson(10, 10).high == 1.0


def test_no_trials_are_no_answer():
    """Without trials there is no interval, not 0..1 and not an exception."""
    assert isinstance(wilson(0, 0), CannotSay)
    assert isinstance(newcombe(0, 0, successes_new=3, trials_new=4), CannotSay)


def test_impossible_counts_are_refused():
    """More successes than trials is a caller's mistake."""
    with pytest.raises(ValueError, match="3 of 2"):
        wilson(3, 2)
