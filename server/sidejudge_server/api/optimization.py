"""OptimizationService."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, cast

from sidejudge.v1 import optimization_pb2
from sidejudge.v1 import optimization_service_pb2 as pb
from sidejudge.v1.optimization_service_pb2_grpc import OptimizationServiceServicer
from sidejudge_server.api.convert_estimate import estimate_message
from sidejudge_server.api.convert_event import event_message
from sidejudge_server.api.convert_optimization import (
    config_message,
    create_command,
    optimization_filter,
    optimization_message,
    resume_command,
    trial_from_record,
)
from sidejudge_server.api.convert_policy import (
    MAX_PAUSE_REASON_CHARS,
    policy_changes,
    policy_message,
)
from sidejudge_server.api.convert_training import training_set_message
from sidejudge_server.api.names import optimization_name
from sidejudge_server.api.paging import cut_page, read_paging
from sidejudge_server.api.tokens import TokenCodec
from sidejudge_server.api.validate import Checker
from sidejudge_server.api.watch_position import watch_position
from sidejudge_server.config import Settings
from sidejudge_server.optimization.policies import PolicyService
from sidejudge_server.optimization.queue import (
    CreateOptimization as CreateCommand,
)
from sidejudge_server.optimization.queue import (
    OptimizationService,
)

__all__ = ["OptimizationServicer"]


class OptimizationServicer(OptimizationServiceServicer):
    """Converts and delegates to `optimization.queue.OptimizationService`."""

    def __init__(
        self,
        service: OptimizationService,
        policies: PolicyService,
        tokens: TokenCodec,
        settings: Settings,
    ) -> None:
        self._service = service
        self._policies = policies
        self._tokens = tokens
        self._max_text_chars = settings.server.max_text_chars

    async def Optimize(
        self, request: pb.OptimizeRequest, context: object
    ) -> AsyncGenerator[pb.OptimizeResponse, None]:
        """Start a run and stream its events; a caller that goes away cancels nothing."""
        checker = Checker(self._max_text_chars)
        command = self._command(checker, request.optimization, request.request_id)
        record = await self._service.create(command)
        async with aclosing(self._events(record.optimization_id, None)) as events:
            async for event in events:
                yield pb.OptimizeResponse(event=event)

    async def CreateOptimization(
        self, request: pb.CreateOptimizationRequest, context: object
    ) -> pb.CreateOptimizationResponse:
        """Start a run."""
        checker = Checker(self._max_text_chars)
        command = self._command(checker, request.optimization, request.request_id)
        record = await self._service.create(command)
        return pb.CreateOptimizationResponse(optimization=optimization_message(record))

    async def EstimateOptimization(
        self, request: pb.EstimateOptimizationRequest, context: object
    ) -> pb.EstimateOptimizationResponse:
        """Say what a run would take; starts nothing."""
        checker = Checker(self._max_text_chars)
        command = self._command(checker, request.optimization)
        estimated = await self._service.estimate(command)
        return pb.EstimateOptimizationResponse(
            estimate=estimate_message(estimated.estimate.to_json()),
            config=config_message(json.loads(estimated.config_json)),
            training_set=training_set_message(estimated.training_set),
            warnings=estimated.warnings,
        )

    async def GetOptimization(
        self, request: pb.GetOptimizationRequest, context: object
    ) -> pb.GetOptimizationResponse:
        """Read a run."""
        record = await self._service.get(self._id("name", request.name))
        return pb.GetOptimizationResponse(optimization=optimization_message(record))

    async def ListOptimizations(
        self, request: pb.ListOptimizationsRequest, context: object
    ) -> pb.ListOptimizationsResponse:
        """List runs, newest first."""
        checker = Checker(self._max_text_chars)
        wanted = optimization_filter(checker, request)
        paging = read_paging(checker, request, self._tokens)
        records = await self._service.list(
            wanted, before=paging.last_key, limit=paging.limit
        )
        page = cut_page(
            records,
            optimization_message,
            key=lambda r: r.optimization_id,
            paging=paging,
        )
        return pb.ListOptimizationsResponse(
            optimizations=page.items, next_page_token=page.next_page_token
        )

    async def ListTrials(
        self, request: pb.ListTrialsRequest, context: object
    ) -> pb.ListTrialsResponse:
        """List the trials of a run in order."""
        checker = Checker(self._max_text_chars)
        parent = checker.resource("parent", request.parent, "optimizations")
        paging = read_paging(checker, request, self._tokens)
        events = await self._service.list_trials(
            checker.passed(parent),
            after_sequence=int(paging.last_key or 0),
            limit=paging.limit,
        )
        page = cut_page(
            events, trial_from_record, key=lambda e: str(e.sequence), paging=paging
        )
        return pb.ListTrialsResponse(
            trials=page.items, next_page_token=page.next_page_token
        )

    async def WatchOptimization(
        self, request: pb.WatchOptimizationRequest, context: object
    ) -> AsyncGenerator[pb.WatchOptimizationResponse, None]:
        """Stream the events of a run."""
        run_id = self._id("name", request.name)
        await self._service.get(run_id)
        position = watch_position(request, optimization_name(run_id), self._tokens)
        async with aclosing(self._events(run_id, position)) as events:
            async for event in events:
                yield pb.WatchOptimizationResponse(event=event)

    async def CancelOptimization(
        self, request: pb.CancelOptimizationRequest, context: object
    ) -> pb.CancelOptimizationResponse:
        """Ask a run to stop."""
        record = await self._service.cancel(self._id("name", request.name))
        return pb.CancelOptimizationResponse(optimization=optimization_message(record))

    async def ResumeOptimization(
        self, request: pb.ResumeOptimizationRequest, context: object
    ) -> pb.ResumeOptimizationResponse:
        """Go on with a run."""
        checker = Checker(self._max_text_chars)
        command = resume_command(checker, request)
        record = await self._service.resume(command)
        return pb.ResumeOptimizationResponse(optimization=optimization_message(record))

    def _command(
        self,
        checker: Checker,
        optimization: optimization_pb2.Optimization,
        request_id: str = "",
    ) -> CreateCommand:
        return create_command(
            checker, optimization, request_id, unpriced=self._service.unpriced
        )

    async def GetOptimizationPolicy(
        self, request: pb.GetOptimizationPolicyRequest, context: object
    ) -> pb.GetOptimizationPolicyResponse:
        """Read when a judge is optimized by itself."""
        state = await self._policies.get(self._policy(request.name))
        return pb.GetOptimizationPolicyResponse(
            optimization_policy=policy_message(state)
        )

    async def UpdateOptimizationPolicy(
        self, request: pb.UpdateOptimizationPolicyRequest, context: object
    ) -> pb.UpdateOptimizationPolicyResponse:
        """Change when a judge is optimized by itself."""
        checker = Checker(self._max_text_chars)
        wanted = request.optimization_policy
        judge_id = checker.policy("optimization_policy.name", wanted.name)
        changes = policy_changes(checker, wanted, request.update_mask)
        state = await self._policies.update(
            checker.passed(judge_id), changes, etag=wanted.etag
        )
        return pb.UpdateOptimizationPolicyResponse(
            optimization_policy=policy_message(state)
        )

    async def PauseOptimizationPolicy(
        self, request: pb.PauseOptimizationPolicyRequest, context: object
    ) -> pb.PauseOptimizationPolicyResponse:
        """Start nothing by itself until it is resumed."""
        checker = Checker(self._max_text_chars)
        judge_id = checker.policy("name", request.name)
        reason = checker.text("reason", request.reason, limit=MAX_PAUSE_REASON_CHARS)
        state = await self._policies.pause(checker.passed(judge_id), reason)
        return pb.PauseOptimizationPolicyResponse(
            optimization_policy=policy_message(state)
        )

    async def ResumeOptimizationPolicy(
        self, request: pb.ResumeOptimizationPolicyRequest, context: object
    ) -> pb.ResumeOptimizationPolicyResponse:
        """End a pause."""
        state = await self._policies.resume(self._policy(request.name))
        return pb.ResumeOptimizationPolicyResponse(
            optimization_policy=policy_message(state)
        )

    def _policy(self, name: str) -> str:
        checker = Checker(self._max_text_chars)
        return checker.passed(checker.policy("name", name))

    def _id(self, field: str, name: str) -> str:
        checker = Checker(self._max_text_chars)
        return checker.passed(checker.resource(field, name, "optimizations"))

    async def _events(
        self, run_id: str, position: int | None
    ) -> AsyncGenerator[pb.OptimizationEvent, None]:
        watched = self._service.watch(run_id, after_sequence=position)
        # An asynchronous generator, which must be closed when the caller goes away.
        async with aclosing(cast("AsyncGenerator[Any, None]", watched)) as events:
            async for event in events:
                yield event_message(event, run_id, self._tokens)
