"""Every error that sidejudge answers with.

SidejudgeError
├── InvalidRequestError         one or more fields are wrong; all violations at once
├── InvalidTokenError           a page or resume token is malformed or foreign
├── QueryError                  SQL that is refused or cannot be run
├── QueryLimitError             SQL that takes too much
├── NotFoundError               no such judge, version, evaluation, optimization
├── AlreadyExistsError          the name is taken
├── FailedPreconditionError     the state does not allow it; says what to do first
├── ConflictError               somebody else was faster (etag, parallel optimization)
├── OverloadedError             come back after ``retry_after_s``
├── StorageUnavailableError     nothing was written
├── ServerStoppingError         come back when the server has started again
├── DeadlineError               the caller's time is up
├── WorkerMemoryError           a run took more memory than it may
├── WorkDirError                a run cannot write to its work directory
├── MetricError                 the metric that scores candidates raised an error
└── LMError                     the language model did not deliver
    ├── LMUnavailableError      down, unreachable, too slow: retry
    ├── LMRateLimitedError      refuses because of too many requests
    ├── LMCredentialsError      refuses the key
    ├── LMRequestError          refuses the request itself
    └── JudgeOutputError        answered nonsense, also when asked again

Each carries its gRPC code by name, its reason (`ErrorReason` without prefix) and metadata with
every dynamic part of the message. ``api.status`` turns them into `google.rpc.Status`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

__all__ = [
    "AlreadyExistsError",
    "ConflictError",
    "DeadlineError",
    "FailedPreconditionError",
    "FieldViolation",
    "InvalidRequestError",
    "InvalidTokenError",
    "JudgeOutputError",
    "LMCredentialsError",
    "LMError",
    "LMRateLimitedError",
    "LMRequestError",
    "LMUnavailableError",
    "MetricError",
    "NotFoundError",
    "OverloadedError",
    "QueryError",
    "QueryLimitError",
    "ServerStoppingError",
    "SidejudgeError",
    "StorageUnavailableError",
    "WorkDirError",
    "WorkerMemoryError",
]


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """A wrong field: its path in the request and what is wrong, with the limit."""

    field: str
    description: str


class SidejudgeError(Exception):
    """Base of all errors that reach a caller.

    Attributes:
        code: Name of the gRPC status code.
        reason: Name in `ErrorReason`, without the prefix.
        metadata: Dynamic parts of the message by snake_case key.
        retry_after_s: Seconds after which a retry makes sense, if it does.
    """

    code: ClassVar[str] = "INTERNAL"

    def __init__(
        self,
        message: str,
        *,
        reason: str,
        metadata: Mapping[str, str] | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason
        self.metadata = dict(metadata or {})
        self.retry_after_s = retry_after_s


class InvalidRequestError(SidejudgeError):
    """One or more fields are wrong.

    Attributes:
        violations: All that is wrong, in the order of the fields.
    """

    code = "INVALID_ARGUMENT"

    def __init__(
        self,
        violations: Sequence[FieldViolation],
        *,
        reason: str = "INVALID_REQUEST",
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        self.violations = tuple(violations)
        text = "; ".join(f"{v.field}: {v.description}" for v in self.violations)
        fields = ",".join(v.field for v in self.violations)
        super().__init__(
            text, reason=reason, metadata={"fields": fields, **(metadata or {})}
        )


class InvalidTokenError(SidejudgeError):
    """A page or resume token is malformed, foreign or for other arguments."""

    code = "INVALID_ARGUMENT"


class QueryError(SidejudgeError):
    """SQL that does more than read, or that the database cannot run."""

    code = "INVALID_ARGUMENT"


class QueryLimitError(SidejudgeError):
    """SQL that takes more time or memory than it may."""

    code = "RESOURCE_EXHAUSTED"


class NotFoundError(SidejudgeError):
    """There is no such resource.

    Attributes:
        resource_type: `Judge`, `JudgeVersion`, `Evaluation` or `Optimization`.
        resource_name: The name that was asked for.
    """

    code = "NOT_FOUND"

    def __init__(
        self, message: str, *, reason: str, resource_type: str, resource_name: str
    ) -> None:
        key = reason.removesuffix("_NOT_FOUND").lower()
        super().__init__(message, reason=reason, metadata={key: resource_name})
        self.resource_type = resource_type
        self.resource_name = resource_name


class AlreadyExistsError(SidejudgeError):
    """The name is taken."""

    code = "ALREADY_EXISTS"


class FailedPreconditionError(SidejudgeError):
    """The state does not allow the call."""

    code = "FAILED_PRECONDITION"


class ConflictError(SidejudgeError):
    """Another change or run is in the way."""

    code = "ABORTED"


class OverloadedError(SidejudgeError):
    """Too much is waiting."""

    code = "RESOURCE_EXHAUSTED"


class StorageUnavailableError(SidejudgeError):
    """The database did not take the write; nothing was acknowledged."""

    code = "UNAVAILABLE"


class ServerStoppingError(SidejudgeError):
    """The server stops; what was asked for goes on after its next start."""

    code = "UNAVAILABLE"


class DeadlineError(SidejudgeError):
    """The deadline passed before there was an answer."""

    code = "DEADLINE_EXCEEDED"


class WorkerMemoryError(SidejudgeError):
    """A run took more memory than it may (reason WORKER_OUT_OF_MEMORY)."""

    code = "RESOURCE_EXHAUSTED"


class WorkDirError(SidejudgeError):
    """A run cannot write to its work directory (reason WORK_DIR_UNAVAILABLE)."""

    code = "UNAVAILABLE"


class MetricError(SidejudgeError):
    """The metric that scores candidates raised an error (reason METRIC_FAILED)."""

    code = "INTERNAL"


class LMError(SidejudgeError):
    """The language model did not deliver. ``metadata['model']`` says which."""

    code = "UNAVAILABLE"


class LMUnavailableError(LMError):
    """Down, unreachable or too slow, also after retries (reason LM_UNAVAILABLE)."""


class LMRateLimitedError(LMError):
    """Too many requests, also after retries (reason LM_RATE_LIMITED)."""

    code = "RESOURCE_EXHAUSTED"


class LMCredentialsError(LMError):
    """The key is missing or refused (reason LM_CREDENTIALS_REJECTED)."""

    code = "FAILED_PRECONDITION"


class LMRequestError(LMError):
    """The request is refused: unknown model, prompt over the context (reason LM_REQUEST_REJECTED)."""

    code = "FAILED_PRECONDITION"


class JudgeOutputError(LMError):
    """No usable verdict or score, also when asked again (reason JUDGE_OUTPUT_UNPARSABLE)."""

    code = "INTERNAL"
