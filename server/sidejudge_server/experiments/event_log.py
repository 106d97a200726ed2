"""The events of experiments: durable before anybody hears of them, numbered without gaps."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from sidejudge_server.errors import InvalidTokenError, ServerStoppingError
from sidejudge_server.judges.codec import canonical_json
from sidejudge_storage import ExperimentEventRecord, Storage

__all__ = ["Event", "EventKind", "EventLog", "WatchEvent"]

_PAGE = 500


class EventKind(StrEnum):
    """What happened; see `ExperimentEvent` of the contract."""

    SNAPSHOT = "snapshot"
    STARTED = "started"
    ANALYSIS = "analysis"
    STAGE_CHANGED = "stage_changed"
    WARNING = "warning"
    DECIDED = "decided"
    CONCLUDED = "concluded"
    HEARTBEAT = "heartbeat"


@dataclass(frozen=True, slots=True)
class Event:
    """Something to be written to the log, with its JSON object."""

    kind: EventKind
    payload: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class WatchEvent:
    """What a watcher hears; snapshots and heartbeats repeat the position of the event before."""

    sequence: int
    created_at: datetime
    kind: EventKind
    payload: Mapping[str, Any]


class EventLog:
    """The log of one experiment. Belongs to one event loop."""

    def __init__(self, storage: Storage, experiment_id: str, *, last: int = 0) -> None:
        """Go on after event number ``last``."""
        self._storage = storage
        self._experiment_id = experiment_id
        self._last = last
        self._ended = False
        self._stopping = False
        self._changed = asyncio.Condition()

    @property
    def last(self) -> int:
        """Number of the last event."""
        return self._last

    def rows(self, events: Sequence[Event]) -> list[ExperimentEventRecord]:
        """Return the next events as rows, which count once `published` was called."""
        now = datetime.now(UTC)
        return [
            ExperimentEventRecord(
                experiment_id=self._experiment_id,
                sequence=self._last + 1 + index,
                created_at=now,
                kind=event.kind.value,
                payload_json=canonical_json(dict(event.payload)),
            )
            for index, event in enumerate(events)
        ]

    async def published(self, rows: Sequence[ExperimentEventRecord]) -> None:
        """Wake the watchers after rows were written."""
        async with self._changed:
            self._last += len(rows)
            self._ended = self._ended or any(
                row.kind == EventKind.CONCLUDED for row in rows
            )
            self._changed.notify_all()

    def end(self) -> None:
        """Note that the log has ended before this process."""
        self._ended = True

    async def stop(self) -> None:
        """Send the watchers away: the server stops."""
        async with self._changed:
            self._stopping = True
            self._changed.notify_all()

    async def watch(
        self, *, after: int, heartbeat_s: float
    ) -> AsyncGenerator[WatchEvent, None]:
        """Yield the events after a position until the experiment is concluded.

        Args:
            after: Position, 0 for the first event.
            heartbeat_s: A heartbeat after so long without an event.

        Raises:
            InvalidTokenError: The position lies in the future.
            ServerStoppingError: The server stops before the experiment has ended.
        """
        if after > self._last:
            raise InvalidTokenError(
                f"the resume token stands for event {after}, but there are {self._last}",
                reason="INVALID_RESUME_TOKEN",
            )
        position = after
        while True:
            while position < self._last:
                for row in await self._storage.experiments.events(
                    self._experiment_id, after=position, limit=_PAGE
                ):
                    position = row.sequence
                    yield WatchEvent(
                        row.sequence,
                        row.created_at,
                        EventKind(row.kind),
                        json.loads(row.payload_json),
                    )
            if self._ended:
                return
            if self._stopping:
                raise ServerStoppingError(
                    "the server stops; the experiment goes on when it starts again: watch it"
                    " with the last token",
                    reason="SERVER_STOPPING",
                    retry_after_s=1.0,
                )
            if not await self._wait_beyond(position, timeout_s=heartbeat_s):
                yield WatchEvent(position, datetime.now(UTC), EventKind.HEARTBEAT, {})

    async def _wait_beyond(self, position: int, *, timeout_s: float) -> bool:
        """Return False after ``timeout_s``, True once there is something to do."""
        try:
            async with asyncio.timeout(timeout_s), self._changed:
                await self._changed.wait_for(
                    lambda: self._last > position or self._ended or self._stopping
                )
        except TimeoutError:
            return False
        return True
