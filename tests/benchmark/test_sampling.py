"""Samples: seeded, whole groups, balanced on request."""

from __future__ import annotations

from collections import Counter

from sidejudge_server.benchmark.labelled import LabelledExample
from sidejudge_server.benchmark.sampling import sample, word_count
from sidejudge_server.judges.types import ArtifactInput, RubricInput, Verdict

EXAMPLES = [
    LabelledExample(
        key=f"e{n}",
        input=ArtifactInput("word " * (n + 1), None, "question"),
        label=Verdict.PASS if n % 3 else Verdict.FAIL,
        group=f"g{n // 2}",
    )
    for n in range(40)
]


def test_same_seed_draws_the_same_examples_and_another_seed_others() -> None:
    """A sample is decided by its seed alone."""
    first = sample(EXAMPLES, seed=1, limit=10)
    assert first == sample(EXAMPLES, seed=1, limit=10)
    assert first != sample(EXAMPLES, seed=2, limit=10)


def test_groups_are_taken_whole() -> None:
    """Of each group all examples are drawn or none, never more than the limit."""
    drawn = sample(EXAMPLES, seed=3, limit=11)
    assert len(drawn) == 10
    assert set(Counter(e.group for e in drawn).values()) == {2}


def test_examples_without_group_are_groups_of_their_own() -> None:
    """Examples without a group can be drawn one by one."""
    single = [
        LabelledExample(f"e{n}", ArtifactInput("a"), Verdict.PASS) for n in range(5)
    ]
    assert len(sample(single, seed=3, limit=3)) == 3


def test_long_inputs_are_left_out() -> None:
    """Words of all input texts count, criteria do not."""
    drawn = sample(EXAMPLES, seed=3, max_words=5)
    assert {e.key for e in drawn} == {"e0", "e1", "e2", "e3"}
    assert word_count(RubricInput("a b", "c")) == 3


def test_balanced_sample_has_equally_many_of_each_label() -> None:
    """The rarest label, or the share of the limit, decides how many."""
    counts = Counter(e.label_key for e in sample(EXAMPLES, seed=3, balanced=True))
    assert counts == {"pass": 14, "fail": 14}
    limited = sample(EXAMPLES, seed=3, balanced=True, limit=9)
    assert Counter(e.label_key for e in limited) == {"pass": 4, "fail": 4}


def test_nothing_to_draw_from_gives_nothing() -> None:
    """An empty file is an empty sample, also a balanced one."""
    assert sample([], seed=1, balanced=True) == []
