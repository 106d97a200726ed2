"""Writing many units in one transaction, each of them wholly or not at all."""

from __future__ import annotations

import contextlib
import functools
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from sidejudge_storage.commands import (
    Command,
    Record,
    RejectExample,
    ReplaceExperiment,
    ReplaceJudge,
    ReplaceMonitor,
    ReplaceOptimization,
    ReplaceOptimizationPolicy,
    ReplaceShadowCandidate,
)
from sidejudge_storage.database import Database
from sidejudge_storage.errors import (
    DuplicateKeyError,
    RevisionConflictError,
    RowMissingError,
    StorageError,
    WriteFailedError,
)
from sidejudge_storage.quality_days import (
    ReplaceQualityDays,
    replace_quality_days,
)
from sidejudge_storage.records import RequestRecord
from sidejudge_storage.tables import (
    EVALUATIONS,
    EXAMPLES,
    EXPERIMENTS,
    JUDGES,
    MONITORS,
    OPTIMIZATION_POLICIES,
    OPTIMIZATIONS,
    SHADOW_CANDIDATES,
    Table,
    table_of,
)

if TYPE_CHECKING:
    import duckdb

__all__ = ["Unit", "commit_units", "forget_statements", "prepare"]

_STATEMENT_CHARS = 8_000_000
"""Longest parameter of one INSERT; more rows take further statements of the transaction."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Insert:
    table: Table[Any]
    record: Record
    row: str
    request: RequestRecord | None = None
    """The request that the row answers, if the row carries it itself."""

    @property
    def asked(self) -> list[object]:
        """Its columns for the request."""
        request = self.request
        if request is None:
            return [None, None, None]
        return [request.request_id, request.method, request.fingerprint]


@dataclass(frozen=True, slots=True)
class _Update:
    table: Table[Any]
    run: Callable[[duckdb.DuckDBPyConnection], None]


@dataclass(frozen=True, slots=True)
class Unit:
    """Commands that are written together, ready for the writer."""

    steps: tuple[_Insert | _Update, ...]
    chars: int
    """Length of its rows, which bounds how much is flushed at once."""


def prepare(commands: Sequence[Command]) -> Unit:
    """Turn commands into a unit.

    Raises:
        ValueError: A text is not Unicode or a time has no zone.
        TypeError: Something is not a command.
    """
    steps = _carrying_request(tuple(_step(c) for c in commands))
    chars = sum(len(s.row) if isinstance(s, _Insert) else 0 for s in steps)
    return Unit(steps, chars)


def _carrying_request(
    steps: tuple[_Insert | _Update, ...],
) -> tuple[_Insert | _Update, ...]:
    """Let an evaluation or correction carry the request that it answers, instead of a second row."""
    match steps:
        case (_Insert() as first, _Insert(record=RequestRecord() as request)):
            table = first.table
            answers = request.resource_id == getattr(first.record, table.key[0])
            if answers and table.insert_alone_sql is not None:
                row = table.with_request(first.row, request)
                return (_Insert(table, first.record, row, request),)
    return steps


def _step(command: Command) -> _Insert | _Update:
    replacing = _REPLACING.get(type(command))
    if replacing is not None:
        table, replace = replacing
        changed: Any = command
        encoded = table.encode(changed.record)
        return _Update(table, lambda c: replace(c, changed, encoded))
    if isinstance(command, ReplaceQualityDays):
        return _Update(EVALUATIONS, lambda c: replace_quality_days(c, command))
    if isinstance(command, RejectExample):
        return _Update(EXAMPLES, lambda c: _reject_example(c, command))
    record: Any = command
    table = table_of(record)
    return _Insert(table, record, table.encode(record))


def commit_units(
    database: Database, units: Sequence[Unit]
) -> list[StorageError | None]:
    """Write units durably and advance the high-water mark.

    If the transaction fails because of one unit it is tried again in halves, so that only the
    culprit fails, at the cost of two transactions per halving.

    Returns:
        For each unit None if it is stored, else why it is not.
    """
    import duckdb

    if not database.is_open:
        _revive(database)
    commit = database.last_commit + 1
    try:
        if not _write_at_once(database.connection, units, commit=commit):
            _run(database.connection, "BEGIN")
            _write(database.connection, units, commit=commit)
            _run(database.connection, "COMMIT")
        database.last_commit = commit
    except (duckdb.Error, StorageError) as error:
        _roll_back(database)
        if _is_about_the_data(error):
            if len(units) == 1:
                return [_as_storage_error(error)]
            middle = len(units) // 2
            return [
                *commit_units(database, units[:middle]),
                *commit_units(database, units[middle:]),
            ]
        _log.error("a write failed: %s", _in_words(error))
        _revive(database)
        if database.last_commit != commit:
            return [_write_failed(error) for _ in units]
        # The error came after the commit was durable.
    try:
        database.acknowledge()
    except OSError as error:
        # Stored, but a later loss of these rows could not be noticed: not acknowledged.
        return [_write_failed(error) for _ in units]
    return [None] * len(units)


def _roll_back(database: Database) -> None:
    import duckdb

    # A failed COMMIT has ended the transaction already.
    with contextlib.suppress(duckdb.Error, StorageError):
        _run(database.connection, "ROLLBACK")


def _is_about_the_data(error: Exception) -> bool:
    """Return whether other units may do better, as they will not on a full disk."""
    import duckdb

    return isinstance(
        error,
        duckdb.IntegrityError
        | duckdb.DataError
        | duckdb.OutOfMemoryException  # less of it may fit
        | RevisionConflictError
        | RowMissingError,
    )


def _revive(database: Database) -> None:
    try:
        database.revive()
    except StorageError as problem:
        _log.error("the database cannot be reopened: %s", problem)


def _write_at_once(
    connection: duckdb.DuckDBPyConnection, units: Sequence[Unit], *, commit: int
) -> bool:
    """Commit rows of one table in one statement, if it is evaluations or corrections alone.

    The commit's number and the requests that are answered go into the rows: one statement that
    commits itself instead of four to five and two more tables, a third of the time that a caller
    alone waits for. Beside a busy event loop it is also one wait for the interpreter instead of
    four, which were most of the time of a flush.
    """
    steps = [step for unit in units for step in unit.steps]
    table = steps[0].table if steps else None
    if table is None or table.insert_alone_sql is None:
        return False
    inserts = [s for s in steps if isinstance(s, _Insert) and s.table is table]
    if len(inserts) != len(steps):
        return False
    if len(inserts) == 1 and _most_bound_rows():
        (insert,) = inserts
        values = [*table.values(insert.record), commit, *insert.asked]
        _run(connection, table.insert_alone_sql, values)
        return True
    if sum(len(insert.row) for insert in inserts) > _STATEMENT_CHARS:
        return False
    first = table.with_commit(inserts[0].row, commit)
    _insert_json(connection, table, [first, *(i.row for i in inserts[1:])])
    return True


def _write(
    connection: duckdb.DuckDBPyConnection, units: Sequence[Unit], *, commit: int
) -> None:
    waiting: dict[Table[Any], list[_Insert]] = {}
    for unit in units:
        for step in unit.steps:
            if isinstance(step, _Insert):
                waiting.setdefault(step.table, []).append(step)
            else:
                # The row to change may be among those that wait.
                _insert(connection, step.table, waiting.pop(step.table, []))
                step.run(connection)
    for table, inserts in waiting.items():
        _insert(connection, table, inserts)
    now = datetime.now(UTC).replace(tzinfo=None)
    _run(connection, "INSERT INTO commit_log VALUES (?, ?)", [commit, now])


def _insert(
    connection: duckdb.DuckDBPyConnection, table: Table[Any], inserts: list[_Insert]
) -> None:
    if len(inserts) <= _most_bound_rows():
        for insert in inserts:
            values = table.values(insert.record)
            if insert.request is None or table.insert_alone_sql is None:
                _run(connection, table.insert_one_sql, values)
            else:
                # Not alone: the commit has its number in the log.
                asked = [*values, None, *insert.asked]
                _run(connection, table.insert_alone_sql, asked)
        return
    start = chars = 0
    for end, insert in enumerate(inserts, 1):
        chars += len(insert.row)
        if chars >= _STATEMENT_CHARS or end == len(inserts):
            _insert_json(connection, table, (i.row for i in inserts[start:end]))
            start, chars = end, 0


def _insert_json(
    connection: duckdb.DuckDBPyConnection, table: Table[Any], rows: Iterable[str]
) -> None:
    _run(connection, table.insert_sql, [f"[{','.join(rows)}]"])


@functools.cache
def _most_bound_rows() -> int:
    """Return how many rows are inserted faster one by one than as one JSON text.

    Measured with evaluations: DuckDB 2.0 takes 1.5 ms to bind and insert a row and 3 ms for any
    small number of rows as JSON; 1.5 takes 5 ms and 2 ms.
    """
    import duckdb

    return 0 if duckdb.__version__.startswith("1.") else 2


def _run(
    connection: duckdb.DuckDBPyConnection, sql: str, params: list[object] | None = None
) -> list[tuple[Any, ...]]:
    rows: list[tuple[Any, ...]] = connection.execute(_parsed(sql), params).fetchall()
    return rows


def forget_statements() -> None:
    """Drop the parsed statements; DuckDB complains about those that are left when Python ends."""
    _parsed.cache_clear()


@functools.lru_cache(maxsize=64)
def _parsed(sql: str) -> duckdb.Statement:
    """Parse a statement once: of the 2.6 ms of a single insert that is 0.4 ms."""
    import duckdb

    (statement,) = duckdb.extract_statements(sql)
    return statement


def _replace_judge(
    connection: duckdb.DuckDBPyConnection, command: ReplaceJudge, row: str
) -> None:
    sql = f"{JUDGES.replace_sql} AND judges.revision = ?"
    if _run(connection, sql, [f"[{row}]", command.expected_revision]) != [(1,)]:
        raise RevisionConflictError(
            f"judge {command.record.judge_id} is not at revision"
            f" {command.expected_revision}: read it again and repeat the change"
        )


def _replace_optimization(
    connection: duckdb.DuckDBPyConnection, command: ReplaceOptimization, row: str
) -> None:
    if _run(connection, OPTIMIZATIONS.replace_sql, [f"[{row}]"]) != [(1,)]:
        raise RowMissingError(
            f"there is no optimization {command.record.optimization_id}"
        )


def _replace_policy(
    connection: duckdb.DuckDBPyConnection, command: ReplaceOptimizationPolicy, row: str
) -> None:
    policies = OPTIMIZATION_POLICIES
    sql = f"{policies.replace_sql} AND {policies.name}.revision = ?"
    if _run(connection, sql, [f"[{row}]", command.expected_revision]) != [(1,)]:
        raise RevisionConflictError(
            f"the policy of judge {command.record.judge_id} is not at revision"
            f" {command.expected_revision}: read it again and repeat the change"
        )


def _replace_experiment(
    connection: duckdb.DuckDBPyConnection, command: ReplaceExperiment, row: str
) -> None:
    sql = f"{EXPERIMENTS.replace_sql} AND {EXPERIMENTS.name}.revision = ?"
    if _run(connection, sql, [f"[{row}]", command.expected_revision]) != [(1,)]:
        raise RevisionConflictError(
            f"experiment {command.record.experiment_id} is not at revision"
            f" {command.expected_revision}: read it again and repeat the change"
        )


def _replace_monitor(
    connection: duckdb.DuckDBPyConnection, command: ReplaceMonitor, row: str
) -> None:
    sql = f"{MONITORS.replace_sql} AND {MONITORS.name}.revision = ?"
    if _run(connection, sql, [f"[{row}]", command.expected_revision]) != [(1,)]:
        raise RevisionConflictError(
            f"the monitor of judge {command.record.judge_id} is not at revision"
            f" {command.expected_revision}: read it again and repeat the change"
        )


def _replace_shadow(
    connection: duckdb.DuckDBPyConnection, command: ReplaceShadowCandidate, row: str
) -> None:
    if _run(connection, SHADOW_CANDIDATES.replace_sql, [f"[{row}]"]) == [(0,)]:
        raise RowMissingError(
            f"optimization {command.record.optimization_id} has no candidate in shadow"
        )


def _reject_example(
    connection: duckdb.DuckDBPyConnection, command: RejectExample
) -> None:
    # Without the optimizer DuckDB would read every column of every example.
    _run(connection, "PRAGMA enable_optimizer")
    try:
        changed = _run(
            connection,
            "UPDATE examples SET rejection = ?, rejection_detail = ? WHERE example_id = ?",
            [command.rejection, command.detail, command.example_id],
        )
    finally:
        _run(connection, "PRAGMA disable_optimizer")
    if changed != [(1,)]:
        raise RowMissingError(f"there is no example {command.example_id}")


def _as_storage_error(error: Exception) -> StorageError:
    import duckdb

    if isinstance(error, StorageError):
        return error
    if isinstance(error, duckdb.ConstraintException) and "uplicate key" in str(error):
        return DuplicateKeyError(str(error).split("\n", 1)[0])
    return _write_failed(error)


def _write_failed(error: Exception) -> WriteFailedError:
    return WriteFailedError(f"nothing was written: {_in_words(error)}")


def _in_words(error: Exception) -> str:
    """Return the message if it is about the disk; others may quote what was to be written."""
    import duckdb

    if isinstance(
        error, duckdb.IOException | duckdb.FatalException | StorageError | OSError
    ):
        return str(error).split("\n", 1)[0]
    return type(error).__name__


_REPLACING: dict[type, tuple[Table[Any], Callable[..., None]]] = {
    ReplaceJudge: (JUDGES, _replace_judge),
    ReplaceMonitor: (MONITORS, _replace_monitor),
    ReplaceExperiment: (EXPERIMENTS, _replace_experiment),
    ReplaceOptimization: (OPTIMIZATIONS, _replace_optimization),
    ReplaceOptimizationPolicy: (OPTIMIZATION_POLICIES, _replace_policy),
    ReplaceShadowCandidate: (SHADOW_CANDIDATES, _replace_shadow),
}
"""What replaces a row by that of the command's ``record``."""
