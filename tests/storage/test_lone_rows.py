"""A row that is committed alone carries its commit's number, and counts like any other commit."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import duckdb
import pytest

from sidejudge_storage import (
    AcknowledgedRowsMissingError,
    Storage,
    StorageError,
    StorageOptions,
    WriteFailedError,
)
from sidejudge_storage.database import Database
from sidejudge_storage.highwater import HighWaterFile, Mark
from sidejudge_storage.transaction import commit_units, prepare
from tests.storage import samples

pytestmark = pytest.mark.skipif(
    duckdb.__version__.startswith("1."), reason="DuckDB 1.5 is slower at lone rows"
)

# Writes rows alone and in units by turns, one after the other, and dies without closing.
_CRASH = """
import asyncio, os, sys
from pathlib import Path
from sidejudge_storage import Storage
from tests.storage import samples
path, start, count = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
async def main():
    storage = Storage.open(path)
    assert storage.repair is None, storage.repair
    for i in range(start, start + count):
        name = f"e{i:03}"
        kind = i % 5
        if kind == 4:
            await storage.write(
                samples.evaluation(evaluation_id=name), samples.feedback(feedback_id=name)
            )
        elif kind == 3:
            await storage.write(samples.feedback(feedback_id=name))
        else:
            await storage.write(samples.evaluation(evaluation_id=name))
    os._exit(0)
