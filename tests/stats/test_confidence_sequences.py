"""Confidence sequences of rates and means: reference values, limits, and what cannot be said."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidejudge_server.stats.confidence_sequences import (
    bernoulli_sequence,
    mean_difference_sequence,
    mean_sequence,
    mixture_precision,
    tightest_precision,
    tuned_bernoulli_sequence,
)
from sidejudge_server.stats.moments import Moments
from sidejudge_server.stats.outcome import CannotSay, Interval
from tests.stats.vectors import load


def test_uniform_mixture_and_asymptotic_sequence_agree_with_the_vectors():
    """Both at several looks of one stream; before 50 values nothing asymptotic is said."""
    vectors = load("cs_bernoulli_uniform_prior")
    for case, expected in vectors.cases:
        precision = 1 / expected["asymptotic_rho_precision"]
        for look, n in enumerate(case["report_at"]):
            x, alpha = case["x"][:n], case["alpha"]
            exact = bernoulli_sequence(sum(x), n, alpha=alpha)
            mean = mean_sequence(Moments.of(x), alpha=alpha, precision=precision)
            assert exact.low == pytest.approx(
                expected["bernoulli_cs_lower"][look], abs=vectors.tolerance
            )
            assert exact.high == pytest.approx(
                expected["bernoulli_cs_upper"][look], abs=vectors.tolerance
            )
            ends = (
                expected["asymptotic_cs_lower"][look],
                expected["asymptotic_cs_upper"][look],
            )
            if ends == ("-inf", "inf"):
                assert isinstance(mean, CannotSay)
                continue
            assert mean.low == pytest.approx(ends[0], abs=vectors.tolerance)
            assert mean.high == pytest.approx(ends[1], abs=vectors.tolerance)


def test_tightest_precision_is_that_of_the_vectors_and_no_wider():
    """The reference searches ln r to 1e-5 (ville 0.1.0, `minimize_scalar`); ours is the root.

    Its 60.88679014904041 is off by 4.6e-5 from the exact 60.8867443490, so the file's 1e-8 cannot
    be met; 1e-5 of the value is what its search promises. At 500 units ours is at least as tight.
    """
    vectors = load("cs_bernoulli_uniform_prior")
    (theirs,) = {e["asymptotic_rho_precision"] for _, e in vectors.cases}
    ours = tightest_precision(0.05, 500)
    assert 1 / ours == pytest.approx(theirs, rel=1e-5)
    sample = Moments(500, 0.0, 1.0)
    widths = [
        mean_sequence(sample, precision=precision).high
        for precision in (ours, 1 / theirs, mixture_precision(0.05, 500))
    ]
    assert widths[0] <= widths[1] <= widths[2]


def test_tuned_sequence_agrees_with_the_vectors():
    """The beta-binomial mixture that is tightest near a planned size."""
    vectors = load("cs_bernoulli_confseq")
    for case, expected in vectors.cases:
        assert expected.keys() == {"bernoulli_ci"}
        got = tuned_bernoulli_sequence(
            case["successes"],
            case["n"],
            n_optimal=case["t_opt"],
            alpha=case["alpha"],
        )
        low, high = expected["bernoulli_ci"]
        assert got.low == pytest.approx(low, abs=vectors.tolerance)
        assert got.high == pytest.approx(high, abs=vectors.tolerance)


def uniform(hits: int, n: int, alpha: float) -> Interval | CannotSay:
    return bernoulli_sequence(hits, n, alpha=alpha)


def tuned(hits: int, n: int, alpha: float) -> Interval | CannotSay:
    return tuned_bernoulli_sequence(hits, n, n_optimal=200, alpha=alpha)


@pytest.mark.parametrize("sequence", [uniform, tuned])
@given(st.integers(0, 400), st.integers(0, 400), st.floats(0.001, 0.5))
@settings(max_examples=40, deadline=None)
def test_a_rate_and_its_complement_mirror_each_other(sequence, hits, misses, alpha):
    """Counting misses instead of hits turns the interval around, and the rate lies inside."""
    n = hits + misses
    got = sequence(hits, n, alpha)
    if n == 0:
        assert isinstance(got, CannotSay)
        return
    mirrored = sequence(misses, n, alpha)
    assert got.low == pytest.approx(1 - mirrored.high, abs=1e-9)
    assert got.high == pytest.approx(1 - mirrored.low, abs=1e-9)
    assert hits / n in got


@pytest.mark.parametrize("sequence", [uniform, tuned])
def test_all_hits_reach_one(sequence):
    """A rate of 1 cannot be excluded by hits."""
    got = sequence(60, 60, 0.05)
    assert got.high == 1.0
    assert 0.8 < got.low < 1


def test_uniform_mixture_of_one_hit():
    """B(2, 1) / p = 1 / (2 p) reaches 20 at p = 1/40."""
    assert bernoulli_sequence(1, 1).low == pytest.approx(1 / 40)


@pytest.mark.parametrize(
    ("hits", "n", "alpha"), [(-1, 3, 0.05), (4, 3, 0.05), (1, 3, 0.0), (1, 3, math.nan)]
)
def test_impossible_counts_and_error_rates_are_refused(hits, n, alpha):
    """They come from a fault of the caller."""
    with pytest.raises(ValueError, match=r"impossible counts|alpha"):
        bernoulli_sequence(hits, n, alpha=alpha)
    with pytest.raises(ValueError, match=r"impossible counts|alpha"):
        tuned_bernoulli_sequence(hits, n, n_optimal=10, alpha=alpha)


@pytest.mark.parametrize(("n_optimal", "alpha"), [(0, 0.05), (math.inf, 0.05), (9, 1)])
def test_impossible_tuning_is_refused(n_optimal, alpha):
    """There is no size at which to be tightest."""
    with pytest.raises(ValueError, match="tuning"):
        tuned_bernoulli_sequence(1, 2, n_optimal=n_optimal, alpha_optimal=alpha)


def test_asymptotic_sequences_say_nothing_about_few_values_or_no_spread():
    """49 values are one too few; equal values have no spread."""
    few, equal, enough = Moments(49, 0, 1), Moments(90, 3, 0), Moments(50, 0, 1)
    assert "50 values" in mean_sequence(few, precision=0.01).reason
    assert "spread" in mean_sequence(equal, precision=0.01).reason
    assert "there are 49" in mean_difference_sequence(enough, few).reason
    assert "spread" in mean_difference_sequence(equal, equal).reason
    assert isinstance(mean_sequence(enough, precision=0.01), Interval)


@pytest.mark.parametrize(
    "arguments",
    [
        {"precision": 0.0},
        {"precision": math.nan},
        {"precision": 0.1, "alpha": 1.0},
        {"precision": 0.1, "alpha": math.nan},
    ],
)
def test_impossible_arguments_of_a_mean_are_refused(arguments):
    """An error rate of 1 or a precision of 0 means nothing."""
    with pytest.raises(ValueError, match=r"alpha|precision"):
        mean_sequence(Moments(60, 0, 1), **arguments)


@given(
    st.floats(-5, 5), st.floats(0.01, 9), st.integers(50, 4000), st.integers(50, 4000)
)
@settings(max_examples=60, deadline=None)
def test_a_difference_has_evidence_of_one_over_alpha_at_its_ends(mean, var, n_a, n_b):
    """Interval and e-value of the asymptotic mixture are one and the same."""
    got = mean_difference_sequence(Moments(n_a, 0.0, 1.0), Moments(n_b, mean, var))
    for end in (got.interval.low, got.interval.high):
        assert got.log_e(end) == pytest.approx(math.log(20), abs=1e-6)
    assert got.log_e_above(got.interval.low) == pytest.approx(math.log(20), abs=1e-6)
    assert got.log_e_above(got.interval.high) < 0


def test_one_mean_and_the_difference_of_two_use_one_formula():
    """200 units with the squared error 2 / 100 + 2 / 100 are as 200 values of variance 8."""
    got = mean_difference_sequence(
        Moments(100, 0.0, 2.0), Moments(100, 1.0, 2.0), planned=500
    )
    pooled = mean_sequence(
        Moments(200, 1.0, 8.0), precision=mixture_precision(0.05, 500)
    )
    assert got.interval.low == pytest.approx(pooled.low)
    assert got.interval.high == pytest.approx(pooled.high)
