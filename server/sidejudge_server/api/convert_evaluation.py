"""Evaluations between protobuf and records."""

from __future__ import annotations

import json
from typing import Final

from google.protobuf.duration_pb2 import Duration

from sidejudge.v1 import evaluation_pb2, evaluation_service_pb2
from sidejudge_server.api.convert_common import (
    artifact_input,
    input_message,
    label_map,
    optional_verdict,
    rubric_input,
    timestamp,
    verdict_value,
)
from sidejudge_server.api.convert_memory import influence_messages
from sidejudge_server.api.convert_trust import add_trust, selection_target
from sidejudge_server.api.names import (
    evaluation_name,
    experiment_name,
    judge_name,
    version_name,
)
from sidejudge_server.api.validate import Checker
from sidejudge_server.judges.samples import MAX_SAMPLES
from sidejudge_server.judges.service import EvaluateCommand
from sidejudge_server.judges.types import ArtifactInput, ConfidenceSource, JudgeInput
from sidejudge_storage import EvaluationFilter
from sidejudge_storage.records import EvaluationRecord

__all__ = ["evaluate_command", "evaluation_filter", "evaluation_message"]

MAX_KEY_CHARS: Final = 256

_SOURCES: Final = {
    ConfidenceSource.LOGPROB: evaluation_pb2.CONFIDENCE_SOURCE_LOGPROB,
    ConfidenceSource.STATED: evaluation_pb2.CONFIDENCE_SOURCE_STATED,
    ConfidenceSource.SAMPLED: evaluation_pb2.CONFIDENCE_SOURCE_SAMPLED,
    ConfidenceSource.NONE: evaluation_pb2.CONFIDENCE_SOURCE_NONE,
}


def evaluate_command(
    checker: Checker,
    request: evaluation_service_pb2.EvaluateRequest,
    *,
    timeout_s: float | None,
) -> EvaluateCommand:
    """Read a request to judge one item.

    Args:
        checker: Collects violations.
        request: The request.
        timeout_s: Seconds that the call has left; None without a deadline.

    Raises:
        InvalidRequestError: Fields are wrong; all violations at once.
    """
    judge_id = checker.judge("judge", request.judge)
    version = checker.version("judge_version", request.judge_version, required=False)
    if judge_id and version and version.judge_id != judge_id:
        checker.add("judge_version", f"is not a version of judges/{judge_id}")
    item = _input(checker, request)
    subject = checker.text("subject", request.subject, limit=MAX_KEY_CHARS)
    group = checker.text("group", request.group, limit=MAX_KEY_CHARS)
    labels = checker.labels("labels", request.labels)
    experiment_id = checker.resource(
        "experiment", request.experiment, "experiments", required=False
    )
    if request.arm and not request.experiment:
        checker.add("arm", "needs the experiment that it is an arm of")
    if request.experiment and not request.subject:
        checker.add("subject", "is required with an experiment")
    if request.experiment and request.judge_version:
        checker.add("judge_version", "must not be set with an experiment")
    target = None
    if request.HasField("selection"):
        target = selection_target(checker, "selection", request.selection)
    if not 0 <= request.n_samples <= MAX_SAMPLES:
        checker.add("n_samples", f"must be from 0 to {MAX_SAMPLES}")
    if request.n_samples > 1 and target is not None:
        checker.add("selection", "must not be set with n_samples above 1")
    request_id = checker.last_request_id(request.request_id)
    return EvaluateCommand(
        judge_id=checker.passed(judge_id),
        input=item,
        version=version.version if version else None,
        explain=not request.omit_reasoning,
        subject=subject,
        group=group,
        labels=labels,
        request_id=request_id,
        timeout_s=timeout_s,
        experiment_id=experiment_id or "",
        arm_id=request.arm,
        target=target,
        n_samples=max(1, request.n_samples),
        second_look=not request.skip_second_look,
    )


def _input(
    checker: Checker, request: evaluation_service_pb2.EvaluateRequest
) -> JudgeInput:
    shape = request.WhichOneof("input")
    if shape == "rubric_input":
        return rubric_input(checker, request.rubric_input)
    if shape == "artifact_input":
        return artifact_input(checker, request.artifact_input)
    checker.add("input", "is required; rubric_input or artifact_input")
    return ArtifactInput("")


def evaluation_filter(
    checker: Checker, request: evaluation_service_pb2.ListEvaluationsRequest
) -> EvaluationFilter:
    """Read the filters of a list of evaluations."""
    judge_id = checker.judge("judge", request.judge, required=False)
    version = checker.version("judge_version", request.judge_version, required=False)
    if judge_id and version and version.judge_id != judge_id:
        checker.add("judge_version", f"is not a version of judges/{judge_id}")
    verdict = optional_verdict(checker, "verdict", request.verdict)
    start = end = None
    if request.HasField("start_time"):
        start = checker.time("start_time", request.start_time)
    if request.HasField("end_time"):
        end = checker.time("end_time", request.end_time)
    return EvaluationFilter(
        judge_id=version.judge_id if version else judge_id,
        version=version.version if version else None,
        verdict=verdict.value if verdict else None,
        subject=request.subject or None,
        labels=checker.labels("labels", request.labels),
        start=start,
        end=end,
    )


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
        influences=influence_messages(record.influences_json),
        arm=record.arm_id or "",
        audit_probability=record.audit_probability,
        experiment=experiment_name(record.experiment_id)
        if record.experiment_id
        else "",
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
    add_trust(message, record)
    return message


def _judgment(record: EvaluationRecord) -> evaluation_pb2.Judgment:
    probabilities = None
    if record.p_pass is not None:
        probabilities = evaluation_pb2.VerdictProbabilities(
            passed=record.p_pass,
            partial=record.p_partial or 0.0,
            failed=record.p_fail or 0.0,
        )
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
    seconds, micros = divmod(round(record.lm_latency_ms * 1000), 1_000_000)
    return evaluation_pb2.Usage(
        model=record.model,
        input_tokens=record.input_tokens,
        cached_input_tokens=record.cached_input_tokens,
        output_tokens=record.output_tokens,
        lm_calls=record.lm_calls,
        cost_usd=record.cost_usd,
        lm_latency=Duration(seconds=seconds, nanos=micros * 1000),
    )
