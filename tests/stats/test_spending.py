"""Shares of an error rate add up to it, and fresh examples bring them back."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidejudge_server.stats.spending import (
    best_mean_p,
    best_sign_p,
    fresh_pairs_needed,
    spending_share,
    use_number,
)


def bar(_pairs: int, use: int) -> float:
    return 0.05 * spending_share(use)


def test_shares_of_all_uses_add_up_to_one():
    """6 / pi^2 of the error rate for the first use; the rest beyond use n is below 1 / n."""
    assert spending_share(1) == pytest.approx(6 / math.pi**2)
    assert spending_share(3) == pytest.approx(spending_share(1) / 9)
    total = math.fsum(spending_share(k) for k in range(1, 10_001))
    assert 1 - 1e-4 < total < 1


@pytest.mark.parametrize("use", [0, -1])
def test_uses_count_from_one(use):
    """There is no share of a use that did not happen."""
    with pytest.raises(ValueError, match="from 1"):
        spending_share(use)


@pytest.mark.parametrize(
    ("pairs", "shared", "use"),
    [
        (40, [], 1),
        (40, [40, 40], 3),
        (40, [20, 19], 2),  # half counts, less does not
        (81, [40, 40], 1),
        (80, [40, 40], 3),
        (0, [0, 0], 1),
    ],
)
def test_an_earlier_use_counts_if_it_saw_half_of_the_examples(pairs, shared, use):
    """So examples that are only added to are fresh again once their number has doubled."""
    assert use_number(pairs, shared) == use


@given(st.lists(st.integers(0, 30), min_size=1, max_size=25), st.integers(1, 40))
@settings(max_examples=80, deadline=None)
def test_a_doubling_of_the_examples_spends_at_most_the_error_rate(growth, first):
    """However sizes grow, the shares of all uses until they have doubled stay below 1."""
    sizes = [first]
    for step in growth:
        sizes.append(sizes[-1] + step)
    for start, size in enumerate(sizes):
        epoch = [i for i in range(start, len(sizes)) if sizes[i] <= 2 * size]
        spent = [spending_share(use_number(sizes[i], sizes[:i])) for i in epoch]
        assert math.fsum(spent) < 1


def test_best_case_of_verdicts_wins_every_pair_that_differs():
    """Of 20 pairs a fifth differ: 2^-4; a part of a pair counts as one."""
    assert best_sign_p(0.2)(20) == pytest.approx(1 / 16)
    assert best_sign_p(0.2)(21) == pytest.approx(1 / 32)


def test_best_case_of_scores_is_a_mean_at_its_spread():
    """0.1 at spread 0.25 with 25 pairs are two standard errors."""
    assert best_mean_p(0.1, 0.25)(25) == pytest.approx(0.022750131948, rel=1e-9)


def test_fresh_examples_are_counted_until_the_next_use_could_pass():
    """After one use of 20 pairs 2^-4 is far above 0.0076; 36 pairs, of which 8 differ, do."""
    assert fresh_pairs_needed(20, [20], bar=bar, best_p=best_sign_p(0.2)) == 16
    assert best_sign_p(0.2)(36) < bar(36, use_number(36, [20]))
    assert best_sign_p(0.2)(35) > bar(35, use_number(35, [20]))


def test_fresh_examples_that_outnumber_the_old_ones_reset_the_count():
    """After 200 uses of 30 pairs 61 are a first use; the old count would need 101."""
    used = [30] * 200
    assert fresh_pairs_needed(30, used, bar=bar, best_p=best_sign_p(0.2)) == 31
    assert use_number(61, used) == 1


def test_no_fresh_examples_are_needed_while_the_old_ones_can_prove_something():
    """200 pairs with 40 that differ can still pass after ten uses."""
    assert fresh_pairs_needed(200, [200] * 10, bar=bar, best_p=best_sign_p(0.2)) == 0
