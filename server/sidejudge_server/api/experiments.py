"""ExperimentService."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from sidejudge.v1 import experiment_pb2
from sidejudge.v1 import experiment_service_pb2 as pb
from sidejudge.v1.experiment_service_pb2_grpc import ExperimentServiceServicer
from sidejudge_server.api.convert_analysis import analysis_message, decision_from
from sidejudge_server.api.convert_experiment import (
    STATES,
    draft_from,
    experiment_change,
    experiment_message,
)
from sidejudge_server.api.convert_experiment_event import event_message
from sidejudge_server.api.names import experiment_name, version_name
from sidejudge_server.api.paging import cut_page, read_paging
from sidejudge_server.api.tokens import TokenCodec
from sidejudge_server.api.validate import Checker
from sidejudge_server.api.watch_position import watch_position
from sidejudge_server.config import Settings
from sidejudge_server.experiments.analyst import Analyst
from sidejudge_server.experiments.conclusion import Conclusion
from sidejudge_server.experiments.enrolment import Enrolment
from sidejudge_server.experiments.event_log import EventKind, WatchEvent
from sidejudge_server.experiments.registry import ExperimentRegistry
from sidejudge_server.experiments.types import Experiment, State

__all__ = ["ExperimentServicer"]

MAX_AUTHOR_CHARS: Final = 128
MAX_REASON_CHARS: Final = 2_000
MAX_SUBJECT_CHARS: Final = 256
_MAX_VALUES: Final = 16


class ExperimentServicer(ExperimentServiceServicer):
    """Converts and delegates to the packages of `experiments`."""

    def __init__(
        self,
        experiments: ExperimentRegistry,
        enrolment: Enrolment,
        analyst: Analyst,
        tokens: TokenCodec,
        settings: Settings,
    ) -> None:
        self._experiments = experiments
        self._enrolment = enrolment
        self._analyst = analyst
        self._tokens = tokens
        self._heartbeat_s = settings.optimization.heartbeat_s
        self._max_text_chars = settings.server.max_text_chars

    async def CreateExperiment(
        self, request: pb.CreateExperimentRequest, context: object
    ) -> pb.CreateExperimentResponse:
        """Create an experiment as a draft."""
        checker = Checker(self._max_text_chars)
        experiment_id = checker.judge_id("experiment_id", request.experiment_id)
        draft = draft_from(checker.within("experiment."), request.experiment)
        request_id = checker.last_request_id(request.request_id)
        experiment = await self._experiments.create(
            experiment_id,
            draft,
            request_id=request_id,
            fingerprint=request.experiment.SerializeToString(deterministic=True).hex()
            + experiment_id,
        )
        return pb.CreateExperimentResponse(experiment=experiment_message(experiment))

    async def GetExperiment(
        self, request: pb.GetExperimentRequest, context: object
    ) -> pb.GetExperimentResponse:
        """Read an experiment."""
        experiment = self._experiments.get(self._id(request.name))
        return pb.GetExperimentResponse(experiment=experiment_message(experiment))

    async def ListExperiments(
        self, request: pb.ListExperimentsRequest, context: object
    ) -> pb.ListExperimentsResponse:
        """List experiments, newest first."""
        checker = Checker(self._max_text_chars)
        judge_id = checker.judge("judge", request.judge, required=False)
        state = checker.enum(
            "state", request.state, experiment_pb2.Experiment.State.DESCRIPTOR
        )
        paging = read_paging(checker, request, self._tokens)
        found = self._experiments.list(judge_id=judge_id, state=STATES.get(state))
        if paging.last_key is not None:
            last = paging.last_key
            found = [e for e in found if _place(e) < last]
        page = cut_page(
            found[: paging.limit], experiment_message, key=_place, paging=paging
        )
        return pb.ListExperimentsResponse(
            experiments=page.items, next_page_token=page.next_page_token
        )

    async def UpdateExperiment(
        self, request: pb.UpdateExperimentRequest, context: object
    ) -> pb.UpdateExperimentResponse:
        """Change a draft, or the display fields of any experiment."""
        checker = Checker(self._max_text_chars)
        wanted = request.experiment
        experiment_id = checker.resource("experiment.name", wanted.name, "experiments")
        change = experiment_change(checker, wanted, request.update_mask)
        experiment = await self._experiments.update(
            checker.passed(experiment_id), change, etag=wanted.etag
        )
        return pb.UpdateExperimentResponse(experiment=experiment_message(experiment))

    async def StartExperiment(
        self, request: pb.StartExperimentRequest, context: object
    ) -> pb.StartExperimentResponse:
        """Start a draft."""
        checker = Checker(self._max_text_chars)
        experiment_id = checker.resource("name", request.name, "experiments")
        author = checker.text("author", request.author, limit=MAX_AUTHOR_CHARS)
        reason = checker.text("reason", request.reason, limit=MAX_REASON_CHARS)
        request_id = checker.last_request_id(request.request_id)
        experiment = await self._experiments.start(
            checker.passed(experiment_id),
            author=author,
            reason=reason,
            etag=request.etag,
            request_id=request_id,
        )
        return pb.StartExperimentResponse(experiment=experiment_message(experiment))

    async def ConcludeExperiment(
        self, request: pb.ConcludeExperimentRequest, context: object
    ) -> pb.ConcludeExperimentResponse:
        """End an experiment."""
        checker = Checker(self._max_text_chars)
        experiment_id = checker.resource("name", request.name, "experiments")
        decision = checker.enum(
            "decision", request.decision, experiment_pb2.Decision.DESCRIPTOR
        )
        author = checker.text("author", request.author, limit=MAX_AUTHOR_CHARS)
        reason = checker.text("reason", request.reason, limit=MAX_REASON_CHARS)
        request_id = checker.last_request_id(request.request_id)
        experiment = await self._experiments.conclude(
            checker.passed(experiment_id),
            Conclusion(
                decision_from(decision),
                winner=request.winner,
                deploy_winner=request.deploy_winner,
                author=author,
                reason=reason,
            ),
            etag=request.etag,
            request_id=request_id,
        )
        return pb.ConcludeExperimentResponse(experiment=experiment_message(experiment))

    async def AssignVariant(
        self, request: pb.AssignVariantRequest, context: object
    ) -> pb.AssignVariantResponse:
        """Say which arm a subject has."""
        checker = Checker(self._max_text_chars)
        experiment_id = checker.resource("name", request.name, "experiments")
        subject = checker.text(
            "subject", request.subject, limit=MAX_SUBJECT_CHARS, required=True
        )
        experiment_id = checker.passed(experiment_id)
        assigned = await self._enrolment.assign(experiment_id, subject)
        judge_id = self._experiments.get(experiment_id).judge_id
        version = assigned.arm.version
        return pb.AssignVariantResponse(
            arm=assigned.arm.arm_id,
            judge_version=version_name(judge_id, version)
            if judge_id and version
            else "",
            takes_part=assigned.takes_part,
        )

    async def RecordOutcome(
        self, request: pb.RecordOutcomeRequest, context: object
    ) -> pb.RecordOutcomeResponse:
        """Record what was measured for a subject."""
        checker = Checker(self._max_text_chars)
        experiment_id = checker.resource("name", request.name, "experiments")
        subject = checker.text(
            "subject", request.subject, limit=MAX_SUBJECT_CHARS, required=True
        )
        checker.count("values", len(request.values), low=1, high=_MAX_VALUES)
        request_id = checker.last_request_id(request.request_id)
        arm = await self._enrolment.record(
            checker.passed(experiment_id),
            subject,
            dict(request.values),
            arm_id=request.arm,
            request_id=request_id,
        )
        return pb.RecordOutcomeResponse(arm=arm)

    async def AnalyzeExperiment(
        self, request: pb.AnalyzeExperimentRequest, context: object
    ) -> pb.AnalyzeExperimentResponse:
        """Say what is known now."""
        document = await self._analyst.analyze(self._id(request.name))
        return pb.AnalyzeExperimentResponse(analysis=analysis_message(document))

    async def PlanExperiment(
        self, request: pb.PlanExperimentRequest, context: object
    ) -> pb.PlanExperimentResponse:
        """Say how many labels an experiment would take."""
        checker = Checker(self._max_text_chars)
        judge_id = checker.judge("judge", request.judge, required=False)
        if judge_id is None and not request.HasField("baseline_rate"):
            checker.add("baseline_rate", "is required without a judge")
        checker.raise_if_any()
        values: dict[str, Any] = {
            field: getattr(request, field)
            for field in (
                "baseline_rate",
                "min_improvement",
                "loss_rate",
                "alpha",
                "power",
                "labels_per_day",
                "max_labels",
            )
            if request.HasField(field)
        }
        plan = await self._analyst.plan(judge_id, values)
        response = pb.PlanExperimentResponse(
            summary=plan.summary,
            baseline_rate=plan.request.baseline_rate,
            min_improvement=plan.request.min_improvement,
            paired_labels=plan.paired,
            paired_independent_labels=plan.paired_independent,
            split_labels=plan.split,
            sequential_labels=plan.sequential,
            smallest_improvement=plan.smallest_improvement,
            notes=plan.notes,
        )
        if plan.days is not None:
            response.duration.FromTimedelta(timedelta(days=plan.days))
        return response

    async def WatchExperiment(
        self, request: pb.WatchExperimentRequest, context: object
    ) -> AsyncGenerator[pb.WatchExperimentResponse, None]:
        """Stream the events of an experiment."""
        experiment_id = self._id(request.name)
        log = self._experiments.log(experiment_id)
        position = watch_position(request, experiment_name(experiment_id), self._tokens)
        if position is None:
            experiment = self._experiments.get(experiment_id)
            # The last event stays out of the snapshot of one that has ended: every watch ends with it.
            ended = experiment.state is State.CONCLUDED
            position = max(0, log.last - 1) if ended else log.last
            yield await self._snapshot(experiment, position)
        watching = log.watch(after=position, heartbeat_s=self._heartbeat_s)
        async with aclosing(watching) as events:
            async for event in events:
                yield self._event(event, experiment_id)

    async def _snapshot(
        self, experiment: Experiment, position: int
    ) -> pb.WatchExperimentResponse:
        payload: dict[str, Any] = {}
        if experiment.state is not State.DRAFT:
            payload["analysis"] = await self._analyst.analyze(experiment.experiment_id)
        event = WatchEvent(position, datetime.now(UTC), EventKind.SNAPSHOT, payload)
        return pb.WatchExperimentResponse(
            event=event_message(event, experiment, self._tokens)
        )

    def _event(
        self, event: WatchEvent, experiment_id: str
    ) -> pb.WatchExperimentResponse:
        experiment = self._experiments.get(experiment_id)
        return pb.WatchExperimentResponse(
            event=event_message(event, experiment, self._tokens)
        )

    def _id(self, name: str) -> str:
        checker = Checker(self._max_text_chars)
        return checker.passed(checker.resource("name", name, "experiments"))


def _place(experiment: Experiment) -> str:
    """Return the place in the list: newest first means descending."""
    return f"{experiment.created_at.isoformat()} {experiment.experiment_id}"
