"""The schema moves forward in whole steps."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

from sidejudge_storage import DatabaseTooNewError, Storage
from sidejudge_storage.migrations import MIGRATIONS, Migration, migrate


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect(str(tmp_path / "m.duckdb")) as opened:
        yield opened


def _names(connection: duckdb.DuckDBPyConnection) -> list[str]:
    rows = connection.execute("SELECT name FROM migrations ORDER BY 1").fetchall()
    return [name for (name,) in rows]


def _tables(connection: duckdb.DuckDBPyConnection) -> set[str]:
    rows = connection.execute("SELECT table_name FROM duckdb_tables()").fetchall()
    return {name for (name,) in rows}


def test_migrations_apply_once_and_in_order(
    connection: duckdb.DuckDBPyConnection,
) -> None:
    """A second run has nothing to do, a new migration at the end is all it does."""
    later = Migration("0002_more", ("CREATE TABLE more (i INTEGER)",))

    assert migrate(connection) == [m.name for m in MIGRATIONS]
    assert migrate(connection) == []
    assert migrate(connection, [*MIGRATIONS, later]) == ["0002_more"]
    assert "more" in _tables(connection)


def test_failing_migration_rolls_back_and_stays_pending(
    connection: duckdb.DuckDBPyConnection,
) -> None:
    """Its first statements leave nothing behind; those before it stay; a fixed one applies."""
    broken = Migration(
        "0002_more", ("CREATE TABLE more (i INTEGER)", "SELECT nonsense")
    )
    fixed = Migration("0002_more", ("CREATE TABLE more (i INTEGER)",))

    with pytest.raises(duckdb.Error):
        migrate(connection, [*MIGRATIONS, broken])

    assert "more" not in _tables(connection)
    assert _names(connection) == [m.name for m in MIGRATIONS]
    assert migrate(connection, [*MIGRATIONS, fixed]) == ["0002_more"]


def test_file_of_a_newer_version_is_refused_and_left_alone(tmp_path: Path) -> None:
    """An unknown migration means that this version cannot know what the tables hold."""
    path = tmp_path / "new.duckdb"
    Storage.open(path).close_blocking()
    with duckdb.connect(str(path)) as connection:
        connection.execute(
            "INSERT INTO migrations VALUES ('9999_future', now()::TIMESTAMP)"
        ).fetchall()

    with pytest.raises(DatabaseTooNewError, match="9999_future"):
        Storage.open(path)

    with duckdb.connect(str(path)) as connection:
        assert "9999_future" in _names(connection)


def test_names_of_migrations_are_unique_and_sorted() -> None:
    """The order of the tuple is the order of the names."""
    names = [m.name for m in MIGRATIONS]

    assert names == sorted(set(names))
