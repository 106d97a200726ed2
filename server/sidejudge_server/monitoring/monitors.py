"""Counts the labels of audit items, alarms, compares with the previous version, and rolls back."""

from __future__ import annotations

import asyncio
import json
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import structlog

from sidejudge_server.errors import (
    ConflictError,
    FailedPreconditionError,
    LMRequestError,
)
from sidejudge_server.experiments.assignment import hash_to_unit
from sidejudge_server.judges.agreement import agreement
from sidejudge_server.judges.codec import canonical_json, input_from_json
from sidejudge_server.judges.registry import JudgeRegistry
from sidejudge_server.judges.requests import commit
from sidejudge_server.judges.versions import served_before
from sidejudge_server.monitoring.second_opinion import SecondOpinion
from sidejudge_server.monitoring.state import (
    LEARNING_LABELS,
    EventKind,
    MonitorSettings,
    MonitorState,
    Phase,
    checked,
)
from sidejudge_server.rounds import Rounds
from sidejudge_server.stats.evidence import sign_log_e_new_better
from sidejudge_storage import (
    AuditLabel,
    Command,
    FeedbackRecord,
    MonitorEventRecord,
    MonitorRecord,
    ReplaceMonitor,
    Storage,
)

__all__ = ["Monitor", "Monitors"]

_log = structlog.get_logger(__name__)

_AUTHOR = "sidejudge"
_PAGE = 200
_MOST_PAIRS = 200
"""Items after which a previous version that is not shown to be better is taken to be no better."""
_FEW_PAIRS = 50
"""The same for one that does not even lead."""
_LOWEST_P0 = 0.02


@dataclass(frozen=True, slots=True)
class Monitor:
    """A judge's monitor; ``settings_revision`` is what an etag stands for."""

    judge_id: str
    settings: MonitorSettings
    settings_revision: int
    state: MonitorState
    revision: int

    @property
    def etag(self) -> str:
        """Opaque text that changes with every change of the settings."""
        return f"{self.settings_revision:08x}"

    @property
    def previous_better_log_e(self) -> float:
        """Ln of the evidence that the previous version is better."""
        return sign_log_e_new_better(self.state.wins, self.state.losses)


