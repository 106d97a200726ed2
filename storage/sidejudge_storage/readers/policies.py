"""Reading optimization policies."""

from __future__ import annotations

from concurrent.futures import Executor

from sidejudge_storage.database import Database
from sidejudge_storage.readers.base import Reader, Where
from sidejudge_storage.records import OptimizationPolicyRecord
from sidejudge_storage.tables import OPTIMIZATION_POLICIES

__all__ = ["OptimizationPolicyReader"]


class OptimizationPolicyReader(Reader[OptimizationPolicyRecord]):
    """Reads policies; there is at most one a judge."""

    def __init__(self, database: Database, executor: Executor) -> None:
        super().__init__(database, executor, OPTIMIZATION_POLICIES)

    async def get(self, judge_id: str) -> OptimizationPolicyRecord | None:
        """Return the policy of a judge, None if none was ever set."""
        found = await self._by_key([judge_id])
        return found[0] if found else None

    async def enabled(self) -> list[OptimizationPolicyRecord]:
        """Return the policies that may start runs, by judge."""
        where = Where().add("enabled AND NOT paused")
        return await self._select(where, order="judge_id")
