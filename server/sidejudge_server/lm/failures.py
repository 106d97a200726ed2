"""What a refusal means: which error, whether asking again may help, and what may be told of it.

Prompts, answers and keys never get into an error: servers like to quote them, so their texts are
kept only if they share nothing with what was sent.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from http import HTTPStatus

from sidejudge_server.errors import (
    LMCredentialsError,
    LMError,
    LMRateLimitedError,
    LMRequestError,
    LMUnavailableError,
)
from sidejudge_server.lm.providers import Endpoint
from sidejudge_server.lm.types import ChatRequest

__all__ = ["AttemptFailedError", "Refusal", "read_refusal", "refused", "unavailable"]

_LONGEST_CAUSE = 200
_LONGEST_MESSAGE = 2000
# A run of this many characters that the prompt has too is a quotation.
_QUOTATION = 16
_IDENTIFIER = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
_BRIEF = frozenset(
    {
        HTTPStatus.REQUEST_TIMEOUT,
        HTTPStatus.CONFLICT,
        HTTPStatus.TOO_EARLY,
        HTTPStatus.TOO_MANY_REQUESTS,
    }
)
_CREDENTIALS = frozenset(
    {HTTPStatus.UNAUTHORIZED, HTTPStatus.PAYMENT_REQUIRED, HTTPStatus.FORBIDDEN}
)
# A used-up quota answers 429 as well, but comes back only when somebody pays.
_PERMANENT_CODES = frozenset({"insufficient_quota", "billing_hard_limit_reached"})


class AttemptFailedError(Exception):
    """One attempt failed.

    Attributes:
        error: What the caller sees if no further attempt succeeds.
        may_pass: Whether a further attempt makes sense.
        retry_after_s: Wait that the server asked for, if it did.
        maybe_billed: True if the request was sent and the provider may have worked on it.
    """

    def __init__(
        self,
        error: LMError,
        *,
        may_pass: bool,
        retry_after_s: float | None = None,
        maybe_billed: bool = False,
    ) -> None:
        super().__init__(error.message)
        self.error = error
        self.may_pass = may_pass
        self.retry_after_s = retry_after_s
        self.maybe_billed = maybe_billed


@dataclass(frozen=True, slots=True)
class Refusal:
    """A response that is not an answer.

    Attributes:
        complaint: Parameter, and message unless it quotes: what decides on another way to ask.
        cause: Code and message that may be shown.
    """

    status: int
    code: str
    complaint: str
    cause: str


def read_refusal(
    status: int, data: bytes, *, request: ChatRequest, api_key: str | None
) -> Refusal:
    """Read a response with a status other than 200, whatever its form.

    Args:
        status: HTTP status.
        data: Its body.
        request: What was asked, to recognize quotations.
        api_key: What was sent with it.
    """
    try:
        body = json.loads(data)
    except ValueError:
        body = None
    if isinstance(body, list) and body:  # Gemini's way
        body = body[0]
    error = body.get("error", body) if isinstance(body, dict) else None
    code, message, parameter = "", "", ""
    if isinstance(error, str):
        message = error[:_LONGEST_MESSAGE]
    elif isinstance(error, dict):
        code = str(error.get("code") or error.get("type") or error.get("status") or "")
        message = str(error.get("message") or "")[:_LONGEST_MESSAGE]
        parameter = str(error.get("param") or "")
    secrets = [m.content for m in request.messages]
    if api_key:
        secrets.append(api_key)
    shown = [f"HTTP {status}"]
    if _IDENTIFIER.fullmatch(code) and not _quotes(code, secrets):
        shown.append(code)
    message_line = " ".join(message.split())[:_LONGEST_CAUSE]
    # Refusals of the key quote parts of it with asterisks, which no comparison finds.
    quotes = _quotes(message, secrets)
    if message_line and status not in _CREDENTIALS and not quotes:
        shown.append(message_line)
    complaint = parameter if quotes else f"{parameter} {message}"
    return Refusal(status, code, complaint, ": ".join(shown))


def _quotes(text: str, secrets: Iterable[str]) -> bool:
    size = min(_QUOTATION, len(text))
    windows = {text[i : i + size] for i in range(len(text) - size + 1)}
    return any(window in secret for secret in secrets for window in windows)


def refused(
    endpoint: Endpoint, refusal: Refusal, *, retry_after_s: float | None
) -> AttemptFailedError:
    """Return the failure that a refusal is."""
    model, cause = endpoint.model, refusal.cause
    if refusal.status in _CREDENTIALS:
        return AttemptFailedError(
            LMCredentialsError(
                f"{model} refuses the key ({cause}); set the right one and restart",
                reason="LM_CREDENTIALS_REJECTED",
                metadata={"model": model},
            ),
            may_pass=False,
        )
    if refusal.status == HTTPStatus.TOO_MANY_REQUESTS:
        return AttemptFailedError(
            LMRateLimitedError(
                f"{model} refuses because of too many requests ({cause})",
                reason="LM_RATE_LIMITED",
                metadata={"model": model},
                retry_after_s=retry_after_s,
            ),
            may_pass=refusal.code not in _PERMANENT_CODES,
            retry_after_s=retry_after_s,
        )
    if refusal.status >= HTTPStatus.INTERNAL_SERVER_ERROR or refusal.status in _BRIEF:
        return unavailable(endpoint, cause, retry_after_s=retry_after_s)
    return AttemptFailedError(
        LMRequestError(
            f"{model} refuses the request ({cause})",
            reason="LM_REQUEST_REJECTED",
            metadata={"model": model, "cause": cause},
        ),
        may_pass=False,
    )


def unavailable(
    endpoint: Endpoint,
    cause: str,
    *,
    retry_after_s: float | None = None,
    maybe_billed: bool = False,
) -> AttemptFailedError:
    """Return the failure of an endpoint that gives no usable answer."""
    return AttemptFailedError(
        LMUnavailableError(
            f"{endpoint.model} gave no answer ({cause})",
            reason="LM_UNAVAILABLE",
            metadata={"model": endpoint.model, "cause": cause},
            retry_after_s=retry_after_s,
        ),
        may_pass=True,
        retry_after_s=retry_after_s,
        maybe_billed=maybe_billed,
    )
