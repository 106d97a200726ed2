"""Make a memory of training examples that keeps to its bounds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from sidejudge_server.judges.codec import memory_size_bytes
from sidejudge_server.judges.memory import MAX_MEMORY_BYTES, MAX_MEMORY_EXAMPLES
from sidejudge_server.judges.retrieval import pack_embeddings
from sidejudge_server.judges.types import Memory, MemoryExample
from sidejudge_server.optimization.scoring import LabelledItem, Scorer

__all__ = ["remembered"]

MAX_REASONING_CHARS = 4_000
"""Of a correction's comment, as for demonstrations."""


def remembered(
    items: Sequence[LabelledItem],
    *,
    base: Memory,
    scorer: Scorer,
    max_examples: int = MAX_MEMORY_EXAMPLES,
    max_bytes: int = MAX_MEMORY_BYTES,
) -> Memory:
    """Return a memory of as many examples as fit, in their order; the newest are left out last.

    With an embedding model they get their vectors, one call for 64 that have none yet.

    Args:
        items: Labelled examples, oldest first.
        base: Has everything but the examples and their vectors.
        scorer: Knows the embedding model, if there is one.
        max_examples: Bound of their number.
        max_bytes: Bound of the memory's canonical JSON.

    Raises:
        BudgetExhausted: The budget does not allow the calls.
        RunAborted: The embedding model did not deliver.
        RunCancelled: The run was cancelled.
    """
    items = items[-max_examples:]
    memory = replace(
        base, examples=(), embedding_model=scorer.embedding_model, embeddings=""
    )
    vectors = scorer.embed(memory, [item.input for item in items])
    vector_bytes = math.ceil(len(vectors[0]) * 4 / 3) + 1 if vectors else 0
    room = max_bytes - memory_size_bytes(memory)
    kept: list[MemoryExample] = []
    rows: list[tuple[float, ...]] = []
    for place, item in reversed(list(enumerate(items))):
        example = MemoryExample(
            item.example_id,
            item.input,
            item.verdict,
            item.score,
            item.rationale[:MAX_REASONING_CHARS],
        )
        size = memory_size_bytes(Memory(examples=(example,))) + vector_bytes
        if size <= room:
            kept.append(example)
            rows += vectors[place : place + 1]
            room -= size
    return replace(
        memory,
        examples=tuple(reversed(kept)),
        embedding_model=memory.embedding_model if rows else "",
        embeddings=pack_embeddings(rows[::-1]) if rows else "",
    )
