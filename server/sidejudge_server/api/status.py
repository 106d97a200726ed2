"""Errors as gRPC statuses with google.rpc details; nothing of an unexpected error gets out."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import grpc
import structlog
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from sidejudge_server.errors import (
    ConflictError,
    DeadlineError,
    FailedPreconditionError,
    InvalidRequestError,
    LMCredentialsError,
    LMRateLimitedError,
    LMRequestError,
    LMUnavailableError,
    NotFoundError,
    OverloadedError,
    SidejudgeError,
    StorageUnavailableError,
)
from sidejudge_storage import RevisionConflictError, WriteFailedError

__all__ = [
    "DOMAIN",
    "StatusParts",
    "log_fault",
    "rpc_status",
    "status_parts",
    "translate",
]

DOMAIN: Final = "sidejudge.dev"
DETAILS_KEY: Final = "grpc-status-details-bin"
_PUSHBACK_KEY: Final = "grpc-retry-pushback-ms"
# A status travels in headers, of which clients accept 8 KB in all: the message with three bytes
# for each that is not ASCII, and once more with the details, as base64.
_MAX_MESSAGE_BYTES = 800
_MAX_METADATA_BYTES = 500
_MAX_VIOLATION_BYTES = 2000
_log = structlog.get_logger(__name__)

_DEFAULT_RETRY_S: Final[dict[type[SidejudgeError], float]] = {
    LMUnavailableError: 1.0,
    LMRateLimitedError: 5.0,
    OverloadedError: 1.0,
    StorageUnavailableError: 1.0,
}


@dataclass(frozen=True, slots=True)
class StatusParts:
    """What ``context.abort`` takes."""

    code: grpc.StatusCode
    message: str
    trailing_metadata: tuple[tuple[str, str | bytes], ...]


def translate(error: BaseException) -> BaseException:
    """Return storage errors and timeouts as the SidejudgeError they mean, others as they are."""
    if isinstance(error, TimeoutError):
        return DeadlineError(
            "the deadline passed before there was an answer; allow more time, or "
            "repeat with the same request_id",
            reason="DEADLINE_EXCEEDED",
        )
    if isinstance(error, RevisionConflictError):
        return ConflictError(
            "somebody changed the resource since it was read; read it again",
            reason="ETAG_MISMATCH",
        )
    if isinstance(error, WriteFailedError):
        return StorageUnavailableError(
            "the database does not take writes; nothing was acknowledged, see the log",
            reason="STORAGE_UNAVAILABLE",
        )
    return error


def log_fault(error: BaseException) -> None:
    """Log an error whole if it is a fault of ours rather than an answer to the caller."""
    if not isinstance(translate(error), SidejudgeError):
        _log.error("call failed unexpectedly", exc_info=error)


def rpc_status(error: BaseException, request_id: str) -> status_pb2.Status:
    """Return an error as google.rpc.Status, for a call, a batch item or a failed run."""
    error = translate(error)
    if not isinstance(error, SidejudgeError):
        error = SidejudgeError(
            "internal error", reason="INTERNAL", metadata={"request_id": request_id}
        )
    status = status_pb2.Status(
        code=grpc.StatusCode[error.code].value[0],
        message=_cut(error.message, _MAX_MESSAGE_BYTES),
    )
    info = error_details_pb2.ErrorInfo(
        reason=error.reason,
        domain=DOMAIN,
        metadata={k: _cut(v, _MAX_METADATA_BYTES) for k, v in error.metadata.items()},
    )
    for detail in (info, *_further_details(error)):
        packed = AnyMessage()
        packed.Pack(detail)
        status.details.append(packed)
    return status


def status_parts(error: BaseException, request_id: str) -> StatusParts:
    """Return an error as the arguments of ``context.abort``."""
    status = rpc_status(error, request_id)
    code = next(c for c in grpc.StatusCode if c.value[0] == status.code)
    trailing: list[tuple[str, str | bytes]] = [
        ("x-request-id", request_id),
        (DETAILS_KEY, status.SerializeToString()),
    ]
    if isinstance(error, LMUnavailableError):
        # The server has retried already: the client library must not do it blindly again.
        trailing.append((_PUSHBACK_KEY, "-1"))
    return StatusParts(code, status.message, tuple(trailing))


def _further_details(error: SidejudgeError) -> list[Message]:
    details: list[Message] = []
    if isinstance(error, InvalidRequestError):
        violations = _first_violations(error)
        details.append(error_details_pb2.BadRequest(field_violations=violations))
    if isinstance(error, NotFoundError):
        details.append(
            error_details_pb2.ResourceInfo(
                resource_type=error.resource_type, resource_name=error.resource_name
            )
        )
    if isinstance(error, FailedPreconditionError | LMCredentialsError | LMRequestError):
        violation = error_details_pb2.PreconditionFailure.Violation(
            type=error.reason, description=error.message
        )
        details.append(error_details_pb2.PreconditionFailure(violations=[violation]))
    if isinstance(error, LMRateLimitedError | OverloadedError):
        subject = error.metadata.get("model", "server")
        violation = error_details_pb2.QuotaFailure.Violation(
            subject=subject, description=error.message
        )
        details.append(error_details_pb2.QuotaFailure(violations=[violation]))
    if (retry_after_s := _retry_after_s(error)) is not None:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromMilliseconds(math.ceil(retry_after_s * 1000))
        details.append(retry)
    return details


def _first_violations(
    error: InvalidRequestError,
) -> list[error_details_pb2.BadRequest.FieldViolation]:
    """Return all violations, or as many as fit into headers."""
    messages = []
    size = 0
    for violation in error.violations:
        field, description = (
            _cut(violation.field, 200),
            _cut(violation.description, 300),
        )
        size += len(field.encode()) + len(description.encode())
        if size > _MAX_VIOLATION_BYTES:
            break
        messages.append(
            error_details_pb2.BadRequest.FieldViolation(
                field=field, description=description
            )
        )
    return messages


def _cut(text: str, most: int) -> str:
    """Return the text, or its beginning of at most ``most`` bytes."""
    return text.encode("utf-8", "replace")[:most].decode("utf-8", "ignore")


def _retry_after_s(error: SidejudgeError) -> float | None:
    if error.retry_after_s is not None:
        return error.retry_after_s
    return _DEFAULT_RETRY_S.get(type(error))
