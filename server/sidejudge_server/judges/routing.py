"""Which version answers an evaluation, where something else than the deployed one may."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from sidejudge_server.errors import LMError
from sidejudge_server.judges.types import JudgeInput
from sidejudge_storage import EvaluationRecord

__all__ = ["NoRouter", "Route", "Router"]


@dataclass(frozen=True, slots=True)
class Route:
    """The experiment that an evaluation is part of.

    Attributes:
        experiment_id: The experiment.
        arm_id: The arm that it counts for.
        stage: Of a rollout, else 0.
        version: The version that answers; None for the deployed one.
        fallback: The version that answers if the first one gives no usable answer; None for none.
    """

    experiment_id: str
    arm_id: str
    stage: int = 0
    version: int | None = None
    fallback: int | None = None


class Router(Protocol):
    """What the judging of items asks and tells about experiments."""

    def route(self, judge_id: str, subject: str) -> Route | None:
        """Return the experiment of an evaluation without explicit version; None for none."""

    async def callers_route(
        self, experiment_id: str, subject: str, arm_id: str
    ) -> Route:
        """Return the route of an evaluation of something that an arm of the caller made."""

    def answered(self, record: EvaluationRecord, item: JudgeInput) -> None:
        """Hear of an evaluation of an experiment that is on disk."""

    async def failed(
        self,
        route: Route,
        *,
        judge_id: str,
        version: int,
        subject: str,
        error: LMError,
    ) -> None:
        """Hear of a call of an arm that gave no usable answer."""


class NoRouter:
    """A router where there are no experiments."""

    def route(self, judge_id: str, subject: str) -> Route | None:
        """Return None."""
        return None

    async def callers_route(
        self, experiment_id: str, subject: str, arm_id: str
    ) -> Route:
        """Refuse: nobody has experiments here."""
        raise NotImplementedError

    def answered(self, record: EvaluationRecord, item: JudgeInput) -> None:
        """Do nothing."""

    async def failed(
        self,
        route: Route,
        *,
        judge_id: str,
        version: int,
        subject: str,
        error: LMError,
    ) -> None:
        """Do nothing."""
