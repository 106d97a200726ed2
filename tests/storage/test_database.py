"""Opening, locking and closing the file."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import pytest

from sidejudge_storage import (
    DatabaseLockedError,
    Storage,
    StorageError,
    StorageOptions,
)
from tests.storage import samples

_HOLD = """
import sys
from pathlib import Path
from sidejudge_storage import Storage
storage = Storage.open(Path(sys.argv[1]))
print("open", flush=True)
sys.stdin.read()
"""


def test_database_keeps_its_id_and_rows_over_restarts(tmp_path: Path) -> None:
    """A clean restart repairs nothing."""
    path = tmp_path / "s.duckdb"
    first = Storage.open(path)
    database_id = first.database_id
    asyncio.run(first.write(samples.judge()))
    first.close_blocking()

    again = Storage.open(path)
    try:
        assert again.database_id == database_id
        assert again.repair is None
        assert asyncio.run(again.judges.all()) == [samples.judge()]
    finally:
        again.close_blocking()


def test_second_process_is_refused_with_a_clear_message(tmp_path: Path) -> None:
    """Two sidecars on one file would lose each other's rows."""
    path = tmp_path / "s.duckdb"
    with subprocess.Popen(  # noqa: S603 - our own code
        [sys.executable, "-c", _HOLD, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    ) as child:
        assert child.stdout is not None
        assert child.stdin is not None
        assert child.stdout.readline() == "open\n"

        with pytest.raises(DatabaseLockedError, match="another sidejudge"):
            Storage.open(path)

        child.stdin.close()
        child.wait(timeout=20)
    Storage.open(path).close_blocking()


def test_second_storage_of_the_process_is_refused(tmp_path: Path) -> None:
    """DuckDB would let both write; the commit numbers would clash."""
    path = tmp_path / "s.duckdb"
    storage = Storage.open(path)

    with pytest.raises(DatabaseLockedError):
        Storage.open(path)

    asyncio.run(storage.write(samples.judge()))
    storage.close_blocking()


_BARE = """
import duckdb, sys
connection = duckdb.connect(sys.argv[1])
print("open", flush=True)
sys.stdin.read()
"""


def test_file_in_use_by_another_program_is_refused_and_its_log_untouched(
    tmp_path: Path,
) -> None:
    """Somebody looks at it with DuckDB's own shell: a repair would pull the log from under it."""
    path = tmp_path / "s.duckdb"
    Storage.open(path).close_blocking()
    wal = path.with_name(path.name + ".wal")
    with subprocess.Popen(  # noqa: S603 - our own code
        [sys.executable, "-c", _BARE, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdout is not None
        assert child.stdin is not None
        assert child.stdout.readline() == "open\n"
        wal.write_bytes(b"in use")

        with pytest.raises(DatabaseLockedError, match="another process"):
            Storage.open(path)

        assert wal.read_bytes() == b"in use"
        wal.unlink()
        child.stdin.close()
        child.wait(timeout=20)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["s.duckdb", "s.duckdb.acked"]


def test_new_file_has_the_format_that_duckdb_1_5_reads(tmp_path: Path) -> None:
    """The default of 2.0 would lock users in."""
    path = tmp_path / "s.duckdb"
    Storage.open(path).close_blocking()

    with duckdb.connect(str(path)) as connection:
        ((tags,),) = connection.execute(
            "SELECT tags FROM duckdb_databases() WHERE database_name = 's'"
        ).fetchall()

    assert tags["storage_version"] == "v1.5.0+"


def test_limits_are_passed_to_duckdb(tmp_path: Path) -> None:
    """DuckDB's own defaults are 80 % of the memory and all cores."""
    storage = Storage.open(
        tmp_path / "s.duckdb", StorageOptions(memory_limit="200MiB", threads=1)
    )
    rows = storage._database.query(
        "SELECT name, value FROM duckdb_settings()"
        " WHERE name IN ('memory_limit', 'threads', 'temp_directory') ORDER BY name"
    )
    storage.close_blocking()

    assert dict(rows) == {
        "memory_limit": "200.0 MiB",
        "threads": "1",
        "temp_directory": f"{tmp_path / 's.duckdb'}.tmp",
    }


@pytest.mark.parametrize("content", [b"", b"not a database" * 1000])
def test_empty_file_is_a_new_database_and_a_foreign_one_an_error(
    tmp_path: Path, content: bytes
) -> None:
    """A start that was killed early leaves an empty file; anything else is somebody's."""
    path = tmp_path / "s.duckdb"
    path.write_bytes(content)

    if content:
        with pytest.raises(StorageError, match="not a valid DuckDB"):
            Storage.open(path)
        assert path.read_bytes() == content
    else:
        Storage.open(path).close_blocking()


def test_old_request_ids_are_removed_at_start(tmp_path: Path) -> None:
    """They are kept for two days."""
    path = tmp_path / "s.duckdb"
    now = datetime.now(UTC)
    storage = Storage.open(path)
    asyncio.run(
        storage.write(
            samples.request(request_id="old", created_at=now - timedelta(hours=49)),
            samples.request(request_id="new", created_at=now - timedelta(hours=47)),
        )
    )
    storage.close_blocking()

    again = Storage.open(path)
    found = asyncio.run(again.requests.since(now - timedelta(days=9)))
    again.close_blocking()

    assert [r.request_id for r in found] == ["new"]


def test_commit_log_is_pruned_at_start_and_goes_on_counting(tmp_path: Path) -> None:
    """Only the last number is needed."""
    path = tmp_path / "s.duckdb"
    for start in range(3):
        storage = Storage.open(path)
        assert storage._database.last_commit == 2 * start
        assert storage._database.query("SELECT count(*) FROM commit_log") == [
            (min(start, 1),)
        ]
        asyncio.run(storage.write(samples.feedback()))
        asyncio.run(storage.write(samples.feedback()))
        storage.close_blocking()
