"""Reading evaluations."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from datetime import datetime

from sidejudge_storage.database import Database
from sidejudge_storage.readers.base import MergingLoader, Reader, Where
from sidejudge_storage.records import EvaluationRecord
from sidejudge_storage.tables import EVALUATIONS, naive_utc

__all__ = ["EvaluationFilter", "EvaluationKey", "EvaluationReader"]


@dataclass(frozen=True, slots=True)
class EvaluationKey:
    """What feedback has to know of an evaluation."""

    evaluation_id: str
    judge_id: str
    verdict: str | None
    score: float | None


@dataclass(frozen=True, slots=True)
class EvaluationFilter:
    """Which evaluations to list; None and empty mean any."""

    judge_id: str | None = None
    version: int | None = None
    verdict: str | None = None
    subject: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    """Labels that all have to be there with these values."""
    start: datetime | None = None
    """Earliest creation time, inclusive."""
    end: datetime | None = None
    """Latest creation time, exclusive."""


class EvaluationReader(Reader[EvaluationRecord]):
    """Reads evaluations."""

    def __init__(self, database: Database, executor: Executor) -> None:
        super().__init__(database, executor, EVALUATIONS)
        self._keys = MergingLoader(self._load_keys)

    async def get(self, evaluation_id: str) -> EvaluationRecord | None:
        """Return an evaluation, None if there is none."""
        found = await self._by_key([evaluation_id])
        return found[0] if found else None

    async def get_many(self, ids: Iterable[str]) -> dict[str, EvaluationRecord]:
        """Return those that exist, by id."""
        return {r.evaluation_id: r for r in await self._by_key(ids)}

    async def in_experiments(self, ids: Iterable[str]) -> Sequence[EvaluationRecord]:
        """Return those that count for an arm of an experiment, oldest first."""
        wanted = [*ids]
        if not wanted:
            return []
        where = Where().member("evaluation_id", wanted).add("arm_id IS NOT NULL")
        # Ids sort by time, so that only the part of the table is read in which they are.
        where.add("evaluation_id BETWEEN ? AND ?", min(wanted), max(wanted))
        return await self._select(where, order="evaluation_id")

    async def versions(self, ids: Iterable[str]) -> dict[str, int]:
        """Return which version answered, for those that exist, by id."""
        wanted = [*ids]
        if not wanted:
            return {}
        where = Where().member("evaluation_id", wanted)
        rows = await self._rows(
            f"SELECT evaluation_id, version FROM evaluations{where.sql}",  # noqa: S608 - names are ours, values are bound
            where.params,
        )
        return dict(rows)

    async def existing(self, ids: Iterable[str]) -> dict[str, EvaluationKey]:
        """Return the keys of those that exist, by id.

        Concurrent calls share queries, so that many callers with one id each cost little more
        than one caller with many.
        """
        return await self._keys.get(ids)

    async def list(
        self, condition: EvaluationFilter, *, before: str | None, limit: int
    ) -> list[EvaluationRecord]:
        """Return up to ``limit`` evaluations, newest first, with ids below ``before``."""
        where = Where().equals(
            judge_id=condition.judge_id,
            version=condition.version,
            verdict=condition.verdict,
            subject=condition.subject,
        )
        if condition.start is not None:
            where.add("created_at >= ?", naive_utc(condition.start))
        if condition.end is not None:
            where.add("created_at < ?", naive_utc(condition.end))
        for name, value in condition.labels.items():
            where.add("json_extract_string(labels_json, ?) = ?", _pointer(name), value)
        return await self._newest(where, before=before, limit=limit)

    async def latest(self, judge_id: str, *, model: str, limit: int) -> _Evaluations:
        """Return up to ``limit`` evaluations that a model answered for a judge, newest first."""
        where = Where().equals(judge_id=judge_id, model=model)
        return await self._newest(where, before=None, limit=limit)

    async def _load_keys(self, ids: list[str]) -> dict[str, EvaluationKey]:  # type: ignore[valid-type] # our method list hides the builtin
        where = Where().member("evaluation_id", ids)
        rows = await self._rows(
            f"SELECT evaluation_id, judge_id, verdict, score FROM evaluations{where.sql}",  # noqa: S608 - names are ours, values are bound
            where.params,
        )
        return {row[0]: EvaluationKey(*row) for row in rows}


# The method ``list`` hides the builtin inside the class.
_Evaluations = list[EvaluationRecord]


def _pointer(name: str) -> str:
    """Return the JSON pointer (RFC 6901) of a label."""
    return "/" + name.replace("~", "~0").replace("/", "~1")
