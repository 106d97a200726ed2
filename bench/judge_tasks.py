"""The tasks of the comparison of optimizers: which labelled examples a judge is given."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sidejudge_server.benchmark.labelled import LabelledExample, read_jsonl
from sidejudge_server.benchmark.sampling import sample
from sidejudge_server.judges.kinds import BUILT_IN_JUDGES, initial_program
from sidejudge_server.judges.types import ArtifactInput

__all__ = ["TASKS", "JudgeTask", "digest", "examples_of", "plain_instructions", "row"]


@dataclass(frozen=True, slots=True)
class JudgeTask:
    """A built-in judge with a bounded sample of a data set.

    Attributes:
        judge_id: The judge; also the name of the data file.
        sources: Data sets within the file to draw from; empty takes all.
        max_words: Leave out longer inputs: a small model on few cores reads slowly.
        limit: Examples at most, in whole groups.
    """

    judge_id: str
    sources: tuple[str, ...]
    max_words: int
    limit: int = 90


TASKS: Mapping[str, JudgeTask] = {
    "faithfulness": JudgeTask("faithfulness", ("BEGIN-WoW",), 100),
    "minimality": JudgeTask("minimality", ("wiki-conciseness",), 60),
    "relevance": JudgeTask("relevance", ("LLMBar",), 100),
    "safety": JudgeTask("safety", (), 150),
}


def examples_of(task: JudgeTask, data: Path, *, seed: int) -> list[LabelledExample]:
    """Return the examples of a task in the order of the draw; the same for the same seed.

    Raises:
        OSError: The data file cannot be read.
        LabelledDataError: Rows of it are wrong.
    """
    pool = [
        e
        for e in read_jsonl(data / f"{task.judge_id}.jsonl")
        if not task.sources or e.source in task.sources
    ]
    return sample(pool, seed=seed, limit=task.limit, max_words=task.max_words)


def digest(examples: Sequence[LabelledExample]) -> str:
    """Return what tells one sample from another, without any of its texts."""
    rows = [[e.key, str(e.label), e.group, *row(e).values()] for e in examples]
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def row(example: LabelledExample) -> dict[str, str]:
    """Return an example as plain texts: key, artifact, ground_truth, context, label."""
    assert isinstance(example.input, ArtifactInput), "judges of artifacts only"
    return {
        "key": example.key,
        "artifact": example.input.artifact,
        "ground_truth": example.input.ground_truth or "",
        "context": example.input.context,
        "label": str(example.label),
    }


def plain_instructions(judge_id: str) -> str:
    """Return what version 1 of a judge is told, for a signature that answers with a verdict."""
    spec = next(j.spec for j in BUILT_IN_JUDGES if j.judge_id == judge_id)
    program = initial_program(spec)
    return (
        f"{program.instructions} {program.question} Answer pass if so and fail if not."
    )