asyncio.run(main())
"""


def _crash(path: Path, *, start: int, count: int) -> None:
    subprocess.run(  # noqa: S603 - our own code
        [sys.executable, "-c", _CRASH, str(path), str(start), str(count)],
        check=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        timeout=60,
    )


def _commits(storage: Storage) -> list[int]:
    return [n for (n,) in storage._database.query("SELECT seq FROM commits")]


def _alone(storage: Storage) -> list[tuple[Any, ...]]:
    return storage._database.query(
        "SELECT commit_seq, evaluation_id FROM evaluations WHERE commit_seq IS NOT NULL"
        " ORDER BY commit_seq"
    )


def _mark(path: Path) -> int:
    file = HighWaterFile(path.with_name(path.name + ".acked"))
    mark = file.read()
    file.close()
    assert mark is not None
    return mark.commit


def _write_alone(storage: Storage, *names: str) -> None:
    async def write() -> None:
        for name in names:
            await storage.write(samples.evaluation(evaluation_id=name))

    asyncio.run(write())


def test_lone_rows_and_units_share_one_sequence(tmp_path: Path) -> None:
    """Every commit has a number of its own, wherever it is kept."""
    storage = Storage.open(tmp_path / "s.duckdb")
    asyncio.run(storage.write(samples.judge()))
    _write_alone(storage, "a")
    asyncio.run(storage.write(samples.feedback(feedback_id="b")))
    _write_alone(storage, "c")
    commits, alone = _commits(storage), _alone(storage)
    storage.close_blocking()

    assert sorted(commits) == [1, 2, 3, 4]
    assert alone == [(2, "a"), (4, "c")]
    assert _mark(tmp_path / "s.duckdb") == 4


def test_numbers_go_on_after_restarts_of_every_kind(tmp_path: Path) -> None:
    """Pruning the log never makes a number come twice or a hole appear."""
    path = tmp_path / "s.duckdb"
    expected = 0
    for round_number in range(6):
        count = (1, 7, 4, 5, 3, 6)[round_number]
        _crash(path, start=100 * round_number, count=count)
        expected += count
        assert _mark(path) == expected
        if round_number % 2:
            storage = Storage.open(path)
            assert storage.repair is None
            assert storage._database.last_commit == expected
            # What is older than the last commit is forgotten.
            assert _commits(storage) == [expected]
            _write_alone(storage, f"clean{round_number}")
            expected += 1
            storage.close_blocking()

    storage = Storage.open(path)
    rows = storage._database.query(
        "SELECT (SELECT count(*) FROM evaluations), (SELECT count(*) FROM feedback)"
    )
    storage.close_blocking()
    names = [100 * r + i for r, n in enumerate((1, 7, 4, 5, 3, 6)) for i in range(n)]
    feedback = sum(n % 5 >= 3 for n in names)
    evaluations = sum(n % 5 != 3 for n in names) + 3
    assert rows == [(evaluations, feedback)]


@pytest.mark.parametrize("checkpointed", [False, True])
def test_last_lone_commit_that_is_lost_is_refused(
    tmp_path: Path, checkpointed: bool
) -> None:
    """An older copy of the files lacks exactly one acknowledged row, and that is noticed."""
    path, wal = tmp_path / "s.duckdb", tmp_path / "s.duckdb.wal"
    if checkpointed:
        storage = Storage.open(path)
        _write_alone(storage, "x", "y")
        storage.close_blocking()
        before = 2
    else:
        before = 0
    _crash(path, start=0, count=2)
    kept = {p: p.read_bytes() for p in (path, wal)}
    _crash(path, start=10, count=1)
    for p, content in kept.items():
        p.write_bytes(content)

    with pytest.raises(AcknowledgedRowsMissingError) as caught:
        Storage.open(path)

    assert (caught.value.gap.first, caught.value.gap.last) == (before + 3, before + 3)
    assert caught.value.gap.stored_at == samples.NOW
    storage = Storage.open(path, StorageOptions(accept_data_loss=True))
    _write_alone(storage, "again")
    assert _alone(storage)[-1] == (before + 3, "again")
    storage.close_blocking()
    Storage.open(path).close_blocking()


def test_lone_row_that_is_missing_between_others_is_a_hole(tmp_path: Path) -> None:
    """Numbers in rows are checked like those of the log."""
    path = tmp_path / "s.duckdb"
    _crash(path, start=0, count=12)
    with duckdb.connect(str(path)) as connection:
        connection.execute("DELETE FROM evaluations WHERE commit_seq = 7").fetchall()

    with pytest.raises(AcknowledgedRowsMissingError) as caught:
        Storage.open(path)

    assert (caught.value.gap.first, caught.value.gap.last) == (7, 7)


def test_rows_of_a_closed_database_may_be_deleted(tmp_path: Path) -> None:
    """Only a database that was not closed has its rows checked for holes."""
    path = tmp_path / "s.duckdb"
    _crash(path, start=0, count=12)
    storage = Storage.open(path)
    _write_alone(storage, "a", "b", "c")
    storage.close_blocking()
    with duckdb.connect(str(path)) as connection:
        connection.execute(
            "DELETE FROM evaluations WHERE evaluation_id <> 'c'"
        ).fetchall()
        connection.execute("DELETE FROM feedback").fetchall()

    storage = Storage.open(path)
    _write_alone(storage, "new")
    assert _alone(storage) == [(15, "c"), (16, "new")]
    storage.close_blocking()


def test_failed_statement_leaves_its_number_to_the_next(tmp_path: Path) -> None:
    """A row that could not be written leaves no hole behind."""
    path = tmp_path / "s.duckdb"
    database = Database(path, StorageOptions())
    good = prepare([samples.evaluation(evaluation_id="a")])
    bad = prepare([samples.evaluation(evaluation_id="b", input_tokens=2**70)])
    assert commit_units(database, [good]) == [None]

    (outcome,) = commit_units(database, [bad])

    assert isinstance(outcome, WriteFailedError)
    assert database.last_commit == 1
    assert commit_units(database, [prepare([samples.feedback()])]) == [None]
    database.close()
    again = Database(path, StorageOptions())
    assert again.query("SELECT max(seq) FROM commits") == [(2,)]
    assert again.query("SELECT evaluation_id FROM evaluations") == [("a",)]
    again.close()


class _FailsOnce:
    """A connection that reports an error once, before or after it has done what it was told."""

    def __init__(self, connection: Any, *, after: bool) -> None:
        self._connection = connection
        self._after = after
        self._failed = False

    def execute(self, statement: Any, params: Any = None) -> Any:
        sql = getattr(statement, "query", statement)
        if "commit_seq" in sql and sql.startswith("INSERT") and not self._failed:
            self._failed = True
            if self._after:
                self._connection.execute(statement, params).fetchall()
            raise duckdb.IOException("IO Error: the disk is gone")
        return self._connection.execute(statement, params)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)


@pytest.mark.parametrize("after", [False, True])
def test_error_of_a_lone_commit_is_settled_by_what_is_stored(
    tmp_path: Path, after: bool
) -> None:
    """An error after the commit acknowledges the row, one before it stores nothing."""
    path = tmp_path / "s.duckdb"
    database = Database(path, StorageOptions())
    commit_units(database, [prepare([samples.evaluation(evaluation_id="a")])])
    database._connection = _FailsOnce(database._connection, after=after)  # type: ignore[assignment] # a stand-in

    (outcome,) = commit_units(
        database, [prepare([samples.evaluation(evaluation_id="b")])]
    )

    assert isinstance(outcome, WriteFailedError) is not after
    assert database.last_commit == (2 if after else 1)
    (outcome,) = commit_units(
        database, [prepare([samples.evaluation(evaluation_id="c")])]
    )
    assert outcome is None
    database.close()
    again = Database(path, StorageOptions())
    rows = again.query(
        "SELECT commit_seq, evaluation_id FROM evaluations ORDER BY commit_seq"
    )
    again.close()
    assert rows == ([(1, "a"), (2, "b"), (3, "c")] if after else [(1, "a"), (2, "c")])


def test_reopening_after_an_error_counts_lone_rows(tmp_path: Path) -> None:
    """The number goes on where it was, and the check at reopening passes."""
    database = Database(tmp_path / "s.duckdb", StorageOptions())
    for name in ("a", "b", "c"):
        commit_units(database, [prepare([samples.evaluation(evaluation_id=name)])])
    connection = database.connection
    connection.close()  # as a fatal error does

    database.revive()

    assert database.last_commit == 3
    assert commit_units(database, [prepare([samples.feedback()])]) == [None]
    assert database.query("SELECT max(seq), count(*) FROM commits") == [(4, 2)]
    database.close()


@pytest.mark.parametrize("statements", [1, 2])
def test_start_that_was_killed_while_it_pruned_does_no_harm(
    tmp_path: Path, statements: int
) -> None:
    """Each statement of the pruning leaves a log that passes the check."""
    path = tmp_path / "s.duckdb"
    _crash(path, start=0, count=5)
    Storage.open(path).close_blocking()
    _crash(path, start=5, count=6)
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in tmp_path.iterdir():
        if file.is_file():
            shutil.copy(file, copy)
    with duckdb.connect(str(copy / "s.duckdb")) as connection:
        connection.execute(
            "INSERT INTO commit_log SELECT seq, committed_at FROM commits"
            " WHERE seq = (SELECT max(seq) FROM commits)"
            " AND seq NOT IN (SELECT seq FROM commit_log)"
        ).fetchall()
        if statements > 1:
            connection.execute(
                "DELETE FROM commit_log WHERE seq < (SELECT max(seq) FROM commit_log)"
            ).fetchall()

    storage = Storage.open(copy / "s.duckdb")
    assert storage.repair is None
    assert storage._database.last_commit == 11
    storage.close_blocking()


def test_error_of_the_mark_does_not_lose_count(tmp_path: Path) -> None:
    """A row that is stored and could not be acknowledged keeps its number."""
    path = tmp_path / "s.duckdb"
    database = Database(path, StorageOptions())
    working = database._mark_file.write

    def fail(mark: Mark) -> None:
        del mark
        raise OSError("no space left")

    database._mark_file.write = fail  # type: ignore[method-assign] # a disk that is full
    (outcome,) = commit_units(
        database, [prepare([samples.evaluation(evaluation_id="a")])]
    )
    assert isinstance(outcome, StorageError)
    database._mark_file.write = working  # type: ignore[method-assign] # and is emptied
    assert commit_units(
        database, [prepare([samples.evaluation(evaluation_id="b")])]
    ) == [None]
    database.close()

    again = Database(path, StorageOptions())
    assert again.last_commit == 2
    again.close()


def test_row_that_answers_a_request_is_one_commit_and_known_after_a_restart(
    tmp_path: Path,
) -> None:
    """Clients send a request_id with every call, so that case must be the fast one."""
    path = tmp_path / "s.duckdb"
    storage = Storage.open(path)
    evaluation = samples.evaluation(evaluation_id="e1")
    asked = samples.request(
        request_id="r-alone", resource_id="e1", created_at=evaluation.created_at
    )
    asyncio.run(storage.write(evaluation, asked))
    rows = storage._database.query("SELECT count(*) FROM requests")
    alone = _alone(storage)
    storage.close_blocking()

    again = Storage.open(path)
    found = asyncio.run(again.requests.get("r-alone"))
    since = asyncio.run(again.requests.since(evaluation.created_at))
    stored = asyncio.run(again.evaluations.get("e1"))
    again.close_blocking()

    assert rows == [(0,)]
    assert alone == [(1, "e1")]
    assert found == asked
    assert since == [asked]
    assert stored == evaluation


def test_request_about_another_row_is_kept_in_its_own_table(tmp_path: Path) -> None:
    """Only a request that the row itself answers can stand in the row."""
    storage = Storage.open(tmp_path / "s.duckdb")
    asked = samples.request(request_id="r1", resource_id="somebody-else")
    asyncio.run(storage.write(samples.evaluation(evaluation_id="e1"), asked))
    rows = storage._database.query("SELECT request_id FROM requests")
    found = asyncio.run(storage.requests.get("r1"))
    storage.close_blocking()

    assert rows == [("r1",)]
    assert found == asked
