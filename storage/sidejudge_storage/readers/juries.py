"""Reading juries, what they said, and what people say of the same items."""

from __future__ import annotations

from concurrent.futures import Executor
from dataclasses import dataclass

from sidejudge_storage.database import Database
from sidejudge_storage.quality_schema import labels_sql
from sidejudge_storage.readers.base import Reader, Where
from sidejudge_storage.tables import DELIBERATIONS, JURIES
from sidejudge_storage.trust_records import DeliberationRecord, JuryRecord

__all__ = ["DeliberationReader", "JuryReader", "LabelledDeliberation"]

_BALLOTS = "d.jury_id = ? AND d.complete AND d.audit_probability IS NOT NULL"


@dataclass(frozen=True, slots=True)
class LabelledDeliberation:
    """An audited deliberation in which all members were asked, with its label; verdict or score."""

    deliberation_id: str
    group_key: str
    answer_json: str
    verdict: str | None
    score: float | None


class JuryReader(Reader[JuryRecord]):
    """Reads juries."""

    def __init__(self, database: Database, executor: Executor) -> None:
        super().__init__(database, executor, JURIES)

    async def all(self) -> list[JuryRecord]:
        """Return all juries."""
        return await self._select(Where(), order="jury_id")


class DeliberationReader(Reader[DeliberationRecord]):
    """Reads deliberations."""

    def __init__(self, database: Database, executor: Executor) -> None:
        super().__init__(database, executor, DELIBERATIONS)

    async def get(self, deliberation_id: str) -> DeliberationRecord | None:
        """Return a deliberation; None if there is none."""
        found = await self._by_key([deliberation_id])
        return found[0] if found else None

    async def newest(
        self, jury_id: str, *, audited: bool, before: str | None, limit: int
    ) -> list[DeliberationRecord]:
        """Return deliberations of a jury, newest first; ``audited`` for those to label only."""
        where = Where().equals(jury_id=jury_id)
        if audited:
            where.add("audit_probability IS NOT NULL")
        return await self._newest(where, before=before, limit=limit)

    async def labelled(self, jury_id: str, *, limit: int) -> list[LabelledDeliberation]:
        """Return ballots with a label, in the order in which the first labels came.

        People label any evaluation of a deliberation; of several that have a label the first
        member's counts, and of one evaluation the latest correction of the weightiest source.
        """
        rows = await self._rows(
            # Texts are ours, values are bound.
            f"""WITH asked AS (
                SELECT d.deliberation_id, unnest(from_json(d.evaluations_json, '["VARCHAR"]'))
                    AS evaluation_id
                FROM deliberations AS d WHERE {_BALLOTS}
            ), labels AS ({labels_sql("f.evaluation_id IN (SELECT evaluation_id FROM asked)")}),
            firsts AS (
                SELECT evaluation_id, min(feedback_id) AS first_label FROM feedback
                WHERE evaluation_id IN (SELECT evaluation_id FROM asked) GROUP BY evaluation_id
            ), of_item AS (
                SELECT a.deliberation_id, min_by(l.verdict, evaluation_id) AS verdict,
                    min_by(l.score, evaluation_id) AS score, min(first_label) AS first_label
                FROM asked AS a JOIN labels AS l USING (evaluation_id)
                    JOIN firsts USING (evaluation_id)
                GROUP BY a.deliberation_id
            )
            SELECT d.deliberation_id, d.group_key, d.answer_json, o.verdict, o.score
            FROM deliberations AS d JOIN of_item AS o USING (deliberation_id)
            ORDER BY o.first_label, d.deliberation_id LIMIT ?""",  # noqa: S608 - see above
            [jury_id, limit],
        )
        return [LabelledDeliberation(*row) for row in rows]

    async def unlabelled(self, jury_id: str, *, limit: int) -> list[str]:
        """Return the ``answer_json`` of ballots without a label, of the newest ones."""
        rows = await self._rows(
            f"""SELECT d.answer_json FROM deliberations AS d
            WHERE {_BALLOTS} AND NOT EXISTS (
                SELECT 1 FROM feedback AS f WHERE f.evaluation_id IN (
                    SELECT unnest(from_json(d.evaluations_json, '["VARCHAR"]')))
            ) ORDER BY d.deliberation_id DESC LIMIT ?""",  # noqa: S608 - text is ours, values are bound
            [jury_id, limit],
        )
        return [row[0] for row in rows]
