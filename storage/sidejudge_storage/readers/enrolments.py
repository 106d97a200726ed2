"""Reading which subjects take part in experiments and what was measured for them."""

from __future__ import annotations

from concurrent.futures import Executor
from dataclasses import dataclass

from sidejudge_storage.database import Database
from sidejudge_storage.readers.base import Reader, Where
from sidejudge_storage.records import ExperimentAssignmentRecord
from sidejudge_storage.tables import EXPERIMENT_ASSIGNMENTS

__all__ = ["Enrolled", "EnrolmentReader"]


@dataclass(frozen=True, slots=True)
class Enrolled:
    """A subject's latest arm and the metrics that were recorded for it, by arm."""

    subject: str
    arm_id: str | None
    stage: int
    recorded: frozenset[tuple[str, str]]


class EnrolmentReader(Reader[ExperimentAssignmentRecord]):
    """Reads assignments and outcomes."""

    def __init__(self, database: Database, executor: Executor) -> None:
        super().__init__(database, executor, EXPERIMENT_ASSIGNMENTS)

    async def all(self, experiment_id: str, *, limit: int) -> list[Enrolled]:
        """Return up to ``limit`` subjects of an experiment, the latest ones."""
        where = Where().equals(experiment_id=experiment_id)
        return await self._enrolled(where, limit=limit)

    async def get(self, experiment_id: str, subject: str) -> Enrolled | None:
        """Return one subject, None if it neither has an arm nor an outcome."""
        where = Where().equals(experiment_id=experiment_id, subject=subject)
        found = await self._enrolled(where, limit=1)
        return found[0] if found else None

    async def evaluated_arm(self, experiment_id: str, subject: str) -> str | None:
        """Return the arm of a subject's latest evaluation in an experiment."""
        where = Where().equals(experiment_id=experiment_id, subject=subject)
        where.add("arm_id IS NOT NULL")
        rows = await self._rows(
            f"SELECT max_by(arm_id, evaluation_id) FROM evaluations{where.sql}",  # noqa: S608 - names are ours, values are bound
            where.params,
        )
        arm: str | None = rows[0][0]
        return arm

    async def _enrolled(self, where: Where, *, limit: int) -> list[Enrolled]:
        rows = await self._rows(
            # Names are ours, values are bound.
            f"""WITH assigned AS (
                SELECT subject, max_by(arm_id, created_at) AS arm_id,
                    max_by(stage, created_at) AS stage, max(created_at) AS latest
                FROM experiment_assignments{where.sql} GROUP BY subject
            ), recorded AS (
                SELECT subject, list([arm_id, metric]) AS metrics, max(created_at) AS latest
                FROM experiment_outcomes{where.sql} GROUP BY subject
            )
            SELECT subject, arm_id, coalesce(stage, 0), coalesce(metrics, [])
            FROM assigned FULL JOIN recorded USING (subject)
            ORDER BY greatest(assigned.latest, recorded.latest) DESC, subject LIMIT ?""",  # noqa: S608 - see above
            [*where.params, *where.params, limit],
        )
        return [
            Enrolled(subject, arm_id, stage, frozenset((a, m) for a, m in metrics))
            for subject, arm_id, stage, metrics in rows
        ]
