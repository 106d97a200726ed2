"""Group sequential bounds agree with published and reference values."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special

from sidejudge_server.stats.group_sequential import (
    group_sequential_bounds,
    obrien_fleming_spending,
    power_spending,
)
from tests.stats.vectors import load


def test_bounds_agree_with_the_vectors():
    """Power family, one- and two-sided, 2 to 20 looks."""
    vectors = load("group_sequential_bounds")
    for case, expected in vectors.cases:
        assert expected.keys() == {"z_bounds"}
        got = group_sequential_bounds(
            case["information_fractions"],
            alpha=case["alpha"],
            sides=case["sides"],
            spending=power_spending(case["spending_power"]),
        )
        assert got == pytest.approx(expected["z_bounds"], abs=vectors.tolerance)


def test_obrien_fleming_bounds_are_the_published_ones():
    """Five equal looks, two-sided 5 %: Reboussin et al., Control. Clin. Trials 21 (2000).

    They spend half of the error rate on each side.
    """
    one_side = group_sequential_bounds([0.2, 0.4, 0.6, 0.8, 1.0], alpha=0.025, sides=1)
    published = [4.8769, 3.3569, 2.6803, 2.2898, 2.0310]
    assert one_side == pytest.approx(published, abs=2e-4)


def test_one_look_is_the_fixed_test():
    """Without earlier looks the bounds are 1.96 and 1.645."""
    assert group_sequential_bounds([1.0])[0] == pytest.approx(-special.ndtri(0.025))
    assert group_sequential_bounds([1.0], sides=1)[0] == pytest.approx(
        -special.ndtri(0.05)
    )


@given(st.lists(st.integers(1, 100), min_size=1, max_size=6, unique=True))
@settings(max_examples=15, deadline=None)
def test_bounds_are_never_below_those_of_one_look(looks):
    """Looking oftener has its price at every look but the price of the end is limited (Bonferroni)."""
    fractions = [look / 100 for look in sorted(looks)]
    bounds = group_sequential_bounds(fractions, spending=power_spending(2))
    assert min(bounds) >= -special.ndtri(0.025) - 1e-6
    spent = 0.0
    for fraction, bound in zip(fractions, bounds, strict=True):
        share = 0.05 * fraction**2 - spent
        assert bound <= -special.ndtri(share / 2) + 1e-6
        spent += share


@pytest.mark.parametrize(
    "fractions",
    [
        [],
        [0.0, 1.0],
        [0.5, 0.5],
        [0.8, 0.4],
        [0.5, 1.1],
        [0.5, math.nan],
        [0.5, 0.5002],
    ],
)
def test_impossible_looks_are_refused(fractions):
    """Looks rise, within what was planned."""
    with pytest.raises(ValueError, match="look"):
        group_sequential_bounds(fractions)


def test_impossible_error_rates_and_spendings_are_refused():
    """Nothing to spend, nothing spent, no such number of sides."""
    with pytest.raises(ValueError, match="alpha"):
        group_sequential_bounds([1.0], alpha=0)
    with pytest.raises(ValueError, match="sides"):
        group_sequential_bounds([1.0], sides=3)
    with pytest.raises(ValueError, match="rise"):
        group_sequential_bounds([0.5, 1.0], spending=lambda _, alpha: alpha)
    with pytest.raises(ValueError, match="power"):
        power_spending(0)


def test_obrien_fleming_keeps_nearly_all_for_the_end():
    """Half of the information may spend 0.6 % of 5 %; all of it all."""
    assert obrien_fleming_spending(0.5, 0.05) == pytest.approx(0.00557, abs=1e-5)
    assert obrien_fleming_spending(1.0, 0.05) == pytest.approx(0.05)
