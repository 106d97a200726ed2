"""Keeps the daily sums that make figures over a year fast, a little at a time and off the way of others."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import structlog

from sidejudge_server.errors import StorageUnavailableError
from sidejudge_server.judges.requests import commit
from sidejudge_storage import ReplaceQualityDays, Storage, StorageError

__all__ = ["DaySums"]

_log = structlog.get_logger(__name__)

_EVERY_S = 60.0
_GRACE = timedelta(minutes=10)
"""After midnight a day is left alone for so long: evaluations get their time before their commit."""

_PAUSE_S = 0.05
"""Between two days, so that a first build over a long past leaves the database to others."""


class DaySums:
    """Sums up closed days in the background. Belongs to one event loop."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin."""
        self._task = asyncio.create_task(self._work())

    async def close(self) -> None:
        """Stop; a day is summed up wholly or not at all."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def sum_up(self, *, now: datetime | None = None, pause_s: float = 0.0) -> int:
        """Sum up all closed days that are not, or whose evaluations got feedback since.

        Args:
            now: Days before this one are closed; None for the present.
            pause_s: Between two days.

        Returns:
            Number of days.

        Raises:
            StorageUnavailableError: Some days were not written.
        """
        moment = now or datetime.now(UTC)
        closed_before = (moment.astimezone(UTC) - _GRACE).date()
        days, last = await self._storage.quality.open_days(before=closed_before)
        for day in days:
            sums = await self._storage.quality.day(day)
            await commit(self._storage, ReplaceQualityDays((sums,)))
            await asyncio.sleep(pause_s)
        await commit(self._storage, ReplaceQualityDays((), watermark=last))
        return len(days)

    async def _work(self) -> None:
        while True:
            try:
                await self.sum_up(pause_s=_PAUSE_S)
            except (StorageUnavailableError, StorageError) as error:
                _log.warning("daily sums wait", cause=str(error))
            await asyncio.sleep(_EVERY_S)
