"""One open database: connection, lock, repair, and the check that nothing acknowledged is gone."""

from __future__ import annotations

import logging
import threading
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sidejudge_storage.errors import (
    AcknowledgedRowsMissingError,
    CommitGap,
    StorageError,
)
from sidejudge_storage.highwater import HighWaterFile, Mark
from sidejudge_storage.migrations import MIGRATIONS, migrate
from sidejudge_storage.wal import Cut, WalCopies, connect_cutting

if TYPE_CHECKING:
    import duckdb

__all__ = ["Database", "RepairReport", "StorageOptions"]

_FILE_FORMAT = "v1.5.0"
"""Storage version of new files: DuckDB 1.5 and 2.0 read and write it; 2.0's default 1.5 cannot."""

_REQUESTS_KEPT = timedelta(hours=48)
"""Request ids are answered for 24 hours; twice that allows for a clock that was set."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class StorageOptions:
    """How the database is opened."""

    memory_limit: str = "512MB"
    """DuckDB's memory limit; its own default is 80 % of the machine."""

    threads: int = 2
    """DuckDB's threads."""

    checkpoint_bytes: int = 16 * 1024 * 1024
    """How large the write-ahead log grows before it is folded into the file.

    Writes wait meanwhile, for about 0.3 s at 16 MiB; smaller pauses come more often.
    """

    accept_data_loss: bool = False
    """Open although acknowledged commits are missing; what is missing stays missing."""


@dataclass(frozen=True, slots=True)
class RepairReport:
    """What was done to open a damaged database."""

    bytes_cut: int
    """How much was cut off the write-ahead log; 0 if only a loss was accepted."""
    copies: tuple[Path, ...]
    """The logs as they were before."""
    message: str
    """The whole story in a sentence or two."""
    gap: CommitGap | None = None
    """Acknowledged commits whose loss was accepted."""


