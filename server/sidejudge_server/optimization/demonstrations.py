"""Sets of labelled examples that fit into a prompt."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import chain, zip_longest

from sidejudge_server.judges.fields import input_to_fields
from sidejudge_server.judges.types import Demonstration
from sidejudge_server.optimization.scoring import LabelledItem

__all__ = ["MAX_SHARE", "dealt", "labeled_sets", "showable"]

MAX_SHARE = 3
"""No single demonstration may take more than this part of the room for all: one in three."""

_DRAWS_PER_SET = 5
"""Draws that give a set again are repeated, but not for ever: few examples give few sets."""

_SCORE_BANDS = 3
"""Scores are dealt from low, middle and high ones, as verdicts are from each label."""


def showable(
    items: Sequence[LabelledItem], *, max_chars: int
) -> tuple[LabelledItem, ...]:
    """Return the items that are short enough to be shown.

    Args:
        items: Labelled examples.
        max_chars: Room for all demonstrations of a prompt, in characters.
    """
    return tuple(i for i in items if _chars(i) <= max_chars // MAX_SHARE)


def labeled_sets(
    items: Sequence[LabelledItem],
    *,
    size: int,
    count: int,
    max_chars: int,
    seed: int,
) -> list[tuple[Demonstration, ...]]:
    """Draw different sets of demonstrations, reproducibly.

    Every other set is half as large: few demonstrations often do as well for small models and leave
    room in the prompt. Labels take turns, because a set of one label teaches that answer.

    Args:
        items: Labelled examples to draw from.
        size: Demonstrations in a large set, at least 1.
        count: Sets, at most; fewer if the examples do not give as many that differ.
        max_chars: Room for all demonstrations of a prompt, in characters.
        seed: Of the draws.
    """
    rng = random.Random(seed)  # noqa: S311 - reproducible, not secret
    found: dict[frozenset[str], tuple[Demonstration, ...]] = {}
    for _ in range(_DRAWS_PER_SET * count):
        if len(found) == count:
            break
        wanted = size if len(found) % 2 == 0 else max(1, size // 2)
        chosen = _fitting(_dealt(items, rng)[:wanted], max_chars=max_chars)
        if chosen:
            key = frozenset(repr(item.input) for item in chosen)
            found.setdefault(key, tuple(_demonstration(item) for item in chosen))
    return list(found.values())


def dealt(items: Sequence[LabelledItem], *, seed: int) -> list[LabelledItem]:
    """Return items in an order in which labels take turns, reproducibly."""
    return _dealt(items, random.Random(seed))  # noqa: S311 - reproducible, not secret


def _dealt(items: Sequence[LabelledItem], rng: random.Random) -> list[LabelledItem]:
    """Shuffle items and let their labels take turns."""
    hands: dict[str, list[LabelledItem]] = {}
    for item in rng.sample(items, len(items)):
        hands.setdefault(_band(item), []).append(item)
    order = rng.sample(sorted(hands), len(hands))
    turns = zip_longest(*(hands[band] for band in order))
    return [item for item in chain.from_iterable(turns) if item is not None]


def _band(item: LabelledItem) -> str:
    if item.verdict is not None:
        return item.verdict.value
    return str(min(_SCORE_BANDS - 1, int(_SCORE_BANDS * (item.score or 0.0))))


def _fitting(items: Sequence[LabelledItem], *, max_chars: int) -> list[LabelledItem]:
    kept, used = [], 0
    for item in items:
        used += _chars(item)
        if used > max_chars:
            break
        kept.append(item)
    return kept


def _chars(item: LabelledItem) -> int:
    return len(item.rationale) + sum(
        len(value) for value in input_to_fields(item.input).values()
    )


def _demonstration(item: LabelledItem) -> Demonstration:
    return Demonstration(item.input, item.verdict, item.score, item.rationale)
