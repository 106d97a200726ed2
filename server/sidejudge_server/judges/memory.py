"""What a version's memory and learned head must hold to, wherever they come from."""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Iterator

from sidejudge_server.judges.types import (
    Demonstration,
    JudgeProgram,
    LearnedHead,
    Memory,
    MemoryExample,
    RubricInput,
    ScoreHead,
    Verdict,
    VerdictHead,
)

__all__ = [
    "MAX_GUIDELINES",
    "MAX_GUIDELINE_CHARS",
    "MAX_MEMORY_BYTES",
    "MAX_MEMORY_EXAMPLES",
    "MAX_NEIGHBOURS",
    "MAX_SHOWN",
    "embedding_size",
    "label_problem",
    "memory_problems",
]

MAX_MEMORY_EXAMPLES = 1_000
MAX_MEMORY_BYTES = 2 * 1024 * 1024
"""Of a memory's canonical JSON, embeddings included."""
MAX_GUIDELINES = 32
MAX_GUIDELINE_CHARS = 500
MAX_SHOWN = 16
MAX_NEIGHBOURS = 64
MAX_WEIGHT = 1_000.0
"""Largest coefficient of a head: far beyond what a fit can give, near enough to stay finite."""


def memory_problems(program: JudgeProgram) -> Iterator[tuple[str, str]]:
    """Yield what is wrong with a program's memory and head, as path and problem."""
    if program.memory is not None:
        yield from _memory_problems(program, program.memory)
    if program.head is not None:
        yield from _head_problems(program, program.head)


def embedding_size(memory: Memory) -> int:
    """Return the length of a memory's vectors, 0 without embeddings.

    Raises:
        ValueError: They are no base64, or no whole number of bytes for each example.
    """
    if not memory.embeddings:
        return 0
    try:
        size = len(base64.b64decode(memory.embeddings, validate=True))
    except binascii.Error:
        raise ValueError("is no base64") from None
    if not memory.examples or not size or size % len(memory.examples):
        raise ValueError("does not hold a vector for each example")
    return size // len(memory.examples)


def _memory_problems(
    program: JudgeProgram, memory: Memory
) -> Iterator[tuple[str, str]]:
    if len(memory.guidelines) > MAX_GUIDELINES:
        yield "memory.guidelines", f"at most {MAX_GUIDELINES} are allowed"
    for index, guideline in enumerate(memory.guidelines):
        if not 0 < len(guideline.strip()) <= MAX_GUIDELINE_CHARS:
            yield (
                f"memory.guidelines[{index}]",
                f"must have 1 to {MAX_GUIDELINE_CHARS} characters",
            )
    if len(memory.examples) > MAX_MEMORY_EXAMPLES:
        yield "memory.examples", f"at most {MAX_MEMORY_EXAMPLES} are allowed"
    ids = [example.example_id for example in memory.examples]
    if len(set(ids)) < len(ids):
        yield "memory.examples", "has two examples of the same name"
    for index, example in enumerate(memory.examples):
        problem = "" if example.example_id else "needs a name"
        problem = problem or label_problem(program, example)
        if problem:
            yield f"memory.examples[{index}]", problem
    if not 0 <= memory.shown <= MAX_SHOWN:
        yield "memory.shown", f"must be 0 to {MAX_SHOWN}"
    if bool(memory.embedding_model) != bool(memory.embeddings):
        yield "memory.embeddings", "belong to an embedding model, and the reverse"
    try:
        embedding_size(memory)
    except ValueError as error:
        yield "memory.embeddings", str(error)


def label_problem(program: JudgeProgram, example: Demonstration | MemoryExample) -> str:
    """Say why a labelled example cannot be one of a judge's; "" if it can."""
    if isinstance(example.input, RubricInput) is not program.scores:
        return "has the inputs of another kind of judge"
    if program.scores:
        score = example.score
        in_range = score is not None and 0.0 <= score <= 1.0
        return "" if in_range else "needs a score from 0 to 1"
    if example.verdict is None:
        return "needs a verdict"
    if program.binary and example.verdict is Verdict.PARTIAL:
        return "must not be partial: this judge decides between pass and fail"
    return ""


def _head_problems(
    program: JudgeProgram, head: LearnedHead
) -> Iterator[tuple[str, str]]:
    if isinstance(head, ScoreHead) is not program.scores:
        yield "head", "is for another kind of judge"
        return
    if not 0 <= head.neighbours <= MAX_NEIGHBOURS:
        yield "head.neighbours", f"must be 0 to {MAX_NEIGHBOURS}"
    names = (
        ("pass_bias", "partial_bias", "lm_weight", "vote_weight")
        if isinstance(head, VerdictHead)
        else ("intercept", "raw_weight", "label_weight")
    )
    for name in names:
        value = getattr(head, name)
        if not math.isfinite(value) or abs(value) > MAX_WEIGHT:
            yield f"head.{name}", f"must be -{MAX_WEIGHT:g} to {MAX_WEIGHT:g}"
