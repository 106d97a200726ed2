"""Labelled examples as messages of `sidejudge.v1`, and answers back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sidejudge.v1 import evaluation_pb2, evaluation_service_pb2, feedback_pb2, judge_pb2
from sidejudge_server.benchmark.labelled import LabelledExample
from sidejudge_server.judges.types import (
    ArtifactInput,
    JudgeInput,
    RubricInput,
    Verdict,
)

__all__ = [
    "FEEDBACK_SOURCES",
    "VERDICTS",
    "answer_of",
    "evaluate_request",
    "example_message",
    "example_row",
    "verdict_word",
]

VERDICTS: Mapping[Verdict, judge_pb2.Verdict.ValueType] = {
    Verdict.PASS: judge_pb2.VERDICT_PASS,
    Verdict.PARTIAL: judge_pb2.VERDICT_PARTIAL,
    Verdict.FAIL: judge_pb2.VERDICT_FAIL,
}
_WORDS = {number: verdict for verdict, number in VERDICTS.items()}

FEEDBACK_SOURCES: Mapping[str, feedback_pb2.Feedback.Source.ValueType] = {
    "expert": feedback_pb2.Feedback.SOURCE_EXPERT,
    "user": feedback_pb2.Feedback.SOURCE_USER,
    "downstream": feedback_pb2.Feedback.SOURCE_DOWNSTREAM,
}
_SOURCE_WORDS = {number: word for word, number in FEEDBACK_SOURCES.items()}


def verdict_word(number: judge_pb2.Verdict.ValueType) -> str:
    """Return pass, partial or fail; ``unknown`` for values that newer servers may send."""
    verdict = _WORDS.get(number)
    return verdict.value if verdict else "unknown"


def evaluate_request(
    judge: str, judge_input: JudgeInput
) -> evaluation_service_pb2.EvaluateRequest:
    """Return a request for the judge, `judges/{judge}`, with that input."""
    request = evaluation_service_pb2.EvaluateRequest(judge=judge)
    if isinstance(judge_input, RubricInput):
        request.rubric_input.CopyFrom(_rubric_input(judge_input))
    else:
        request.artifact_input.CopyFrom(_artifact_input(judge_input))
    return request


def answer_of(evaluation: evaluation_pb2.Evaluation) -> Verdict | float | None:
    """Return the verdict or score of an evaluation; None if it is of a kind unknown here."""
    if evaluation.HasField("rubric"):
        return evaluation.rubric.score
    return _WORDS.get(evaluation.judgment.verdict)


def example_message(example: LabelledExample) -> feedback_pb2.TrainingExample:
    """Return the message that imports an example.

    Raises:
        ValueError: `feedback_source` is none of expert, user, downstream.
    """
    message = feedback_pb2.TrainingExample(
        rationale=example.rationale, group=example.group
    )
    if isinstance(example.input, RubricInput):
        message.rubric_input.CopyFrom(_rubric_input(example.input))
    else:
        message.artifact_input.CopyFrom(_artifact_input(example.input))
    if isinstance(example.label, Verdict):
        message.verdict = VERDICTS[example.label]
    else:
        message.score = example.label
    if example.feedback_source:
        if example.feedback_source not in FEEDBACK_SOURCES:
            raise ValueError(
                f"feedback_source {example.feedback_source!r} is none of"
                f" {', '.join(FEEDBACK_SOURCES)}"
            )
        message.source = FEEDBACK_SOURCES[example.feedback_source]
    return message


def example_row(message: feedback_pb2.TrainingExample) -> dict[str, Any]:
    """Return a training example as a row that `parse_row` reads, with split and origin added."""
    inputs: dict[str, Any]
    if message.HasField("rubric_input"):
        rubric = message.rubric_input
        inputs = {
            "task_context": rubric.task_context,
            "agent_output": rubric.agent_output,
            "criteria": [
                {"name": c.name, "description": c.description} for c in rubric.criteria
            ],
        }
    else:
        artifact = message.artifact_input
        inputs = {"artifact": artifact.artifact, "context": artifact.context}
        if artifact.HasField("ground_truth"):
            inputs["ground_truth"] = artifact.ground_truth
        if artifact.fields:
            inputs["fields"] = dict(artifact.fields)
    row: dict[str, Any] = {
        "id": message.name.rpartition("/")[2],
        "inputs": inputs,
        "label": verdict_word(message.verdict)
        if message.HasField("verdict")
        else message.score,
        "group": message.group,
        "rationale": message.rationale,
        "feedback_source": _SOURCE_WORDS.get(message.source, ""),
        "split": _lower(feedback_pb2.TrainingExample.Split.Name(message.split)),
        "origin": _lower(feedback_pb2.TrainingExample.Origin.Name(message.origin)),
    }
    if message.rejection:
        row["rejection"] = feedback_pb2.TrainingExample.Rejection.Name(
            message.rejection
        ).removeprefix("REJECTION_")
    return row


def _rubric_input(judge_input: RubricInput) -> evaluation_pb2.RubricInput:
    return evaluation_pb2.RubricInput(
        task_context=judge_input.task_context,
        agent_output=judge_input.agent_output,
        criteria=[
            judge_pb2.Criterion(name=c.name, description=c.description)
            for c in judge_input.criteria
        ],
    )


def _artifact_input(judge_input: ArtifactInput) -> evaluation_pb2.ArtifactInput:
    return evaluation_pb2.ArtifactInput(
        artifact=judge_input.artifact,
        ground_truth=judge_input.ground_truth,
        context=judge_input.context,
        fields=dict(judge_input.fields),
    )


def _lower(enum_name: str) -> str:
    word = enum_name.partition("_")[2].lower()
    return "" if word == "unspecified" else word
