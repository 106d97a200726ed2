"""Sets of labelled examples that are shown in a prompt."""

from __future__ import annotations

from collections import Counter

import pytest

from sidejudge_server.judges.types import ArtifactInput, RubricInput, Verdict
from sidejudge_server.optimization.demonstrations import labeled_sets, showable
from sidejudge_server.optimization.scoring import LabelledItem


def _verdicts(passes, fails, *, chars=10):
    return [
        LabelledItem(
            ArtifactInput(artifact=f"{index:0{chars}d}"),
            Verdict.PASS if index < passes else Verdict.FAIL,
            None,
            "",
        )
        for index in range(passes + fails)
    ]


def _sets(items, **changes):
    options = {"size": 4, "count": 6, "max_chars": 1_000, "seed": 1}
    return labeled_sets(items, **{**options, **changes})


def test_sets_are_large_and_small_in_turns():
    """Half as many often do as well."""
    assert [len(s) for s in _sets(_verdicts(10, 10))] == [4, 2, 4, 2, 4, 2]
    assert [len(s) for s in _sets(_verdicts(10, 10), size=1)] == [1] * 6


def test_labels_take_turns():
    """A set of one label would teach that answer, however rare the other is."""
    for shown in _sets(_verdicts(18, 2)):
        labels = Counter(d.verdict for d in shown)
        assert labels[Verdict.FAIL] == labels[Verdict.PASS]


def test_scores_are_dealt_from_low_middle_and_high_ones():
    """As labels are."""
    items = [
        LabelledItem(RubricInput("task", f"output {i}"), None, i / 29, "")
        for i in range(30)
    ]
    for shown in _sets(items, size=3)[::2]:
        assert sorted(int(2.999 * d.score) for d in shown) == [0, 1, 2]


def test_no_set_comes_twice():
    """The same examples in another order are the same set; few examples give few sets."""
    sets = _sets(_verdicts(1, 1), size=2)
    assert len(sets) == len({frozenset(map(repr, s)) for s in sets})
    assert len(sets) < 6


@pytest.mark.parametrize(("max_chars", "size"), [(1_000, 4), (25, 2), (5, 0)])
def test_sets_keep_to_their_room(max_chars, size):
    """Of the dealt examples those are shown that fit; none that do not."""
    sets = _sets(_verdicts(10, 10), count=1, max_chars=max_chars)
    assert [len(s) for s in sets] == ([size] if size else [])


def test_example_that_would_take_most_of_the_room_is_not_shown():
    """A third is the most for one."""
    assert len(showable(_verdicts(3, 0, chars=10), max_chars=30)) == 3
    assert showable(_verdicts(3, 0, chars=11), max_chars=30) == ()


def test_seed_decides():
    """The same again for the same seed, others for another."""
    items = _verdicts(10, 10)
    assert _sets(items) == _sets(items)
    assert _sets(items) != _sets(items, seed=2)


def test_without_examples_there_are_no_sets():
    """There is nothing to show."""
    assert _sets([]) == []
