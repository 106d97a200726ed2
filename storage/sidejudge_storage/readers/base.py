"""What all readers share: queries in threads, filters, and a loader that merges lookups."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import Executor
from typing import Any, Generic, TypeVar

from sidejudge_storage.database import Database
from sidejudge_storage.errors import StorageError
from sidejudge_storage.tables import Table, id_list

__all__ = ["IN_LIST", "MergingLoader", "Reader", "Where"]

R = TypeVar("R")

IN_LIST = """IN (SELECT unnest(from_json(?, '["VARCHAR"]')))"""
"""Membership in a list that is bound as one ``id_list`` parameter."""


class Where:
    """A conjunction of conditions and what they bind."""

    def __init__(self) -> None:
        self._conditions: list[str] = []
        self.params: list[object] = []

    def add(self, condition: str, *params: object) -> Where:
        """Add a condition with its parameters."""
        self._conditions.append(condition)
        self.params.extend(params)
        return self

    def equals(self, **columns: object) -> Where:
        """Add a condition for each column whose value is not None."""
        for column, value in columns.items():
            if value is not None:
                self.add(f"{column} = ?", value)
        return self

    def member(self, column: str, ids: Iterable[str]) -> Where:
        """Require a column to be one of some values."""
        values = list(dict.fromkeys(ids))
        if len(values) == 1:
            # A constant is compared with the zone maps, a subquery only sometimes.
            return self.add(f"{column} = ?", values[0])
        return self.add(f"{column} {IN_LIST}", id_list(values))

    @property
    def sql(self) -> str:
        """The WHERE clause, empty without conditions."""
        if not self._conditions:
            return ""
        return f" WHERE {' AND '.join(self._conditions)}"


class Reader(Generic[R]):
    """Reads rows of one table, each query in a thread of the executor."""

    def __init__(self, database: Database, executor: Executor, table: Table[R]) -> None:
        self._database = database
        self._executor = executor
        self._table = table

    async def _run(self, work: Callable[[], Any]) -> Any:  # noqa: ANN401 - callers know the type
        loop = asyncio.get_running_loop()
        try:
            running = loop.run_in_executor(self._executor, work)
        except RuntimeError:
            raise StorageError("the database is closed") from None
        return await running

    async def _rows(self, sql: str, params: list[object]) -> list[tuple[Any, ...]]:
        rows: list[tuple[Any, ...]] = await self._run(
            lambda: self._database.query(sql, params)
        )
        return rows

    async def _select(
        self, where: Where, *, order: str = "", limit: int | None = None
    ) -> list[R]:
        table = self._table
        sql = f"SELECT {table.select} FROM {table.source}{where.sql}"  # noqa: S608 - names are ours, values are bound
        params = list(where.params)
        if order:
            sql += f" ORDER BY {order}"
        if limit is not None:
            sql += " LIMIT ?"
            params.append(limit)
        records: list[R] = await self._run(
            lambda: [table.decode(r) for r in self._database.query(sql, params)]
        )
        return records

    async def _newest(self, where: Where, *, before: str | None, limit: int) -> list[R]:
        key = self._table.key[0]
        if before is not None:
            where.add(f"{key} < ?", before)
        return await self._select(where, order=f"{key} DESC", limit=limit)

    async def _by_key(self, ids: Iterable[str]) -> list[R]:
        wanted = list(ids)
        if not wanted:
            return []
        return await self._select(Where().member(self._table.key[0], wanted))


class MergingLoader(Generic[R]):
    """Answers all lookups that arrive while one query runs with the next query."""

    def __init__(self, load: Callable[[list[str]], Awaitable[dict[str, R]]]) -> None:
        """Take what loads many ids at once; ids it does not find are left out."""
        self._load = load
        self._waiting: dict[str, None] = {}
        self._next: asyncio.Future[dict[str, R]] | None = None
        self._task: asyncio.Task[None] | None = None

    async def get(self, ids: Iterable[str]) -> dict[str, R]:
        """Return what is found, by id."""
        wanted = list(ids)
        if not wanted:
            return {}
        self._waiting.update(dict.fromkeys(wanted))
        if self._next is None:
            self._next = asyncio.get_running_loop().create_future()
        batch = self._next
        if self._task is None:
            self._task = asyncio.create_task(self._work())
        # Others may wait for the same batch: a cancelled caller must not cancel it.
        found = await asyncio.shield(batch)
        return {i: found[i] for i in wanted if i in found}

    async def _work(self) -> None:
        try:
            while self._next is not None:
                batch, ids = self._next, list(self._waiting)
                self._next, self._waiting = None, {}
                try:
                    batch.set_result(await self._load(ids))
                except Exception as error:  # noqa: BLE001 - it belongs to the callers
                    batch.set_exception(error)
        finally:
            self._task = None
