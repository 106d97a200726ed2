"""Reading what versions say of items that others answered."""

from __future__ import annotations

from concurrent.futures import Executor

from sidejudge_storage.database import Database
from sidejudge_storage.readers.base import Reader, Where
from sidejudge_storage.records import ShadowJudgmentRecord
from sidejudge_storage.tables import SHADOW_JUDGMENTS

__all__ = ["ShadowJudgmentReader"]


class ShadowJudgmentReader(Reader[ShadowJudgmentRecord]):
    """Reads judgments in shadow."""

    def __init__(self, database: Database, executor: Executor) -> None:
        super().__init__(database, executor, SHADOW_JUDGMENTS)

    async def get(
        self, experiment_id: str, arm_id: str, evaluation_id: str
    ) -> ShadowJudgmentRecord | None:
        """Return what an arm says of an item, None if it was not asked."""
        where = Where().equals(
            evaluation_id=evaluation_id, experiment_id=experiment_id, arm_id=arm_id
        )
        found = await self._select(where, limit=1)
        return found[0] if found else None
