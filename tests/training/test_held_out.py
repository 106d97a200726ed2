"""What earlier runs have looked at, seen from the held-out examples there are now."""

from __future__ import annotations

import pytest

from sidejudge_server.judges.codec import content_digest
from sidejudge_server.judges.types import ArtifactInput
from sidejudge_server.stats.spending import use_number
from sidejudge_server.training.held_out import (
    EarlierUses,
    fresh_labels_needed,
    gate_bar,
    held_out_to_json,
    labels_for,
)
from tests.storage import samples


def digests(count, *, first=0):
    return {content_digest(ArtifactInput(f"item {first + i}")) for i in range(count)}


def use(held_out, **changes):
    return samples.gate_use(
        examples_json=held_out_to_json(held_out), pair_count=len(held_out), **changes
    )


def test_shared_examples_are_counted_by_what_is_judged():
    """Runs, oldest first; the same input under another white space is the same example."""
    spaced = {content_digest(ArtifactInput(f"item  {i}")) for i in range(20)}
    uses = [
        use(digests(20), optimization_id="a"),
        use(spaced, optimization_id="b"),
        use(digests(20, first=15), optimization_id="c"),
        use(digests(20, first=100), optimization_id="d"),
    ]
    earlier = EarlierUses.of(uses, digests(20))
    assert earlier.shared == (20, 20, 5, 0)
    assert use_number(20, earlier.shared) == 3


def test_a_run_that_goes_on_keeps_its_number():
    """Its own use does not count against it."""
    uses = [use(digests(20), optimization_id=name) for name in ("a", "mine", "b")]
    earlier = EarlierUses.of(uses, digests(20), leaving_out="mine")
    assert earlier.shared == (20, 20)


def test_discordance_is_that_of_the_last_use_that_counts():
    """What two versions differed on before is what may be expected next."""
    uses = [
        use(digests(20), optimization_id="a", wins=9, losses=1),
        use(digests(20, first=100), optimization_id="b", wins=1, losses=1),
    ]
    assert EarlierUses.of(uses, digests(20)).discordance == pytest.approx(0.5)
    assert EarlierUses.of(uses, digests(50, first=500)).discordance is None


def test_few_examples_that_nobody_used_ask_for_no_fresh_labels():
    """They may be too few, but nothing of them is spent."""
    assert fresh_labels_needed(8, (), scores=False) == 0
    assert fresh_labels_needed(0, (8,), scores=False) == 0
    assert fresh_labels_needed(8, (8,), scores=False) > 0


def test_a_seen_discordance_may_be_enough():
    """Where versions differ on half of 20 pairs a second use can still pass."""
    assert fresh_labels_needed(20, (20,), scores=False, discordance=0.5) == 0
    assert fresh_labels_needed(20, (20,), scores=False, discordance=0.3) > 0


def test_few_examples_have_twice_the_bar():
    """It opens the shadow only."""
    assert gate_bar(149, 1) == pytest.approx(2 * gate_bar(150, 1))
    assert gate_bar(150, 1) == pytest.approx(0.030396, abs=1e-6)


def test_test_examples_are_two_of_five_labels():
    """40 % of the labels are held out."""
    assert [labels_for(n) for n in (0, 1, 2, 40)] == [0, 3, 5, 100]
