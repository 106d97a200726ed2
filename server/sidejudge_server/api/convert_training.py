"""Training examples and training sets between protobuf and domain."""

from __future__ import annotations

import sys
from typing import Final

from sidejudge.v1 import evaluation_pb2, feedback_pb2, feedback_service_pb2
from sidejudge_server.api.convert_common import (
    artifact_input,
    input_message,
    optional_verdict,
    rubric_input,
    source_from,
    timestamp,
    verdict_value,
)
from sidejudge_server.api.convert_feedback import source_value
from sidejudge_server.api.names import (
    evaluation_name,
    example_name,
    feedback_name,
    judge_name,
)
from sidejudge_server.api.validate import Checker
from sidejudge_server.judges.types import ArtifactInput, JudgeInput
from sidejudge_server.training.examples import ImportedExample, own_group
from sidejudge_server.training.readiness import TrainingSet
from sidejudge_server.training.synthesis import Synthesis
from sidejudge_storage import ExampleFilter
from sidejudge_storage.records import ExampleRecord

__all__ = [
    "example_filter",
    "example_message",
    "imported_examples",
    "rejection_value",
    "split_value",
    "synthesis_message",
    "training_set_message",
]

SPLITS: Final[dict[int, str]] = {
    feedback_pb2.TrainingExample.SPLIT_TRAIN: "train",
    feedback_pb2.TrainingExample.SPLIT_VALIDATION: "validation",
    feedback_pb2.TrainingExample.SPLIT_TEST: "test",
}
_ORIGINS: Final = {
    "feedback": feedback_pb2.TrainingExample.ORIGIN_FEEDBACK,
    "import": feedback_pb2.TrainingExample.ORIGIN_IMPORT,
    "synthetic": feedback_pb2.TrainingExample.ORIGIN_SYNTHETIC,
}


def imported_examples(
    request: feedback_service_pb2.ImportTrainingExamplesRequest,
) -> list[ImportedExample]:
    """Read one message of an import.

    Only its form is checked here. What makes an example useless (empty or too large inputs, labels
    that do not fit) is for the example validator, which rejects that example alone.

    Raises:
        InvalidRequestError: Fields are wrong; all violations at once.
    """
    # The validator knows the limit of texts.
    checker = Checker(sys.maxsize)
    found = [
        _imported(checker.within(f"training_examples[{index}]."), message)
        for index, message in enumerate(request.training_examples)
    ]
    checker.raise_if_any()
    return found


def _imported(at: Checker, message: feedback_pb2.TrainingExample) -> ImportedExample:
    verdict = score = None
    label = message.WhichOneof("label")
    if label == "verdict":
        verdict = optional_verdict(at, "verdict", message.verdict)
    elif label == "score":
        score = message.score
    if message.origin == feedback_pb2.TrainingExample.ORIGIN_SYNTHETIC:
        at.add(
            "origin", "a synthetic example cannot be imported: its label is nobody's"
        )
    return ImportedExample(
        input=_input(at, message),
        verdict=verdict.value if verdict else None,
        score=score,
        rationale=message.rationale,
        group=message.group,
        source=source_from(at, "source", message.source) or "expert",
    )


def _input(at: Checker, message: feedback_pb2.TrainingExample) -> JudgeInput:
    shape = message.WhichOneof("input")
    if shape == "rubric_input":
        return rubric_input(at, message.rubric_input, required=False)
    if shape == "artifact_input":
        return artifact_input(at, message.artifact_input, required=False)
    at.add("input", "is required; rubric_input or artifact_input")
    return ArtifactInput("")


def example_filter(
    checker: Checker,
    request: feedback_service_pb2.ListTrainingExamplesRequest,
) -> ExampleFilter:
    """Read the filters of a list of examples."""
    judge_id = checker.judge("judge", request.judge)
    checker.enum("split", request.split, feedback_pb2.TrainingExample.Split.DESCRIPTOR)
    split = SPLITS.get(request.split)
    return ExampleFilter(
        judge_id=judge_id or "", split=split, show_rejected=request.show_rejected
    )


def example_message(record: ExampleRecord) -> feedback_pb2.TrainingExample:
    """Return a stored example as message; a group of its own is no group."""
    group = record.group_key
    message = feedback_pb2.TrainingExample(
        name=example_name(record.example_id),
        judge=judge_name(record.judge_id),
        rationale=record.rationale,
        group="" if group == own_group(record.content_digest) else group,
        split=split_value(record.split),
        origin=_ORIGINS[record.origin],
        rejection=rejection_value(record.rejection),
        rejection_detail=record.rejection_detail,
        evaluation=evaluation_name(record.evaluation_id)
        if record.evaluation_id
        else "",
        feedback=feedback_name(record.feedback_id) if record.feedback_id else "",
        source=source_value(record.source),
        create_time=timestamp(record.created_at),
    )
    item = input_message(record.input_json)
    if isinstance(item, evaluation_pb2.RubricInput):
        message.rubric_input.CopyFrom(item)
    else:
        message.artifact_input.CopyFrom(item)
    if record.score is not None:
        message.score = record.score
    elif record.verdict is not None:
        message.verdict = verdict_value(record.verdict)
    return message


def split_value(split: str | None) -> feedback_pb2.TrainingExample.Split.ValueType:
    """Return the enum value of a side; unspecified for None."""
    name = f"SPLIT_{(split or 'unspecified').upper()}"
    return feedback_pb2.TrainingExample.Split.Value(name)


def rejection_value(
    rejection: str | None,
) -> feedback_pb2.TrainingExample.Rejection.ValueType:
    """Return the enum value of a rejection; unspecified for None, which means that it counts."""
    name = f"REJECTION_{(rejection or 'unspecified').upper()}"
    return feedback_pb2.TrainingExample.Rejection.Value(name)


def training_set_message(training_set: TrainingSet) -> feedback_pb2.TrainingSet:
    """Return a training set as message."""
    readiness = f"READINESS_{training_set.readiness.upper()}"
    return feedback_pb2.TrainingSet(
        judge=judge_name(training_set.judge_id),
        example_count=training_set.example_count,
        train_count=training_set.train_count,
        validation_count=training_set.validation_count,
        test_count=training_set.test_count,
        group_count=training_set.group_count,
        label_counts=training_set.label_counts,
        disagreement_count=training_set.disagreement_count,
        rejections=[
            feedback_pb2.RejectionCount(
                rejection=rejection_value(rejection), count=count
            )
            for rejection, count in sorted(training_set.rejections.items())
        ],
        readiness=feedback_pb2.TrainingSet.Readiness.Value(readiness),
        problems=training_set.problems,
        warnings=training_set.warnings,
        digest=training_set.digest,
        synthetic_count=training_set.synthetic_count,
    )


def synthesis_message(
    made: Synthesis, training_set: TrainingSet
) -> feedback_service_pb2.SynthesizeTrainingExamplesResponse:
    """Return what came of a request for synthetic examples as message."""
    return feedback_service_pb2.SynthesizeTrainingExamplesResponse(
        created_count=len(made.example_ids),
        names=map(example_name, made.example_ids),
        rejected=[
            feedback_service_pb2.RejectedExample(
                index=rejected.index,
                rejection=rejection_value(rejected.rejection),
                detail=rejected.detail,
            )
            for rejected in made.rejected
        ],
        unreadable_count=made.unreadable_count,
        lm_calls=made.lm_calls,
        stopped_by=made.stopped_by,
        training_set=training_set_message(training_set),
    )
