"""Tango's interval: duality with McNemar's test, degenerate counts, coverage."""

from __future__ import annotations

import numpy as np
import pytest

from sidejudge_server.optimization.paired_interval import paired_score_interval
from sidejudge_server.stats.outcome import CannotSay, Interval
from sidejudge_server.stats.proportions import wilson


def _interval(wins: int, losses: int, *, pairs: int) -> Interval:
    found = paired_score_interval(wins, losses, pairs=pairs)
    assert not isinstance(found, CannotSay)
    return found


def test_only_ties_give_wilsons_interval_of_a_proportion():
    """Without discordance the statistic is that of a single proportion at 0."""
    wilson_interval = wilson(0, 80)
    assert not isinstance(wilson_interval, CannotSay)
    found = _interval(0, 0, pairs=80)
    assert found.high == pytest.approx(wilson_interval.high, abs=1e-9)
    assert found.low == pytest.approx(-wilson_interval.high, abs=1e-9)


def test_swapping_sides_mirrors_the_interval():
    """The difference changes sign when the two judges change places."""
    there, back = _interval(12, 2, pairs=100), _interval(2, 12, pairs=100)
    assert there.low == pytest.approx(-back.high, abs=1e-9)
    assert there.high == pytest.approx(-back.low, abs=1e-9)


@pytest.mark.parametrize(
    ("wins", "losses", "excludes_zero"),
    # McNemar's chi-square (b - c)^2 / (b + c) against 3.841: 3.846, 3.769, 4.0, 3.0.
    [(18, 8, True), (10, 3, False), (4, 0, True), (3, 0, False)],
)
def test_excludes_zero_exactly_when_mcnemars_chi_square_rejects(
    wins, losses, excludes_zero
):
    """The interval inverts the score test."""
    assert (0 not in _interval(wins, losses, pairs=90)) == excludes_zero


@pytest.mark.parametrize(("wins", "losses", "pairs"), [(30, 0, 30), (0, 30, 30)])
def test_every_pair_discordant_ends_at_one(wins, losses, pairs):
    """The ends stay within -1..1."""
    found = _interval(wins, losses, pairs=pairs)
    assert max(abs(found.low), abs(found.high)) == 1.0
    assert min(abs(found.low), abs(found.high)) > 0.7


def test_no_pairs_cannot_say():
    """Nothing is known without pairs."""
    assert isinstance(paired_score_interval(0, 0, pairs=0), CannotSay)


def test_impossible_counts_are_refused():
    """More discordant pairs than pairs is a mistake of the caller."""
    with pytest.raises(ValueError, match="impossible"):
        paired_score_interval(3, 3, pairs=5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("p_win", "p_loss", "pairs"), [(0.1, 0.05, 50), (0.02, 0.02, 60), (0.3, 0.1, 30)]
)
def test_coverage_is_close_to_nominal(p_win, p_loss, pairs):
    """95 % of intervals hold the true difference, within 3 standard errors and discreteness."""
    generator = np.random.default_rng(7)
    draws = generator.multinomial(pairs, [p_win, p_loss, 1 - p_win - p_loss], size=800)
    held = [
        p_win - p_loss in _interval(int(w), int(x), pairs=pairs) for w, x, _ in draws
    ]
    assert np.mean(held) > 0.92
