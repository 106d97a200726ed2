"""Reading candidates that prove themselves in shadow."""

from __future__ import annotations

from concurrent.futures import Executor

from sidejudge_storage.database import Database
from sidejudge_storage.readers.base import Reader, Where
from sidejudge_storage.records import ShadowCandidateRecord
from sidejudge_storage.tables import SHADOW_CANDIDATES

__all__ = ["ShadowCandidateReader"]


class ShadowCandidateReader(Reader[ShadowCandidateRecord]):
    """Reads candidates in shadow."""

    def __init__(self, database: Database, executor: Executor) -> None:
        super().__init__(database, executor, SHADOW_CANDIDATES)

    async def latest(self) -> dict[str, ShadowCandidateRecord]:
        """Return the newest candidate of each judge that ever had one, by judge."""
        found = await self._select(Where(), order="start_id")
        return {candidate.judge_id: candidate for candidate in found}

    async def of(self, judge_id: str) -> list[ShadowCandidateRecord]:
        """Return all candidates of a judge, oldest first."""
        return await self._select(Where().equals(judge_id=judge_id), order="start_id")
