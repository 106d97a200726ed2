"""Feedback between protobuf and domain."""

from __future__ import annotations

from typing import Final

from sidejudge.v1 import feedback_pb2, feedback_service_pb2
from sidejudge_server.api.convert_common import (
    SOURCES,
    optional_verdict,
    source_from,
    timestamp,
    verdict_value,
)
from sidejudge_server.api.names import evaluation_name, feedback_name, judge_name
from sidejudge_server.api.validate import Checker
from sidejudge_server.training.corrections import Correction
from sidejudge_storage import FeedbackFilter
from sidejudge_storage.records import FeedbackRecord

__all__ = ["correction_from", "feedback_filter", "feedback_message", "source_value"]

MAX_AUTHOR_CHARS: Final = 128
MAX_COMMENT_CHARS: Final = 4_000

_SOURCE_VALUES: Final = {name: number for number, name in SOURCES.items()}


def correction_from(checker: Checker, message: feedback_pb2.Feedback) -> Correction:
    """Read a correction; whether it fits the evaluation's judge is the domain's to say."""
    evaluation_id = checker.resource("evaluation", message.evaluation, "evaluations")
    verdict = score = None
    kind = message.WhichOneof("correction")
    if kind == "verdict":
        verdict = optional_verdict(checker, "verdict", message.verdict, required=True)
    elif kind == "score":
        score = checker.unit_interval("score", message.score)
    else:
        checker.add("correction", "is required; a verdict or a score")
    return Correction(
        evaluation_id=evaluation_id or "",
        verdict=verdict.value if verdict else None,
        score=score,
        source=source_from(checker, "source", message.source) or "expert",
        author=checker.text("author", message.author, limit=MAX_AUTHOR_CHARS),
        comment=checker.text("comment", message.comment, limit=MAX_COMMENT_CHARS),
    )


def feedback_filter(
    checker: Checker, request: feedback_service_pb2.ListFeedbackRequest
) -> FeedbackFilter:
    """Read the filters of a list of feedback."""
    return FeedbackFilter(
        judge_id=checker.judge("judge", request.judge, required=False),
        evaluation_id=checker.resource(
            "evaluation", request.evaluation, "evaluations", required=False
        ),
        source=source_from(checker, "source", request.source),
        author=request.author or None,
    )


def feedback_message(record: FeedbackRecord) -> feedback_pb2.Feedback:
    """Return stored feedback as message."""
    message = feedback_pb2.Feedback(
        name=feedback_name(record.feedback_id),
        evaluation=evaluation_name(record.evaluation_id),
        source=source_value(record.source),
        author=record.author,
        comment=record.comment,
        judge=judge_name(record.judge_id),
        create_time=timestamp(record.created_at),
    )
    if record.score is not None:
        message.score = record.score
    else:
        message.verdict = verdict_value(record.verdict)
    return message


def source_value(source: str) -> feedback_pb2.Feedback.Source.ValueType:
    """Return the enum value of a stored source; unspecified for "", which is nobody."""
    number = _SOURCE_VALUES[source] if source else 0
    return feedback_pb2.Feedback.Source.ValueType(number)
