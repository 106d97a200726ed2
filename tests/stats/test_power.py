"""Power of the exact McNemar test, and the number of pairs it takes."""

from __future__ import annotations

from math import comb

import pytest

from sidejudge_server.stats.outcome import CannotSay
from sidejudge_server.stats.power import mcnemar_power, required_pairs
from tests.stats.vectors import load


def test_power_agrees_with_the_vectors():
    """Full enumeration of the exact two-sided test."""
    vectors = load("power")
    checked = 0
    for given, expected in vectors.cases:
        if "power_exact_mcnemar" in expected:
            checked += 1
            got = mcnemar_power(
                given["n_pairs"],
                p_win=given["p_only_b_right"],
                p_loss=given["p_only_a_right"],
                alpha=given["alpha"],
            )
            assert got == pytest.approx(
                expected["power_exact_mcnemar"], abs=vectors.tolerance
            )
    assert checked


@pytest.mark.parametrize(
    ("alternative", "factor"), [("two-sided", 2), ("new-better", 1)]
)
def test_power_equals_brute_force(alternative, factor):
    """Summing over every table of 20 pairs gives the same."""
    pairs, p_win, p_loss, alpha = 20, 0.3, 0.05, 0.05
    brute = 0.0
    for wins in range(pairs + 1):
        for losses in range(pairs + 1 - wins):
            n = wins + losses
            extreme = max(wins, losses) if factor == 2 else wins
            tail = sum(comb(n, k) for k in range(extreme, n + 1)) / 2**n
            if n and factor * tail <= alpha:
                ways = comb(pairs, wins) * comb(pairs - wins, losses)
                brute += (
                    ways
                    * p_win**wins
                    * p_loss**losses
                    * (0.65 ** (pairs - wins - losses))
                )
    got = mcnemar_power(
        pairs, p_win=p_win, p_loss=p_loss, alpha=alpha, alternative=alternative
    )
    assert got == pytest.approx(brute, abs=1e-9)


def test_required_pairs_reach_the_power_and_not_much_earlier():
    """80 % to 88 % with 2 % losses takes about 155 pairs two-sided, fewer one-sided."""
    needed = required_pairs(p_win=0.1, p_loss=0.02)
    assert 145 < needed < 165
    assert mcnemar_power(needed, p_win=0.1, p_loss=0.02) >= 0.8
    assert mcnemar_power(needed - 5, p_win=0.1, p_loss=0.02) < 0.8
    assert required_pairs(p_win=0.1, p_loss=0.02, alternative="new-better") < needed


def test_no_difference_needs_no_number_of_pairs():
    """Equal rates, or a worse candidate one-sided, cannot be settled by more data."""
    assert isinstance(required_pairs(p_win=0.1, p_loss=0.1), CannotSay)
    assert isinstance(
        required_pairs(p_win=0.05, p_loss=0.1, alternative="new-better"), CannotSay
    )
    assert isinstance(required_pairs(p_win=0.5, p_loss=0.49, limit=500), CannotSay)


def test_no_pairs_have_no_power():
    """Without pairs or discordance the test never rejects."""
    assert mcnemar_power(0, p_win=0.2, p_loss=0.1) == 0.0
    assert mcnemar_power(50, p_win=0.0, p_loss=0.0) == 0.0


def test_impossible_probabilities_are_refused():
    """They must not add up to more than 1."""
    with pytest.raises(ValueError, match="impossible"):
        mcnemar_power(10, p_win=0.7, p_loss=0.4)
