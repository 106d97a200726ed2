"""Evaluations and corrections carry the request that they answer, however many share a commit."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from sidejudge_storage import Storage
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
