"""Starter data: labelled examples shipped with sidejudge, written for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import as_file, files

from sidejudge_server.benchmark.labelled import LabelledExample, read_jsonl
from sidejudge_server.benchmark.sampling import sample

__all__ = ["JUDGES", "SEED", "Material", "load", "set_aside"]

JUDGES = ("rubric", "relevance", "faithfulness", "minimality", "safety")

SEED = 9


@dataclass(frozen=True, slots=True)
class Material:
    """Examples of one judge; no group is on both sides.

    Attributes:
        imported: Go in with their labels.
        judged: Are judged first, then corrected by their labels.
    """

    imported: tuple[LabelledExample, ...]
    judged: tuple[LabelledExample, ...]


def load(judge: str, *, limit: int | None = None) -> list[LabelledExample]:
    """Return starter data of a built-in judge, by its bare name.

    Args:
        judge: The judge.
        limit: At most so many examples, in whole groups; None for all.
    """
    resource = files("sidejudge_server.cli").joinpath("starter_data", f"{judge}.jsonl")
    with as_file(resource) as path:
        return sample(read_jsonl(path), seed=SEED, limit=limit)


def set_aside(examples: Sequence[LabelledExample], *, count: int) -> Material:
    """Keep whole groups of at most `count` examples from being imported."""
    judged = sample(examples, seed=SEED, limit=count)
    keys = {example.key for example in judged}
    return Material(
        imported=tuple(e for e in examples if e.key not in keys), judged=tuple(judged)
    )
