"""Which remembered examples must not come up for an item while a run measures.

An item's own correction, and those of its group, would give the answer away: a version would look as
good on what it remembers as it never is on new items. The server hides nothing.
"""

from __future__ import annotations

from collections.abc import Iterable

from sidejudge_server.judges.codec import content_digest
from sidejudge_server.judges.types import JudgeInput, JudgeProgram, Memory
from sidejudge_server.optimization.spec import RunExample

__all__ = ["LeaveOut"]


class LeaveOut:
    """Hides remembered examples of an item's content or group. Thread-safe."""

    def __init__(self, examples: Iterable[RunExample]) -> None:
        """Take note of all examples of a run, with their groups."""
        self._groups: dict[str, set[str]] = {}
        self._ids: dict[str, set[str]] = {}
        for example in examples:
            # An example without a group is a group of its own.
            group = example.group or f"\0{example.example_id}"
            self._ids.setdefault(group, set()).add(example.example_id)
            digest = content_digest(example.input)
            self._groups.setdefault(digest, set()).add(group)
        # By identity; the memory beside its digests keeps the identity from being used again.
        self._memories: dict[int, tuple[Memory, dict[str, set[str]]]] = {}

    def __call__(self, program: JudgeProgram, item: JudgeInput) -> frozenset[str]:
        """Return the ids of remembered examples to hide from an item; empty without a memory."""
        if program.memory is None:
            return frozenset()
        digest = content_digest(item)
        hidden = set(self._digests(program.memory).get(digest, ()))
        for group in self._groups.get(digest, ()):
            hidden |= self._ids[group]
        return frozenset(hidden)

    def _digests(self, memory: Memory) -> dict[str, set[str]]:
        """Return ids by content: a memory may hold examples of earlier runs."""
        known = self._memories.get(id(memory))
        if known is not None and known[0] is memory:
            return known[1]
        digests: dict[str, set[str]] = {}
        for example in memory.examples:
            digest = content_digest(example.input)
            digests.setdefault(digest, set()).add(example.example_id)
        self._memories[id(memory)] = (memory, digests)
        return digests
