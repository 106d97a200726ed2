"""Evaluations between protobuf and records."""

from __future__ import annotations

import json
from typing import Final

from google.protobuf.duration_pb2 import Duration

from sidejudge.v1 import evaluation_pb2
from sidejudge_server.api.convert_common import (
    input_message,
    label_map,
    timestamp,
    verdict_value,
)
from sidejudge_server.api.names import evaluation_name, judge_name, version_name
from sidejudge_server.judges.types import ConfidenceSource
from sidejudge_storage.records import EvaluationRecord

__all__ = ["evaluation_message"]

_SOURCES: Final = {
    ConfidenceSource.LOGPROB: evaluation_pb2.CONFIDENCE_SOURCE_LOGPROB,
    ConfidenceSource.STATED: evaluation_pb2.CONFIDENCE_SOURCE_STATED,
    ConfidenceSource.NONE: evaluation_pb2.CONFIDENCE_SOURCE_NONE,
}


def evaluation_message(record: EvaluationRecord) -> evaluation_pb2.Evaluation:
    """Return a stored evaluation as message."""
    message = evaluation_pb2.Evaluation(
        name=evaluation_name(record.evaluation_id),
        judge=judge_name(record.judge_id),
        judge_version=version_name(record.judge_id, record.version),
        usage=_usage(record),
        subject=record.subject,
        group=record.group_key,
        labels=label_map(record.labels_json),
        create_time=timestamp(record.created_at),
    )
    item = input_message(record.input_json)
    if isinstance(item, evaluation_pb2.RubricInput):
        message.rubric_input.CopyFrom(item)
    else:
        message.artifact_input.CopyFrom(item)
    if record.verdict is None:
        message.rubric.CopyFrom(_rubric_result(record))
    else:
        message.judgment.CopyFrom(_judgment(record))
    return message


def _judgment(record: EvaluationRecord) -> evaluation_pb2.Judgment:
    probabilities = None
    if record.p_pass is not None:
        probabilities = evaluation_pb2.VerdictProbabilities(
            partial=record.p_partial or 0.0, fail=record.p_fail or 0.0
        )
        setattr(probabilities, "pass", record.p_pass)
    return evaluation_pb2.Judgment(
        verdict=verdict_value(record.verdict),
        confidence=record.confidence,
        reasoning=record.reasoning,
        confidence_source=_SOURCES[ConfidenceSource(record.confidence_source)],
        probabilities=probabilities,
    )


def _rubric_result(record: EvaluationRecord) -> evaluation_pb2.RubricResult:
    scores = json.loads(record.criterion_scores_json)
    return evaluation_pb2.RubricResult(
        score=record.score or 0.0,
        reasoning=record.reasoning,
        suggestions=json.loads(record.suggestions_json),
        criterion_scores=[evaluation_pb2.CriterionScore(**score) for score in scores],
        score_source=_SOURCES[ConfidenceSource(record.confidence_source)],
        score_stddev=record.score_stddev,
    )


def _usage(record: EvaluationRecord) -> evaluation_pb2.Usage:
    latency = Duration()
    latency.FromMicroseconds(round(record.lm_latency_ms * 1000))
    return evaluation_pb2.Usage(
        model=record.model,
        input_tokens=record.input_tokens,
        cached_input_tokens=record.cached_input_tokens,
        output_tokens=record.output_tokens,
        lm_calls=record.lm_calls,
        cost_usd=record.cost_usd,
        lm_latency=latency,
    )
