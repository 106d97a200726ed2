"""Reading optimizations and their events."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from datetime import datetime

from sidejudge_storage.database import Database
from sidejudge_storage.readers.base import Reader, Where
from sidejudge_storage.records import OptimizationEventRecord, OptimizationRecord
from sidejudge_storage.tables import OPTIMIZATION_EVENTS, OPTIMIZATIONS, naive_utc

__all__ = ["OptimizationFilter", "OptimizationReader"]

_ACTIVE = ("queued", "running", "cancelling")


@dataclass(frozen=True, slots=True)
class OptimizationFilter:
    """Which optimizations to list; None means any."""

    judge_id: str | None = None
    state: str | None = None
    trigger_source: str | None = None
    """caller or policy."""


class OptimizationReader(Reader[OptimizationRecord]):
    """Reads optimizations and their events."""

    def __init__(self, database: Database, executor: Executor) -> None:
        super().__init__(database, executor, OPTIMIZATIONS)
        self._events = _Events(database, executor, OPTIMIZATION_EVENTS)

    async def get(self, optimization_id: str) -> OptimizationRecord | None:
        """Return an optimization, None if there is none."""
        found = await self._by_key([optimization_id])
        return found[0] if found else None

    async def active(self) -> list[OptimizationRecord]:
        """Return those that are queued, running or cancelling, oldest first."""
        where = Where().member("state", _ACTIVE)
        return await self._select(where, order="optimization_id")

    async def of_policy(
        self, judge_id: str, *, since: datetime
    ) -> list[OptimizationRecord]:
        """Return what the policy of a judge started since a moment, oldest first."""
        where = (
            Where()
            .equals(judge_id=judge_id, trigger_source="policy")
            .add("created_at > ?", naive_utc(since))
        )
        return await self._select(where, order="optimization_id")

    async def events(
        self,
        optimization_id: str,
        *,
        after_sequence: int,
        limit: int,
        kinds: Sequence[str] | None = None,
    ) -> list[OptimizationEventRecord]:
        """Return up to ``limit`` events after a sequence number in ascending order.

        Args:
            optimization_id: The run.
            after_sequence: Number of the last event that is known, 0 for none.
            limit: How many at most.
            kinds: Only events of these kinds; None means any.
        """
        return await self._events.of(
            optimization_id, after_sequence=after_sequence, limit=limit, kinds=kinds
        )

    async def last_sequence(self, optimization_id: str) -> int:
        """Return the number of the last event, 0 if there is none."""
        rows = await self._rows(
            "SELECT coalesce(max(sequence), 0) FROM optimization_events"
            " WHERE optimization_id = ?",
            [optimization_id],
        )
        return int(rows[0][0])

    async def list(
        self, condition: OptimizationFilter, *, before: str | None, limit: int
    ) -> list[OptimizationRecord]:
        """Return up to ``limit`` optimizations, newest first, with ids below ``before``."""
        where = Where().equals(
            judge_id=condition.judge_id,
            state=condition.state,
            trigger_source=condition.trigger_source,
        )
        return await self._newest(where, before=before, limit=limit)


class _Events(Reader[OptimizationEventRecord]):
    async def of(
        self,
        optimization_id: str,
        *,
        after_sequence: int,
        limit: int,
        kinds: Sequence[str] | None,
    ) -> list[OptimizationEventRecord]:
        if kinds is not None and not kinds:
            return []
        where = (
            Where()
            .equals(optimization_id=optimization_id)
            .add("sequence > ?", after_sequence)
        )
        if kinds is not None:
            where.member("kind", kinds)
        return await self._select(where, order="sequence", limit=limit)
