"""FeedbackService."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from typing import Final

from sidejudge.v1 import feedback_service_pb2 as pb
from sidejudge.v1.feedback_service_pb2_grpc import FeedbackServiceServicer
from sidejudge_server.api.call_context import call_id
from sidejudge_server.api.convert_feedback import (
    correction_from,
    feedback_filter,
    feedback_message,
)
from sidejudge_server.api.convert_review import OUTCOMES
from sidejudge_server.api.convert_training import (
    example_filter,
    example_message,
    synthesis_message,
    training_set_message,
)
from sidejudge_server.api.importing import Import
from sidejudge_server.api.names import feedback_name
from sidejudge_server.api.paging import chunks_by_size, cut_page, read_paging
from sidejudge_server.api.status import rpc_status
from sidejudge_server.api.tokens import TokenCodec
from sidejudge_server.api.validate import Checker
from sidejudge_server.config import Settings
from sidejudge_server.errors import InvalidRequestError, SidejudgeError
from sidejudge_server.review.claims import ClaimOutcome
from sidejudge_server.training.corrections import Correction
from sidejudge_server.training.service import FeedbackService
from sidejudge_server.training.synthesis import Synthesizer

__all__ = ["MAX_FEEDBACK_BATCH_ITEMS", "FeedbackServicer"]

MAX_FEEDBACK_BATCH_ITEMS: Final = 10_000
EXPORT_ITEMS: Final = 200
_SLICE: Final = 500


class FeedbackServicer(FeedbackServiceServicer):
    """Converts and delegates to `training.service.FeedbackService`."""

    def __init__(
        self,
        service: FeedbackService,
        synthesizer: Synthesizer,
        tokens: TokenCodec,
        settings: Settings,
        *,
        claim_outcome: Callable[[str, str], ClaimOutcome],
    ) -> None:
        self._service = service
        self._claim_outcome = claim_outcome
        self._synthesizer = synthesizer
        self._tokens = tokens
        self._max_text_chars = settings.server.max_text_chars

    async def RecordFeedback(
        self, request: pb.RecordFeedbackRequest, context: object
    ) -> pb.RecordFeedbackResponse:
        """Record a correction."""
        checker = Checker(self._max_text_chars)
        correction = correction_from(checker.within("feedback."), request.feedback)
        request_id = checker.last_request_id(request.request_id)
        record = await self._service.record(correction, request_id=request_id)
        return pb.RecordFeedbackResponse(
            feedback=feedback_message(record),
            claim_outcome=OUTCOMES[
                self._claim_outcome(record.evaluation_id, record.author)
            ],
        )

    async def BatchRecordFeedback(
        self, request: pb.BatchRecordFeedbackRequest, context: object
    ) -> pb.BatchRecordFeedbackResponse:
        """Record corrections in one transaction, those with errors left out."""
        checker = Checker(self._max_text_chars)
        count = len(request.feedback)
        checker.count("feedback", count, low=1, high=MAX_FEEDBACK_BATCH_ITEMS)
        request_id = checker.last_request_id(request.request_id)
        corrections, malformed = await self._corrections(request)
        outcome = await self._service.record_batch(corrections, request_id=request_id)
        errors: dict[int, SidejudgeError] = {e.index: e.error for e in outcome.errors}
        errors.update(malformed)
        names = [feedback_name(i) if i else "" for i in outcome.feedback_ids]
        return pb.BatchRecordFeedbackResponse(
            recorded_count=count - len(errors),
            names=names,
            errors=[_item_error(index, errors[index]) for index in sorted(errors)],
            claim_outcomes=self._claim_outcomes(corrections, errors),
        )

    async def ListFeedback(
        self, request: pb.ListFeedbackRequest, context: object
    ) -> pb.ListFeedbackResponse:
        """List feedback, newest first."""
        checker = Checker(self._max_text_chars)
        wanted = feedback_filter(checker, request)
        paging = read_paging(checker, request, self._tokens)
        records = await self._service.list(
            wanted, before=paging.last_key, limit=paging.limit
        )
        page = cut_page(
            records, feedback_message, key=lambda r: r.feedback_id, paging=paging
        )
        return pb.ListFeedbackResponse(
            feedback=page.items, next_page_token=page.next_page_token
        )

    async def GetTrainingSet(
        self, request: pb.GetTrainingSetRequest, context: object
    ) -> pb.GetTrainingSetResponse:
        """Read what a judge has to learn from."""
        checker = Checker(self._max_text_chars)
        judge_id = checker.passed(checker.judge("judge", request.judge))
        training_set = await self._service.training_set(judge_id)
        return pb.GetTrainingSetResponse(
            training_set=training_set_message(training_set)
        )

    async def ListTrainingExamples(
        self, request: pb.ListTrainingExamplesRequest, context: object
    ) -> pb.ListTrainingExamplesResponse:
        """List training examples, newest first."""
        checker = Checker(self._max_text_chars)
        wanted = example_filter(checker, request)
        paging = read_paging(checker, request, self._tokens)
        records = await self._service.list_examples(
            wanted, before=paging.last_key, limit=paging.limit
        )
        page = cut_page(
            records, example_message, key=lambda r: r.example_id, paging=paging
        )
        return pb.ListTrainingExamplesResponse(
            training_examples=page.items, next_page_token=page.next_page_token
        )

    async def ImportTrainingExamples(
        self,
        request_iterator: AsyncIterator[pb.ImportTrainingExamplesRequest],
        context: object,
    ) -> pb.ImportTrainingExamplesResponse:
        """Take labelled data, one transaction a message."""
        importing = Import(self._service)
        async for request in request_iterator:
            await importing.take(request)
        return await importing.finish()

    async def SynthesizeTrainingExamples(
        self, request: pb.SynthesizeTrainingExamplesRequest, context: object
    ) -> pb.SynthesizeTrainingExamplesResponse:
        """Have a language model write examples for the train side."""
        checker = Checker(self._max_text_chars)
        judge_id = checker.judge("judge", request.judge)
        request_id = checker.last_request_id(request.request_id)
        made = await self._synthesizer.synthesize(
            checker.passed(judge_id),
            max_count=request.max_count,
            max_lm_calls=request.max_lm_calls,
            request_id=request_id,
        )
        training_set = await self._service.training_set(judge_id or "")
        return synthesis_message(made, training_set)

    async def ExportTrainingExamples(
        self, request: pb.ExportTrainingExamplesRequest, context: object
    ) -> AsyncGenerator[pb.ExportTrainingExamplesResponse, None]:
        """Stream training examples, oldest first."""
        checker = Checker(self._max_text_chars)
        judge_id = checker.passed(checker.judge("judge", request.judge))
        scope = f"{request.judge}/examples?rejected={request.include_rejected}"
        after = self._tokens.read_resume(request.resume_token, scope)
        pages = self._service.export(
            judge_id, include_rejected=request.include_rejected, after=after
        )
        async for page in pages:
            messages = map(example_message, page)
            for chunk in chunks_by_size(messages, most=EXPORT_ITEMS):
                last_id = chunk[-1].name.rpartition("/")[2]
                yield pb.ExportTrainingExamplesResponse(
                    training_examples=chunk,
                    resume_token=self._tokens.resume(scope, last_id),
                )

    def _claim_outcomes(
        self, corrections: Sequence[Correction], errors: Mapping[int, SidejudgeError]
    ) -> list[pb.BatchClaimOutcome]:
        """Return what recorded corrections meant for claims, of those with one."""
        found = []
        for index, correction in enumerate(corrections):
            if index in errors:
                continue
            outcome = OUTCOMES[
                self._claim_outcome(correction.evaluation_id, correction.author)
            ]
            if outcome:
                found.append(pb.BatchClaimOutcome(index=index, outcome=outcome))
        return found

    async def _corrections(
        self, request: pb.BatchRecordFeedbackRequest
    ) -> tuple[list[Correction], dict[int, InvalidRequestError]]:
        """Read a batch; a malformed item becomes one that the domain refuses, with its error."""
        corrections: list[Correction] = []
        malformed: dict[int, InvalidRequestError] = {}
        for index, message in enumerate(request.feedback):
            if index % _SLICE == _SLICE - 1:
                await asyncio.sleep(0)
            checker = Checker(self._max_text_chars, prefix=f"feedback[{index}].")
            correction = correction_from(checker, message)
            if checker.violations:
                malformed[index] = InvalidRequestError(checker.violations)
                correction = Correction(evaluation_id="")
            corrections.append(correction)
        return corrections, malformed


def _item_error(index: int, error: SidejudgeError) -> pb.BatchItemError:
    return pb.BatchItemError(index=index, status=rpc_status(error, call_id.get()))
