"""Reading what request ids were answered with."""

from __future__ import annotations

from concurrent.futures import Executor
from datetime import datetime

from sidejudge_storage.database import Database
from sidejudge_storage.readers.base import Reader, Where
from sidejudge_storage.records import RequestRecord
from sidejudge_storage.tables import REQUESTS, naive_utc

__all__ = ["RequestReader"]


class RequestReader(Reader[RequestRecord]):
    """Reads request ids.

    Those older than 48 hours are removed at every start, except those of evaluations and
    corrections that were committed alone, which stand in the same row.
    """

    def __init__(self, database: Database, executor: Executor) -> None:
        super().__init__(database, executor, REQUESTS)

    async def since(self, moment: datetime) -> list[RequestRecord]:
        """Return what was answered at or after a moment, oldest first."""
        where = Where().add("created_at >= ?", naive_utc(moment))
        return await self._select(where, order="created_at, request_id")

    async def get(self, request_id: str) -> RequestRecord | None:
        """Return what a request id was answered with last, None if it is not known."""
        where = Where().equals(request_id=request_id)
        found = await self._select(where, order="created_at DESC", limit=1)
        return found[0] if found else None
