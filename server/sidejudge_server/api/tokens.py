"""Page and resume tokens: opaque, tamper-evident and bound to one database.

A token is base64url (no padding) of a 16-byte keyed BLAKE2b tag followed by compact JSON. The
key comes from the database id: it keeps tokens of another database, and edited ones, out; it
guards no secret.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import re
from dataclasses import dataclass
from typing import Any, NoReturn

from google.protobuf.message import Message

from sidejudge_server.errors import InvalidTokenError

__all__ = ["PageScope", "TokenCodec", "page_scope"]

_VERSION = 1
_TAG_BYTES = 16
_MAX_CHARS = 1024
_ALPHABET = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)
_UNBOUND_FIELDS = ("page_token", "page_size")


@dataclass(frozen=True, slots=True)
class PageScope:
    """What a page token is good for: a method and a digest of its other arguments."""

    method: str
    digest: str


def page_scope(request: Message) -> PageScope:
    """Return the scope of a list request: everything but its token and page size.

    The page size is left out because AIP-158 lets it change between pages.
    """
    bare = type(request)()
    bare.CopyFrom(request)
    for field in _UNBOUND_FIELDS:
        bare.ClearField(field)
    data = bare.SerializeToString(deterministic=True)
    digest = hashlib.blake2b(data, digest_size=12).hexdigest()
    return PageScope(request.DESCRIPTOR.name, digest)


class TokenCodec:
    """Writes and reads the tokens of one database."""

    def __init__(self, database_id: str) -> None:
        self._key = hashlib.blake2b(
            database_id.encode(), digest_size=32, person=b"sidejudge-token"
        ).digest()

    def page(self, scope: PageScope, last_key: str) -> str:
        """Return the token of the page after ``last_key``."""
        return self._seal(["p", _VERSION, scope.method, scope.digest, last_key])

    def read_page(self, token: str, scope: PageScope) -> str | None:
        """Return the last key of the page before; None for an empty token.

        Raises:
            InvalidTokenError: Malformed, foreign, or made for other arguments.
        """
        if not token:
            return None
        fields = self._open(token)
        if fields is None or len(fields) != 5 or fields[0] != "p":  # noqa: PLR2004 - the five written by `page`
            _refuse_page("is malformed or of another database")
        if fields[1:4] != [_VERSION, scope.method, scope.digest]:
            _refuse_page("belongs to a request with other arguments")
        return str(fields[4])

    def resume(self, scope: str, position: str) -> str:
        """Return the token that goes on after ``position`` in ``scope``."""
        return self._seal(["r", _VERSION, scope, position])

    def read_resume(self, token: str, scope: str) -> str | None:
        """Return the position after which to go on; None for an empty token.

        Raises:
            InvalidTokenError: Malformed, or of another resource or database.
        """
        if not token:
            return None
        fields = self._open(token)
        if fields is None or fields[:3] != ["r", _VERSION, scope] or len(fields) != 4:  # noqa: PLR2004 - the four written by `resume`
            message = (
                "resume_token is malformed or of another resource or database; "
                "send the last token received from this one, or none to start over"
            )
            raise InvalidTokenError(message, reason="INVALID_RESUME_TOKEN")
        return str(fields[3])

    def _seal(self, fields: list[Any]) -> str:
        payload = json.dumps(fields, separators=(",", ":")).encode()
        return _encode(self._tag(payload) + payload)

    def _open(self, token: str) -> list[Any] | None:
        """Return the fields of a token of ours, else None."""
        if len(token) > _MAX_CHARS or not _ALPHABET.fullmatch(token):
            return None
        padded = token + "=" * (-len(token) % 4)
        try:
            data = base64.b64decode(padded, altchars=b"-_", validate=True)
        except binascii.Error:
            return None
        tag, payload = data[:_TAG_BYTES], data[_TAG_BYTES:]
        # Several texts decode to the same bytes (unused bits of the last character): one is ours.
        if _encode(data) != token or not hmac.compare_digest(tag, self._tag(payload)):
            return None
        fields = json.loads(payload)
        return fields if isinstance(fields, list) else None

    def _tag(self, payload: bytes) -> bytes:
        return hashlib.blake2b(payload, digest_size=_TAG_BYTES, key=self._key).digest()


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _refuse_page(problem: str) -> NoReturn:
    message = f"page_token {problem}; leave it empty to start over"
    raise InvalidTokenError(message, reason="INVALID_PAGE_TOKEN")
