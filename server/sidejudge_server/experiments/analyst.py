"""Looks at running experiments whenever something has changed, remembers what it saw, and acts on it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import structlog

from sidejudge_server.errors import (
    FailedPreconditionError,
    NotFoundError,
    StorageUnavailableError,
)
from sidejudge_server.experiments.conclusion import Conclusion
from sidejudge_server.experiments.event_log import Event, EventKind
from sidejudge_server.experiments.registry import SIDEJUDGE, ExperimentRegistry
from sidejudge_server.experiments.statistics import Statistics, StatisticsSource
from sidejudge_server.experiments.status import Decision
from sidejudge_server.experiments.types import Experiment, Mode, State
from sidejudge_server.judges.registry import JudgeRegistry
from sidejudge_storage import Storage

if TYPE_CHECKING:
    from sidejudge_server.experiments.planning import Plan
    from sidejudge_server.experiments.report import Report

__all__ = ["Analyst"]

_log = structlog.get_logger(__name__)

_GROWTH = 1.02
"""An analysis becomes an event when its units have grown by so much."""

_PLAN_DAYS = 90

Listener = Callable[[Experiment, "Report"], Awaitable[None]]


class Analyst:
    """Analyses experiments. Belongs to one event loop."""

    def __init__(
        self,
        storage: Storage,
        experiments: ExperimentRegistry,
        judges: JudgeRegistry,
    ) -> None:
        self._storage = storage
        self._statistics = StatisticsSource(storage.experiment_statistics)
        self._experiments = experiments
        self._judges = judges
        self._dirty: dict[str, None] = {}
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._task: asyncio.Task[None] | None = None
        self._announced: dict[str, tuple[int, frozenset[str]]] = {}
        self._listeners: list[Listener] = []
        experiments.final_analysis = self._final

    def start(self) -> None:
        """Begin to look; first at all experiments that run."""
        self._task = asyncio.create_task(self._work())
        for experiment in self._experiments.list(state=State.RUNNING):
            self.look_at(experiment.experiment_id)

    async def close(self) -> None:
        """Stop looking."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def drain(self) -> None:
        """Wait until everything that has changed was looked at."""
        await self._idle.wait()

    def on_analysed(self, listener: Listener) -> None:
        """Call back with each look at a running experiment, after it was recorded."""
        self._listeners.append(listener)

    def look_at(self, experiment_id: str) -> None:
        """Look at an experiment soon; many calls make one look."""
        self._dirty[experiment_id] = None
        self._idle.clear()
        self._wake.set()

    async def analyze(self, experiment_id: str) -> Mapping[str, Any]:
        """Return what is known of an experiment, as JSON.

        Raises:
            NotFoundError: There is no such experiment.
            FailedPreconditionError: It was never started (EXPERIMENT_NOT_STARTED).
        """
        experiment = self._experiments.get(experiment_id)
        if experiment.started_at is None:
            raise FailedPreconditionError(
                f"{experiment.name} was never started: there is nothing to analyse",
                reason="EXPERIMENT_NOT_STARTED",
                metadata={"experiment": experiment.name},
            )
        if experiment.conclusion is not None and experiment.conclusion["analysis"]:
            kept: Mapping[str, Any] = experiment.conclusion["analysis"]  # type: ignore[assignment] # JSON
            return kept
        return (await self.report(experiment)).to_json()

    async def report(self, experiment: Experiment) -> Report:
        """Return what is known of an experiment that was started."""
        statistics = await self._statistics.gather(experiment)
        return await asyncio.to_thread(_analyse, experiment, statistics)

    async def plan(self, judge_id: str | None, values: Mapping[str, Any]) -> Plan:
        """Return how many labels an experiment would take.

        Args:
            judge_id: The judge whose records tell what is not given; None for no judge.
            values: Fields of `PlanRequest` that are given.

        Raises:
            NotFoundError: There is no such judge.
            InvalidRequestError: Values are out of range, or there is no baseline rate.
        """
        given = dict(values)
        if judge_id is not None:
            version = self._judges.get(judge_id).deployed_version
            since = datetime.now(UTC) - timedelta(days=_PLAN_DAYS)
            rate = await self._storage.experiment_statistics.label_rate(
                judge_id, version, since=since
            )
            if rate.agreement is not None:
                given.setdefault("baseline_rate", rate.agreement)
                if rate.days > 0:
                    given.setdefault("labels_per_day", rate.labels / rate.days)
        return await asyncio.to_thread(_plan, given)

    async def _final(self, experiment: Experiment) -> Mapping[str, Any]:
        return (await self.report(experiment)).to_json()

    async def _work(self) -> None:
        while True:
            timeout_s = self._until_next_deadline_s()
            with suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    await self._wake.wait()
            self._wake.clear()
            for experiment in self._out_of_time():
                self._dirty[experiment.experiment_id] = None
            while self._dirty:
                experiment_id = next(iter(self._dirty))
                del self._dirty[experiment_id]
                try:
                    await self._look(experiment_id)
                except (FailedPreconditionError, NotFoundError):
                    pass  # somebody else has ended it meanwhile
                except StorageUnavailableError as error:
                    _log.warning("an analysis was not kept", cause=error.message)
                except Exception:  # noqa: BLE001 - one experiment must not end the looks at others
                    _log.exception("an analysis failed", experiment=experiment_id)
            self._idle.set()

    async def _look(self, experiment_id: str) -> None:
        """Analyse an experiment, record what is new, and act on a decision."""
        experiment = self._experiments.get(experiment_id)
        if experiment.state is not State.RUNNING:
            return
        report = await self.report(experiment)
        status = replace(experiment.status, largest=dict(report.largest))
        events = self._events(experiment, report)
        decided = not experiment.status.decided and (
            report.decision is not Decision.RUNNING
        )
        if decided:
            status = replace(
                status,
                decision=report.decision,
                winner=report.winner,
                reason=report.reason,
                decided_at=report.create_time,
            )
            events.append(
                Event(
                    EventKind.DECIDED,
                    {
                        "decision": report.decision.value,
                        "winner": report.winner,
                        "reason": report.reason,
                    },
                )
            )
        if status != experiment.status or events:
            experiment = await self._experiments.record(
                experiment_id, status=status, events=events
            )
        if experiment.status.decided and experiment.mode is not Mode.ROLLOUT:
            await self._act(experiment)
        for listener in self._listeners:
            await listener(self._experiments.get(experiment_id), report)

    async def _act(self, experiment: Experiment) -> None:
        if not experiment.act_on_decision or experiment.state is not State.RUNNING:
            return
        status = experiment.status
        ships = status.decision is Decision.SHIP and experiment.judge_id is not None
        await self._experiments.conclude(
            experiment.experiment_id,
            Conclusion(
                status.decision,
                winner=status.winner,
                deploy_winner=ships,
                author=SIDEJUDGE,
                reason=status.reason,
            ),
        )

    def _events(self, experiment: Experiment, report: Report) -> list[Event]:
        """Return what watchers should hear of a look."""
        before, warned = self._announced.get(
            experiment.experiment_id, (-1, frozenset())
        )
        units = report.labelled_units
        alarms = set()
        ratio = report.sample_ratio
        if ratio is not None and ratio.alarm:
            alarms.add("SAMPLE_RATIO_MISMATCH")
        events = [
            Event(EventKind.WARNING, {"code": code, "message": report.reason})
            for code in sorted(alarms - warned)
        ]
        decided = report.decision is not Decision.RUNNING
        grown = units >= max(before * _GROWTH, before + 1)
        if grown or (decided and not experiment.status.decided):
            events.append(Event(EventKind.ANALYSIS, report.to_json()))
            before = units
        self._announced[experiment.experiment_id] = (
            before,
            warned | frozenset(alarms),
        )
        return events

    def _out_of_time(self) -> list[Experiment]:
        return [
            experiment
            for experiment in self._experiments.list(state=State.RUNNING)
            if not experiment.status.decided
            and (left := _time_left_s(experiment)) is not None
            and left <= 0
        ]

    def _until_next_deadline_s(self) -> float | None:
        left = [
            seconds
            for experiment in self._experiments.list(state=State.RUNNING)
            if not experiment.status.decided
            and (seconds := _time_left_s(experiment)) is not None
        ]
        return max(0.05, min(left)) if left else None


def _time_left_s(experiment: Experiment) -> float | None:
    limit_s, began = experiment.rule.max_duration_s, experiment.started_at
    if limit_s is None or began is None:
        return None
    return limit_s - (datetime.now(UTC) - began).total_seconds()


def _analyse(experiment: Experiment, statistics: Statistics) -> Report:
    # scipy takes a second and tens of megabytes: only where experiments run.
    from sidejudge_server.experiments.analysis import analyse

    return analyse(experiment, statistics, datetime.now(UTC))


def _plan(values: dict[str, Any]) -> Plan:
    from sidejudge_server.errors import FieldViolation, InvalidRequestError
    from sidejudge_server.experiments.planning import PlanRequest, plan

    if "baseline_rate" not in values:
        raise InvalidRequestError(
            [
                FieldViolation(
                    "baseline_rate",
                    "is required: the judge has no labelled evaluations to take it from",
                )
            ]
        )
    return plan(PlanRequest(**values))
