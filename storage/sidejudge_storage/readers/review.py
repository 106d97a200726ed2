"""Reading the review queue: what may be drawn, what was drawn, who has it, and what people said."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sidejudge_storage.database import Database
from sidejudge_storage.ids import first_id
from sidejudge_storage.readers.base import IN_LIST, Reader, Where
from sidejudge_storage.tables import (
    REVIEW_CLAIMS,
    REVIEW_ITEMS,
    id_list,
    naive_utc,
)
from sidejudge_storage.trust_records import (
    ReviewClaimRecord,
    ReviewItemRecord,
)

__all__ = [
    "GivenLabel",
    "JudgedItem",
    "QueuedItem",
    "ReviewReader",
    "UndrawnItem",
]

_ID_LEAD = timedelta(seconds=5)
"""How far the time of an id may be off that of its row."""


@dataclass(frozen=True, slots=True)
class UndrawnItem:
    """An evaluation that no round has considered.

    Attributes:
        labelled: Whether it has feedback.
        other_answers: Answers of other versions to it, in shadow or to the same input.
        other_verdicts: Of these, those that say something else (scores: 0.2 or more apart).
    """

    evaluation_id: str
    version: int
    verdict: str | None
    score: float | None
    confidence: float | None
    score_stddev: float | None
    audit_probability: float | None
    labelled: bool
    other_answers: int
    other_verdicts: int


@dataclass(frozen=True, slots=True)
class QueuedItem:
    """A drawn item with who has labelled it; labels without an author stand as ""."""

    item: ReviewItemRecord
    labelled_by: tuple[str, ...]

    @property
    def place(self) -> tuple[int, int]:
        """Where it stands in the queue."""
        return self.item.round_number, self.item.place or 0


@dataclass(frozen=True, slots=True)
class JudgedItem:
    """An item that a round has considered, with what the judge had answered."""

    evaluation_id: str
    round_number: int
    stream: str
    drawn: bool
    inclusion_probability: float
    verdict: str | None
    score: float | None
    confidence: float | None
    score_stddev: float | None


@dataclass(frozen=True, slots=True)
class GivenLabel:
    """What somebody said of an evaluation."""

    evaluation_id: str
    feedback_id: str
    source: str
    author: str
    verdict: str | None
    score: float | None


class ReviewReader(Reader[ReviewItemRecord]):
    """Reads the review queues of judges.

    Ids begin with their time, so that a bound on them reads only the part of a table in which they
    are; feedback is younger than what it is about.
    """

    def __init__(self, database: Database, executor: Executor) -> None:
        super().__init__(database, executor, REVIEW_ITEMS)
        self._claims: Reader[ReviewClaimRecord] = Reader(
            database, executor, REVIEW_CLAIMS
        )

    async def undrawn(
        self, judge_id: str, *, since: datetime, window: int, limit: int
    ) -> list[UndrawnItem]:
        """Return evaluations that no round has considered, newest first.

        Args:
            judge_id: The judge.
            since: Only evaluations made since then.
            window: Only so many of the newest.
            limit: At most so many of these.
        """
        oldest = first_id(since - _ID_LEAD)
        rows = await self._rows(
            """WITH recent AS (
                SELECT evaluation_id, version, verdict, score, confidence, score_stddev,
                    audit_probability, md5(input_json) AS input
                FROM evaluations WHERE judge_id = ? AND evaluation_id >= ?
                ORDER BY evaluation_id DESC LIMIT ?
            ), considered AS (
                SELECT evaluation_id FROM review_items WHERE judge_id = ? AND evaluation_id >= ?
            ), fresh AS (
                SELECT * FROM recent ANTI JOIN considered USING (evaluation_id)
                ORDER BY evaluation_id DESC LIMIT ?
            ), others AS (
                SELECT f.evaluation_id, o.verdict, o.score FROM fresh AS f
                JOIN recent AS o ON o.input = f.input AND o.version <> f.version
                UNION ALL
                SELECT s.evaluation_id, s.verdict, s.score FROM shadow_judgments AS s
                JOIN fresh AS f ON s.evaluation_id = f.evaluation_id AND s.version <> f.version
                WHERE s.verdict IS NOT NULL OR s.score IS NOT NULL
            ), disputed AS (
                SELECT f.evaluation_id, count(*) AS answers,
                    count(*) FILTER (CASE WHEN f.verdict IS NULL THEN abs(o.score - f.score) >= 0.2
                        ELSE o.verdict <> f.verdict END) AS verdicts
                FROM fresh AS f JOIN others AS o USING (evaluation_id) GROUP BY f.evaluation_id
            ), labelled AS (
                SELECT DISTINCT evaluation_id FROM feedback
                WHERE judge_id = ? AND feedback_id >= ?
            )
            SELECT f.evaluation_id, f.version, f.verdict, f.score, f.confidence, f.score_stddev,
                f.audit_probability, l.evaluation_id IS NOT NULL, coalesce(d.answers, 0),
                coalesce(d.verdicts, 0)
            FROM fresh AS f LEFT JOIN disputed AS d USING (evaluation_id)
            LEFT JOIN labelled AS l USING (evaluation_id)
            ORDER BY f.evaluation_id DESC""",
            [judge_id, oldest, window, judge_id, oldest, limit, judge_id, oldest],
        )
        return [UndrawnItem(*row) for row in rows]

    async def label_counts(
        self, judge_id: str, *, since: datetime
    ) -> dict[tuple[str | None, int | None], int]:
        """Return how many labels were given by verdict, or by the fifth of the score from 0 on."""
        rows = await self._rows(
            """SELECT verdict, CAST(least(floor(score * 5), 4) AS INTEGER), count(*)
            FROM feedback WHERE judge_id = ? AND feedback_id >= ? GROUP BY ALL""",
            [judge_id, first_id(since)],
        )
        return {(verdict, fifth): count for verdict, fifth, count in rows}

    async def last_round(self, judge_id: str) -> int:
        """Return the number of a judge's last round, 0 before the first."""
        rows = await self._rows(
            "SELECT coalesce(max(round_number), 0) FROM review_items WHERE judge_id = ?",
            [judge_id],
        )
        return int(rows[0][0])

    async def queue(
        self,
        judge_id: str,
        *,
        since: datetime,
        limit: int,
        after: tuple[int, int] | None = None,
        without: Iterable[str] = (),
        show_labelled: bool = False,
    ) -> list[QueuedItem]:
        """Return drawn items in the order of the queue.

        Args:
            judge_id: The judge.
            since: Only those that were drawn since then.
            limit: At most so many.
            after: Only those behind this place.
            without: Evaluations to leave out.
            show_labelled: Whether to return those that have labels.
        """
        where = self._drawn(judge_id, since)
        if after is not None:
            where.add("(round_number, place) > (?, ?)", *after)
        left_out = list(without)
        if left_out:
            where.add(f"NOT review_items.evaluation_id {IN_LIST}", id_list(left_out))
        if not show_labelled:
            where.add("l.evaluation_id IS NULL")
        return await self._queued(judge_id, where, since=since, limit=limit)

    async def find(
        self, judge_id: str, evaluation_ids: Sequence[str], *, since: datetime
    ) -> dict[str, QueuedItem]:
        """Return drawn items by evaluation, those that are in the queue."""
        if not evaluation_ids:
            return {}
        where = self._drawn(judge_id, since)
        where.member("review_items.evaluation_id", evaluation_ids)
        found = await self._queued(
            judge_id, where, since=since, limit=len(evaluation_ids)
        )
        return {queued.item.evaluation_id: queued for queued in found}

    async def claims(self, *, since: datetime) -> list[ReviewClaimRecord]:
        """Return claims that expire after a time and were not given up or followed by a label, oldest first.

        Of an item and annotator the newest counts, whatever became of those that it has renewed.
        """
        where = Where().add("expires_at > ?", naive_utc(since))
        where.add(
            "claim_id IN (SELECT max(claim_id) FROM review_claims"
            " GROUP BY evaluation_id, annotator)"
        )
        where.add("claim_id NOT IN (SELECT claim_id FROM review_releases)")
        where.add(
            "NOT EXISTS (SELECT 1 FROM feedback AS f WHERE f.author = review_claims.annotator"
            " AND f.evaluation_id = review_claims.evaluation_id)"
        )
        return await self._claims._select(where, order="claim_id")  # noqa: SLF001 - the same class

    async def judged(
        self, judge_id: str, version: int, *, start: datetime, end: datetime
    ) -> list[JudgedItem]:
        """Return what rounds have considered of the evaluations of a version between two times."""
        first, last = first_id(start), first_id(end)
        rows = await self._rows(
            """SELECT r.evaluation_id, r.round_number, r.stream, r.drawn, r.inclusion_probability,
                e.verdict, e.score, e.confidence, e.score_stddev
            FROM review_items AS r JOIN evaluations AS e USING (evaluation_id)
            WHERE r.judge_id = ? AND r.version = ? AND r.evaluation_id >= ? AND r.evaluation_id < ?
                AND e.evaluation_id >= ? AND e.evaluation_id < ?
            ORDER BY r.evaluation_id""",
            [judge_id, version, first, last, first, last],
        )
        return [JudgedItem(*row) for row in rows]

    async def labels(
        self, judge_id: str, *, evaluations_since: datetime
    ) -> list[GivenLabel]:
        """Return the labels of evaluations since a time, oldest first."""
        first = first_id(evaluations_since)
        return await self._labels("evaluation_id >= ?", [judge_id, first, first])

    async def shared_labels(
        self, judge_id: str, *, start: datetime, end: datetime
    ) -> list[GivenLabel]:
        """Return labels that were given between two times to items with two or more authors, oldest first."""
        condition = """feedback_id < ? AND author <> '' AND evaluation_id IN (
            SELECT evaluation_id FROM feedback
            WHERE judge_id = ? AND feedback_id >= ? AND feedback_id < ? AND author <> ''
            GROUP BY evaluation_id HAVING count(DISTINCT author) > 1)"""
        first, last = first_id(start), first_id(end)
        params: list[object] = [judge_id, first, last, judge_id, first, last]
        return await self._labels(condition, params)

    async def _labels(self, condition: str, params: list[object]) -> list[GivenLabel]:
        rows = await self._rows(
            "SELECT evaluation_id, feedback_id, source, author, verdict, score FROM feedback"  # noqa: S608 - texts are ours, values are bound
            f" WHERE judge_id = ? AND feedback_id >= ? AND {condition} ORDER BY feedback_id",
            params,
        )
        return [GivenLabel(*row) for row in rows]

    def _drawn(self, judge_id: str, since: datetime) -> Where:
        where = Where().add("review_items.judge_id = ? AND drawn", judge_id)
        return where.add("review_items.created_at >= ?", naive_utc(since))

    async def _queued(
        self, judge_id: str, where: Where, *, since: datetime, limit: int
    ) -> list[QueuedItem]:
        # What is drawn at `since` may have been judged a window earlier; its label is younger still.
        oldest = await self._rows(
            f"SELECT min(evaluation_id) FROM review_items{self._drawn(judge_id, since).sql}",  # noqa: S608 - names are ours, values are bound
            self._drawn(judge_id, since).params,
        )
        sql = f"""SELECT {REVIEW_ITEMS.select}, l.authors FROM review_items LEFT JOIN (
                SELECT evaluation_id, list(DISTINCT author) AS authors FROM feedback
                WHERE judge_id = ? AND feedback_id >= ? GROUP BY evaluation_id
            ) AS l ON l.evaluation_id = review_items.evaluation_id{where.sql}
            ORDER BY round_number, place LIMIT ?"""  # noqa: S608 - names are ours, values are bound
        rows = await self._rows(
            sql, [judge_id, oldest[0][0] or "", *where.params, limit]
        )
        return [_queued(row) for row in rows]


def _queued(row: tuple[Any, ...]) -> QueuedItem:
    *columns, authors = row
    return QueuedItem(REVIEW_ITEMS.decode(tuple(columns)), tuple(authors or ()))
