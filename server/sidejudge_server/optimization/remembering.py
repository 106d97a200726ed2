"""Make a memory of training examples that keeps to its bounds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from sidejudge_server.judges.codec import memory_size_bytes
from sidejudge_server.judges.types import Memory, MemoryExample
from sidejudge_server.optimization.scoring import LabelledItem

__all__ = ["remembered"]

MAX_REASONING_CHARS = 4_000
"""Of a correction's comment, as for demonstrations."""


def remembered(
    items: Sequence[LabelledItem],
    *,
    base: Memory,
    max_examples: int,
    max_bytes: int,
) -> Memory:
    """Return a memory of as many examples as fit, in their order; the newest are left out last.

    Args:
        items: Labelled examples, oldest first.
        base: Has everything but the examples; embeddings are dropped with them.
        max_examples: Bound of their number.
        max_bytes: Bound of the memory's canonical JSON.
    """
    memory = replace(base, examples=(), embedding_model="", embeddings="")
    room = max_bytes - memory_size_bytes(memory)
    kept: list[MemoryExample] = []
    for item in reversed(items):
        if len(kept) == max_examples:
            break
        example = MemoryExample(
            item.example_id,
            item.input,
            item.verdict,
            item.score,
            item.rationale[:MAX_REASONING_CHARS],
        )
        size = memory_size_bytes(Memory(examples=(example,)))
        if size <= room:
            kept.append(example)
            room -= size
    return replace(memory, examples=tuple(reversed(kept)))
