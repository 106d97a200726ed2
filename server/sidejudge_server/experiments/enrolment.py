"""Subjects of experiments: which arm they were told, and what was measured for them."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from sidejudge_server.errors import (
    AlreadyExistsError,
    FailedPreconditionError,
    FieldViolation,
    InvalidRequestError,
)
from sidejudge_server.experiments.registry import ExperimentRegistry
from sidejudge_server.experiments.splitting import arm_of
from sidejudge_server.experiments.types import (
    BUILT_IN_METRICS,
    Arm,
    Experiment,
    Metric,
    MetricKind,
    Mode,
    State,
)
from sidejudge_server.judges.codec import canonical_json
from sidejudge_server.judges.requests import Claim, RequestLog, commit
from sidejudge_storage import (
    Enrolled,
    ExperimentAssignmentRecord,
    ExperimentOutcomeRecord,
    Storage,
)

__all__ = ["Assigned", "Enrolment"]

_KNOWN_SUBJECTS = 100_000
"""Subjects of one experiment that are kept in memory; others are looked up in the database."""


@dataclass(frozen=True, slots=True)
class Assigned:
    """The arm that a subject is to use; without taking part it is the baseline."""

    arm: Arm
    takes_part: bool


@dataclass(slots=True)
class _Subject:
    arm_id: str | None = None
    recorded: set[tuple[str, str]] = field(default_factory=set)


@dataclass(slots=True)
class _Known:
    """Subjects of one experiment; ``complete`` while none had to be dropped."""

    subjects: OrderedDict[str, _Subject] = field(default_factory=OrderedDict)
    complete: bool = True


class Enrolment:
    """Assigns subjects and records outcomes. Belongs to one event loop."""

    def __init__(
        self, storage: Storage, experiments: ExperimentRegistry, requests: RequestLog
    ) -> None:
        self._storage = storage
        self._experiments = experiments
        self._requests = requests
        self._known: dict[str, _Known] = {}
        self._listeners: list[Callable[[str], None]] = []

    async def load(self) -> None:
        """Read the subjects of running experiments."""
        for experiment in self._experiments.list(state=State.RUNNING):
            known = self._of(experiment)
            rows = await self._storage.enrolments.all(
                experiment.experiment_id, limit=_KNOWN_SUBJECTS + 1
            )
            known.complete = len(rows) <= _KNOWN_SUBJECTS
            for row in reversed(rows[:_KNOWN_SUBJECTS]):
                known.subjects[row.subject] = _subject(row)

    def on_recorded(self, listener: Callable[[str], None]) -> None:
        """Call back with the id of an experiment that got an outcome; must not block or raise."""
        self._listeners.append(listener)

    async def assign(self, experiment_id: str, subject: str) -> Assigned:
        """Return the arm of a subject, and remember that it was asked for.

        Raises:
            NotFoundError: There is no such experiment.
            FailedPreconditionError: It is not running.
        """
        experiment = self._running(experiment_id)
        arm = arm_of(experiment, subject)
        if arm is None:
            return Assigned(experiment.baseline, takes_part=False)
        if experiment.mode is Mode.SHADOW:
            return Assigned(arm, takes_part=True)
        known = await self._find(experiment, subject)
        if known.arm_id != arm.arm_id:
            await commit(
                self._storage,
                ExperimentAssignmentRecord(
                    experiment_id=experiment_id,
                    subject=subject,
                    arm_id=arm.arm_id,
                    stage=experiment.status.stage,
                    created_at=datetime.now(UTC),
                ),
            )
            known.arm_id = arm.arm_id
            self._notify(experiment_id)
        return Assigned(arm, takes_part=True)

    async def assigned_arm(
        self, experiment: Experiment, subject: str, arm_id: str
    ) -> str:
        """Return the arm that something of a subject counts for.

        Args:
            experiment: A running one.
            subject: The subject.
            arm_id: What the caller says, "" for the assigned one.

        Raises:
            InvalidRequestError: There is no such arm, or none is given in shadow mode.
            FailedPreconditionError: The subject has no arm, or another one.
        """
        if arm_id and experiment.arm(arm_id) is None:
            arms = ", ".join(arm.arm_id for arm in experiment.arms)
            raise InvalidRequestError(
                [FieldViolation("arm", f"{arm_id!r} is not one of {arms}")]
            )
        if experiment.mode is Mode.SHADOW:
            if not arm_id:
                raise InvalidRequestError(
                    [FieldViolation("arm", "is required in MODE_SHADOW")]
                )
            return arm_id
        assigned = (await self._find(experiment, subject)).arm_id
        if assigned is None and experiment.judge_id is not None:
            assigned = await self._storage.enrolments.evaluated_arm(
                experiment.experiment_id, subject
            )
        if assigned is None:
            raise FailedPreconditionError(
                f"{subject!r} never got an arm of {experiment.name}; call AssignVariant before",
                reason="SUBJECT_NOT_ASSIGNED",
                metadata={"experiment": experiment.name, "subject": subject},
            )
        if arm_id and arm_id != assigned:
            raise FailedPreconditionError(
                f"{subject!r} has arm {assigned!r} of {experiment.name}, not {arm_id!r}",
                reason="OUTCOME_ARM_MISMATCH",
                metadata={
                    "experiment": experiment.name,
                    "subject": subject,
                    "assigned": assigned,
                    "got": arm_id,
                },
            )
        return assigned

    async def record(
        self,
        experiment_id: str,
        subject: str,
        values: Mapping[str, float],
        *,
        arm_id: str = "",
        request_id: str = "",
    ) -> str:
        """Record what was measured for a subject and return the arm that it counts for.

        Raises:
            NotFoundError: There is no such experiment.
            FailedPreconditionError: It is not running, or the subject has no arm or another one.
            AlreadyExistsError: A metric was recorded before; nothing was written.
            InvalidRequestError: A metric or value is wrong; all violations at once.
        """

        async def perform(claim: Claim) -> str:
            experiment = self._running(experiment_id)
            _check_values(experiment, values)
            arm = await self.assigned_arm(experiment, subject, arm_id)
            known = await self._find(experiment, subject)
            wanted = {(arm, metric) for metric in values}
            if again := wanted & known.recorded:
                raise _recorded_before(experiment, subject, [m for _, m in again])
            # Reserved before the write, so that two calls at once can't both do it.
            known.recorded |= wanted
            now = datetime.now(UTC)
            rows = [
                ExperimentOutcomeRecord(
                    experiment_id=experiment_id,
                    subject=subject,
                    arm_id=arm,
                    metric=metric,
                    value=value,
                    stage=experiment.status.stage,
                    created_at=now,
                )
                for metric, value in values.items()
            ]
            try:
                await commit(self._storage, *rows, *claim(arm))
            except BaseException:
                known.recorded -= wanted
                raise
            self._notify(experiment_id)
            return arm

        return await self._requests.once(
            request_id,
            method="RecordOutcome",
            fingerprint=canonical_json(
                [
                    experiment_id,
                    subject,
                    arm_id,
                    {k: repr(v) for k, v in values.items()},
                ]
            ),
            perform=perform,
            recall=_itself,
        )

    def _notify(self, experiment_id: str) -> None:
        for listener in self._listeners:
            listener(experiment_id)

    def _running(self, experiment_id: str) -> Experiment:
        experiment = self._experiments.get(experiment_id)
        if experiment.state is not State.RUNNING:
            raise FailedPreconditionError(
                f"{experiment.name} is {experiment.state.value}, not running",
                reason="EXPERIMENT_NOT_RUNNING",
                metadata={
                    "experiment": experiment.name,
                    "state": experiment.state.value.upper(),
                },
            )
        return experiment

    def _of(self, experiment: Experiment) -> _Known:
        return self._known.setdefault(experiment.experiment_id, _Known())

    async def _find(self, experiment: Experiment, subject: str) -> _Subject:
        known = self._of(experiment)
        found = known.subjects.get(subject)
        if found is not None:
            return found
        row = None
        if not known.complete:
            row = await self._storage.enrolments.get(experiment.experiment_id, subject)
        # Another call may have asked meanwhile: both must share what they find.
        found = known.subjects.setdefault(subject, _subject(row))
        if len(known.subjects) > _KNOWN_SUBJECTS:
            known.subjects.popitem(last=False)
            known.complete = False
        return found


def _subject(row: Enrolled | None) -> _Subject:
    return _Subject() if row is None else _Subject(row.arm_id, set(row.recorded))


async def _itself(arm_id: str) -> str:
    return arm_id


def _check_values(experiment: Experiment, values: Mapping[str, float]) -> None:
    metrics = {
        metric.metric_id: metric
        for metric in experiment.metrics
        if metric.metric_id not in BUILT_IN_METRICS
    }
    violations = []
    if not values:
        violations.append(FieldViolation("values", "is required"))
    for name, value in values.items():
        problem = (
            _value_problem(metrics[name], value)
            if name in metrics
            else f"is not one of the metrics that {experiment.name} takes:"
            f" {', '.join(metrics) or 'none'}"
        )
        if problem:
            violations.append(FieldViolation(f"values[{name}]", problem))
    if violations:
        raise InvalidRequestError(violations)


def _value_problem(metric: Metric, value: float) -> str:
    """Return what is wrong with a value, "" if nothing is."""
    if not math.isfinite(value):
        return f"must be a finite number, not {value}"
    match metric.kind:
        case MetricKind.BINARY if value not in (0.0, 1.0):
            return f"must be 0 or 1, not {value:g}"
        case MetricKind.SCORE if not 0 <= value <= 1:
            return f"must be a number from 0 to 1, not {value:g}"
        case MetricKind.POSITIVE if value <= 0:
            return f"must be above 0, not {value:g}"
    return ""


def _recorded_before(
    experiment: Experiment, subject: str, metrics: list[str]
) -> AlreadyExistsError:
    names = ",".join(sorted(metrics))
    return AlreadyExistsError(
        f"{names} of {subject!r} was recorded before in {experiment.name}; send each value once",
        reason="OUTCOME_ALREADY_RECORDED",
        metadata={
            "experiment": experiment.name,
            "subject": subject,
            "metrics": names,
        },
    )