class Monitors:
    """The monitors of all judges. Belongs to one event loop."""

    def __init__(
        self, storage: Storage, judges: JudgeRegistry, second_opinion: SecondOpinion
    ) -> None:
        self._storage = storage
        self._judges = judges
        self._second_opinion = second_opinion
        self._monitors: dict[str, Monitor] = {}
        self._sequences: dict[str, int] = {}
        # One change of a monitor at a time: each starts from what the one before has made of it.
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._rounds = Rounds(self._follow)

    async def start(self) -> None:
        """Read the monitors, count what was not counted before the restart, and begin."""
        self._sequences = await self._storage.monitors.last_sequences()
        for record in await self._storage.monitors.all():
            self._monitors[record.judge_id] = _from_record(record)
            self._rounds.look_at(record.judge_id)
        self._judges.on_deployed(self._rounds.look_at)
        self._rounds.start()

    async def close(self) -> None:
        """Stop; what is not counted is counted after the next start."""
        await self._rounds.close()

    async def drain(self) -> None:
        """Wait until everything that was heard of is counted and acted upon."""
        await self._rounds.drain()

    def audit_probability(self, judge_id: str, evaluation_id: str) -> float | None:
        """Return the probability with which an evaluation is an audit item, None if it is none.

        A hash of its id decides, which nobody can know who writes what is judged.
        """
        monitor = self._monitors.get(judge_id)
        share = (monitor.settings if monitor else MonitorSettings()).audit_share
        return share if hash_to_unit("audit", evaluation_id) < share else None

    def hear(self, records: Sequence[FeedbackRecord]) -> None:
        """Hear of feedback that is on disk."""
        for judge_id in {record.judge_id for record in records}:
            self._rounds.look_at(judge_id)

    async def get(self, judge_id: str) -> Monitor:
        """Return a judge's monitor; NotFoundError if there is no such judge."""
        self._judges.get(judge_id)
        async with self._locks[judge_id]:
            return await self._existing(judge_id)

    async def update(
        self,
        judge_id: str,
        change: Callable[[MonitorSettings], MonitorSettings],
        *,
        etag: str = "",
    ) -> Monitor:
        """Change how a judge is watched.

        Raises:
            NotFoundError: There is no such judge.
            InvalidRequestError: Settings are out of range.
            ConflictError: The etag is out of date.
        """
        self._judges.get(judge_id)
        async with self._locks[judge_id]:
            monitor = await self._existing(judge_id)
            if etag and etag != monitor.etag:
                raise ConflictError(
                    f"the monitor of judges/{judge_id} was changed since it was read; read it again",
                    reason="ETAG_MISMATCH",
                    metadata={"expected": monitor.etag, "got": etag},
                )
            settings = checked(change(monitor.settings))
            changed = replace(
                monitor,
                settings=settings,
                settings_revision=monitor.settings_revision + 1,
            )
            state = changed.state
            if settings.min_agreement not in (None, state.p0):
                state = replace(
                    state,
                    p0=settings.min_agreement,
                    detector=None,
                    phase=Phase.WATCHING,
                )
            return await self._write(replace(changed, state=state))

    async def restart(self, judge_id: str) -> Monitor:
        """Acknowledge an alarm and learn anew; NotFoundError if there is no such judge."""
        self._judges.get(judge_id)
        async with self._locks[judge_id]:
            monitor = await self._existing(judge_id)
            fresh = await self._fresh(judge_id, monitor.settings)
            event = EventKind.STARTED, f"restarted at version {fresh.version}"
            return await self._write(replace(monitor, state=fresh), [event])

    async def _follow(self, judge_id: str) -> None:
        """Count the new labels of a judge's audit items, one by one."""
        async with self._locks[judge_id]:
            monitor = await self._existing(judge_id)
            deployed = self._judges.get(judge_id).deployed_version
            if monitor.state.version != deployed:
                fresh = await self._fresh(judge_id, monitor.settings)
                reason = f"version {deployed} serves instead of {monitor.state.version}"
                monitor = await self._write(
                    replace(monitor, state=fresh), [(EventKind.STARTED, reason)]
                )
            while True:
                labels = await self._storage.monitors.labels(
                    judge_id, deployed, after=monitor.state.after, limit=_PAGE
                )
                for label in labels:
                    monitor = await self._count(monitor, label)
                    if self._judges.get(judge_id).deployed_version != deployed:
                        self._rounds.look_at(judge_id)
                        return
                if len(labels) < _PAGE:
                    return

    async def _count(self, monitor: Monitor, label: AuditLabel) -> Monitor:
        """Count one label, and write what it has changed as one unit."""
        value = _agreement(label, label.verdict, label.score)
        before = monitor.state
        state = before.counted(label.feedback_id, value)
        events: list[tuple[EventKind, str]] = []
        match before.phase:
            case Phase.LEARNING if state.labels >= LEARNING_LABELS:
                state, event = await self._learned(monitor, state)
                events.append(event)
            case Phase.WATCHING:
                state = state.watched(value)
                if state.alarms:
                    state, found = self._alarmed(monitor, state)
                    events += found
            case Phase.ALARM:
                return await self._compared(monitor, state, label, value)
        return await self._write(replace(monitor, state=state), events)

    async def _learned(
        self, monitor: Monitor, state: MonitorState
    ) -> tuple[MonitorState, tuple[EventKind, str]]:
        low = await asyncio.to_thread(_lower_end, state.agreement_sum, state.labels)
        tolerance = monitor.settings.tolerance
        p0 = min(0.98, max(_LOWEST_P0, low - tolerance))
        reason = (
            f"{state.labels} audit labels agree to {state.agreement_sum / state.labels:.1%}, at"
            f" least to {low:.1%}; less {tolerance:g} tolerance it alarms below {p0:.1%}"
        )
        learned = replace(state, p0=p0, phase=Phase.WATCHING, reason=reason)
        return learned, (EventKind.LEARNED, reason)

    def _alarmed(
        self, monitor: Monitor, state: MonitorState
    ) -> tuple[MonitorState, list[tuple[EventKind, str]]]:
        previous = served_before(self._judges.deployments(monitor.judge_id))
        statistic = state.detector.statistic if state.detector else 0.0
        seen = state.detector.labels if state.detector else 0
        text = (
            f"version {state.version} agrees with people less than {state.p0:.1%}: drift statistic"
            f" {statistic:.4g} after {seen} audit labels (alarm at 1000)"
        )
        if previous is None:
            advice = f"{text}; there is no previous version: optimize or recalibrate the judge"
            ended = replace(state, phase=Phase.INPUT_DRIFT, reason=advice)
            return ended, [(EventKind.ALARM, text), (EventKind.INPUT_DRIFT, advice)]
        reason = f"{text}; version {previous} is compared with it on new audit items"
        alarmed = replace(
            state, phase=Phase.ALARM, previous_version=previous, reason=reason
        )
        return alarmed, [(EventKind.ALARM, reason)]

    async def _compared(
        self, monitor: Monitor, state: MonitorState, label: AuditLabel, value: float
    ) -> Monitor:
        """Ask the previous version about a newly labelled item and see what that shows.

        Only items that were labelled after the alarm count: those before it are there because the
        watched version failed on them.
        """
        previous = state.previous_version
        if previous is None:
            raise AssertionError("there is nothing to compare with")
        try:
            answer = await self._second_opinion.ask(
                monitor.judge_id,
                previous,
                evaluation_id=label.evaluation_id,
                item=input_from_json(label.input_json),
            )
        except (LMRequestError, FailedPreconditionError):
            # It may be the item or the configuration; neither says anything of the version.
            return await self._write(replace(monitor, state=state))
        gap = _agreement(label, answer.verdict, answer.score) - value
        state = replace(
            state,
            wins=state.wins + (gap > 0),
            losses=state.losses + (gap < 0),
            ties=state.ties + (gap == 0),
        )
        changed = replace(monitor, state=state)
        kind = self._judges.get(monitor.judge_id).spec.kind
        bar = monitor.settings.evidence(kind)
        log_e = changed.previous_better_log_e
        figures = (
            f"on {state.wins + state.losses + state.ties} audit items version {previous} was better"
            f" on {state.wins} and worse on {state.losses} than version {state.version}"
            f" (evidence {math.exp(min(log_e, 690.0)):.3g}, bar {bar:g})"
        )
        if log_e >= math.log(bar):
            return await self._previous_better(changed, figures)
        pairs = state.wins + state.losses + state.ties
        if pairs >= _MOST_PAIRS or (pairs >= _FEW_PAIRS and state.wins <= state.losses):
            reason = (
                f"{figures}: it would not help to go back, so what is judged has changed;"
                " optimize or recalibrate the judge, then restart the monitor"
            )
            ended = replace(state, phase=Phase.INPUT_DRIFT, reason=reason)
            return await self._write(
                replace(changed, state=ended), [(EventKind.INPUT_DRIFT, reason)]
            )
        return await self._write(changed)

    async def _previous_better(self, monitor: Monitor, figures: str) -> Monitor:
        state = monitor.state
        if not monitor.settings.auto_rollback:
            reason = f"{figures}: roll the judge back, or restart the monitor"
            ended = replace(state, phase=Phase.INPUT_DRIFT, reason=reason)
            return await self._write(
                replace(monitor, state=ended), [(EventKind.PREVIOUS_BETTER, reason)]
            )
        judge = self._judges.get(monitor.judge_id)
        if judge.deployed_version != state.version:
            return monitor
        fresh = await self._fresh(
            monitor.judge_id, monitor.settings, version=state.previous_version
        )
        reason = f"rolled back by itself: {figures}"
        changed, commands = self._unit(
            replace(monitor, state=replace(fresh, reason=reason)),
            [(EventKind.ROLLED_BACK, reason)],
            version=state.version,
        )
        with suppress(
            FailedPreconditionError
        ):  # the history was changed by somebody else
            await self._judges.rollback(
                monitor.judge_id,
                author=_AUTHOR,
                reason=reason,
                etag=judge.etag,
                further=commands,
            )
            self._published(changed, 1)
            return changed
        return monitor

    async def _existing(self, judge_id: str) -> Monitor:
        """Return a judge's monitor, writing the first one. Call under its lock."""
        monitor = self._monitors.get(judge_id)
        if monitor is not None:
            return monitor
        settings = MonitorSettings()
        state = await self._fresh(judge_id, settings, after="")
        monitor = Monitor(judge_id, settings, 1, state, 1)
        await commit(self._storage, _to_record(monitor))
        self._monitors[judge_id] = monitor
        return monitor

    async def _fresh(
        self,
        judge_id: str,
        settings: MonitorSettings,
        *,
        version: int | None = None,
        after: str | None = None,
    ) -> MonitorState:
        if after is None:
            after = await self._storage.monitors.last_feedback(judge_id)
        state = MonitorState(
            version or self._judges.get(judge_id).deployed_version, after
        )
        if settings.min_agreement is None:
            return state
        return replace(state, p0=settings.min_agreement, phase=Phase.WATCHING)

    async def _write(
        self, monitor: Monitor, events: Iterable[tuple[EventKind, str]] = ()
    ) -> Monitor:
        listed = list(events)
        changed, commands = self._unit(monitor, listed, version=monitor.state.version)
        await commit(self._storage, *commands)
        self._published(changed, len(listed))
        return changed

    def _unit(
        self,
        monitor: Monitor,
        events: Sequence[tuple[EventKind, str]],
        *,
        version: int,
    ) -> tuple[Monitor, list[Command]]:
        before = self._monitors[monitor.judge_id].revision
        changed = replace(monitor, revision=before + 1)
        last = self._sequences.get(monitor.judge_id, 0)
        now = datetime.now(UTC)
        rows = [
            MonitorEventRecord(
                judge_id=monitor.judge_id,
                sequence=last + 1 + index,
                created_at=now,
                kind=kind.value,
                version=version,
                reason=reason,
            )
            for index, (kind, reason) in enumerate(events)
        ]
        record = _to_record(changed)
        return changed, [ReplaceMonitor(record, expected_revision=before), *rows]

    def _published(self, monitor: Monitor, events: int) -> None:
        self._monitors[monitor.judge_id] = monitor
        self._sequences[monitor.judge_id] = (
            self._sequences.get(monitor.judge_id, 0) + events
        )


