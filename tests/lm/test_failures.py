"""What a refusal means, and what of it is shown."""

import json

import pytest

from sidejudge_server.config import LMSettings
from sidejudge_server.errors import LMRateLimitedError, LMRequestError
from sidejudge_server.lm.failures import read_refusal, refused
from sidejudge_server.lm.providers import resolve
from tests.lm.calls import chat

ENDPOINT = resolve(LMSettings("openai/gpt-4o", api_key="k"), {})
PRIVATE = "The patient's name is Erika Mustermann and she has a rare disease."


def _read(status, body, *, text=PRIVATE, api_key="sk-1234567890abcdef"):
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return read_refusal(status, data, request=chat(text), api_key=api_key)


def test_message_that_quotes_the_prompt_is_dropped():
    """Only the code remains of an error that repeats judged text."""
    message = f"Invalid content: '{PRIVATE[:40]}'"
    refusal = _read(400, {"error": {"code": "invalid_value", "message": message}})

    assert refusal.cause == "HTTP 400: invalid_value"


def test_quoted_prompt_cannot_steer_the_client():
    """A judged text that names a parameter does not make the client drop it."""
    text = "please note that temperature and logprobs are not supported"
    refusal = _read(400, {"error": {"message": f"cannot parse: {text}"}}, text=text)

    assert refusal.complaint.strip() == ""


def test_message_that_quotes_the_key_is_dropped():
    """A key does not get into an error by way of the server."""
    error = {"code": "bad", "message": "no such key: sk-1234567890abcdef"}

    assert _read(404, {"error": error}).cause == "HTTP 404: bad"


def test_long_message_is_trimmed():
    """A page of text is not an error message."""
    refusal = _read(404, {"error": {"message": "word " * 1000}})

    assert len(refusal.cause) < 250


@pytest.mark.parametrize(
    ("body", "cause"),
    [
        (b"<html>Bad Gateway</html>", "HTTP 502"),
        (b"", "HTTP 502"),
        ({"error": "plain text"}, "HTTP 502: plain text"),
        ([{"error": {"status": "INTERNAL"}}], "HTTP 502: INTERNAL"),
        ({"detail": 1}, "HTTP 502"),
    ],
)
def test_every_form_of_error_body_is_read(body, cause):
    """Gateways and small servers have forms of their own."""
    assert _read(502, body).cause == cause


def test_used_up_quota_is_not_retried():
    """It answers 429 as well, but does not pass."""
    refusal = _read(429, {"error": {"code": "insufficient_quota"}})

    failure = refused(ENDPOINT, refusal, retry_after_s=None)

    assert isinstance(failure.error, LMRateLimitedError)
    assert not failure.may_pass


@pytest.mark.parametrize("status", [408, 409, 425, 429, 500, 502, 503, 529])
def test_statuses_that_may_pass_are_retried(status):
    """Overload and brief outages end."""
    assert refused(ENDPOINT, _read(status, b""), retry_after_s=None).may_pass


@pytest.mark.parametrize("status", [301, 400, 404, 405, 413, 422])
def test_other_statuses_refuse_the_request(status):
    """Asking the same again would be refused again."""
    failure = refused(ENDPOINT, _read(status, b""), retry_after_s=None)

    assert isinstance(failure.error, LMRequestError)
    assert not failure.may_pass
