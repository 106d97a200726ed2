"""The review queue between protobuf and domain."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Final

from google.protobuf.duration_pb2 import Duration

from sidejudge.v1 import review_service_pb2 as pb
from sidejudge_server.api.convert_common import timestamp
from sidejudge_server.api.convert_evaluation import evaluation_message
from sidejudge_server.api.convert_feedback import MAX_AUTHOR_CHARS
from sidejudge_server.api.names import evaluation_name
from sidejudge_server.api.validate import Checker
from sidejudge_server.review.annotators import AnnotatorAgreement
from sidejudge_server.review.claims import ClaimOutcome
from sidejudge_server.review.estimates import AgreementEstimate
from sidejudge_server.review.queue import ClaimRequest, ReviewEntry
from sidejudge_server.review.selection import Reason, Stream
from sidejudge_storage import ReviewClaimRecord

__all__ = [
    "OUTCOMES",
    "agreement_message",
    "annotators_message",
    "claim_request",
    "evaluation_ids",
    "item_message",
    "period",
    "place_key",
    "read_place",
]

MAX_CLAIMED_ITEMS: Final = 100
MAX_ANNOTATORS: Final = 10
_LONGEST_CLAIM: Final = timedelta(hours=24)
_DEFAULT_PERIOD: Final = timedelta(days=30)

_Item = pb.ReviewItem
_STREAMS: Final = {
    Stream.UNIFORM: _Item.STREAM_UNIFORM,
    Stream.RANKED: _Item.STREAM_RANKED,
}
_REASONS: Final = {
    Reason.UNCERTAIN: _Item.REASON_UNCERTAIN,
    Reason.DISAGREEMENT: _Item.REASON_DISAGREEMENT,
    Reason.RARE_LABEL: _Item.REASON_RARE_LABEL,
    Reason.AUDIT: _Item.REASON_AUDIT,
    Reason.CHANCE: _Item.REASON_CHANCE,
}
OUTCOMES: Final = {
    ClaimOutcome.NONE: pb.CLAIM_OUTCOME_UNSPECIFIED,
    ClaimOutcome.HELD: pb.CLAIM_OUTCOME_HELD,
    ClaimOutcome.EXPIRED: pb.CLAIM_OUTCOME_EXPIRED,
    ClaimOutcome.HELD_BY_ANOTHER: pb.CLAIM_OUTCOME_HELD_BY_ANOTHER,
}


def claim_request(
    checker: Checker, request: pb.ClaimReviewItemsRequest
) -> ClaimRequest:
    """Read what somebody wants to label.

    Raises:
        InvalidRequestError: Fields are wrong; all violations at once.
    """
    judge_id = checker.judge("judge", request.judge)
    annotator = checker.text(
        "annotator", request.annotator, limit=MAX_AUTHOR_CHARS, required=True
    )
    most = checker.whole("max_items", request.max_items, low=0, high=MAX_CLAIMED_ITEMS)
    duration = None
    if request.HasField("duration"):
        duration = _duration(checker, request.duration)
    each = checker.whole(
        "annotators_per_item", request.annotators_per_item, low=0, high=MAX_ANNOTATORS
    )
    ids: tuple[str, ...] = ()
    if request.evaluations:
        ids = evaluation_ids(checker, request.evaluations)
        if request.max_items:
            checker.add("max_items", "must be 0 where evaluations are named")
    return ClaimRequest(
        judge_id=checker.passed(judge_id),
        annotator=annotator,
        most=most or 1,
        duration=duration,
        annotators_per_item=each or 1,
        evaluation_ids=ids,
    )


def evaluation_ids(checker: Checker, names: Iterable[str]) -> tuple[str, ...]:
    """Read 1 to 100 names of evaluations, each once."""
    listed = list(names)
    checker.count("evaluations", len(listed), low=1, high=MAX_CLAIMED_ITEMS)
    ids = [
        checker.resource(f"evaluations[{index}]", name, "evaluations")
        for index, name in enumerate(listed[:MAX_CLAIMED_ITEMS])
    ]
    if len(set(listed)) < len(listed):
        checker.add("evaluations", "has a name twice")
    return tuple(i for i in ids if i is not None)


def period(
    checker: Checker,
    request: pb.EstimateAgreementRequest | pb.MeasureAnnotatorAgreementRequest,
    *,
    now: datetime,
) -> tuple[datetime, datetime]:
    """Read a time from start to end; by default the 30 days before now."""
    end = now
    if request.HasField("end_time"):
        end = checker.time("end_time", request.end_time) or now
    start = None
    if request.HasField("start_time"):
        start = checker.time("start_time", request.start_time)
    if start is None:
        try:
            start = end - _DEFAULT_PERIOD
        except OverflowError:
            start = datetime.min.replace(tzinfo=UTC)
    if start >= end:
        checker.add("end_time", "must be after start_time")
    return start, end


def place_key(entry: ReviewEntry) -> str:
    """Return the place of an item as the key of a page token."""
    return "{}/{}".format(*entry.queued.place)


def read_place(key: str | None) -> tuple[int, int] | None:
    """Return the place of a `place_key`."""
    if key is None:
        return None
    number, _, place = key.partition("/")
    return int(number), int(place)


def item_message(entry: ReviewEntry) -> pb.ReviewItem:
    """Return an item of the queue as message."""
    item = entry.queued.item
    return pb.ReviewItem(
        evaluation=evaluation_message(entry.evaluation),
        worth=item.worth,
        reasons=[_REASONS[Reason(word)] for word in item.reasons.split(",")],
        inclusion_probability=item.inclusion_probability,
        stream=_STREAMS[Stream(item.stream)],
        claims=[_claim_message(claim) for claim in entry.claims],
        annotator_count=len(entry.queued.labelled_by),
        round=item.round_number,
        create_time=timestamp(item.created_at),
    )


def agreement_message(found: AgreementEstimate) -> pb.EstimateAgreementResponse:
    """Return an estimate as message."""
    return pb.EstimateAgreementResponse(
        estimate=found.estimate,
        standard_error=found.standard_error,
        low=found.low,
        high=found.high,
        considered=found.considered,
        labelled=found.labelled,
        rounds=found.rounds,
        waiting=found.waiting,
        cannot_say=found.cannot_say,
    )


def annotators_message(
    found: AnnotatorAgreement,
) -> pb.MeasureAnnotatorAgreementResponse:
    """Return the agreement of annotators as message."""
    low, high = found.gwet_ac1_interval or (None, None)
    return pb.MeasureAnnotatorAgreementResponse(
        items=found.items,
        annotators=found.annotators,
        labels=found.labels,
        percent_agreement=found.percent_agreement,
        krippendorff_alpha=found.krippendorff_alpha,
        gwet_ac1=found.gwet_ac1,
        gwet_ac1_low=low,
        gwet_ac1_high=high,
        cannot_say=found.cannot_say,
    )


def _claim_message(claim: ReviewClaimRecord) -> pb.ReviewClaim:
    return pb.ReviewClaim(
        evaluation=evaluation_name(claim.evaluation_id),
        annotator=claim.annotator,
        create_time=timestamp(claim.created_at),
        expire_time=timestamp(claim.expires_at),
    )


def _duration(checker: Checker, value: Duration) -> timedelta | None:
    seconds = value.seconds + value.nanos / 1e9
    if not 1 <= seconds <= _LONGEST_CLAIM.total_seconds():
        checker.add("duration", f"must be 1 second to 24 hours, not {seconds:g} s")
        return None
    return timedelta(seconds=seconds)