def _agreement(label: AuditLabel, verdict: str | None, score: float | None) -> float:
    return min(
        1.0,
        max(
            0.0,
            agreement(
                label_verdict=label.label_verdict,
                label_score=label.label_score,
                verdict=verdict,
                score=score,
            ),
        ),
    )


def _lower_end(total: float, labels: int) -> float:
    """Return the lower end of the always-valid interval of a mean, rounded down to whole hits."""
    # scipy takes a second and tens of megabytes: only once labels are there.
    from sidejudge_server.stats.confidence_sequences import bernoulli_sequence
    from sidejudge_server.stats.outcome import CannotSay

    found = bernoulli_sequence(math.floor(total), labels)
    return 0.0 if isinstance(found, CannotSay) else found.low


def _to_record(monitor: Monitor) -> MonitorRecord:
    return MonitorRecord(
        judge_id=monitor.judge_id,
        settings_json=canonical_json(monitor.settings.to_json()),
        settings_revision=monitor.settings_revision,
        state_json=canonical_json(monitor.state.to_json()),
        revision=monitor.revision,
        updated_at=datetime.now(UTC),
    )


def _from_record(record: MonitorRecord) -> Monitor:
    settings: Mapping[str, Any] = json.loads(record.settings_json)
    return Monitor(
        judge_id=record.judge_id,
        settings=MonitorSettings.from_json(settings),
        settings_revision=record.settings_revision,
        state=MonitorState.from_json(json.loads(record.state_json)),
        revision=record.revision,
    )
