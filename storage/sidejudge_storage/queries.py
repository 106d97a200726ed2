"""Runs SQL of others: checked before, bounded in time and rows, beside the readers of the server."""

from __future__ import annotations

import asyncio
import io
import threading
import time
from collections.abc import AsyncGenerator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sidejudge_storage.database import Database
from sidejudge_storage.errors import (
    QueryFailedError,
    QueryLimitError,
    StorageError,
    TooManyQueriesError,
)
from sidejudge_storage.query_guard import check_query

if TYPE_CHECKING:
    import duckdb

__all__ = ["QueryEnd", "QueryRunner"]

_AT_ONCE = 2
_CHUNK_BYTES = 1_000_000


@dataclass(frozen=True, slots=True)
class QueryEnd:
    """What became of a query."""

    rows: int
    truncated: bool
    seconds: float


class QueryRunner:
    """Runs queries, two at once, each on a connection of its own."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._executor = ThreadPoolExecutor(_AT_ONCE, "sidejudge-query")
        self._running = 0
        self._active: set[_Query] = set()

    def close(self) -> None:
        """End what runs and refuse what comes."""
        for query in list(self._active):
            query.abandon()
        self._executor.shutdown()

    async def run(
        self, sql: str, *, max_rows: int, timeout_s: float
    ) -> AsyncGenerator[bytes | QueryEnd, None]:
        """Yield the result as pieces of an Arrow IPC stream, then how it ended.

        Args:
            sql: One SELECT over the views.
            max_rows: More rows are cut off.
            timeout_s: From the beginning to the last piece.

        Raises:
            QueryRefusedError: It does more than read the views.
            QueryFailedError: DuckDB can't run it.
            QueryLimitError: It takes too much time or memory.
            TooManyQueriesError: Two queries are running.
        """
        if self._running >= _AT_ONCE:
            raise TooManyQueriesError(f"{_AT_ONCE} queries are running; try again soon")
        self._running += 1
        began = time.monotonic()
        loop = asyncio.get_running_loop()
        task: _Query | None = None
        try:
            connection = await loop.run_in_executor(
                self._executor, self._database.cursor
            )
            task = _Query(connection, sql, max_rows=max_rows, timeout_s=timeout_s)
            self._active.add(task)
            await loop.run_in_executor(self._executor, task.begin)
            while True:
                piece = await loop.run_in_executor(self._executor, task.next_piece)
                if piece is None:
                    break
                # A batch may be larger than a message may be.
                for start in range(0, len(piece), _CHUNK_BYTES):
                    yield piece[start : start + _CHUNK_BYTES]
            yield QueryEnd(task.rows, task.truncated, time.monotonic() - began)
        finally:
            self._running -= 1
            if task is not None:
                self._active.discard(task)
                task.abandon()
                with suppress(RuntimeError):  # the storage is closed
                    self._executor.submit(task.close)


class _Query:
    """One query, used from one thread at a time."""

    def __init__(
        self,
        connection: duckdb.DuckDBPyConnection,
        sql: str,
        *,
        max_rows: int,
        timeout_s: float,
    ) -> None:
        self.rows = 0
        self.truncated = False
        self._connection = connection
        self._sql = sql
        self._max_rows = max_rows
        self._timer = threading.Timer(timeout_s, self._time_is_up)
        self._timer.daemon = True
        self._late = False
        self._buffer = io.BytesIO()
        self._stream: Any = None
        self._writer: Any = None
        self._ended = False

    def begin(self) -> None:
        """Check it and let DuckDB begin."""
        from nanoarrow import ArrayStream, ipc

        check_query(self._connection, self._sql)
        self._timer.start()
        self._guarded(lambda: self._connection.execute("SET schema = 'v1'").fetchall())
        # One more row than is sent tells whether there are more.
        bounded = f"SELECT * FROM (\n{self._sql.rstrip().rstrip(';')}\n) LIMIT {self._max_rows + 1}"  # noqa: S608 - what was checked, and a number
        self._stream = self._guarded(lambda: ArrayStream(self._connection.sql(bounded)))
        self._writer = ipc.StreamWriter.from_writable(self._buffer)
        self._batches = iter(self._stream)

    def next_piece(self) -> bytes | None:
        """Return some bytes of the stream, None after the last."""
        from nanoarrow import c_array

        while not self._ended and self._buffer.tell() < _CHUNK_BYTES:
            batch = self._guarded(lambda: next(self._batches, None))
            if batch is None:
                self._finish()
                break
            room = self._max_rows - self.rows
            if len(batch) > room:
                self.truncated = True
                batch = c_array(batch)[0:room]
            if batch is not None and len(batch):
                self.rows += len(batch)
                self._writer.write_array(batch)
            if self.truncated:
                self._finish()
        piece = self._buffer.getvalue()
        self._buffer.seek(0)
        self._buffer.truncate()
        return piece or None

    def _finish(self) -> None:
        self._ended = True
        if self.rows == 0:
            self._writer.write_stream(self._stream.schema and _empty(self._stream))
        self._writer.close()

    def abandon(self) -> None:
        """End it from another thread, if it still runs."""
        self._timer.cancel()
        if not self._ended:
            self._connection.interrupt()

    def close(self) -> None:
        """Give the connection back."""
        self._stream = self._writer = self._batches = None
        self._connection.close()

    def _time_is_up(self) -> None:
        self._late = True
        self._connection.interrupt()

    def _guarded(self, work: Any) -> Any:  # noqa: ANN401 - whatever the work returns
        import duckdb

        try:
            return work()
        except duckdb.OutOfMemoryException as error:
            raise QueryLimitError("it needs more memory than there is") from error
        except (duckdb.Error, RuntimeError) as error:
            if self._late:
                raise QueryLimitError("it takes more time than it may") from error
            if isinstance(error, duckdb.Error):
                raise QueryFailedError(_first_line(error)) from error
            raise StorageError(str(error)) from error


def _empty(stream: Any) -> Any:  # noqa: ANN401 - a stream of nanoarrow
    from nanoarrow import ArrayStream, c_array

    return ArrayStream(c_array([], stream.schema))


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0]
