"""The event log of a run that is going: durable, gapless, and awake to its watchers.

Every event is written together with the run's row, as one unit, before any watcher hears of it: what
somebody has seen is never lost, and a resume token always finds its place.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from sidejudge_server.errors import InvalidTokenError
from sidejudge_server.judges.codec import canonical_json
from sidejudge_server.judges.requests import commit
from sidejudge_server.optimization.spec import EventKind, Phase, Progress
from sidejudge_storage import (
    Command,
    OptimizationEventRecord,
    OptimizationRecord,
    ReplaceOptimization,
    Storage,
)

__all__ = [
    "ENDED_STATES",
    "LiveRun",
    "WatchEvent",
    "first_payload",
    "to_watch_event",
    "watch_ended",
    "watch_live",
]

ENDED_STATES = frozenset({"succeeded", "failed", "cancelled"})
_PAGE = 500


@dataclass(frozen=True, slots=True)
class WatchEvent:
    """One thing that a watcher hears.

    Attributes:
        sequence: Position in the log; snapshots and heartbeats repeat that of the event before.
        created_at: When it happened.
        kind: What happened.
        payload: JSON object of the kind; see `worker` for the keys.
        record: The run; with snapshots, heartbeats and ``finished`` only.
    """

    sequence: int
    created_at: datetime
    kind: EventKind
    payload: Mapping[str, Any] = field(default_factory=dict)
    record: OptimizationRecord | None = None


class LiveRun:
    """A run between its creation and its end. Used from one event loop."""

    def __init__(
        self, record: OptimizationRecord, storage: Storage, *, sequence: int = 0
    ) -> None:
        """Create it.

        Args:
            record: The run's row.
            storage: Where the log is kept.
            sequence: Of the last event there is already.
        """
        self.progress = Progress.from_json(json.loads(record.progress_json))
        self.best: Mapping[str, Any] | None = None
        """Payload of the last ``best_improved``: what a stopped run leaves behind."""
        self.held_out = ""
        """What tells the examples apart that its gate looks at; "" before the run has a worker."""
        self.cancel_asked = asyncio.Event()
        self._record = record
        self._storage = storage
        # One change of the row at a time: each starts from what the one before has made of it.
        self._writing = asyncio.Lock()
        self._first = sequence
        self._log: list[OptimizationEventRecord] = []
        self._changed = asyncio.Condition()

    @property
    def record(self) -> OptimizationRecord:
        """The run's row with its latest progress, which becomes durable with the next event."""
        progress = canonical_json(self.progress.to_json())
        return replace(self._record, progress_json=progress)

    @property
    def run_id(self) -> str:
        """The optimization's id."""
        return self._record.optimization_id

    @property
    def sequence(self) -> int:
        """Of the last event."""
        return self._first + len(self._log)

    @property
    def ended(self) -> bool:
        """Whether the last event has been written."""
        return self._record.state in ENDED_STATES

    def after(self, sequence: int) -> list[OptimizationEventRecord]:
        """Return the events of this life after a position."""
        return self._log[max(0, sequence - self._first) :]

    async def create(
        self, kind: EventKind, payload: Mapping[str, Any], *more: Command
    ) -> None:
        """Write the run's row and its first event as one unit."""
        async with self._writing:
            record, event = self.record, self._event(kind, payload)
            await commit(self._storage, record, event, *more)
            await self._publish(record, event)

    async def append(
        self,
        kind: EventKind,
        payload: Mapping[str, Any],
        *more: Command,
        **changes: object,
    ) -> None:
        """Write an event, and changes of the run's row with it, and wake the watchers.

        Args:
            kind: One that belongs into the log.
            payload: JSON object.
            more: What is written in the same unit.
            changes: Fields of the row.

        Raises:
            StorageUnavailableError: Nothing was written, nobody heard of it.
        """
        async with self._writing:
            record = _changed(self.record, changes)
            event = self._event(kind, payload)
            await commit(self._storage, ReplaceOptimization(record), event, *more)
            await self._publish(record, event)

    async def ask_to_stop(self) -> bool:
        """Note durably that somebody wants the run to stop; False if it has ended or was asked."""
        async with self._writing:
            if self.ended or self.cancel_asked.is_set():
                return False
            record = _changed(self.record, {"state": "cancelling"})
            await commit(self._storage, ReplaceOptimization(record))
            self._record = record
            self.cancel_asked.set()
            return True

    async def wait_beyond(self, sequence: int, *, timeout_s: float) -> bool:
        """Return True once there are events after a position, False after ``timeout_s``."""
        try:
            async with asyncio.timeout(timeout_s), self._changed:
                await self._changed.wait_for(lambda: self.sequence > sequence)
        except TimeoutError:
            return False
        return True

    def _event(
        self, kind: EventKind, payload: Mapping[str, Any]
    ) -> OptimizationEventRecord:
        return OptimizationEventRecord(
            optimization_id=self.run_id,
            sequence=self.sequence + 1,
            created_at=datetime.now(UTC),
            kind=kind.value,
            payload_json=canonical_json(dict(payload)),
        )

    async def _publish(
        self, record: OptimizationRecord, event: OptimizationEventRecord
    ) -> None:
        async with self._changed:
            self._record = record
            self._log.append(event)
            self._changed.notify_all()


