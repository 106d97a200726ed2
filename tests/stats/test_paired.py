"""Paired tests agree with independent implementations and say when they cannot answer."""

from __future__ import annotations

import pytest

from sidejudge_server.stats.outcome import CannotSay
from sidejudge_server.stats.paired import mcnemar, paired_t
from tests.stats.vectors import load


def test_mcnemar_agrees_with_the_vectors():
    """Exact two-sided, one-sided and mid-p; no discordant pair is no answer."""
    vectors = load("mcnemar")
    answered = 0
    for given, expected in vectors.cases:
        got = mcnemar(given["only_b_right"], given["only_a_right"])
        if "p_exact" not in expected:
            assert isinstance(got, CannotSay)
            continue
        answered += 1
        assert got.p_two_sided == pytest.approx(
            expected["p_exact"], abs=vectors.tolerance
        )
        assert got.p_new_better == pytest.approx(
            expected["p_exact_one_sided_B_better"], abs=vectors.tolerance
        )
        assert got.p_mid == pytest.approx(expected["p_mid"], abs=vectors.tolerance)
    assert answered


def test_mcnemar_of_six_wins_and_one_loss():
    """2 (1 + 7) / 2^7 two-sided, 8 / 2^7 one-sided, less 7 / 2^7 for mid-p."""
    got = mcnemar(6, 1)
    assert got.p_two_sided == pytest.approx(0.125)
    assert got.p_new_better == pytest.approx(0.0625)
    assert got.p_mid == pytest.approx(0.0703125)


def test_mcnemar_one_sided_looks_at_the_direction():
    """More losses than wins are never evidence that the new one is better."""
    assert mcnemar(1, 6).p_new_better == pytest.approx(1 - 1 / 128)


def test_mcnemar_without_discordant_pairs_cannot_say():
    """Equal answers on all items say nothing, which is not p = 1."""
    got = mcnemar(0, 0)
    assert isinstance(got, CannotSay)
    assert "discordant" in got.reason


def test_paired_t_agrees_with_the_vectors():
    """Scipy's paired t and its interval."""
    vectors = load("paired_continuous")
    for given, expected in vectors.cases:
        differences = [b - a for a, b in zip(given["a"], given["b"], strict=True)]
        got = paired_t(differences)
        assert got.mean == pytest.approx(expected["mean_diff"], abs=vectors.tolerance)
        assert got.t == pytest.approx(expected["t"], abs=vectors.tolerance)
        assert got.degrees == expected["df"]
        assert got.p_two_sided == pytest.approx(expected["p"], abs=vectors.tolerance)
        assert [got.interval.low, got.interval.high] == pytest.approx(
            expected["ci95"], abs=vectors.tolerance
        )


def test_paired_t_of_a_small_example():
    """Mean 2, standard error 1/sqrt(3), so t = 2 sqrt(3); the interval uses t(0.975; 2) = 4.302653."""
    got = paired_t([1.0, 2.0, 3.0])
    assert got.t == pytest.approx(3.4641016)
    assert got.p_two_sided == pytest.approx(0.0741799, abs=1e-7)
    assert got.p_new_better == pytest.approx(got.p_two_sided / 2)
    assert got.interval.high - got.mean == pytest.approx(4.302653 * 0.57735027)


@pytest.mark.parametrize("differences", [[], [0.3], [0.0] * 5, [0.1] * 7])
def test_paired_t_without_spread_cannot_say(differences):
    """Fewer than two pairs or equal differences give no p, neither 0 nor 1."""
    assert isinstance(paired_t(differences), CannotSay)


def test_paired_t_refuses_what_is_not_a_number():
    """A NaN would silently poison every figure."""
    with pytest.raises(ValueError, match="finite"):
        paired_t([0.1, float("nan")])
