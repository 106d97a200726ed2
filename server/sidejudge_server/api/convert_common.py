"""Conversions that several services share: times, verdicts, sources, criteria, inputs, labels."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp

from sidejudge.v1 import evaluation_pb2, feedback_pb2, judge_pb2
from sidejudge_server.api.validate import Checker
from sidejudge_server.judges.codec import input_from_json
from sidejudge_server.judges.types import (
    ArtifactInput,
    Criterion,
    JudgeInput,
    RubricInput,
    Verdict,
)

__all__ = [
    "SOURCES",
    "VERDICTS",
    "artifact_input",
    "criteria",
    "criteria_messages",
    "input_message",
    "label_map",
    "optional_verdict",
    "rubric_input",
    "source_from",
    "timestamp",
    "verdict_value",
]

MAX_CRITERIA: Final = 16
MAX_CRITERION_NAME_CHARS: Final = 64
MAX_CRITERION_CHARS: Final = 2_000
MAX_FIELDS: Final = 8
MAX_FIELD_NAME_CHARS: Final = 64

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

VERDICTS: Final[Mapping[int, Verdict]] = {
    judge_pb2.VERDICT_PASS: Verdict.PASS,
    judge_pb2.VERDICT_FAIL: Verdict.FAIL,
    judge_pb2.VERDICT_PARTIAL: Verdict.PARTIAL,
}
_VERDICT_VALUES: Final = {verdict: number for number, verdict in VERDICTS.items()}

SOURCES: Final[Mapping[int, str]] = {
    feedback_pb2.Feedback.SOURCE_EXPERT: "expert",
    feedback_pb2.Feedback.SOURCE_USER: "user",
    feedback_pb2.Feedback.SOURCE_DOWNSTREAM: "downstream",
}


def timestamp(moment: datetime | None) -> Timestamp | None:
    """Return a protobuf time; None for None."""
    if moment is None:
        return None
    # As `FromDatetime`, which takes a fortieth of a short call.
    since = moment - _EPOCH
    seconds = since.days * 86_400 + since.seconds
    return Timestamp(seconds=seconds, nanos=since.microseconds * 1000)


def verdict_value(verdict: str | None) -> judge_pb2.Verdict.ValueType:
    """Return the enum value of a stored verdict, unspecified for None."""
    if verdict is None:
        return judge_pb2.VERDICT_UNSPECIFIED
    return judge_pb2.Verdict.ValueType(_VERDICT_VALUES[Verdict(verdict)])


def optional_verdict(
    checker: Checker, field: str, value: int, *, required: bool = False
) -> Verdict | None:
    """Read a verdict; None when unspecified or wrong."""
    verdict = VERDICTS.get(value)
    if verdict is None:
        checker.enum(field, value, judge_pb2.Verdict.DESCRIPTOR, required=required)
    return verdict


def source_from(checker: Checker, field: str, value: int) -> str | None:
    """Read a feedback source; None when unspecified or wrong."""
    source = SOURCES.get(value)
    if source is None:
        checker.enum(field, value, feedback_pb2.Feedback.Source.DESCRIPTOR)
    return source


def label_map(labels_json: str) -> dict[str, str]:
    """Read stored labels."""
    labels: dict[str, str] = json.loads(labels_json)
    return labels


def criteria(
    checker: Checker, field: str, messages: Iterable[judge_pb2.Criterion]
) -> tuple[Criterion, ...]:
    """Read rubric criteria: at most 16, named, names unique."""
    found = tuple(Criterion(m.name, m.description) for m in messages)
    if len(found) > MAX_CRITERIA:
        checker.add(
            field, f"has {len(found)} criteria; at most {MAX_CRITERIA} are allowed"
        )
        return found[:MAX_CRITERIA]
    for index, criterion in enumerate(found):
        path = f"{field}[{index}]"
        checker.text(
            f"{path}.name",
            criterion.name,
            limit=MAX_CRITERION_NAME_CHARS,
            required=True,
        )
        checker.text(
            f"{path}.description", criterion.description, limit=MAX_CRITERION_CHARS
        )
    if len({c.name for c in found}) < len(found):
        checker.add(field, "has two criteria of the same name")
    return found


def criteria_messages(found: Iterable[Criterion]) -> list[judge_pb2.Criterion]:
    """Return criteria as messages."""
    return [judge_pb2.Criterion(name=c.name, description=c.description) for c in found]


def rubric_input(
    checker: Checker, message: evaluation_pb2.RubricInput, *, required: bool = True
) -> RubricInput:
    """Read a rubric input.

    Args:
        checker: Collects violations, with ``rubric_input`` as path.
        message: The input.
        required: False where an empty field is for the example validator to reject.
    """
    at = checker.within("rubric_input.")
    return RubricInput(
        task_context=at.text("task_context", message.task_context, required=required),
        agent_output=at.text("agent_output", message.agent_output, required=required),
        criteria=criteria(at, "criteria", message.criteria),
    )


def artifact_input(
    checker: Checker, message: evaluation_pb2.ArtifactInput, *, required: bool = True
) -> ArtifactInput:
    """Read an artifact input; arguments as of `rubric_input`.

    Whether ground truth and fields fit the judge is the judge's to say.
    """
    at = checker.within("artifact_input.")
    ground_truth = message.ground_truth if message.HasField("ground_truth") else None
    if len(message.fields) > MAX_FIELDS:
        at.add(
            "fields",
            f"has {len(message.fields)} entries; at most {MAX_FIELDS} are allowed",
        )
    if any(len(name) > MAX_FIELD_NAME_CHARS for name in message.fields):
        at.add("fields", f"has a name of more than {MAX_FIELD_NAME_CHARS} characters")
    else:
        for name in sorted(message.fields)[:MAX_FIELDS]:
            at.text(f"fields[{name}]", message.fields[name])
    return ArtifactInput(
        artifact=at.text("artifact", message.artifact, required=required),
        ground_truth=None
        if ground_truth is None
        else at.text("ground_truth", ground_truth),
        context=at.text("context", message.context),
        fields=dict(message.fields),
    )


def input_message(
    item: JudgeInput | str,
) -> evaluation_pb2.RubricInput | evaluation_pb2.ArtifactInput:
    """Return an input, or the stored JSON of one, as message."""
    if isinstance(item, str):
        item = input_from_json(item)
    if isinstance(item, RubricInput):
        return evaluation_pb2.RubricInput(
            task_context=item.task_context,
            agent_output=item.agent_output,
            criteria=criteria_messages(item.criteria),
        )
    return evaluation_pb2.ArtifactInput(
        artifact=item.artifact,
        ground_truth=item.ground_truth,
        context=item.context,
        fields=item.fields,
    )
