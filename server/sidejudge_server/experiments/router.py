"""Routes evaluations to the arms of running experiments."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from sidejudge_server.errors import (
    FailedPreconditionError,
    FieldViolation,
    InvalidRequestError,
    LMError,
)
from sidejudge_server.experiments.enrolment import Enrolment
from sidejudge_server.experiments.registry import ExperimentRegistry
from sidejudge_server.experiments.shadowing import ShadowJudging
from sidejudge_server.experiments.splitting import arm_of
from sidejudge_server.experiments.types import Experiment, Mode, State
from sidejudge_server.judges.requests import commit
from sidejudge_server.judges.routing import Route
from sidejudge_server.judges.types import JudgeInput
from sidejudge_storage import (
    EvaluationRecord,
    ExperimentFailureRecord,
    Storage,
    new_id,
)

__all__ = ["ArmCall", "ExperimentRouter"]

ArmCall = Callable[[str, str, str], None]
"""Hears of a call of an arm: experiment, arm, and the reason of its failure, "" for an answer."""


class ExperimentRouter:
    """The `Router` of a sidecar. Belongs to one event loop."""

    def __init__(
        self,
        storage: Storage,
        experiments: ExperimentRegistry,
        enrolment: Enrolment,
        shadowing: ShadowJudging,
    ) -> None:
        self._storage = storage
        self._experiments = experiments
        self._enrolment = enrolment
        self._shadowing = shadowing
        self._listeners: list[ArmCall] = []

    def on_call(self, listener: ArmCall) -> None:
        """Call back for each call of an arm in a split or rollout; must not block or raise."""
        self._listeners.append(listener)

    def route(self, judge_id: str, subject: str) -> Route | None:
        """Return the experiment that an evaluation is part of; see `Router`.

        Without a subject each evaluation is a unit of its own.
        """
        running = self._experiments.running_of(judge_id)
        if not running:
            return None
        unit = subject or new_id()
        for experiment in running:
            arm = arm_of(experiment, unit)
            if arm is None:
                continue
            is_baseline = arm is experiment.baseline
            return Route(
                experiment_id=experiment.experiment_id,
                arm_id=arm.arm_id,
                stage=experiment.status.stage,
                version=arm.version,
                fallback=None if is_baseline else experiment.baseline.version,
            )
        return None

    async def callers_route(
        self, experiment_id: str, subject: str, arm_id: str
    ) -> Route:
        """Return the route of an evaluation of something that an arm of the caller made.

        Raises:
            NotFoundError: There is no such experiment.
            FailedPreconditionError: It is not running, or the subject has no arm or another one.
            InvalidRequestError: It has a judge, or there is no such arm.
        """
        experiment = self._experiments.get(experiment_id)
        if experiment.judge_id is not None:
            raise InvalidRequestError(
                [
                    FieldViolation(
                        "experiment",
                        f"{experiment.name} has a judge whose evaluations it finds by itself;"
                        " name an experiment without one",
                    )
                ]
            )
        if experiment.state is not State.RUNNING:
            raise FailedPreconditionError(
                f"{experiment.name} is {experiment.state.value}, not running",
                reason="EXPERIMENT_NOT_RUNNING",
                metadata={
                    "experiment": experiment.name,
                    "state": experiment.state.value.upper(),
                },
            )
        arm = await self._enrolment.assigned_arm(experiment, subject, arm_id)
        return Route(experiment_id, arm, experiment.status.stage)

    def answered(self, record: EvaluationRecord, item: JudgeInput) -> None:
        """Let the other arms of an experiment in shadow judge the item too."""
        if record.experiment_id is None or record.arm_id is None:
            return
        experiment = self._experiments.get(record.experiment_id)
        if experiment.judge_id is None:
            return
        self._tell(experiment, record.arm_id, "")
        if experiment.mode is Mode.SHADOW:
            self._shadowing.offer(experiment, record, item)

    async def failed(
        self,
        route: Route,
        *,
        judge_id: str,
        version: int,
        subject: str,
        error: LMError,
    ) -> None:
        """Keep a failed call of an arm: the error rate is made of these."""
        experiment = self._experiments.get(route.experiment_id)
        if experiment.judge_id is None:
            return
        self._tell(experiment, route.arm_id, error.reason)
        await commit(
            self._storage,
            ExperimentFailureRecord(
                experiment_id=route.experiment_id,
                arm_id=route.arm_id,
                judge_id=judge_id,
                version=version,
                created_at=datetime.now(UTC),
                reason=error.reason,
                shadow=False,
                subject=subject,
                stage=route.stage,
            ),
        )

    def _tell(self, experiment: Experiment, arm_id: str, failure: str) -> None:
        for listener in self._listeners:
            listener(experiment.experiment_id, arm_id, failure)
