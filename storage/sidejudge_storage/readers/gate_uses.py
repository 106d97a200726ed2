"""Reading how often a judge's held-out examples were used to decide."""

from __future__ import annotations

from concurrent.futures import Executor

from sidejudge_storage.database import Database
from sidejudge_storage.readers.base import Reader, Where
from sidejudge_storage.records import GateUseRecord
from sidejudge_storage.tables import GATE_USES

__all__ = ["GateUseReader"]


class GateUseReader(Reader[GateUseRecord]):
    """Reads uses of held-out examples."""

    def __init__(self, database: Database, executor: Executor) -> None:
        super().__init__(database, executor, GATE_USES)

    async def of(self, judge_id: str) -> list[GateUseRecord]:
        """Return the uses of a judge's held-out examples, one a run, oldest first."""
        uses = await self._select(
            Where().equals(judge_id=judge_id), order="created_at, optimization_id"
        )
        return list({use.optimization_id: use for use in uses}.values())
