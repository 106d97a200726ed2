"""Which side of the data split an example is on: train, validation or test, for ever.

Shares are 30 / 30 / 40 %: candidates are compared on validation and the gate decides on test, so
the few labels that a judge gets go mostly where they are evidence; demonstrations need few.

Three rules, in this order:

1. A group stays on its side for ever, so related items never sit on two sides and the gate never
   sees what a candidate was made from.
2. A new group goes to a side that is below its share for the label of its first example.
   A hash alone would be simpler, but small sets would come out unbalanced: of 20 examples,
   5 of them failures, a hash leaves validation or test without a failure one time in four.
   With this rule every side has its share of every label to within two examples, and a label's
   first three groups go to three sides, so three failures are enough to have one everywhere.
3. Among those sides, a hash of judge and group chooses, in proportion to the shares. So the choice
   cannot be steered by whoever sends examples, and does not follow their order: alternating
   sources do not end up on alternating sides.

The result depends on the order of arrival only through rule 2 and is deterministic given it.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from sidejudge_server.experiments.assignment import choose, hash_to_unit

__all__ = ["SHARES", "Split", "SplitAssigner", "assign_split"]


class Split(StrEnum):
    """A side of the data split."""

    TRAIN = "train"
    VALIDATION = "validation"
    TEST = "test"


SHARES: Mapping[Split, float] = {
    Split.TRAIN: 0.3,
    Split.VALIDATION: 0.3,
    Split.TEST: 0.4,
}


def assign_split(
    judge_id: str, group: str, *, label: str, counts: Mapping[tuple[str, str], int]
) -> Split:
    """Choose the side of a group that has none yet.

    Args:
        judge_id: The judge.
        group: The group, not empty.
        label: Label key of its first example.
        counts: Accepted examples by (side, label key); missing ones are 0.

    Returns:
        The side. There is always one below its share, because shares add up to 1 and the new
        example is counted in.
    """
    have = {split: counts.get((split.value, label), 0) for split in SHARES}
    total = sum(have.values()) + 1
    below = {
        split.value: share
        for split, share in SHARES.items()
        if have[split] < share * total
    }
    empty = {name: share for name, share in below.items() if not have[Split(name)]}
    return Split(choose(hash_to_unit("split", judge_id, group), empty or below))


class SplitAssigner:
    """Assigns the examples of one judge in sequence, keeping groups and counts as it goes."""

    def __init__(
        self,
        judge_id: str,
        *,
        groups: Mapping[str, str],
        counts: Mapping[tuple[str, str], int],
    ) -> None:
        """Start from what is stored.

        Args:
            judge_id: The judge.
            groups: Side by group, of every group that has one.
            counts: Accepted examples by (side, label key).
        """
        self._judge_id = judge_id
        self._groups = dict(groups)
        self._counts = dict(counts)

    def assign(self, group: str, label: str) -> Split:
        """Return the side of an accepted example and count it."""
        known = self._groups.get(group)
        split = (
            Split(known)
            if known
            else assign_split(self._judge_id, group, label=label, counts=self._counts)
        )
        self._groups[group] = split.value
        key = (split.value, label)
        self._counts[key] = self._counts.get(key, 0) + 1
        return split

    def remove(self, split: str, label: str) -> None:
        """Uncount an example that was rejected after all; its group keeps its side."""
        key = (split, label)
        self._counts[key] = max(0, self._counts.get(key, 0) - 1)
