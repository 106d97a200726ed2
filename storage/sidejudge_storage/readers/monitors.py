"""Reading monitors, audit items and the labels that people gave them."""

from __future__ import annotations

from concurrent.futures import Executor
from dataclasses import dataclass
from datetime import UTC, datetime

from sidejudge_storage.database import Database
from sidejudge_storage.readers.base import Reader, Where
from sidejudge_storage.records import (
    EvaluationRecord,
)
from sidejudge_storage.tables import EVALUATIONS, MONITOR_EVENTS, MONITORS, naive_utc
from sidejudge_storage.trust_records import (
    MonitorEventRecord,
    MonitorRecord,
)

__all__ = ["AuditLabel", "MonitorReader", "PerformanceRow"]

_BUCKETS = {"hour", "day", "week"}

_FIRST_LABELS = """
    SELECT evaluation_id, min(feedback_id) AS feedback_id,
        min_by(verdict, feedback_id) AS verdict, min_by(score, feedback_id) AS score
    FROM feedback WHERE judge_id = ? GROUP BY evaluation_id
"""
"""The first label of each evaluation: a sequential test can't take back what it has counted."""


@dataclass(frozen=True, slots=True)
class AuditLabel:
    """The first label of an audit item, beside what the judge had answered."""

    feedback_id: str
    evaluation_id: str
    input_json: str
    label_verdict: str | None
    label_score: float | None
    verdict: str | None
    score: float | None


@dataclass(frozen=True, slots=True)
class PerformanceRow:
    """Audit items of a version in a bucket of time."""

    bucket: datetime
    version: int
    items: int
    labelled: int
    agreement_sum: float
    verdicts: bool
    latency_ms_p50: float | None
    latency_ms_p95: float | None
    mean_cost_usd: float | None


class MonitorReader(Reader[MonitorRecord]):
    """Reads monitors."""

    def __init__(self, database: Database, executor: Executor) -> None:
        super().__init__(database, executor, MONITORS)
        self._events: Reader[MonitorEventRecord] = Reader(
            database, executor, MONITOR_EVENTS
        )
        self._evaluations: Reader[EvaluationRecord] = Reader(
            database, executor, EVALUATIONS
        )

    async def all(self) -> list[MonitorRecord]:
        """Return every monitor."""
        return await self._select(Where(), order="judge_id")

    async def events(
        self, judge_id: str, *, before: int | None = None, limit: int
    ) -> list[MonitorEventRecord]:
        """Return events, newest first, those below a sequence number."""
        where = Where().equals(judge_id=judge_id)
        if before is not None:
            where.add("sequence < ?", before)
        return await self._events._select(where, order="sequence DESC", limit=limit)  # noqa: SLF001 - the same class

    async def last_sequences(self) -> dict[str, int]:
        """Return the number of the last event of each judge that has events."""
        rows = await self._rows(
            "SELECT judge_id, max(sequence) FROM monitor_events GROUP BY ALL", []
        )
        return dict(rows)

    async def last_feedback(self, judge_id: str) -> str:
        """Return the id of a judge's latest feedback, "" if there is none."""
        rows = await self._rows(
            "SELECT coalesce(max(feedback_id), '') FROM feedback WHERE judge_id = ?",
            [judge_id],
        )
        return str(rows[0][0])

    async def labels(
        self, judge_id: str, version: int, *, after: str, limit: int
    ) -> list[AuditLabel]:
        """Return the first labels of audit items of a version after a feedback id, in order."""
        rows = await self._rows(
            # Texts are ours, values are bound.
            f"""SELECT f.feedback_id, e.evaluation_id, e.input_json, f.verdict, f.score,
                e.verdict, e.score
            FROM ({_FIRST_LABELS}) AS f JOIN evaluations AS e USING (evaluation_id)
            WHERE e.judge_id = ? AND e.version = ? AND e.audit_probability IS NOT NULL
                AND f.feedback_id > ?
            ORDER BY f.feedback_id LIMIT ?""",  # noqa: S608 - see above
            [judge_id, judge_id, version, after, limit],
        )
        return [AuditLabel(*row) for row in rows]

    async def items(
        self, judge_id: str, *, unlabelled_only: bool, before: str | None, limit: int
    ) -> list[EvaluationRecord]:
        """Return audit items, newest first, with ids below ``before``."""
        where = Where().equals(judge_id=judge_id).add("audit_probability IS NOT NULL")
        if unlabelled_only:
            where.add(
                "NOT EXISTS (SELECT 1 FROM feedback"
                " WHERE feedback.evaluation_id = evaluations.evaluation_id)"
            )
        return await self._evaluations._newest(where, before=before, limit=limit)  # noqa: SLF001 - the same class

    async def performance(
        self,
        judge_id: str,
        *,
        version: int | None,
        start: datetime,
        end: datetime,
        bucket: str,
    ) -> list[PerformanceRow]:
        """Return figures of audit items by bucket and version.

        Args:
            judge_id: The judge.
            version: None for all.
            start: Earliest creation time, inclusive.
            end: Latest creation time, exclusive.
            bucket: hour, day or week.
        """
        if bucket not in _BUCKETS:
            raise ValueError(f"no such bucket: {bucket}")
        condition = "" if version is None else " AND e.version = ?"
        rows = await self._rows(
            # Texts are ours, values are bound.
            f"""SELECT date_trunc('{bucket}', e.created_at) AS bucket, e.version, count(*),
                count(f.feedback_id),
                coalesce(sum(CASE WHEN f.score IS NULL THEN CAST(f.verdict = e.verdict AS DOUBLE)
                    ELSE 1 - abs(f.score - e.score) END) FILTER (f.feedback_id IS NOT NULL), 0),
                bool_and(e.verdict IS NOT NULL), quantile_cont(e.lm_latency_ms, 0.5),
                quantile_cont(e.lm_latency_ms, 0.95), avg(e.cost_usd)
            FROM evaluations AS e LEFT JOIN ({_FIRST_LABELS}) AS f USING (evaluation_id)
            WHERE e.judge_id = ? AND e.audit_probability IS NOT NULL
                AND e.created_at >= ? AND e.created_at < ?{condition}
            GROUP BY ALL ORDER BY ALL""",  # noqa: S608 - see above
            [
                judge_id,
                judge_id,
                naive_utc(start),
                naive_utc(end),
                *([] if version is None else [version]),
            ],
        )
        return [PerformanceRow(row[0].replace(tzinfo=UTC), *row[1:]) for row in rows]
