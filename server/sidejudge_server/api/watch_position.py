"""Where a watch goes on."""

from __future__ import annotations

from typing import Protocol

from sidejudge_server.api.tokens import TokenCodec
from sidejudge_server.errors import (
    FieldViolation,
    InvalidRequestError,
    InvalidTokenError,
)

__all__ = ["watch_position"]


class _WatchRequest(Protocol):
    @property
    def resume_token(self) -> str: ...
    @property
    def from_start(self) -> bool: ...


def watch_position(request: _WatchRequest, name: str, tokens: TokenCodec) -> int | None:
    """Return the sequence after which to go on; None to begin with a snapshot.

    Args:
        request: What the caller asks for.
        name: Resource name of what is watched.
        tokens: Reads the token.

    Raises:
        InvalidTokenError: The token is malformed, or of another resource or database.
        InvalidRequestError: There is a token and the log is to be read from its start.
    """
    token = request.resume_token
    if request.from_start:
        if token:
            raise InvalidRequestError(
                [FieldViolation("from_start", "excludes resume_token; set one of them")]
            )
        return 0
    position = tokens.read_resume(token, name)
    if position is None:
        return None
    if not position.isdecimal():
        raise InvalidTokenError(
            "resume_token is malformed", reason="INVALID_RESUME_TOKEN"
        )
    return int(position)
