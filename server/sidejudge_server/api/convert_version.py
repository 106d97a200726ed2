"""Judge versions between protobuf and domain."""

from __future__ import annotations

from typing import Final

from sidejudge.v1 import judge_pb2
from sidejudge_server.api.convert_common import VERDICTS, timestamp, verdict_value
from sidejudge_server.api.names import optimization_name, version_name
from sidejudge_server.api.validate import Checker
from sidejudge_server.judges.fields import (
    field_names,
    input_from_fields,
    input_to_fields,
)
from sidejudge_server.judges.kinds import JudgeSpec, initial_program
from sidejudge_server.judges.types import (
    Demonstration,
    JudgeProgram,
    LabelOffsets,
    ScoreMap,
)
from sidejudge_server.judges.versions import JudgeVersion

__all__ = [
    "MAX_INSTRUCTIONS_CHARS",
    "MAX_QUESTION_CHARS",
    "program_from",
    "version_message",
]

MAX_INSTRUCTIONS_CHARS: Final = 8_000
MAX_QUESTION_CHARS: Final = 500
MAX_DEMONSTRATIONS: Final = 64
MAX_REASONING_CHARS: Final = 4_000

_ORIGINS: Final = {
    "initial": judge_pb2.JudgeVersion.ORIGIN_INITIAL,
    "manual": judge_pb2.JudgeVersion.ORIGIN_MANUAL,
    "optimization": judge_pb2.JudgeVersion.ORIGIN_OPTIMIZATION,
}


def program_from(
    checker: Checker, message: judge_pb2.JudgeVersion, spec: JudgeSpec
) -> JudgeProgram:
    """Read a version written by hand, for a judge of the given spec."""
    at = checker.within("judge_version.")
    at.text(
        "instructions",
        message.instructions,
        limit=MAX_INSTRUCTIONS_CHARS,
        required=True,
    )
    at.text("question", message.question, limit=MAX_QUESTION_CHARS)
    if len(message.demonstrations) > MAX_DEMONSTRATIONS:
        at.add(
            "demonstrations",
            f"has {len(message.demonstrations)} entries; at most "
            f"{MAX_DEMONSTRATIONS} are allowed",
        )
    base = initial_program(spec, message.instructions)
    return JudgeProgram(
        kind=base.kind,
        scores=base.scores,
        binary=base.binary,
        instructions=message.instructions,
        question=message.question or base.question,
        demonstrations=tuple(
            _demonstration(at.within(f"demonstrations[{index}]."), demo, base)
            for index, demo in enumerate(message.demonstrations[:MAX_DEMONSTRATIONS])
        ),
        offsets=LabelOffsets(
            at.finite("decision_rule.pass_offset", message.decision_rule.pass_offset),
            at.finite(
                "decision_rule.partial_offset", message.decision_rule.partial_offset
            ),
        ),
        score_map=_score_map(at, message),
        input_fields=base.input_fields,
    )


def _score_map(at: Checker, message: judge_pb2.JudgeVersion) -> ScoreMap:
    if not message.HasField("score_map"):
        return ScoreMap()
    return ScoreMap(
        slope=at.finite("score_map.slope", message.score_map.slope, at_least=0.0),
        intercept=at.finite("score_map.intercept", message.score_map.intercept),
    )


def _demonstration(
    at: Checker, message: judge_pb2.Demonstration, base: JudgeProgram
) -> Demonstration:
    known = field_names(scores=base.scores, input_fields=base.input_fields)
    for name in sorted(set(message.inputs).difference(known)):
        at.add(f"inputs[{name}]", f"is not an input; known: {', '.join(known)}")
    for name in known:
        at.text(f"inputs[{name}]", message.inputs.get(name, ""))
    at.text("reasoning", message.reasoning, limit=MAX_REASONING_CHARS)
    verdict = score = None
    answer = message.WhichOneof("answer")
    if answer == "score":
        score = at.unit_interval("score", message.score)
    elif answer == "verdict":
        at.enum("verdict", message.verdict, judge_pb2.Verdict.DESCRIPTOR, required=True)
        verdict = VERDICTS.get(message.verdict)
    else:
        at.add("answer", "is required; a verdict or a score")
    return Demonstration(
        input=input_from_fields(base, message.inputs),
        verdict=verdict,
        score=score,
        reasoning=message.reasoning,
    )


def version_message(version: JudgeVersion) -> judge_pb2.JudgeVersion:
    """Return a version as message; rule and map are unset where they change nothing."""
    program = version.program
    rule = score_map = None
    if program.offsets != LabelOffsets():
        rule = judge_pb2.DecisionRule(
            pass_offset=program.offsets.passed, partial_offset=program.offsets.partial
        )
    if program.score_map != ScoreMap():
        score_map = judge_pb2.ScoreMap(
            slope=program.score_map.slope, intercept=program.score_map.intercept
        )
    parent = ""
    if version.parent_version is not None:
        parent = version_name(version.judge_id, version.parent_version)
    optimization = ""
    if version.optimization_id is not None:
        optimization = optimization_name(version.optimization_id)
    return judge_pb2.JudgeVersion(
        name=version_name(version.judge_id, version.version),
        instructions=program.instructions,
        question=program.question,
        demonstrations=[_demonstration_message(d) for d in program.demonstrations],
        decision_rule=rule,
        score_map=score_map,
        origin=_ORIGINS[version.origin],
        parent=parent,
        optimization=optimization,
        data_digest=version.data_digest or "",
        model=version.model or "",
        metrics=version.metrics,
        create_time=timestamp(version.created_at),
    )


def _demonstration_message(demonstration: Demonstration) -> judge_pb2.Demonstration:
    fields = input_to_fields(demonstration.input)
    message = judge_pb2.Demonstration(
        inputs={name: text for name, text in fields.items() if text},
        reasoning=demonstration.reasoning,
    )
    if demonstration.score is not None:
        message.score = demonstration.score
    else:
        message.verdict = verdict_value(demonstration.verdict)
    return message
