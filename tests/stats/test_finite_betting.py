"""The test without replacement keeps its level at every look and knows when all is decided."""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import permutations

import numpy as np
import pytest

from sidejudge_server.stats.finite_betting import (
    FINITE_BET_FRACTIONS,
    finite_mean_below_log_e,
)


def _exact_wealth(values, population, mean):
    """Return the mixture's wealth after each draw in rational numbers, by the definition."""
    wealths = [Fraction(1)] * len(FINITE_BET_FRACTIONS)
    result = []
    drawn = Fraction(0)
    for count, value in enumerate(values):
        expected = (mean * population - drawn) / (population - count)
        for index, fraction in enumerate(FINITE_BET_FRACTIONS):
            bet = Fraction(fraction) / (1 - expected)
            wealths[index] *= 1 + bet * (expected - value)
        drawn += value
        result.append(sum(wealths) / len(wealths))
    return result


def test_agrees_with_the_definition_in_exact_arithmetic():
    """Running maximum of the mean wealth of constant bets on what the rest has to be."""
    values = [Fraction(n, 8) for n in (-3, 1, -2, -4, 0, 2, -1, -3)]
    exact = _exact_wealth(values, 20, Fraction(1, 10))
    got = finite_mean_below_log_e([float(v) for v in values], population=20, mean=0.1)
    assert got == pytest.approx(math.log(max(exact)), abs=1e-12)


def test_expected_wealth_is_one_over_all_orders():
    """Under the hypothesis the game is fair at every draw: the mean over all orders is 1."""
    population = [Fraction(n, 4) for n in (-3, -1, 0, 1, 3, 0)]
    orders = list(permutations(population))
    for draws in range(1, 5):
        total = sum(
            _exact_wealth(order[:draws], 6, Fraction(0))[-1] for order in orders
        )
        assert total / len(orders) == 1


@pytest.mark.parametrize(
    "shape", ["normal", "two-valued", "many small losses, few large wins"]
)
def test_level_holds_whatever_the_values_look_like(shape):
    """A population with mean 0 is rejected at some look in at most 20 % of 2,000 orders."""
    rng = np.random.default_rng(15)
    population = {
        "normal": rng.normal(0, 0.3, 60).clip(-1, 1),
        "two-valued": np.repeat([-1.0, 1.0], 30),
        "many small losses, few large wins": np.r_[np.full(54, -0.1), np.full(6, 0.9)],
    }[shape]
    population = population - population.mean()
    rejected = sum(
        finite_mean_below_log_e(rng.permutation(population), population=60)
        >= math.log(5)
        for _ in range(2_000)
    )
    assert rejected / 2_000 <= 0.2 + 3 * (0.16 / 2_000) ** 0.5


def test_impossible_hypothesis_is_certain():
    """When the rest cannot make up for it any more, the evidence has no limit."""
    assert finite_mean_below_log_e([-1.0] * 6, population=10) == math.inf
    assert finite_mean_below_log_e([-0.01] * 4, population=4) == math.inf
    assert finite_mean_below_log_e([0.0] * 4, population=4) < math.log(2)


def test_no_values_are_no_evidence():
    """Nothing drawn says nothing, and wins say nothing against."""
    assert finite_mean_below_log_e([], population=5) == 0.0
    assert finite_mean_below_log_e([0.5, 0.9, 1.0], population=30) == 0.0
    assert finite_mean_below_log_e([1.0] * 9, population=10) == 0.0


@pytest.mark.parametrize(
    ("values", "population", "mean"),
    [([1.5], 3, 0.0), ([math.nan], 3, 0.0), ([0.0] * 4, 3, 0.0), ([0.0], 3, 1.0)],
)
def test_values_out_of_range_are_refused(values, population, mean):
    """A wrong number must not become evidence."""
    with pytest.raises(ValueError, match=r"values|mean"):
        finite_mean_below_log_e(values, population=population, mean=mean)
