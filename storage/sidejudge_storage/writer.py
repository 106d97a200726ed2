"""The one thread that writes, and group commit: one transaction for all that waits.

A durable commit costs a few milliseconds whatever it holds, so everything that queues up while one
flush runs goes into the next. There is no timer: a lone write is flushed at once.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

from sidejudge_storage.commands import Command
from sidejudge_storage.database import Database
from sidejudge_storage.errors import StorageError, WriteFailedError
from sidejudge_storage.transaction import Unit, commit_units, forget_statements, prepare

__all__ = ["Writer"]

_MAX_WAITING_UNITS = 8192
"""Further writes are refused, so that a stalled disk cannot fill the memory."""

_MAX_WAITING_CHARS = 256_000_000
_MAX_FLUSH_UNITS = 1024
_MAX_FLUSH_CHARS = 16_000_000
_MARK_SYNC_S = 1.0
"""How stale the high-water mark on disk may be, in seconds."""

_SIBLINGS = 5
_GATHER_STEP_S = 0.001
_LONGEST_GATHER_S = 0.02
"""After a flush of several units the next one waits while more keep coming, a hundredth of a second
or two: a flush costs some 3 ms of processor time for 5 rows as for 50, which on a full machine the
callers lack."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Job:
    unit: Unit
    loop: asyncio.AbstractEventLoop
    done: asyncio.Future[None]


class Writer:
    """Takes units from any event loop and answers when they are durable."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        # Guards the three below, which the loops raise and the thread lowers.
        self._lock = threading.Lock()
        self._units = 0
        self._chars = 0
        self._closed = False
        self._mark_synced_at = time.monotonic()
        self._thread = threading.Thread(
            target=self._run, name="sidejudge-writer", daemon=True
        )
        self._thread.start()

    async def write(self, commands: Sequence[Command]) -> None:
        """Write one unit and return when it is durable and marked as acknowledged.

        A caller that is cancelled does not take the unit back.

        Raises:
            RevisionConflictError: A ``ReplaceJudge`` came too late.
            DuplicateKeyError: A key is taken.
            RowMissingError: A row to change is not there.
            WriteFailedError: The disk or DuckDB refused, the queue is full or closed.
            ValueError: A text is not Unicode or a time has no zone.
        """
        unit = prepare(commands)
        loop = asyncio.get_running_loop()
        job = _Job(unit, loop, loop.create_future())
        with self._lock:
            if self._closed:
                raise WriteFailedError("nothing was written: the database is closed")
            if self._units and (
                self._units >= _MAX_WAITING_UNITS
                or self._chars + unit.chars > _MAX_WAITING_CHARS
            ):
                raise WriteFailedError(
                    f"nothing was written: {self._units} writes are waiting; try again later"
                )
            self._units += 1
            self._chars += unit.chars
            self._jobs.put(
                job
            )  # inside, so that nothing is queued after the end marker
        await job.done

    def close(self) -> None:
        """Write what waits and end the thread; safe to call twice."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._jobs.put(None)
        self._thread.join()
        forget_statements()

    def _run(self) -> None:
        ended = crowded = False
        while not ended:
            try:
                first = self._jobs.get(
                    timeout=_MARK_SYNC_S if self._database.mark_is_dirty else None
                )
            except queue.Empty:
                self._sync_mark()
                continue
            if first is None:
                return
            if crowded:
                self._gather()
            jobs, ended = self._take_more(first)
            crowded = len(jobs) >= _SIBLINGS
            self._settle(jobs, self._commit([j.unit for j in jobs]))
            self._checkpoint()
            if time.monotonic() - self._mark_synced_at > _MARK_SYNC_S:
                self._sync_mark()

    def _gather(self) -> None:
        """Wait while units keep coming, a little."""
        latest = time.monotonic() + _LONGEST_GATHER_S
        seen = -1
        while (waiting := self._jobs.qsize()) != seen and time.monotonic() < latest:
            seen = waiting
            time.sleep(_GATHER_STEP_S)

    def _take_more(self, first: _Job) -> tuple[list[_Job], bool]:
        jobs, chars = [first], first.unit.chars
        while len(jobs) < _MAX_FLUSH_UNITS and chars < _MAX_FLUSH_CHARS:
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                break
            if job is None:
                return jobs, True
            jobs.append(job)
            chars += job.unit.chars
        return jobs, False

    def _commit(self, units: list[Unit]) -> list[StorageError | None]:
        try:
            return commit_units(self._database, units)
        except Exception as error:  # noqa: BLE001 - the callers must hear of it and the thread live on
            _log.exception("a flush failed")
            return [WriteFailedError(f"nothing was written: {error}") for _ in units]

    def _settle(self, jobs: list[_Job], outcomes: list[StorageError | None]) -> None:
        with self._lock:
            self._units -= len(jobs)
            self._chars -= sum(j.unit.chars for j in jobs)
        by_loop: dict[
            asyncio.AbstractEventLoop,
            list[tuple[asyncio.Future[None], StorageError | None]],
        ] = {}
        for job, outcome in zip(jobs, outcomes, strict=True):
            by_loop.setdefault(job.loop, []).append((job.done, outcome))
        for loop, answers in by_loop.items():
            try:
                loop.call_soon_threadsafe(_answer, answers)
            except RuntimeError:
                _log.warning("%d writes were answered after their loop", len(answers))

    def _checkpoint(self) -> None:
        try:
            self._database.checkpoint_if_due()
        except Exception as error:  # noqa: BLE001 - nobody waits for it and the thread must live on
            _log.error("the database cannot be reopened: %s", error)

    def _sync_mark(self) -> None:
        try:
            self._database.sync_mark()
        except OSError as error:
            _log.warning("the high-water mark was not synced: %s", error)
        self._mark_synced_at = time.monotonic()


def _answer(answers: list[tuple[asyncio.Future[None], StorageError | None]]) -> None:
    for done, outcome in answers:
        if done.done():
            continue
        if outcome is None:
            done.set_result(None)
        else:
            done.set_exception(outcome)
