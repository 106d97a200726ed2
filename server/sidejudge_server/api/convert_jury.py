"""Juries and deliberations between protobuf and domain."""

from __future__ import annotations

from typing import Final

from sidejudge.v1 import evaluation_pb2, evaluation_service_pb2
from sidejudge.v1 import jury_service_pb2 as pb
from sidejudge_server.api.convert_common import timestamp, verdict_value
from sidejudge_server.api.convert_evaluation import evaluate_command
from sidejudge_server.api.convert_trust import (
    certificate_message,
    decision_value,
    figure_message,
)
from sidejudge_server.api.names import evaluation_name, version_name
from sidejudge_server.api.validate import Checker
from sidejudge_server.juries.service import CreateJury
from sidejudge_server.juries.types import (
    Compared,
    DeliberateCommand,
    Deliberation,
    Jury,
    JuryMode,
    Member,
    MemberAnswer,
)

__all__ = [
    "comparison_message",
    "create_command",
    "deliberate_command",
    "deliberation_message",
    "jury_message",
    "jury_name",
]

DEFAULT_AUDIT_SHARE: Final = 0.15
FEWEST_MEMBERS: Final = 2
MOST_MEMBERS: Final = 8
MAX_DISPLAY_NAME_CHARS: Final = 128
MAX_MODEL_NAME_CHARS: Final = 63

_MODES: Final = {
    pb.Jury.MODE_VOTE: JuryMode.VOTE,
    pb.Jury.MODE_AVERAGE: JuryMode.AVERAGE,
    pb.Jury.MODE_CASCADE: JuryMode.CASCADE,
}
_MODE_VALUES: Final = {mode: value for value, mode in _MODES.items()}


def jury_name(jury_id: str) -> str:
    """Return `juries/{jury}`."""
    return f"juries/{jury_id}"


def create_command(checker: Checker, request: pb.CreateJuryRequest) -> CreateJury:
    """Read a request to make a jury.

    Raises:
        InvalidRequestError: Fields are wrong; all violations at once.
    """
    jury_id = checker.judge_id("jury_id", request.jury_id)
    given = request.jury
    display_name = checker.text(
        "jury.display_name", given.display_name, limit=MAX_DISPLAY_NAME_CHARS
    )
    mode = checker.enum("jury.mode", given.mode, pb.Jury.Mode.DESCRIPTOR, required=True)
    checker.count(
        "jury.members", len(given.members), low=FEWEST_MEMBERS, high=MOST_MEMBERS
    )
    members = []
    for place, member in enumerate(given.members[:MOST_MEMBERS]):
        inner = checker.within(f"jury.members[{place}].")
        version = inner.version("judge_version", member.judge_version)
        model = inner.text("model", member.model, limit=MAX_MODEL_NAME_CHARS)
        if version is not None:
            members.append(Member(version.judge_id, version.version, model))
    if len(set(members)) < len(members):
        checker.add("jury.members", "must all differ, in version or model")
    share = DEFAULT_AUDIT_SHARE
    if given.HasField("audit_share"):
        share = checker.unit_interval("jury.audit_share", given.audit_share)
    request_id = checker.last_request_id(request.request_id)
    checker.raise_if_any()
    return CreateJury(
        jury_id, display_name, _MODES[pb.Jury.Mode.ValueType(mode)], tuple(members),
        share, request_id,
    )  # fmt: skip


def deliberate_command(
    checker: Checker,
    request: pb.DeliberateRequest,
    *,
    timeout_s: float | None,
) -> DeliberateCommand:
    """Read a request to ask a jury; what it has in common with Evaluate is checked alike."""
    jury_id = checker.resource("jury", request.jury, "juries")
    same = evaluation_service_pb2.EvaluateRequest(
        judge="judges/of-a-jury",
        omit_reasoning=request.omit_reasoning,
        subject=request.subject,
        group=request.group,
        labels=request.labels,
        request_id=request.request_id,
    )
    shape = request.WhichOneof("input")
    if shape is not None:
        getattr(same, shape).CopyFrom(getattr(request, shape))
    if request.HasField("selection"):
        same.selection.CopyFrom(request.selection)
    command = evaluate_command(checker, same, timeout_s=timeout_s)
    return DeliberateCommand(
        jury_id=checker.passed(jury_id),
        input=command.input,
        explain=command.explain,
        subject=command.subject,
        group=command.group,
        labels=command.labels,
        request_id=command.request_id,
        timeout_s=timeout_s,
        target=command.target,
    )


def jury_message(jury: Jury) -> pb.Jury:
    """Return a jury as message."""
    return pb.Jury(
        name=jury_name(jury.jury_id),
        display_name=jury.display_name,
        mode=_MODE_VALUES[jury.mode],
        members=map(_member, jury.members),
        audit_share=jury.audit_share,
        create_time=timestamp(jury.created_at),
    )


def deliberation_message(said: Deliberation, jury: Jury) -> pb.Deliberation:
    """Return a deliberation as message."""
    message = pb.Deliberation(
        name=f"deliberations/{said.deliberation_id}",
        jury=jury_name(said.jury_id),
        answers=[
            _answer(member, answer, weight)
            for member, answer, weight in zip(
                jury.members, said.answers, said.weights, strict=True
            )
        ],
        verdict=verdict_value(said.verdict and said.verdict.value),
        confidence=said.confidence,
        score=said.score,
        disagreement=said.disagreement,
        reasoning=said.reasoning,
        weights_learned=said.weights_learned,
        audit_probability=said.audit_probability,
        create_time=timestamp(said.created_at),
    )
    if said.decision is not None and said.certificate is not None:
        selection: evaluation_pb2.SelectionResult = certificate_message(
            said.certificate
        )
        selection.decision = decision_value(said.decision)
        selection.reason = said.reason
        message.selection.CopyFrom(selection)
    return message


def comparison_message(row: Compared) -> pb.JuryComparison:
    """Return a row of a comparison."""
    return pb.JuryComparison(
        name=row.name,
        agreement=figure_message(row.agreement),
        difference=figure_message(row.difference),
    )


def _member(member: Member) -> pb.JuryMember:
    return pb.JuryMember(
        judge_version=version_name(member.judge_id, member.version), model=member.model
    )


def _answer(
    member: Member, answer: MemberAnswer | None, weight: float
) -> pb.MemberAnswer:
    message = pb.MemberAnswer(member=_member(member), weight=weight)
    if answer is not None:
        message.evaluation = evaluation_name(answer.evaluation_id)
        message.verdict = verdict_value(answer.verdict and answer.verdict.value)
        if answer.confidence is not None:
            message.confidence = answer.confidence
        if answer.score is not None:
            message.score = answer.score
    return message
