"""Seeded samples of labelled examples that keep groups together."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from sidejudge_server.benchmark.labelled import LabelledExample
from sidejudge_server.judges.types import JudgeInput, RubricInput

__all__ = ["sample", "word_count"]


def sample(
    examples: Iterable[LabelledExample],
    *,
    seed: int,
    limit: int | None = None,
    max_words: int | None = None,
    balanced: bool = False,
) -> list[LabelledExample]:
    """Draw examples, the same ones for the same seed; whole groups as long as they fit.

    Args:
        examples: Where to draw from.
        seed: Decides the draw.
        limit: How many at most; None takes all. With ``balanced`` it is split evenly over the labels.
        max_words: Leave out longer inputs.
        balanced: Take equally many of each label (or fifth of the score range), as many as the
            rarest one has, or the share of the limit if that is less.

    Returns:
        Examples in the order of the draw. With ``balanced`` groups may be cut.
    """
    generator = random.Random(seed)  # noqa: S311 - a reproducible sample, not a secret
    pool = [
        e for e in examples if max_words is None or word_count(e.input) <= max_words
    ]
    by_group: dict[str, list[LabelledExample]] = defaultdict(list)
    for example in pool:
        by_group[example.group or f"\0{example.key}"].append(example)
    groups = sorted(by_group)
    generator.shuffle(groups)
    drawn = [example for group in groups for example in by_group[group]]
    if not balanced:
        return drawn if limit is None else _fill(by_group, groups, limit)
    by_label: dict[str, list[LabelledExample]] = defaultdict(list)
    for example in drawn:
        by_label[example.label_key].append(example)
    if not by_label:
        return []
    share = min(len(of_label) for of_label in by_label.values())
    if limit is not None:
        share = min(share, limit // len(by_label))
    chosen = {e.key for of_label in by_label.values() for e in of_label[:share]}
    return [example for example in drawn if example.key in chosen]


def word_count(judge_input: JudgeInput) -> int:
    """Return how many words a judge has to read, criteria left out."""
    if isinstance(judge_input, RubricInput):
        texts = [judge_input.task_context, judge_input.agent_output]
    else:
        texts = [
            judge_input.artifact,
            judge_input.ground_truth or "",
            judge_input.context,
            *judge_input.fields.values(),
        ]
    return sum(len(text.split()) for text in texts)


def _fill(
    by_group: Mapping[str, list[LabelledExample]], groups: Sequence[str], limit: int
) -> list[LabelledExample]:
    """Take whole groups while they fit, then the next smaller ones."""
    taken: list[LabelledExample] = []
    for group in groups:
        if len(taken) + len(by_group[group]) <= limit:
            taken += by_group[group]
    return taken
