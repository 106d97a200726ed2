"""Rich error details of a failed call, in words: what, which fields, what to do."""

from __future__ import annotations

from typing import TypeVar

import grpc
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from sidejudge_server.cli.printing import clean

__all__ = ["describe", "describe_status", "reason_of"]

_Detail = TypeVar("_Detail", bound=Message)

# What to do, by ErrorReason. Reasons that are missing say it in their own message.
_WAY_OUT = {
    "JUDGE_NOT_FOUND": "`sidejudge judges list` shows the judges there are.",
    "JUDGE_VERSION_NOT_FOUND": "`sidejudge judges versions JUDGE` shows the versions.",
    "EVALUATION_NOT_FOUND": "`sidejudge evaluations list` shows the latest evaluations.",
    "OPTIMIZATION_NOT_FOUND": "`sidejudge optimizations list` shows the runs.",
    "INPUT_KIND_MISMATCH": (
        "Rubric judges take --task-context and --agent-output, the others --artifact,"
        " --context and --ground-truth."
    ),
    "JUDGE_ALREADY_EXISTS": "Take another name.",
    "TRAINING_SET_TOO_SMALL": (
        "Bring labelled examples with `sidejudge import`, or correct evaluations with"
        " `sidejudge feedback`."
    ),
    "TRAINING_SET_NOT_READY": "`sidejudge training JUDGE` says what is missing.",
    "OPTIMIZATION_IN_PROGRESS": (
        "Follow it with `sidejudge optimizations watch NAME`, or stop it with"
        " `sidejudge optimizations cancel NAME`."
    ),
    "LM_UNAVAILABLE": "Check that the model's endpoint is up; then repeat the command.",
    "LM_CREDENTIALS_REJECTED": (
        "Start the sidecar with the right key, such as OPENAI_API_KEY or SIDEJUDGE_LM_API_KEY."
    ),
    "LM_REQUEST_REJECTED": "Check the model's name and the length of the input.",
    "STORAGE_UNAVAILABLE": "Check the disk of the sidecar's database; nothing was recorded.",
}


def reason_of(error: grpc.RpcError) -> str:
    """Return the ErrorReason of a failed call without prefix, or an empty string."""
    status = _status(error)
    info = _detail(status, error_details_pb2.ErrorInfo()) if status else None
    return info.reason if info else ""


def describe(error: grpc.RpcError, address: str) -> str:
    """Say in words why a call failed."""
    status = _status(error)
    if status is not None:
        return describe_status(status)
    code = error.code() if isinstance(error, grpc.Call) else None
    details = clean(error.details() or "") if isinstance(error, grpc.Call) else ""
    if code is grpc.StatusCode.UNAVAILABLE:
        return (
            f"no sidecar answers at {address} ({details}).\n"
            "Start one with `sidejudge serve`, or say where it is with --server or"
            " SIDEJUDGE_SERVER."
        )
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return f"no answer from {address} in time; allow more with --timeout SECONDS."
    return f"{code.name if code else type(error).__name__}: {details}"


def describe_status(status: status_pb2.Status) -> str:
    """Say in words what a `google.rpc.Status` holds: message, reason, violations, way out."""
    info = _detail(status, error_details_pb2.ErrorInfo())
    bad_request = _detail(status, error_details_pb2.BadRequest())
    retry = _detail(status, error_details_pb2.RetryInfo())
    head = clean(status.message)
    lines = [f"{head} [{info.reason}]" if info else head]
    if bad_request:
        lines += [
            f"  {clean(v.field)}: {clean(v.description)}"
            for v in bad_request.field_violations
        ]
    if retry:
        lines.append(f"Come back in {retry.retry_delay.ToTimedelta()}.")
    if info and info.reason in _WAY_OUT:
        lines.append(_WAY_OUT[info.reason])
    return "\n".join(lines)


def _status(error: grpc.RpcError) -> status_pb2.Status | None:
    if not isinstance(error, grpc.Call):
        return None
    try:
        status: status_pb2.Status | None = rpc_status.from_call(error)
    except ValueError:  # details that contradict the call's own code: not ours
        return None
    return status


def _detail(status: status_pb2.Status, message: _Detail) -> _Detail | None:
    """Return the detail of that type, or None."""
    for packed in status.details:
        if packed.Unpack(message):
            return message
    return None
