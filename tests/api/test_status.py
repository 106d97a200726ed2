"""Errors as statuses."""

import base64
from urllib.parse import quote

import pytest
from google.rpc import error_details_pb2, status_pb2

from sidejudge.v1.error_reason_pb2 import ErrorReason
from sidejudge_server import errors
from sidejudge_server.api.status import DOMAIN, rpc_status, status_parts
from sidejudge_storage import RevisionConflictError, WriteFailedError

VIOLATIONS = [errors.FieldViolation("judge", "is required")]
META = {"model": "openai/x"}

# error, code, reason, further details
TABLE = [
    (
        errors.InvalidRequestError(VIOLATIONS),
        "INVALID_ARGUMENT",
        "INVALID_REQUEST",
        ["BadRequest"],
    ),
    (
        errors.InvalidTokenError("x", reason="INVALID_PAGE_TOKEN"),
        "INVALID_ARGUMENT",
        "INVALID_PAGE_TOKEN",
        [],
    ),
    (
        errors.NotFoundError(
            "x",
            reason="JUDGE_NOT_FOUND",
            resource_type="Judge",
            resource_name="judges/x",
        ),
        "NOT_FOUND",
        "JUDGE_NOT_FOUND",
        ["ResourceInfo"],
    ),
    (
        errors.AlreadyExistsError("x", reason="JUDGE_ALREADY_EXISTS"),
        "ALREADY_EXISTS",
        "JUDGE_ALREADY_EXISTS",
        [],
    ),
    (
        errors.FailedPreconditionError("x", reason="TRAINING_SET_TOO_SMALL"),
        "FAILED_PRECONDITION",
        "TRAINING_SET_TOO_SMALL",
        ["PreconditionFailure"],
    ),
    (
        errors.ConflictError("x", reason="OPTIMIZATION_IN_PROGRESS"),
        "ABORTED",
        "OPTIMIZATION_IN_PROGRESS",
        [],
    ),
    (
        errors.OverloadedError("x", reason="OVERLOADED"),
        "RESOURCE_EXHAUSTED",
        "OVERLOADED",
        ["QuotaFailure", "RetryInfo"],
    ),
    (
        errors.LMUnavailableError("x", reason="LM_UNAVAILABLE", metadata=META),
        "UNAVAILABLE",
        "LM_UNAVAILABLE",
        ["RetryInfo"],
    ),
    (
        errors.LMRateLimitedError("x", reason="LM_RATE_LIMITED", metadata=META),
        "RESOURCE_EXHAUSTED",
        "LM_RATE_LIMITED",
        ["QuotaFailure", "RetryInfo"],
    ),
    (
        errors.LMCredentialsError("x", reason="LM_CREDENTIALS_REJECTED"),
        "FAILED_PRECONDITION",
        "LM_CREDENTIALS_REJECTED",
        ["PreconditionFailure"],
    ),
    (
        errors.LMRequestError("x", reason="LM_REQUEST_REJECTED"),
        "FAILED_PRECONDITION",
        "LM_REQUEST_REJECTED",
        ["PreconditionFailure"],
    ),
    (
        errors.JudgeOutputError("x", reason="JUDGE_OUTPUT_UNPARSABLE"),
        "INTERNAL",
        "JUDGE_OUTPUT_UNPARSABLE",
        [],
    ),
    (TimeoutError(), "DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED", []),
    (
        WriteFailedError("disk full"),
        "UNAVAILABLE",
        "STORAGE_UNAVAILABLE",
        ["RetryInfo"],
    ),
    (RevisionConflictError("x"), "ABORTED", "ETAG_MISMATCH", []),
    (KeyError("secret dsn"), "INTERNAL", "INTERNAL", []),
]


@pytest.mark.parametrize(("error", "code", "reason", "further"), TABLE)
def test_errors_map_to_their_row_of_the_table(error, code, reason, further):
    """Code, one ErrorInfo of our domain, and the details that a caller can act on."""
    parts = status_parts(error, "call-1")
    status = rpc_status(error, "call-1")
    assert parts.code.name == code
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    assert (info.reason, info.domain) == (reason, DOMAIN)
    names = [d.type_url.rpartition("google.rpc.")[2] for d in status.details[1:]]
    assert names == further
    assert f"ERROR_REASON_{reason}" in ErrorReason.DESCRIPTOR.values_by_name


def test_nothing_of_an_unexpected_error_gets_out():
    """A caller learns the call id, not what the exception said."""
    status = rpc_status(KeyError("secret dsn"), "call-1")
    assert b"secret" not in status.SerializeToString()
    assert status.message == "internal error"
    info = error_details_pb2.ErrorInfo()
    status.details[0].Unpack(info)
    assert dict(info.metadata) == {"request_id": "call-1"}


def test_driver_errors_are_not_passed_on():
    """What the database said belongs into the log."""
    status = rpc_status(WriteFailedError("/secret/path: No space left"), "call-1")
    assert b"secret" not in status.SerializeToString()


def test_every_violation_is_in_the_details():
    """BadRequest lists all fields in order."""
    wrong = [errors.FieldViolation(f"f{n}", "is bad") for n in range(5)]
    bad = error_details_pb2.BadRequest()
    rpc_status(errors.InvalidRequestError(wrong), "c").details[1].Unpack(bad)
    assert [v.field for v in bad.field_violations] == ["f0", "f1", "f2", "f3", "f4"]


def test_retry_info_takes_the_errors_own_delay():
    """What the provider asked for wins over the default."""
    error = errors.LMRateLimitedError("x", reason="LM_RATE_LIMITED", retry_after_s=7.25)
    retry = error_details_pb2.RetryInfo()
    rpc_status(error, "c").details[2].Unpack(retry)
    assert retry.retry_delay.ToMilliseconds() == 7250


def test_long_texts_do_not_break_the_status():
    """Statuses travel in headers of limited size."""
    wrong = [errors.FieldViolation(f"f{n}", "x" * 50) for n in range(5000)]
    parts = status_parts(errors.InvalidRequestError(wrong), "c")
    size = sum(len(key) + len(value) for key, value in parts.trailing_metadata)
    assert size + len(parts.message) < 8000


def test_client_libraries_are_told_not_to_repeat_what_the_server_repeated():
    """The LM was retried already: gRPC's own retries would multiply the wait."""
    error = errors.LMUnavailableError("x", reason="LM_UNAVAILABLE")
    assert ("grpc-retry-pushback-ms", "-1") in status_parts(
        error, "c"
    ).trailing_metadata


@pytest.mark.parametrize("letter", ["x", "\u00e9", "\u8a9e", "\U0001f600"])
def test_status_fits_into_headers_whatever_the_script(letter):
    """Clients accept 8 KB, in which the message is percent-encoded and the details are base64."""
    violations = [
        errors.FieldViolation(f"inputs[{i}{letter * 300}]", letter * 400)
        for i in range(64)
    ]
    parts = status_parts(errors.InvalidRequestError(violations), "id" * 16)

    details = next(
        v for k, v in parts.trailing_metadata if k == "grpc-status-details-bin"
    )
    encoded = len(quote(parts.message)) + len(base64.b64encode(details))
    assert encoded < 8192 - 500
    status = status_pb2.Status.FromString(details)
    bad_request = error_details_pb2.BadRequest()
    assert any(detail.Unpack(bad_request) for detail in status.details)
    assert bad_request.field_violations[0].field.startswith("inputs[0")
