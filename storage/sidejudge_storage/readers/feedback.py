"""Reading feedback."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
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

    async def of_evaluations(self, ids: Iterable[str]) -> _Feedback:
        """Return all feedback on some evaluations, oldest first."""
        wanted = [*ids]
        if not wanted:
            return []
        where = Where().member("evaluation_id", wanted)
        # Feedback comes after what it is about: older rows need not be looked at.
        where.add("feedback_id > ?", min(wanted))
        return await self._select(where, order="feedback_id")

    async def unlabelled(self, experiment_id: str) -> Sequence[str]:
        """Return the evaluations of an experiment whose latest feedback has no label row yet."""
        rows = await self._rows(
            """SELECT e.evaluation_id FROM evaluations AS e
            JOIN (
                SELECT evaluation_id, max(feedback_id) AS feedback_id FROM feedback
                GROUP BY evaluation_id
            ) AS f USING (evaluation_id)
            WHERE e.experiment_id = ? AND NOT EXISTS (
                SELECT 1 FROM experiment_labels AS l
                WHERE l.experiment_id = e.experiment_id
                AND l.evaluation_id = e.evaluation_id AND l.feedback_id = f.feedback_id
            ) ORDER BY e.evaluation_id""",
            [experiment_id],
        )
        return [row[0] for row in rows]

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


# The method ``list`` hides the builtin inside the class.
_Feedback = list[FeedbackRecord]