class Database:
    """A DuckDB file that is open for writing by one thread and for reading by any."""

    def __init__(self, path: Path, options: StorageOptions) -> None:
        """Lock, repair, check and migrate the file, making it if it is not there.

        Raises:
            DatabaseLockedError: It is in use.
            DatabaseTooNewError: A newer sidejudge wrote it.
            AcknowledgedRowsMissingError: It lost acknowledged commits and
                ``options.accept_data_loss`` is not set; nothing was changed.
            StorageError: It cannot be opened.
        """
        self.path = path
        self.database_id = uuid.UUID(int=0)
        self.last_commit = 0
        self.repair: RepairReport | None = None
        self._options = options
        self._wal = path.with_name(path.name + ".wal")
        self._checkpoint_at = options.checkpoint_bytes
        # Guards the five below: reopening waits for the readers, and readers for reopening.
        self._gate = threading.Condition()
        self._readers = 0
        self._closed = False
        self._reopening = False
        self._connection: duckdb.DuckDBPyConnection | None = None
        self._problem = "the database is closed"
        path.parent.mkdir(parents=True, exist_ok=True)
        self._mark_file = HighWaterFile(path.with_name(path.name + ".acked"))
        try:
            self._open(accept_data_loss=options.accept_data_loss, copy_log=True)
        except BaseException:
            self._mark_file.close()
            raise

    @property
    def connection(self) -> duckdb.DuckDBPyConnection:
        """The writer's connection.

        Raises:
            StorageError: The database is closed or could not be reopened.
        """
        if self._connection is None:
            raise StorageError(self._problem)
        return self._connection

    @property
    def is_open(self) -> bool:
        """Whether there is a connection; False after a failed reopening."""
        return self._connection is not None

    def query(self, sql: str, params: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """Run a query on a cursor of its own and return all its rows.

        Results are fetched to the end because DuckDB 2 streams them.

        Raises:
            StorageError: The query failed or the database is closed.
        """
        import duckdb

        with self._reading() as connection, connection.cursor() as cursor:
            try:
                rows: list[tuple[Any, ...]] = cursor.execute(
                    sql, list(params)
                ).fetchall()
            except duckdb.Error as error:
                raise StorageError(f"a query failed: {error}") from error
            return rows

    def cursor(self) -> duckdb.DuckDBPyConnection:
        """Return a connection for one reader, who has to close it.

        Raises:
            StorageError: The database is closed.
        """
        with self._reading() as connection:
            return connection.cursor()

    def acknowledge(self) -> None:
        """Advance the mark to ``last_commit``; call it before anyone hears of the commit.

        Raises:
            OSError: The mark could not be written.
        """
        self._mark_file.write(self._mark())

    @property
    def mark_is_dirty(self) -> bool:
        """Whether the mark on disk is older than the one in memory."""
        return self._mark_file.dirty

    def sync_mark(self) -> None:
        """Force the mark to disk.

        Raises:
            OSError: The disk refused.
        """
        self._mark_file.sync()

    def checkpoint_if_due(self) -> None:
        """Fold the log into the file if it has grown long enough.

        If that fails, as on a full disk, nothing is lost; it is tried again when the log has
        grown as much once more.

        Raises:
            StorageError: It failed and the database cannot be reopened at present.
        """
        import duckdb

        if not self._wal.exists() or self._wal.stat().st_size < self._checkpoint_at:
            return
        try:
            self.connection.execute("CHECKPOINT").fetchall()
            self._checkpoint_at = self._options.checkpoint_bytes
        except duckdb.Error as error:
            _log.warning("no checkpoint: %s", error)
            self.revive()
            size = self._wal.stat().st_size if self._wal.exists() else 0
            self._checkpoint_at = size + self._options.checkpoint_bytes

    def revive(self) -> None:
        """Make sure after an error that the database works, reopening it if it does not.

        Also learns whether the commit that failed had come through.

        Raises:
            StorageError: It cannot be opened at present; call it again later.
        """
        import duckdb

        if self._connection is not None:
            try:
                # Without the optimizer DuckDB would read every column of the rows.
                self._connection.execute("PRAGMA enable_optimizer").fetchall()
                self.last_commit = _last_commit(self._connection)
                self._connection.execute("PRAGMA disable_optimizer").fetchall()
            except duckdb.Error:
                _log.warning("reopening the database after a failed write")
            else:
                return
        with self._gate:
            self._reopening = True
            connection, self._connection = self._connection, None
            self._gate.wait_for(lambda: self._readers == 0)
        try:
            if connection is not None:
                connection.close()
            # No copy: the process has not crashed, and a full disk has no room for one.
            self._open(accept_data_loss=False, copy_log=False)
        except StorageError as error:
            self._problem = str(error)
            raise
        finally:
            with self._gate:
                self._reopening = False
                self._gate.notify_all()

    def close(self) -> None:
        """Checkpoint and close; safe to call twice."""
        import duckdb

        with self._gate:
            if self._closed:
                return
            self._closed = True
            self._problem = "the database is closed"
            connection, self._connection = self._connection, None
            self._gate.wait_for(lambda: self._readers == 0)
        if connection is not None:
            try:
                # Without the optimizer DuckDB would read every column of the rows.
                connection.execute("PRAGMA enable_optimizer").fetchall()
                # Keeps the check at the next start off the rows: people may delete some.
                _prune(connection)
                connection.execute("CHECKPOINT").fetchall()
            except duckdb.Error as error:
                # Everything is in the log, which the next start replays.
                _log.warning("no checkpoint at close: %s", error)
            connection.close()
        self._mark_file.close()

    @contextmanager
    def _reading(self) -> Iterator[duckdb.DuckDBPyConnection]:
        with self._gate:
            self._gate.wait_for(lambda: not self._reopening)
            connection = self.connection
            self._readers += 1
        try:
            yield connection
        finally:
            with self._gate:
                self._readers -= 1
                self._gate.notify_all()

    def _connect(self) -> duckdb.DuckDBPyConnection:
        import duckdb

        connection = duckdb.connect(
            str(self.path),
            config={
                "storage_compatibility_version": _FILE_FORMAT,
                "memory_limit": self._options.memory_limit,
                "threads": self._options.threads,
                # DuckDB would checkpoint inside COMMIT and, if that fails, report a transaction
                # as failed that is durable. See checkpoint_if_due.
                "wal_autocheckpoint": "1TB",
                "temp_directory": f"{self.path}.tmp",
                # A database must not fetch code from the network.
                "autoinstall_known_extensions": False,
                "autoload_known_extensions": False,
            },
        )
        # A refusal must not fold the log into the file; close() says CHECKPOINT itself.
        connection.execute("PRAGMA disable_checkpoint_on_shutdown").fetchall()
        return connection

    def _open(self, *, accept_data_loss: bool, copy_log: bool) -> None:
        import duckdb

        if self.path.exists() and self.path.stat().st_size == 0:
            self.path.unlink()  # a start that was killed before it wrote the header
        is_new = not self.path.exists()
        copies = WalCopies(self.path)
        if copy_log:
            copies.take()
        if is_new and copies.exist:
            copies.keep()  # DuckDB would remove a log without a database
        connection, cuts = connect_cutting(self.path, self._connect, copies)
        try:
            gap = self._find_gap(connection)
            if not accept_data_loss:
                _refuse(self.path, gap)
            self._prepare(connection)
        except BaseException as error:
            connection.close()
            copies.restore()
            if isinstance(error, duckdb.Error | OSError):
                raise StorageError(f"cannot open {self.path}: {error}") from error
            raise
        self.repair = _report(copies, cuts, gap=gap) or self.repair
        copies.discard()
        self._checkpoint_at = self._options.checkpoint_bytes
        with self._gate:
            self._connection = connection

    def _prepare(self, connection: duckdb.DuckDBPyConnection) -> None:
        applied = migrate(connection, MIGRATIONS)
        ((database_id,),) = connection.execute(
            "SELECT value FROM meta WHERE name = 'database_id'"
        ).fetchall()
        self.database_id = uuid.UUID(database_id)
        self.last_commit = _last_commit(connection)
        _prune(connection)
        if applied:
            # The id that the mark refers to must not depend on the log.
            connection.execute("CHECKPOINT").fetchall()
        # Rows that were stored but not acknowledged can be read from now on.
        self._mark_file.reset(self._mark())
        # The writer's statements gain nothing from it, and planning takes half the time without.
        connection.execute("PRAGMA disable_optimizer").fetchall()

    def _mark(self) -> Mark:
        now = datetime.now(UTC)
        return Mark(self.database_id, self.last_commit, int(now.timestamp() * 1e6))

    def _find_gap(self, connection: duckdb.DuckDBPyConnection) -> CommitGap | None:
        tables = connection.execute(
            "SELECT count(*) FROM duckdb_tables() WHERE table_name IN ('meta', 'commit_log')"
        ).fetchall()
        if tables != [(2,)]:
            return None
        rows = connection.execute(
            "SELECT value FROM meta WHERE name = 'database_id'"
        ).fetchall()
        mark = self._mark_file.read()
        if not rows or mark is None or str(mark.database_id) != rows[0][0]:
            return None  # nothing is known of this database
        acknowledged_at = datetime.fromtimestamp(mark.at_micros / 1e6, UTC)
        ((lowest, highest, count),) = connection.execute(
            "SELECT min(seq), max(seq), count(DISTINCT seq) FROM commits"
        ).fetchall()
        last = highest or 0
        if last and highest - lowest + 1 != count:
            ((before_hole,),) = connection.execute(
                "SELECT min(seq) FROM commits WHERE seq + 1 NOT IN (SELECT seq FROM commits)"
            ).fetchall()
            ((after_hole,),) = connection.execute(
                "SELECT min(seq) FROM commits WHERE seq > ?", [before_hole]
            ).fetchall()
            first, end = before_hole + 1, after_hole - 1
        elif last < mark.commit:
            first, end = last + 1, mark.commit
        else:
            return None
        times = connection.execute(
            "SELECT committed_at FROM commits WHERE seq = ?", [first - 1]
        ).fetchall()
        stored_at = times[0][0].replace(tzinfo=UTC) if times else None
        return CommitGap(first, end, stored_at, acknowledged_at)


def _last_commit(connection: duckdb.DuckDBPyConnection) -> int:
    ((last,),) = connection.execute("SELECT max(seq) FROM commits").fetchall()
    return last or 0


def _prune(connection: duckdb.DuckDBPyConnection) -> None:
    connection.execute(
        "INSERT INTO commit_log SELECT seq, committed_at FROM commits"
        " WHERE seq = (SELECT max(seq) FROM commits)"
        " AND seq NOT IN (SELECT seq FROM commit_log)"
    ).fetchall()
    connection.execute(
        "DELETE FROM commit_log WHERE seq < (SELECT max(seq) FROM commit_log)"
    ).fetchall()
    oldest = datetime.now(UTC).replace(tzinfo=None) - _REQUESTS_KEPT
    connection.execute("DELETE FROM requests WHERE created_at < ?", [oldest]).fetchall()


def _gap_in_words(gap: CommitGap) -> str:
    since = gap.stored_at.isoformat() if gap.stored_at else "the beginning"
    return (
        f"commits {gap.first}..{gap.last} were acknowledged and are missing (made between"
        f" {since} and {gap.acknowledged_at.isoformat()})"
    )


def _refuse(path: Path, gap: CommitGap | None) -> None:
    if gap is not None:
        raise AcknowledgedRowsMissingError(
            f"{path}: {_gap_in_words(gap)}. Restore a backup of the database, or start once"
            " with accept_data_loss to go on without them. Nothing was changed.",
            gap=gap,
        )


def _report(
    copies: WalCopies, cuts: list[Cut], *, gap: CommitGap | None
) -> RepairReport | None:
    orphaned = copies.kept and not cuts
    if not cuts and gap is None and not orphaned:
        return None
    kept = copies.keep()
    bytes_cut = sum(c.bytes_cut for c in cuts)
    parts = [f"cut {c.bytes_cut} bytes off {c.wal} ({c.complaint})" for c in cuts]
    if orphaned:
        parts.append("set aside a write-ahead log without a database")
    if gap is not None:
        parts.append(f"{_gap_in_words(gap)}; the loss was accepted")
    if kept:
        parts.append(f"as it was before: {', '.join(map(str, kept))}")
    return RepairReport(bytes_cut, tuple(kept), "; ".join(parts), gap)
