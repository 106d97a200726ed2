"""Evaluations and corrections carry the request that they answer, however many share a commit."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from sidejudge_storage import Storage
from sidejudge_storage.transaction import commit_units, prepare
from tests.storage import samples


@pytest.mark.parametrize("count", [2, 7])
def test_rows_of_one_commit_carry_their_requests(tmp_path: Path, count: int) -> None:
    """No second row is written, and a restart knows each request with its answer."""
    path = tmp_path / "test.duckdb"

    async def write() -> list[tuple[object, ...]]:
        storage = Storage.open(path)
        units = [
            (
                samples.feedback(feedback_id=f"f{i}"),
                samples.request(
                    request_id=f"r{i}", method="RecordFeedback", resource_id=f"f{i}"
                ),
            )
            for i in range(count)
        ]
        units.append((samples.feedback(feedback_id="plain"),))
        # All are queued before the writer's thread gets to the second one.
        await asyncio.gather(*(storage.write(*unit) for unit in units))
        own = storage._database.query("SELECT count(*) FROM requests")
        await storage.close()
        return own

    assert asyncio.run(write()) == [(0,)]
    storage = Storage.open(path)
    try:
        found = storage._database.query(
            "SELECT request_id, method, resource_id FROM answered_requests ORDER BY request_id"
        )
        without = storage._database.query(
            "SELECT count(*) FROM feedback WHERE request_id IS NULL"
        )
    finally:
        storage.close_blocking()
    assert found == [(f"r{i}", "RecordFeedback", f"f{i}") for i in range(count)]
    assert without == [(1,)]


def test_a_request_about_several_rows_has_a_row_of_its_own(tmp_path: Path) -> None:
    """As that of a batch has."""

    async def write() -> list[tuple[object, ...]]:
        storage = Storage.open(tmp_path / "test.duckdb")
        await storage.write(
            samples.feedback(feedback_id="a"),
            samples.feedback(feedback_id="b"),
            samples.request(request_id="r", resource_id="a"),
        )
        own = storage._database.query("SELECT request_id FROM requests")
        await storage.close()
        return own

    assert asyncio.run(write()) == [("r",)]


def test_rows_of_one_table_are_committed_without_a_row_in_the_log(
    tmp_path: Path,
) -> None:
    """The commit's number is in the first of them, and a restart goes on from it."""
    path = tmp_path / "test.duckdb"
    storage = Storage.open(path)
    database = storage._database
    logged = database.query("SELECT count(*) FROM commit_log")
    before = database.last_commit
    units = [prepare([samples.feedback(feedback_id=f"f{i}")]) for i in range(9)]
    assert commit_units(database, units) == [None] * 9
    assert database.query("SELECT count(*) FROM commit_log") == logged
    found = database.query("SELECT feedback_id, commit_seq FROM feedback ORDER BY 1")
    assert found == [("f0", before + 1), *((f"f{i}", None) for i in range(1, 9))]
    # Two tables need a transaction, and its number a place of its own.
    mixed = [prepare([samples.feedback()]), prepare([samples.evaluation()])]
    assert commit_units(database, mixed) == [None, None]
    assert database.query("SELECT max(seq) FROM commit_log") == [(before + 2,)]
    more = [prepare([samples.evaluation()]) for _ in range(2)]
    assert commit_units(database, more) == [None, None]
    storage.close_blocking()

    storage = Storage.open(path)
    assert storage.repair is None
    assert storage._database.last_commit == before + 3
    storage.close_blocking()
