"""Follows what is announced in the background, without taking the machine from those who announce."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

import structlog

from sidejudge_server.errors import (
    ConflictError,
    LMError,
    NotFoundError,
    StorageUnavailableError,
)

__all__ = ["Rounds"]

_log = structlog.get_logger(__name__)

_RETRY_S = 2.0
_REST_FACTOR = 9.0
"""A round is followed by a rest this many times as long: without it, the query that looks for new
labels took a core from a caller who records one correction after the other."""
_LONGEST_REST_S = 5.0


class Rounds:
    """Calls back for each judge that was announced, one at a time; many announcements make one call.

    Belongs to one event loop.
    """

    def __init__(self, follow: Callable[[str], Awaitable[None]]) -> None:
        """Take what follows a judge.

        A judge that is not found is forgotten; one whose language model, storage or state is in the
        way comes again in two seconds.
        """
        self._follow = follow
        self._dirty: dict[str, None] = {}
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._hurry = asyncio.Event()  # somebody waits
        self._task: asyncio.Task[None] | None = None

    def look_at(self, judge_id: str) -> None:
        """Follow a judge soon."""
        self._dirty[judge_id] = None
        self._idle.clear()
        self._wake.set()

    def start(self) -> None:
        """Begin."""
        self._task = asyncio.create_task(self._work())

    async def close(self) -> None:
        """Stop."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def drain(self) -> None:
        """Return when everything that was announced has been followed."""
        if not self._idle.is_set():
            self._hurry.set()
            await self._idle.wait()

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._dirty:
                judge_id = next(iter(self._dirty))
                del self._dirty[judge_id]
                began = loop.time()
                await self._try(judge_id)
                took = loop.time() - began
                if not self._dirty:
                    self._hurry.clear()
                    self._idle.set()
                await self._rest(_REST_FACTOR * took)

    async def _rest(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(min(seconds, _LONGEST_REST_S)):
                await self._hurry.wait()

    async def _try(self, judge_id: str) -> None:
        try:
            await self._follow(judge_id)
        except NotFoundError:
            pass  # the judge was deleted
        except (LMError, StorageUnavailableError, ConflictError) as error:
            _log.info("a round waits", judge=judge_id, cause=str(error))
            loop = asyncio.get_running_loop()
            loop.call_later(_RETRY_S, self.look_at, judge_id)
        except Exception:  # noqa: BLE001 - one judge must not end the watch over others
            _log.exception("a round failed", judge=judge_id)
