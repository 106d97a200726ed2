"""Reading what audit labels say of a version's confidence."""

from __future__ import annotations

from concurrent.futures import Executor
from dataclasses import dataclass

from sidejudge_storage.database import Database
from sidejudge_storage.quality_schema import labels_sql
from sidejudge_storage.readers.base import Reader
from sidejudge_storage.tables import RELIABILITY
from sidejudge_storage.trust_records import (
    ReliabilityRecord,
)

__all__ = ["Annotation", "LabelledAnswer", "LabelledConfidence", "ReliabilityReader"]

_OF_VERSION = "e.judge_id = ? AND e.version = ? AND e.model = ?"
_ASKED_ONCE = "e.confidence IS NOT NULL AND e.confidence_source <> 'sampled'"
"""The mean of several judgments is more confident, or less, than each of them."""


@dataclass(frozen=True, slots=True)
class LabelledConfidence:
    """An audit item that people have labelled: how sure the judge was of which verdict, and theirs.

    ``group_key`` is "" for a group of its own.
    """

    evaluation_id: str
    group_key: str
    source: str
    confidence: float
    verdict: str
    label: str


@dataclass(frozen=True, slots=True)
class LabelledAnswer:
    """What a judge and people say of an item; verdicts or scores. ``labels_json`` is for slicing."""

    evaluation_id: str
    group_key: str
    labels_json: str
    source: str
    confidence: float | None
    verdict: str | None
    score: float | None
    label_verdict: str | None
    label_score: float | None


@dataclass(frozen=True, slots=True)
class Annotation:
    """The latest that one person says of an item, beside the judge; verdicts or scores."""

    evaluation_id: str
    author: str
    verdict: str | None
    score: float | None
    label_verdict: str | None
    label_score: float | None


class ReliabilityReader(Reader[ReliabilityRecord]):
    """Reads labelled confidences, and what was made of them."""

    def __init__(self, database: Database, executor: Executor) -> None:
        super().__init__(database, executor, RELIABILITY)

    async def latest(self) -> list[ReliabilityRecord]:
        """Return the newest record of each judge, version and model."""
        table = self._table
        rows = await self._rows(
            f"SELECT {table.select} FROM reliability QUALIFY row_number() OVER"  # noqa: S608 - names are ours
            " (PARTITION BY judge_id, version, model ORDER BY reliability_id DESC) = 1",
            [],
        )
        return [table.decode(row) for row in rows]

    async def labelled(
        self, judge_id: str, version: int, model: str, *, limit: int
    ) -> list[LabelledConfidence]:
        """Return audit items with a confidence and a label, newest first.

        Of one item the latest correction of the weightiest source counts.
        """
        rows = await self._rows(
            # Texts are ours, values are bound.
            f"""WITH labels AS ({labels_sql("f.judge_id = ?")})
            SELECT e.evaluation_id, e.group_key, l.source, e.confidence, e.verdict, l.verdict
            FROM evaluations AS e JOIN labels AS l USING (evaluation_id)
            WHERE {_OF_VERSION} AND e.audit_probability IS NOT NULL
                AND {_ASKED_ONCE} AND l.verdict IS NOT NULL
            ORDER BY e.evaluation_id DESC LIMIT ?""",  # noqa: S608 - see above
            [judge_id, judge_id, version, model, limit],
        )
        return [LabelledConfidence(*row) for row in rows]

    async def confidences(
        self, judge_id: str, version: int, model: str, *, limit: int
    ) -> list[float]:
        """Return confidences of items that were not chosen to be labelled, of the newest ones."""
        rows = await self._rows(
            f"""SELECT e.confidence FROM evaluations AS e
            WHERE {_OF_VERSION} AND e.audit_probability IS NULL AND {_ASKED_ONCE}
            ORDER BY e.evaluation_id DESC LIMIT ?""",  # noqa: S608 - text is ours, values are bound
            [judge_id, version, model, limit],
        )
        return [row[0] for row in rows]

    async def samples(
        self, judge_id: str, version: int, model: str, *, limit: int
    ) -> list[str]:
        """Return the ``trust_json`` of items that were judged several times, of the newest ones."""
        rows = await self._rows(
            f"""SELECT e.trust_json FROM evaluations AS e
            WHERE {_OF_VERSION} AND (e.trust_json->'samples') IS NOT NULL
            ORDER BY e.evaluation_id DESC LIMIT ?""",  # noqa: S608 - text is ours, values are bound
            [judge_id, version, model, limit],
        )
        return [row[0] for row in rows]

    async def answers(
        self, judge_id: str, version: int, model: str, *, audit_only: bool, limit: int
    ) -> list[LabelledAnswer]:
        """Return labelled items, newest first; the label as in `labelled`."""
        audit = "AND e.audit_probability IS NOT NULL" if audit_only else ""
        rows = await self._rows(
            # Texts are ours, values are bound.
            f"""WITH labels AS ({labels_sql("f.judge_id = ?")})
            SELECT e.evaluation_id, e.group_key, e.labels_json, l.source, e.confidence, e.verdict,
                e.score, l.verdict, l.score
            FROM evaluations AS e JOIN labels AS l USING (evaluation_id)
            WHERE {_OF_VERSION} {audit}
            ORDER BY e.evaluation_id DESC LIMIT ?""",  # noqa: S608 - see above
            [judge_id, judge_id, version, model, limit],
        )
        return [LabelledAnswer(*row) for row in rows]

    async def annotations(
        self, judge_id: str, version: int, model: str, *, limit: int
    ) -> list[Annotation]:
        """Return what people with a name say of items, newest items first."""
        rows = await self._rows(
            # Texts are ours, values are bound.
            f"""SELECT e.evaluation_id, f.author, any_value(e.verdict), any_value(e.score),
                max_by(f.verdict, f.feedback_id), max_by(f.score, f.feedback_id)
            FROM evaluations AS e JOIN feedback AS f USING (evaluation_id)
            WHERE {_OF_VERSION} AND f.author <> ''
            GROUP BY e.evaluation_id, f.author ORDER BY e.evaluation_id DESC, f.author LIMIT ?""",  # noqa: S608 - see above
            [judge_id, version, model, limit],
        )
        return [Annotation(*row) for row in rows]
