"""Lets a rollout's candidate have more subjects, or none any more."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import structlog

from sidejudge_server.errors import FailedPreconditionError, SidejudgeError
from sidejudge_server.experiments.conclusion import Conclusion
from sidejudge_server.experiments.event_log import Event, EventKind
from sidejudge_server.experiments.registry import SIDEJUDGE, ExperimentRegistry
from sidejudge_server.experiments.splitting import rollout_share
from sidejudge_server.experiments.status import Decision
from sidejudge_server.experiments.types import Experiment, Mode, State

if TYPE_CHECKING:
    from sidejudge_server.experiments.report import Report

__all__ = ["Rollouts"]

_log = structlog.get_logger(__name__)

_TAKEN_BACK = -1
_BASELINE_CALLS = 5
"""Calls of the baseline without which nobody can say whether it is the language model that fails."""


@dataclass(slots=True)
class _Calls:
    """Whether the last calls of an arm failed, and why the last one that did."""

    failed: deque[bool]
    last_reason: str = ""

    @property
    def failures(self) -> int:
        return sum(self.failed)

    @property
    def failure_share(self) -> float:
        return self.failures / len(self.failed) if self.failed else 0.0


@dataclass(slots=True)
class _Watched:
    arms: dict[str, _Calls] = field(default_factory=dict)
    said_lm_is_down: bool = False


class Rollouts:
    """Moves rollouts through their stages and takes them back. Belongs to one event loop.

    The circuit breaker looks at calls since this process started.
    """

    def __init__(self, experiments: ExperimentRegistry) -> None:
        self._experiments = experiments
        self._watched: dict[str, _Watched] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        """Let what is being written end."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def drain(self) -> None:
        """Wait until every open circuit is written down."""
        while self._tasks:
            await asyncio.wait(set(self._tasks))

    async def analysed(self, experiment: Experiment, report: Report) -> None:
        """Hear of a look at a running experiment: end it, let it grow, or wait."""
        if experiment.mode is not Mode.ROLLOUT or experiment.state is not State.RUNNING:
            return
        status = experiment.status
        if status.decided:
            await self._end(experiment, status.decision, status.reason)
            return
        rollout = report.rollout
        if rollout is None or rollout.stage != status.stage or rollout.waiting_for:
            return
        await self._advance(experiment, report)

    def called(self, experiment_id: str, arm_id: str, failure: str) -> None:
        """Hear of a call of an arm; ``failure`` is its reason, "" for an answer."""
        experiment = self._experiments.get(experiment_id)
        if experiment.mode is not Mode.ROLLOUT or experiment.status.circuit_open:
            return
        watched = self._watched.setdefault(experiment_id, _Watched())
        window = experiment.rollout.circuit_breaker.window
        calls = watched.arms.setdefault(arm_id, _Calls(deque(maxlen=window)))
        calls.failed.append(bool(failure))
        if failure:
            calls.last_reason = failure
            if arm_id == experiment.candidates[0].arm_id:
                self._check(experiment, watched)
        else:
            watched.said_lm_is_down = False

    def _check(self, experiment: Experiment, watched: _Watched) -> None:
        breaker = experiment.rollout.circuit_breaker
        candidate = watched.arms[experiment.candidates[0].arm_id]
        if candidate.failures < breaker.failures:
            return
        baseline = watched.arms.get(experiment.baseline.arm_id)
        known = baseline is not None and len(baseline.failed) >= min(
            _BASELINE_CALLS, breaker.window
        )
        parse_failures = candidate.last_reason == "JUDGE_OUTPUT_UNPARSABLE"
        down = (
            baseline is not None
            and known
            and baseline.failure_share * 2 >= candidate.failure_share
        )
        if down or (not known and not parse_failures):
            if not watched.said_lm_is_down:
                watched.said_lm_is_down = True
                self._spawn(self._say_lm_is_down(experiment, candidate))
            return
        self._spawn(self._open(experiment, candidate))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _open(self, experiment: Experiment, calls: _Calls) -> None:
        """Take everything from a candidate whose calls fail, and take the rollout back."""
        reason = (
            f"{calls.failures} of the last {len(calls.failed)} calls of"
            f" {experiment.candidates[0].arm_id} failed ({calls.last_reason}) while"
            f" {experiment.baseline.arm_id} answered"
        )
        warning = Event(EventKind.WARNING, {"code": "CIRCUIT_OPEN", "message": reason})
        now = self._experiments.get(experiment.experiment_id)
        if now.status.circuit_open or now.state is not State.RUNNING:
            return
        try:
            opened = await self._experiments.record(
                experiment.experiment_id,
                status=replace(now.status, circuit_open=True),
                events=[warning],
            )
            await self._end(opened, Decision.GUARDRAIL, reason)
        except SidejudgeError as error:
            _log.warning("a circuit was not opened", cause=error.message)

    async def _say_lm_is_down(self, experiment: Experiment, calls: _Calls) -> None:
        message = (
            f"{calls.failures} of the last {len(calls.failed)} calls of"
            f" {experiment.candidates[0].arm_id} failed ({calls.last_reason}), and so do those of"
            f" {experiment.baseline.arm_id}: the language model is at fault, not the candidate;"
            " the rollout stays where it is"
        )
        with suppress(SidejudgeError):
            await self._experiments.record(
                experiment.experiment_id,
                events=[
                    Event(EventKind.WARNING, {"code": "LM_DOWN", "message": message})
                ],
            )

    async def _advance(self, experiment: Experiment, report: Report) -> None:
        status = experiment.status
        changed = replace(
            status, stage=status.stage + 1, stage_started_at=datetime.now(UTC)
        )
        share = rollout_share(replace(experiment, status=changed))
        rollout = report.rollout
        units = rollout.stage_units if rollout else 0
        reason = f"{units} labelled units in stage {status.stage}: {report.reason}"
        event = _stage_event(status.stage, changed.stage, share, reason)
        await self._experiments.record(
            experiment.experiment_id, status=changed, events=[event]
        )

    async def _end(
        self, experiment: Experiment, decision: Decision, reason: str
    ) -> None:
        """Give the candidate everything or nothing, and conclude with the reason."""
        ships = decision is Decision.SHIP
        stage = experiment.status.stage
        events: Sequence[Event] = [
            _stage_event(
                stage,
                len(experiment.rollout.stages) if ships else _TAKEN_BACK,
                1.0 if ships else 0.0,
                reason,
            )
        ]
        conclusion = Conclusion(
            decision,
            winner=experiment.candidates[0].arm_id if ships else "",
            deploy_winner=ships and experiment.judge_id is not None,
            author=SIDEJUDGE,
            reason=reason,
        )
        # Somebody else may have concluded it meanwhile.
        with suppress(FailedPreconditionError):
            await self._experiments.conclude(
                experiment.experiment_id, conclusion, events=events
            )


def _stage_event(before: int, after: int, share: float, reason: str) -> Event:
    return Event(
        EventKind.STAGE_CHANGED,
        {"from_stage": before, "to_stage": after, "share": share, "reason": reason},
    )
