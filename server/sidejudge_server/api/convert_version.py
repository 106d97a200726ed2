"""Judge versions between protobuf and domain."""

from __future__ import annotations

from typing import Final

from sidejudge.v1 import judge_pb2
from sidejudge_server.api.convert_common import timestamp
from sidejudge_server.api.convert_memory import (
    demonstration_from,
    demonstration_message,
    head_from,
    head_message,
    memory_from,
    memory_message,
)
from sidejudge_server.api.names import optimization_name, version_name
from sidejudge_server.api.validate import Checker
from sidejudge_server.judges.kinds import JudgeSpec, initial_program
from sidejudge_server.judges.limits import (
    MAX_DEMONSTRATIONS,
    MAX_INSTRUCTIONS_CHARS,
    MAX_QUESTION_CHARS,
)
from sidejudge_server.judges.prompt import prompt_digest
from sidejudge_server.judges.types import (
    JudgeProgram,
    LabelOffsets,
    ScoreMap,
)
from sidejudge_server.judges.versions import JudgeVersion

__all__ = ["program_from", "version_message"]

_ORIGINS: Final = {
    "initial": judge_pb2.JudgeVersion.ORIGIN_INITIAL,
    "manual": judge_pb2.JudgeVersion.ORIGIN_MANUAL,
    "optimization": judge_pb2.JudgeVersion.ORIGIN_OPTIMIZATION,
    "import": judge_pb2.JudgeVersion.ORIGIN_IMPORT,
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
            demonstration_from(at.within(f"demonstrations[{index}]."), demo, base)
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
        memory=memory_from(at, message, base),
        head=head_from(at, message),
    )


def _score_map(at: Checker, message: judge_pb2.JudgeVersion) -> ScoreMap:
    if not message.HasField("score_map"):
        return ScoreMap()
    return ScoreMap(
        slope=at.finite("score_map.slope", message.score_map.slope, at_least=0.0),
        intercept=at.finite("score_map.intercept", message.score_map.intercept),
    )


def version_message(
    version: JudgeVersion, *, remembered: bool = True
) -> judge_pb2.JudgeVersion:
    """Return a version as message; rule and map are unset where they change nothing.

    Args:
        version: The version.
        remembered: False to leave the examples of its memory out, of which there may be 2 MB.
    """
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
        demonstrations=[demonstration_message(d) for d in program.demonstrations],
        decision_rule=rule,
        score_map=score_map,
        origin=_ORIGINS[version.origin],
        parent=parent,
        optimization=optimization,
        data_digest=version.data_digest or "",
        model=version.model or "",
        metrics=version.metrics,
        memory=memory_message(program.memory, examples=remembered),
        head=head_message(program.head),
        create_time=timestamp(version.created_at),
        split_seed=version.lineage.split_seed,
        prompt_digest=prompt_digest(program),
        seed=version.lineage.seed,
        imported_from=version.lineage.imported_from,
        import_digest=version.lineage.import_digest,
    )
