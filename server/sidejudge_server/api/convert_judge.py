"""Judges and their versions between protobuf and domain."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from google.protobuf.field_mask_pb2 import FieldMask

from sidejudge.v1 import judge_pb2, judge_service_pb2
from sidejudge_server.api.convert_common import (
    criteria,
    criteria_messages,
    timestamp,
)
from sidejudge_server.api.convert_shadow import shadow_message
from sidejudge_server.api.names import (
    judge_name,
    version_name,
)
from sidejudge_server.api.validate import Checker
from sidejudge_server.judges.fields import is_reserved
from sidejudge_server.judges.kinds import JudgeSpec
from sidejudge_server.judges.limits import (
    MAX_INSTRUCTIONS_CHARS,
    MAX_QUESTION_CHARS,
)
from sidejudge_server.judges.types import (
    Criterion,
    JudgeKind,
)
from sidejudge_server.judges.versions import Judge
from sidejudge_storage import ShadowCandidateRecord

__all__ = [
    "JudgeChanges",
    "changes_from",
    "description",
    "display_name",
    "instructions_of_new_judge",
    "judge_message",
    "spec_from",
]

MAX_DISPLAY_NAME_CHARS: Final = 128
MAX_DESCRIPTION_CHARS: Final = 2_000
MAX_INPUT_FIELDS: Final = 8
_FIELD_NAME = re.compile(r"[a-z](?:[a-z0-9_]{0,62}[a-z0-9])?", re.ASCII)
_KINDS: Final = {kind.value: kind for kind in JudgeKind}

_UPDATABLE: Final = (
    "display_name",
    "description",
    "labels",
    "rubric.default_criteria",
)


@dataclass(frozen=True, slots=True)
class JudgeChanges:
    """What UpdateJudge changes; None leaves a part as it is."""

    display_name: str | None = None
    description: str | None = None
    labels: dict[str, str] | None = None
    default_criteria: tuple[Criterion, ...] | None = None


def spec_from(checker: Checker, judge: judge_pb2.Judge) -> JudgeSpec:
    """Read what is fixed about a new judge."""
    at = checker.within("judge.")
    kind = judge.WhichOneof("kind")
    if kind is None:
        at.add("kind", f"is required; one of {', '.join(_KINDS)}")
        return JudgeSpec(JudgeKind.CUSTOM)
    if kind == "rubric":
        found = criteria(at, "rubric.default_criteria", judge.rubric.default_criteria)
        return JudgeSpec(JudgeKind.RUBRIC, default_criteria=found)
    if kind == "custom":
        return _custom_spec(at.within("custom."), judge.custom)
    return JudgeSpec(_KINDS[kind])


def _custom_spec(at: Checker, custom: judge_pb2.CustomSpec) -> JudgeSpec:
    at.text(
        "instructions", custom.instructions, limit=MAX_INSTRUCTIONS_CHARS, required=True
    )
    at.text("question", custom.question, limit=MAX_QUESTION_CHARS)
    at.enum("output", custom.output, judge_pb2.CustomSpec.Output.DESCRIPTOR)
    scores = custom.output == judge_pb2.CustomSpec.OUTPUT_SCORE
    _check_input_fields(at, list(custom.input_fields), scores=scores)
    if scores and custom.binary:
        at.add("binary", "is for judges that answer a verdict")
    return JudgeSpec(
        JudgeKind.CUSTOM,
        instructions=custom.instructions,
        question=custom.question,
        scores=scores,
        input_fields=tuple(custom.input_fields),
        binary=custom.binary,
    )


def _check_input_fields(at: Checker, names: list[str], *, scores: bool) -> None:
    if names and scores:
        at.add("input_fields", "are for judges that answer a verdict")
    if len(names) > MAX_INPUT_FIELDS:
        at.add(
            "input_fields",
            f"has {len(names)} names; at most {MAX_INPUT_FIELDS} are allowed",
        )
    if len(set(names)) < len(names):
        at.add("input_fields", "has a name twice")
    for index, name in enumerate(names[:MAX_INPUT_FIELDS]):
        if not _FIELD_NAME.fullmatch(name):
            at.add(
                f"input_fields[{index}]",
                "must be lower_snake_case, start with a letter and have at most 64 "
                "characters",
            )
        elif is_reserved(name):
            at.add(f"input_fields[{index}]", f"{name} has a meaning of its own here")


def changes_from(
    checker: Checker, judge: judge_pb2.Judge, mask: FieldMask, *, kind: JudgeKind
) -> JudgeChanges:
    """Read what an update of a judge of the given kind changes.

    Raises:
        InvalidRequestError: Fields are wrong; all violations at once.
    """
    at = checker.within("judge.")
    paths = set(mask.paths)
    if not paths:
        checker.add("update_mask", f"is required; any of {', '.join(_UPDATABLE)}")
    for path in sorted(paths.difference(_UPDATABLE)):
        checker.add(
            "update_mask", f"{path} cannot change; any of {', '.join(_UPDATABLE)} can"
        )
    labels = found = None
    if "labels" in paths:
        labels = at.labels("labels", judge.labels)
    if "rubric.default_criteria" in paths and kind is not JudgeKind.RUBRIC:
        checker.add("update_mask", "rubric.default_criteria is for rubric judges")
    elif "rubric.default_criteria" in paths:
        found = criteria(at, "rubric.default_criteria", judge.rubric.default_criteria)
    changes = JudgeChanges(
        display_name=display_name(at, judge) if "display_name" in paths else None,
        description=description(at, judge) if "description" in paths else None,
        labels=labels,
        default_criteria=found,
    )
    checker.raise_if_any()
    return changes


def display_name(at: Checker, judge: judge_pb2.Judge) -> str:
    """Read the display name."""
    return at.text("display_name", judge.display_name, limit=MAX_DISPLAY_NAME_CHARS)


def description(at: Checker, judge: judge_pb2.Judge) -> str:
    """Read the description."""
    return at.text("description", judge.description, limit=MAX_DESCRIPTION_CHARS)


def instructions_of_new_judge(
    checker: Checker, request: judge_service_pb2.CreateJudgeRequest
) -> str:
    """Read the instructions of version 1; a custom judge has them in its spec."""
    if request.instructions and request.judge.WhichOneof("kind") == "custom":
        checker.add("instructions", "must be in judge.custom.instructions instead")
    return checker.text(
        "instructions", request.instructions, limit=MAX_INSTRUCTIONS_CHARS
    )


def judge_message(
    judge: Judge, shadow: ShadowCandidateRecord | None = None
) -> judge_pb2.Judge:
    """Return a judge as message, with its latest candidate in shadow if it had one."""
    message = judge_pb2.Judge(
        name=judge_name(judge.judge_id),
        display_name=judge.display_name,
        description=judge.description,
        labels=judge.labels,
        deployed_version=version_name(judge.judge_id, judge.deployed_version),
        built_in=judge.built_in,
        create_time=timestamp(judge.created_at),
        update_time=timestamp(judge.updated_at),
        etag=judge.etag,
    )
    if shadow is not None:
        message.shadow.CopyFrom(
            shadow_message(shadow, deployed_version=judge.deployed_version)
        )
    spec = judge.spec
    getattr(message, spec.kind.value).SetInParent()
    if spec.kind is JudgeKind.RUBRIC:
        message.rubric.default_criteria.extend(criteria_messages(spec.default_criteria))
    elif spec.kind is JudgeKind.CUSTOM:
        output = judge_pb2.CustomSpec.OUTPUT_VERDICT
        if spec.scores:
            output = judge_pb2.CustomSpec.OUTPUT_SCORE
        message.custom.CopyFrom(
            judge_pb2.CustomSpec(
                instructions=spec.instructions,
                question=spec.question,
                output=output,
                input_fields=spec.input_fields,
                binary=spec.binary,
            )
        )
    return message
