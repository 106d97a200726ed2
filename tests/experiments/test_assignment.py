"""Assignment is sticky, proportional and independent between experiments."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidejudge_server.experiments.assignment import assign, choose, hash_to_unit

HALVES = {"old": 0.5, "new": 0.5}


@given(st.text(), st.text(), st.text())
def test_a_subject_keeps_its_arm(experiment, subject, salt):
    """The same arguments give the same arm, one of the arms."""
    first = assign(experiment, subject, salt=salt, weights=HALVES)
    assert first in HALVES
    assert assign(experiment, subject, salt=salt, weights=dict(HALVES)) == first


@settings(max_examples=15, deadline=None)
@given(st.floats(0.05, 1.0), st.floats(0.0, 1.0), st.integers(0, 10**6))
def test_shares_follow_the_weights(a, b, seed):
    """Of 2,000 subjects an arm gets its share within five standard errors."""
    weights = {"a": a, "b": b, "none": 0.0}
    arms = [assign("e", f"{seed}-{i}", salt="s", weights=weights) for i in range(2000)]
    share = a / (a + b)
    error = (share * (1 - share) / len(arms)) ** 0.5
    assert arms.count("a") / len(arms) == pytest.approx(share, abs=5 * error + 1e-9)
    assert "none" not in arms


def test_experiments_and_salts_are_independent():
    """Half of the subjects of an arm are in the same arm of another experiment."""
    subjects = [f"s{i}" for i in range(2000)]
    first = [s for s in subjects if assign("e1", s, salt="", weights=HALVES) == "new"]
    for experiment, salt in (("e2", ""), ("e1", "again")):
        again = [assign(experiment, s, salt=salt, weights=HALVES) for s in first]
        assert 0.44 < again.count("new") / len(again) < 0.56


def test_a_growing_first_arm_keeps_its_subjects():
    """Raising the first arm's weight only moves subjects into it."""
    for i in range(500):
        if assign("e", f"s{i}", salt="", weights={"new": 0.1, "old": 0.9}) == "new":
            grown = assign("e", f"s{i}", salt="", weights={"new": 0.5, "old": 0.5})
            assert grown == "new"


def test_the_hash_never_changes():
    """Assignments and splits in users' databases depend on these exact numbers."""
    assert hash_to_unit("experiment", "salt", "subject") == 0.7945704672927317


@given(st.lists(st.text(max_size=5), min_size=2, max_size=3))
def test_parts_are_kept_apart(parts):
    """Joining two parts gives another number."""
    assert hash_to_unit(*parts) != hash_to_unit("".join(parts))
    assert 0 <= hash_to_unit(*parts) < 1


@pytest.mark.parametrize("weights", [{}, {"a": 0.0}, {"a": -1.0}, {"a": float("nan")}])
def test_weights_that_choose_nothing_are_refused(weights):
    """No positive weight, a negative one or NaN is a caller's mistake."""
    with pytest.raises(ValueError, match="weight"):
        choose(0.5, weights)
