"""After a crowded flush the writer waits a little, so that units that come one by one share a commit."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import sidejudge_storage.writer as writer_module
from sidejudge_storage import Storage
from tests.storage import samples


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[Storage]:
    opened = Storage.open(tmp_path / "s.duckdb")
    yield opened
    opened.close_blocking()


def test_a_flush_after_a_crowded_one_waits_while_more_comes(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Units that come one by one within the pause share a commit; without a crowd none waits."""
    pauses: list[float] = []
    written: list[asyncio.Task[None]] = []
    loop = asyncio.new_event_loop()

    def write_another() -> None:
        written.append(loop.create_task(storage.write(samples.evaluation())))

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) <= 4:
            before = storage._writer._jobs.qsize()
            loop.call_soon_threadsafe(write_another)
            while storage._writer._jobs.qsize() == before:
                os.sched_yield()

    held, begun = threading.Event(), threading.Event()
    commit = storage._writer._commit

    def commit_when_a_crowd_waits(units: list[Any]) -> Any:
        if held.is_set():
            held.clear()
            begun.set()
            while storage._writer._jobs.qsize() < 64:
                os.sched_yield()
        return commit(units)

    monkeypatch.setattr(storage._writer, "_commit", commit_when_a_crowd_waits)
    monkeypatch.setattr(writer_module.time, "sleep", pause)
    monkeypatch.setattr(writer_module, "_LONGEST_GATHER_S", 60.0)

    async def work() -> list[int]:
        commits = [storage._database.last_commit]
        await storage.write(samples.evaluation())
        commits.append(storage._database.last_commit)
        # All of them wait while one is committed, so that they make one flush.
        held.set()
        first = asyncio.create_task(storage.write(samples.evaluation()))
        await asyncio.to_thread(begun.wait)
        await asyncio.gather(
            first, *(storage.write(samples.evaluation()) for _ in range(64))
        )
        assert not pauses
        commits.append(storage._database.last_commit)
        await storage.write(samples.evaluation())
        await asyncio.gather(*written)
        commits.append(storage._database.last_commit)
        return commits

    commits = loop.run_until_complete(work())
    loop.close()

    assert commits[1] == commits[0] + 1
    assert commits[3] == commits[2] + 1
    assert len(written) == 4
    assert len(pauses) == 5, "the fifth pause brought no more"
