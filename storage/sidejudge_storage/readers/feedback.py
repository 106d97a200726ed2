"""Reading feedback."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import Executor
from dataclasses import dataclass

from sidejudge_storage.database import Database
from sidejudge_storage.readers.base import Reader, Where
from sidejudge_storage.records import FeedbackRecord
from sidejudge_storage.tables import FEEDBACK

__all__ = ["FeedbackFilter", "FeedbackReader"]


@dataclass(frozen=True, slots=True)
class FeedbackFilter:
    """Which feedback to list; None means any."""

    judge_id: str | None = None
    evaluation_id: str | None = None
    source: str | None = None
    author: str | None = None


class FeedbackReader(Reader[FeedbackRecord]):
    """Reads feedback."""

    def __init__(self, database: Database, executor: Executor) -> None:
        super().__init__(database, executor, FEEDBACK)

    async def get(self, feedback_id: str) -> FeedbackRecord | None:
        """Return feedback, None if there is none."""
        found = await self._by_key([feedback_id])
        return found[0] if found else None

    async def get_many(self, ids: Iterable[str]) -> dict[str, FeedbackRecord]:
        """Return those that exist, by id."""
        return {r.feedback_id: r for r in await self._by_key(ids)}

    async def without_example(self, limit: int) -> list[FeedbackRecord]:
        """Return up to ``limit`` that no example, rejected or not, was made from, oldest first."""
        where = Where().add(
            "NOT EXISTS (SELECT 1 FROM examples"
            " WHERE examples.feedback_id = feedback.feedback_id)"
        )
        return await self._select(where, order="feedback_id", limit=limit)

    async def list(
        self, condition: FeedbackFilter, *, before: str | None, limit: int
    ) -> list[FeedbackRecord]:
        """Return up to ``limit`` rows, newest first, with ids below ``before``."""
        where = Where().equals(
            judge_id=condition.judge_id,
            evaluation_id=condition.evaluation_id,
            source=condition.source,
            author=condition.author,
        )
        return await self._newest(where, before=before, limit=limit)