async def watch_live(
    run: LiveRun, *, after_sequence: int | None, heartbeat_s: float
) -> AsyncGenerator[WatchEvent, None]:
    """Yield a run's events until its end; without a position first a snapshot.

    Args:
        run: The run.
        after_sequence: Events after this one; None for a snapshot and what comes then.
        heartbeat_s: A heartbeat after so long without an event.

    Raises:
        InvalidTokenError: The position lies in the future.
    """
    position = _checked(after_sequence, last=run.sequence)
    if after_sequence is None:
        # The last event stays out of the snapshot of an ended run: every watch ends with it.
        position = run.sequence - 1 if run.ended else run.sequence
        now = datetime.now(UTC)
        yield WatchEvent(position, now, EventKind.SNAPSHOT, record=run.record)
    while True:
        for event in run.after(position):
            position = event.sequence
            yield to_watch_event(event, run.record)
        if run.ended and position >= run.sequence:
            return
        if not await run.wait_beyond(position, timeout_s=heartbeat_s):
            yield WatchEvent(
                position,
                datetime.now(UTC),
                EventKind.HEARTBEAT,
                {"progress": run.progress.to_json()},
                run.record,
            )


async def watch_ended(
    record: OptimizationRecord, storage: Storage, *, after_sequence: int | None
) -> AsyncGenerator[WatchEvent, None]:
    """Yield the log of a run that has ended, as `watch_live` does."""
    last = await storage.optimizations.last_sequence(record.optimization_id)
    position = _checked(after_sequence, last=last)
    if after_sequence is None:
        position = max(0, last - 1)
        now = datetime.now(UTC)
        yield WatchEvent(position, now, EventKind.SNAPSHOT, record=record)
    while position < last:
        page = await storage.optimizations.events(
            record.optimization_id, after_sequence=position, limit=_PAGE
        )
        if not page:
            return
        for event in page:
            position = event.sequence
            yield to_watch_event(event, record)


def to_watch_event(
    event: OptimizationEventRecord, record: OptimizationRecord
) -> WatchEvent:
    """Return a logged event as watchers get it."""
    kind = EventKind(event.kind)
    return WatchEvent(
        event.sequence,
        event.created_at,
        kind,
        json.loads(event.payload_json),
        record if kind is EventKind.FINISHED else None,
    )


def first_payload(phase: Phase, progress: Progress) -> dict[str, Any]:
    """Return the payload of ``phase_changed``."""
    return {"phase": phase.value, "progress": progress.to_json()}


def _changed(
    record: OptimizationRecord, changes: Mapping[str, Any]
) -> OptimizationRecord:
    return replace(record, **changes)


def _checked(position: int | None, *, last: int) -> int:
    if position is not None and not 0 <= position <= last:
        raise InvalidTokenError(
            f"the resume token stands for event {position}, but there are {last}",
            reason="INVALID_RESUME_TOKEN",
        )
    return position or 0
