"""ReviewService."""

from __future__ import annotations

from sidejudge.v1 import review_service_pb2 as pb
from sidejudge.v1.review_service_pb2_grpc import ReviewServiceServicer
from sidejudge_server.api.convert_feedback import MAX_AUTHOR_CHARS
from sidejudge_server.api.convert_review import (
    agreement_message,
    annotators_message,
    claim_request,
    evaluation_ids,
    item_message,
    period,
    place_key,
    read_place,
)
from sidejudge_server.api.paging import cut_page, read_paging
from sidejudge_server.api.tokens import TokenCodec
from sidejudge_server.api.validate import Checker
from sidejudge_server.config import Settings
from sidejudge_server.review.annotators import AnnotatorAgreements
from sidejudge_server.review.estimates import AgreementEstimates
from sidejudge_server.review.queue import ReviewQueue

__all__ = ["ReviewServicer"]


class ReviewServicer(ReviewServiceServicer):
    """Converts and delegates to `review`."""

    def __init__(
        self,
        queue: ReviewQueue,
        estimates: AgreementEstimates,
        annotators: AnnotatorAgreements,
        tokens: TokenCodec,
        settings: Settings,
    ) -> None:
        self._queue = queue
        self._estimates = estimates
        self._annotators = annotators
        self._tokens = tokens
        self._max_text_chars = settings.server.max_text_chars

    async def ListReviewQueue(
        self, request: pb.ListReviewQueueRequest, context: object
    ) -> pb.ListReviewQueueResponse:
        """List what people should label next."""
        checker = Checker(self._max_text_chars)
        judge_id = checker.judge("judge", request.judge)
        paging = read_paging(checker, request, self._tokens)
        entries = await self._queue.page(
            checker.passed(judge_id),
            show_labelled=request.show_labelled,
            show_claimed=request.show_claimed,
            after=read_place(paging.last_key),
            limit=paging.limit,
        )
        page = cut_page(entries, item_message, key=place_key, paging=paging)
        return pb.ListReviewQueueResponse(
            items=page.items, next_page_token=page.next_page_token
        )

    async def ClaimReviewItems(
        self, request: pb.ClaimReviewItemsRequest, context: object
    ) -> pb.ClaimReviewItemsResponse:
        """Keep items for an annotator."""
        wanted = claim_request(Checker(self._max_text_chars), request)
        entries = await self._queue.claim(wanted)
        return pb.ClaimReviewItemsResponse(items=map(item_message, entries))

    async def ReleaseReviewItems(
        self, request: pb.ReleaseReviewItemsRequest, context: object
    ) -> pb.ReleaseReviewItemsResponse:
        """Give claims up."""
        checker = Checker(self._max_text_chars)
        judge_id = checker.judge("judge", request.judge)
        annotator = checker.text(
            "annotator", request.annotator, limit=MAX_AUTHOR_CHARS, required=True
        )
        ids = evaluation_ids(checker, request.evaluations)
        released = await self._queue.release(checker.passed(judge_id), annotator, ids)
        return pb.ReleaseReviewItemsResponse(released_count=released)

    async def EstimateAgreement(
        self, request: pb.EstimateAgreementRequest, context: object
    ) -> pb.EstimateAgreementResponse:
        """Estimate how often people agree with a version."""
        checker = Checker(self._max_text_chars)
        version = checker.version("judge_version", request.judge_version)
        start, end = period(checker, request, now=self._queue.clock())
        weighting = checker.enum(
            "weighting",
            request.weighting,
            pb.EstimateAgreementRequest.Weighting.DESCRIPTOR,
        )
        wanted = checker.passed(version)
        found = await self._estimates.estimate(
            wanted.judge_id,
            wanted.version,
            start=start,
            end=end,
            weighted=weighting != pb.EstimateAgreementRequest.WEIGHTING_NONE,
            uniform_only=request.uniform_only,
        )
        return agreement_message(found)

    async def MeasureAnnotatorAgreement(
        self, request: pb.MeasureAnnotatorAgreementRequest, context: object
    ) -> pb.MeasureAnnotatorAgreementResponse:
        """Measure how far people agree with each other."""
        checker = Checker(self._max_text_chars)
        judge_id = checker.judge("judge", request.judge)
        start, end = period(checker, request, now=self._queue.clock())
        found = await self._annotators.measure(
            checker.passed(judge_id), start=start, end=end
        )
        return annotators_message(found)
