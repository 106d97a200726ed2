"""EvaluationService."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Final

from sidejudge.v1 import evaluation_service_pb2 as pb
from sidejudge.v1.evaluation_service_pb2_grpc import EvaluationServiceServicer
from sidejudge_server.api.call_context import call_id, remaining_s
from sidejudge_server.api.convert_evaluation import (
    evaluate_command,
    evaluation_filter,
    evaluation_message,
)
from sidejudge_server.api.paging import cut_page, read_paging
from sidejudge_server.api.status import log_fault, rpc_status
from sidejudge_server.api.tokens import TokenCodec
from sidejudge_server.api.validate import Checker
from sidejudge_server.config import Settings
from sidejudge_server.judges.service import EvaluationService

__all__ = ["MAX_BATCH_ITEMS", "EvaluationServicer"]

MAX_BATCH_ITEMS: Final = 256


class EvaluationServicer(EvaluationServiceServicer):
    """Converts and delegates to `judges.service.EvaluationService`."""

    def __init__(
        self, service: EvaluationService, tokens: TokenCodec, settings: Settings
    ) -> None:
        self._service = service
        self._tokens = tokens
        self._max_text_chars = settings.server.max_text_chars
        # Enough to keep the LM busy, so that one batch does not use up all that may wait.
        self._batch_concurrency = 2 * settings.task_lm.max_concurrency

    async def Evaluate(
        self, request: pb.EvaluateRequest, context: object
    ) -> pb.EvaluateResponse:
        """Judge one item."""
        checker = Checker(self._max_text_chars)
        command = evaluate_command(checker, request, timeout_s=remaining_s())
        record = await self._service.evaluate(command)
        return pb.EvaluateResponse(evaluation=evaluation_message(record))

    async def BatchEvaluate(
        self, request: pb.BatchEvaluateRequest, context: object
    ) -> AsyncGenerator[pb.BatchEvaluateResponse, None]:
        """Judge items, each answered as it completes."""
        checker = Checker(self._max_text_chars)
        checker.count("requests", len(request.requests), low=1, high=MAX_BATCH_ITEMS)
        checker.raise_if_any()
        slots = asyncio.Semaphore(self._batch_concurrency)
        tasks = [
            asyncio.create_task(self._batch_item(index, item, slots))
            for index, item in enumerate(request.requests)
        ]
        try:
            for done in asyncio.as_completed(tasks):
                yield await done
        finally:
            for task in tasks:
                task.cancel()

    async def GetEvaluation(
        self, request: pb.GetEvaluationRequest, context: object
    ) -> pb.GetEvaluationResponse:
        """Read one evaluation."""
        checker = Checker(self._max_text_chars)
        evaluation_id = checker.resource("name", request.name, "evaluations")
        record = await self._service.get(checker.passed(evaluation_id))
        return pb.GetEvaluationResponse(evaluation=evaluation_message(record))

    async def ListEvaluations(
        self, request: pb.ListEvaluationsRequest, context: object
    ) -> pb.ListEvaluationsResponse:
        """List evaluations, newest first."""
        checker = Checker(self._max_text_chars)
        wanted = evaluation_filter(checker, request)
        paging = read_paging(checker, request, self._tokens)
        records = await self._service.list(
            wanted, before=paging.last_key, limit=paging.limit
        )
        page = cut_page(
            records, evaluation_message, key=lambda r: r.evaluation_id, paging=paging
        )
        return pb.ListEvaluationsResponse(
            evaluations=page.items, next_page_token=page.next_page_token
        )

    async def _batch_item(
        self, index: int, item: pb.EvaluateRequest, slots: asyncio.Semaphore
    ) -> pb.BatchEvaluateResponse:
        """Judge one item; an error becomes its outcome."""
        async with slots:
            try:
                checker = Checker(self._max_text_chars, prefix=f"requests[{index}].")
                command = evaluate_command(checker, item, timeout_s=remaining_s())
                record = await self._service.evaluate(command)
            except Exception as error:  # noqa: BLE001 - an item must not end the others
                log_fault(error)
                return pb.BatchEvaluateResponse(
                    index=index, error=rpc_status(error, call_id.get())
                )
        return pb.BatchEvaluateResponse(
            index=index, evaluation=evaluation_message(record)
        )
