"""Splits are stratified, group-stable and deterministic."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from sidejudge_server.training.splits import SHARES, Split, SplitAssigner, assign_split

LABELS = st.sampled_from(["pass", "partial", "fail"])
SEQUENCES = st.lists(
    st.tuples(st.integers(0, 30).map(lambda i: f"g{i}"), LABELS), max_size=120
)


def run(judge, sequence):
    assigner = SplitAssigner(judge, groups={}, counts={})
    return [assigner.assign(group, label) for group, label in sequence]


@given(SEQUENCES)
@settings(max_examples=50)
def test_a_group_never_changes_sides(sequence):
    """All examples of a group are on one side, whatever their labels."""
    sides = {}
    for (group, _), split in zip(sequence, run("j", sequence), strict=True):
        assert sides.setdefault(group, split) == split


@given(SEQUENCES)
@settings(max_examples=25)
def test_the_same_sequence_gives_the_same_split(sequence):
    """Nothing but the arguments decides."""
    assert run("j", sequence) == run("j", sequence)


@given(st.lists(LABELS, max_size=200), st.integers(0, 10**9))
@settings(max_examples=50)
def test_every_side_has_its_share_of_every_label(labels, seed):
    """With single-item groups the count is within 2 of the share, at any moment."""
    assigner = SplitAssigner(f"j{seed}", groups={}, counts={})
    counts, totals = Counter(), Counter()
    for i, label in enumerate(labels):
        counts[assigner.assign(f"g{i}", label), label] += 1
        totals[label] += 1
        for split, share in SHARES.items():
            assert abs(counts[split, label] - share * totals[label]) < 2


@given(SEQUENCES, st.integers(0, 119))
@settings(max_examples=25)
def test_a_restart_in_between_changes_nothing(sequence, at):
    """Groups and counts are all the state there is."""
    whole = run("j", sequence)
    groups, counts = {}, Counter()
    for (group, label), split in zip(sequence[:at], whole[:at], strict=True):
        groups[group] = split.value
        counts[split.value, label] += 1
    resumed = SplitAssigner("j", groups=groups, counts=counts)
    assert [resumed.assign(g, label) for g, label in sequence[at:]] == whole[at:]


def test_three_of_a_label_are_on_three_sides():
    """However rare, three failures leave no side without one."""
    for seed in range(100):
        labels = ["fail" if i % 7 == 0 else "pass" for i in range(20)]
        splits = run(f"j{seed}", [(f"g{i}", label) for i, label in enumerate(labels)])
        failures = [s for s, n in zip(splits, labels, strict=True) if n == "fail"]
        assert sorted(failures) == ["test", "train", "validation"]


def test_sides_do_not_follow_the_order_of_arrival():
    """Two sources that take turns are each split by their shares, to within a few examples."""
    splits = run("j", [(f"g{i}", "pass") for i in range(400)])
    even = Counter(splits[::2])
    for split, share in SHARES.items():
        assert abs(even[split] / 200 - share) < 0.12


def test_a_removed_example_frees_its_place():
    """A rejected example no longer counts against its side's share."""
    full = {("train", "pass"): 3, ("validation", "pass"): 3, ("test", "pass"): 4}
    assigner = SplitAssigner("j", groups={}, counts=full)
    for _ in range(3):
        assigner.remove("validation", "pass")
    assert [assigner.assign(f"new{i}", "pass") for i in range(3)].count(
        Split.VALIDATION
    ) >= 2


def test_a_side_over_its_share_is_never_chosen():
    """With train and test full, validation is the only side."""
    counts = {("train", "fail"): 5, ("test", "fail"): 6}
    for i in range(50):
        assert assign_split("j", f"g{i}", label="fail", counts=counts) == "validation"
