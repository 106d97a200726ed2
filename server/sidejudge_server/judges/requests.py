"""Do a thing once per request_id, however often and at whatever time it is asked for.

Finished requests are rows, written in the same unit as what they made, so that a repeat after a
restart finds them too. Requests in progress are shared: a repeat waits for the first one.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from sidejudge_server.errors import (
    FieldViolation,
    InvalidRequestError,
    StorageUnavailableError,
)
from sidejudge_storage import Command, RequestRecord, Storage, WriteFailedError

__all__ = ["Claim", "RequestLog", "commit"]

T = TypeVar("T")

Claim = Callable[[str], tuple[RequestRecord, ...]]
"""Given the id of what was made, returns the row to write with it (none without request_id)."""

# Longer than promised (24 h) and than the database keeps them over a restart (48 h): an id whose
# row is still there must be known.
_KEPT = timedelta(hours=49)


async def commit(storage: Storage, *commands: Command) -> None:
    """Write commands as one unit and return when they are on disk.

    Raises:
        StorageUnavailableError: Nothing was written.
    """
    try:
        await storage.write(*commands)
    except WriteFailedError as error:
        raise StorageUnavailableError(
            "the database did not take the write; nothing was stored, try again",
            reason="STORAGE_UNAVAILABLE",
            retry_after_s=1.0,
        ) from error


@dataclass(frozen=True, slots=True)
class _Finished:
    digest: bytes
    resource_id: str


@dataclass(frozen=True, slots=True)
class _Running:
    digest: bytes
    task: asyncio.Task[Any]


class RequestLog:
    """What was done under which request_id in the last 24 hours and more. One per process.

    It keeps the newest ``capacity`` requests in memory; older ones are looked up in the
    database, and only if some had to be dropped.
    """

    def __init__(self, storage: Storage, *, capacity: int = 100_000) -> None:
        self._storage = storage
        self._capacity = capacity
        self._finished: OrderedDict[str, _Finished] = OrderedDict()
        self._running: dict[str, _Running] = {}
        self._unnamed: set[asyncio.Task[Any]] = set()
        self._dropped = False
        self._loaded = False
        # Guards the one reading of what was done before the restart.
        self._loading = asyncio.Lock()

    async def load(self) -> None:
        """Read what was done before the restart; the first request does it otherwise."""
        async with self._loading:
            if self._loaded:
                return
            for record in await self._storage.requests.since(datetime.now(UTC) - _KEPT):
                self._remember(record)
            self._loaded = True

    async def once(
        self,
        request_id: str,
        *,
        method: str,
        fingerprint: str,
        perform: Callable[[Claim], Awaitable[T]],
        recall: Callable[[str], Awaitable[T]],
    ) -> T:
        """Perform a request, or return what it was answered with before.

        Args:
            request_id: The caller's UUID; "" to perform in any case.
            method: What is asked for, such as ``Evaluate``.
            fingerprint: Text that is equal for equal requests.
            perform: Does it; must write the rows of the claim together with its own.
            recall: Returns what was made, by the id that was claimed.

        Raises:
            InvalidRequestError: The request_id was used for another request
                (REQUEST_ID_REUSED).
        """
        if not request_id:
            return await self._unclaimed(perform)
        if not self._loaded:
            await self.load()
        digest = _digest(method, fingerprint)
        finished = await self._find(request_id)
        if finished is not None:
            _require_same(request_id, finished.digest, digest)
            return await recall(finished.resource_id)
        running = self._running.get(request_id)
        if running is None:
            running = self._start(request_id, digest, method, perform)
        _require_same(request_id, running.digest, digest)
        # A caller that goes away leaves the work to those who wait and to its own retry.
        result: T = await asyncio.shield(running.task)
        return result

    async def drain(self, *, timeout_s: float) -> None:
        """Let what is in progress end, then cancel what is left; call it before storage closes.

        Args:
            timeout_s: How long it may take: enough for a write, not for a language model whose
                caller has gone.
        """
        tasks = {running.task for running in self._running.values()} | self._unnamed
        if not tasks:
            return
        _, late = await asyncio.wait(tasks, timeout=timeout_s)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)

    async def _unclaimed(self, perform: Callable[[Claim], Awaitable[T]]) -> T:
        """Perform a request without an id; `drain` waits for its task all the same."""
        task = asyncio.current_task()
        if task is None or task in self._unnamed:
            return await perform(lambda _: ())
        self._unnamed.add(task)
        try:
            return await perform(lambda _: ())
        finally:
            self._unnamed.discard(task)

    def _start(
        self,
        request_id: str,
        digest: bytes,
        method: str,
        perform: Callable[[Claim], Awaitable[T]],
    ) -> _Running:
        claimed: list[RequestRecord] = []

        def claim(resource_id: str) -> tuple[RequestRecord, ...]:
            now = datetime.now(UTC)
            claimed.append(
                RequestRecord(request_id, method, digest.hex(), resource_id, now)
            )
            return tuple(claimed)

        async def run() -> T:
            try:
                result = await perform(claim)
                for record in claimed:
                    self._remember(record)
                return result
            finally:
                del self._running[request_id]

        task = asyncio.create_task(run())
        # An error that nobody is left to hear of is not a fault of the program.
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        running = _Running(digest, task)
        self._running[request_id] = running
        return running

    async def _find(self, request_id: str) -> _Finished | None:
        finished = self._finished.get(request_id)
        if finished is None and self._dropped and request_id not in self._running:
            record = await self._storage.requests.get(request_id)
            # It may have been finished while the database was asked.
            finished = self._finished.get(request_id)
            if finished is None and record is not None:
                finished = _finished(record)
        return finished

    def _remember(self, record: RequestRecord) -> None:
        self._finished[record.request_id] = _finished(record)
        while len(self._finished) > self._capacity:
            self._finished.popitem(last=False)
            self._dropped = True


def _finished(record: RequestRecord) -> _Finished:
    return _Finished(bytes.fromhex(record.fingerprint), record.resource_id)


def _digest(method: str, fingerprint: str) -> bytes:
    text = f"{method}\n{fingerprint}".encode("utf-8", "surrogatepass")
    return hashlib.sha256(text).digest()[:16]


def _require_same(request_id: str, known: bytes, given: bytes) -> None:
    if known != given:
        raise InvalidRequestError(
            [
                FieldViolation(
                    "request_id",
                    f"{request_id} was used for another request; take a new UUID",
                )
            ],
            reason="REQUEST_ID_REUSED",
            metadata={"request_id": request_id},
        )
