"""What went wrong with a call, taken from its status details."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import grpc

__all__ = ["SidejudgeError", "Violation"]


@dataclass(frozen=True, slots=True)
class Violation:
    """A wrong field: its path in the request and what is wrong with it."""

    field: str
    description: str


class SidejudgeError(Exception):
    """A failed call.

    Attributes:
        code: The gRPC status code.
        message: What went wrong and the way out.
        reason: Name in `ErrorReason` without prefix; empty if the server did not answer.
        metadata: Dynamic parts of the message.
        violations: Wrong fields of the request; empty unless the reason is about fields.
        retry_after_s: Seconds after which a retry makes sense, None if it does not say.
        call_id: The server's log has more under this `x-request-id`; may be empty.
    """

    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.reason = ""
        self.metadata: dict[str, str] = {}
        self.violations: tuple[Violation, ...] = ()
        self.retry_after_s: float | None = None
        self.call_id = ""

    def __str__(self) -> str:
        """Return code, reason and message in one line."""
        name = getattr(self.code, "name", self.code)
        return (
            f"{name} {self.reason}: {self.message}"
            if self.reason
            else f"{name}: {self.message}"
        )

    @classmethod
    def from_rpc_error(cls, error: grpc.RpcError) -> SidejudgeError:
        """Read the details of an error that a stub raised, of `grpc` or `grpc.aio`."""
        result = cls(error.code(), error.details() or "")
        trailing = {str(key): value for key, value in error.trailing_metadata() or ()}
        result.call_id = str(trailing.get("x-request-id", ""))
        if isinstance(data := trailing.get("grpc-status-details-bin"), bytes):
            result._read_details(data)
        return result

    def _read_details(self, data: bytes) -> None:
        """Fill in what the details say; broken or unknown ones are left out."""
        try:
            from google.protobuf.message import DecodeError
            from google.rpc import error_details_pb2, status_pb2
        except (
            ImportError
        ):  # without googleapis-common-protos: code and message must do
            return
        info: Any = error_details_pb2.ErrorInfo()
        bad: Any = error_details_pb2.BadRequest()
        retry: Any = error_details_pb2.RetryInfo()
        try:
            for detail in status_pb2.Status.FromString(data).details:
                if detail.Unpack(info):
                    self.reason, self.metadata = info.reason, dict(info.metadata)
                elif detail.Unpack(bad):
                    self.violations = tuple(
                        Violation(v.field, v.description) for v in bad.field_violations
                    )
                elif detail.Unpack(retry):
                    self.retry_after_s = retry.retry_delay.ToTimedelta().total_seconds()
        except DecodeError:
            return
