"""The event log of a run that is going: durable, gapless, and awake to its watchers.

Every event is written together with the run's row, as one unit, before any watcher hears of it: what
somebody has seen is never lost, and a resume token always finds its place.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from sidejudge_server.errors import InvalidTokenError, ServerStoppingError
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
    "server_stopping",
    "to_watch_event",
    "watch_ended",
    "watch_live",
]

ENDED_STATES = frozenset({"succeeded", "failed", "cancelled"})
_PAGE = 500
_RUN = "run"
_TIMES = ("created_at", "started_at", "ended_at")


@dataclass(frozen=True, slots=True)
class WatchEvent:
    """One thing that a watcher hears.

    Attributes:
        sequence: Position in the log; snapshots and heartbeats repeat that of the event before.
        created_at: When it happened.
        kind: What happened.
        payload: JSON object of the kind; see `worker` for the keys.
        record: The run; with snapshots, heartbeats and ``finished`` only. With ``finished`` as it
            was then: a run that was resumed goes on after it.
    """

    sequence: int
    created_at: datetime
    kind: EventKind
    payload: Mapping[str, Any] = field(default_factory=dict)
    record: OptimizationRecord | None = None


class LiveRun:
    """A run between its creation or resumption and its end. Used from one event loop."""

    def __init__(
        self,
        record: OptimizationRecord,
        storage: Storage,
        *,
        log: Sequence[OptimizationEventRecord] = (),
    ) -> None:
        """Create it.

        Args:
            record: The run's row.
            storage: Where the log is kept.
            log: All events that there are already, in order.
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
        self._log = list(log)
        self._changed = asyncio.Condition()
        self._interrupted = False
        for event in self._log:
            if event.kind == EventKind.BEST_IMPROVED.value:
                self.best = json.loads(event.payload_json)

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
        return len(self._log)

    @property
    def log(self) -> Sequence[OptimizationEventRecord]:
        """All events so far."""
        return tuple(self._log)

    @property
    def interrupted(self) -> bool:
        """Whether this process takes the run no further; the next one does."""
        return self._interrupted

    @property
    def ended(self) -> bool:
        """Whether the last event has been written."""
        return self._record.state in ENDED_STATES

    def after(self, sequence: int) -> list[OptimizationEventRecord]:
        """Return the events after a position."""
        return self._log[sequence:]

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

        ``finished`` keeps the row as it is then, for watchers that come after the run was resumed.
        A run that somebody wants to stop stays ``cancelling`` until its end, whatever is written.

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
            if kind is EventKind.FINISHED:
                payload = {**payload, _RUN: _row_to_json(record)}
            event = self._event(kind, payload)
            await commit(self._storage, ReplaceOptimization(record), event, *more)
            await self._publish(record, event)

    async def interrupt(self) -> None:
        """Send the watchers away: the server stops, and the run goes on when it starts again."""
        async with self._changed:
            self._interrupted = True
            self._changed.notify_all()

    def show_phase(self, phase: str) -> None:
        """Note a phase that was reported before; the row on disk follows with the next event."""
        self._record = replace(self._record, phase=phase)

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
        """Return False after ``timeout_s``, True once there are events after a position or will be none."""
        try:
            async with asyncio.timeout(timeout_s), self._changed:
                await self._changed.wait_for(
                    lambda: self.sequence > sequence or self._interrupted
                )
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
        ServerStoppingError: The run does not end here but goes on after a restart.
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
        if run.interrupted:
            raise server_stopping()
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
    """Yield the log of a run that is not going, as `watch_live` does; it raises the same too."""
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
    if record.state not in ENDED_STATES:
        raise server_stopping()


def to_watch_event(
    event: OptimizationEventRecord, record: OptimizationRecord
) -> WatchEvent:
    """Return a logged event as watchers get it."""
    kind = EventKind(event.kind)
    payload = json.loads(event.payload_json)
    row = payload.pop(_RUN, None)
    ended = None
    if kind is EventKind.FINISHED:
        ended = record if row is None else _row_from_json(row)
    return WatchEvent(event.sequence, event.created_at, kind, payload, ended)


def server_stopping() -> ServerStoppingError:
    """Return what a watcher hears when the server stops before the run has ended."""
    return ServerStoppingError(
        "the server stops; the run goes on when it starts again: watch it with the last token",
        reason="SERVER_STOPPING",
        retry_after_s=1.0,
    )


def first_payload(phase: Phase, progress: Progress) -> dict[str, Any]:
    """Return the payload of ``phase_changed``."""
    return {"phase": phase.value, "progress": progress.to_json()}


def _row_to_json(record: OptimizationRecord) -> dict[str, Any]:
    return {
        name: value.isoformat() if isinstance(value, datetime) else value
        for name, value in asdict(record).items()
    }


def _row_from_json(document: Mapping[str, Any]) -> OptimizationRecord:
    known = OptimizationRecord.__dataclass_fields__
    values = {name: value for name, value in document.items() if name in known}
    for name in _TIMES:
        if values.get(name) is not None:
            values[name] = datetime.fromisoformat(values[name])
    return OptimizationRecord(**values)


def _changed(
    record: OptimizationRecord, changes: Mapping[str, Any]
) -> OptimizationRecord:
    if record.state == "cancelling" and changes.get("state") not in ENDED_STATES:
        # Whoever asked was answered: nothing that was on its way before may undo it.
        changes = {**changes, "state": record.state}
    return replace(record, **changes)


def _checked(position: int | None, *, last: int) -> int:
    if position is not None and not 0 <= position <= last:
        raise InvalidTokenError(
            f"the resume token stands for event {position}, but there are {last}",
            reason="INVALID_RESUME_TOKEN",
        )
    return position or 0
