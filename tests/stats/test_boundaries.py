"""Uniform boundaries agree with the reference and refuse what they are not defined for."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidejudge_server.stats.boundaries import (
    gamma_exponential_bound,
    normal_mixture_bound,
    poly_stitching_bound,
)
from tests.stats.vectors import load


def test_boundaries_agree_with_the_vectors():
    """Normal mixture of both kinds, stitching, gamma mixture."""
    vectors = load("boundaries_confseq")
    for case, expected in vectors.cases:
        v, alpha, v_optimal = case["v"], case["alpha"], case["v_opt"]
        got = {
            "normal_mixture_one_sided": normal_mixture_bound(
                v, v_optimal=v_optimal, alpha=alpha, sides=1
            ),
            "normal_mixture_two_sided": normal_mixture_bound(
                v, v_optimal=v_optimal, alpha=alpha
            ),
            "poly_stitching": poly_stitching_bound(v, v_min=10, alpha=alpha),
            "gamma_exponential": gamma_exponential_bound(
                v, v_optimal=v_optimal, c=1, alpha=alpha
            ),
        }
        assert got == pytest.approx(expected, abs=vectors.tolerance)


@given(st.floats(0, 1e4), st.floats(0.01, 1e3), st.floats(1e-6, 0.4))
@settings(max_examples=60, deadline=None)
def test_boundaries_rise_with_time_and_with_certainty(v, step, alpha):
    """Longer means higher, and where it is tightest so does surer.

    Elsewhere not always: the tuning depends on the error rate.
    """
    for bound in (
        lambda v, a: normal_mixture_bound(v, v_optimal=50, alpha=a),
        lambda v, a: normal_mixture_bound(v, v_optimal=50, alpha=a, sides=1),
        lambda v, a: poly_stitching_bound(v, v_min=10, alpha=a, c=0.5),
        lambda v, a: gamma_exponential_bound(v, v_optimal=50, c=0.5, alpha=a),
    ):
        assert bound(v, alpha) <= bound(v + step, alpha) * (1 + 1e-12)
        assert bound(50, alpha) < bound(50, alpha / 2)


def test_stitching_does_not_fall_below_its_start():
    """Before v_min it is that of v_min."""
    assert poly_stitching_bound(0, v_min=10) == poly_stitching_bound(10, v_min=10)


@pytest.mark.parametrize(
    "call",
    [
        lambda: normal_mixture_bound(-1, v_optimal=1),
        lambda: normal_mixture_bound(math.nan, v_optimal=1),
        lambda: normal_mixture_bound(1, v_optimal=0),
        lambda: normal_mixture_bound(1, v_optimal=1, alpha=0.6, sides=1),
        lambda: normal_mixture_bound(1, v_optimal=1, sides=3),
        lambda: gamma_exponential_bound(1, v_optimal=1, c=0),
        lambda: gamma_exponential_bound(1, v_optimal=1, c=1, alpha=0),
        lambda: poly_stitching_bound(1, v_min=1, s=1),
        lambda: poly_stitching_bound(1, v_min=1, alpha=1),
    ],
)
def test_arguments_out_of_range_are_refused(call):
    """There is no boundary for them."""
    with pytest.raises(ValueError, match=r"must|out of range|impossible"):
        call()
