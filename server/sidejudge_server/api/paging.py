"""Pages of list methods: keyset pagination, cut where a message would become too large."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Generic, Protocol, TypeVar, cast

from google.protobuf.message import Message

from sidejudge_server.api.tokens import PageScope, TokenCodec, page_scope
from sidejudge_server.api.validate import Checker

__all__ = [
    "MAX_PAGE_BYTES",
    "Page",
    "Paging",
    "chunks_by_size",
    "cut_page",
    "read_paging",
]

MAX_PAGE_BYTES: Final = 3_500_000
"""Stays under the 4 MB that gRPC clients accept by default."""

Record = TypeVar("Record")
Resource = TypeVar("Resource", bound=Message)


class _ListRequest(Protocol):
    @property
    def page_size(self) -> int: ...
    @property
    def page_token(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Paging:
    """Where a page begins and how long it may be.

    Attributes:
        page_size: Most items.
        last_key: Key of the last item of the page before; None for the first page.
    """

    page_size: int
    last_key: str | None
    scope: PageScope
    tokens: TokenCodec

    @property
    def limit(self) -> int:
        """How many records to read: one more than a page tells whether there are more."""
        return self.page_size + 1


def read_paging(checker: Checker, request: Message, tokens: TokenCodec) -> Paging:
    """Read page size and token of a list request, after its other fields.

    Raises:
        InvalidRequestError: The checker has found violations, in these or other fields.
        InvalidTokenError: The token is malformed, foreign, or of other arguments.
    """
    fields = cast("_ListRequest", request)
    page_size = checker.page_size(fields.page_size)
    checker.raise_if_any()
    scope = page_scope(request)
    last_key = tokens.read_page(fields.page_token, scope)
    return Paging(page_size, last_key, scope, tokens)


@dataclass(frozen=True, slots=True)
class Page(Generic[Resource]):
    """Resources of one page and the token of the next, empty on the last."""

    items: list[Resource]
    next_page_token: str


def cut_page(
    records: Sequence[Record],
    convert: Callable[[Record], Resource],
    *,
    key: Callable[[Record], str],
    paging: Paging,
) -> Page[Resource]:
    """Convert records to a page.

    Args:
        records: Up to ``paging.limit`` records; one more than a page means that there are more.
        convert: Makes the resource of a record.
        key: The record's place in the order.
        paging: How long it may be. A page ends earlier, after at least one item, where the
            message would outgrow MAX_PAGE_BYTES.
    """
    items: list[Resource] = []
    size = 0
    for record in records[: paging.page_size]:
        item = convert(record)
        size += item.ByteSize()
        if items and size > MAX_PAGE_BYTES:
            break
        items.append(item)
    more = len(records) > len(items)
    if not more:
        return Page(items, "")
    last_key = key(records[len(items) - 1])
    return Page(items, paging.tokens.page(paging.scope, last_key))


def chunks_by_size(items: Iterable[Resource], *, most: int) -> Iterable[list[Resource]]:
    """Split resources into lists of at most ``most`` and about MAX_PAGE_BYTES."""
    chunk: list[Resource] = []
    size = 0
    for item in items:
        item_size = item.ByteSize()
        if chunk and (len(chunk) == most or size + item_size > MAX_PAGE_BYTES):
            yield chunk
            chunk, size = [], 0
        chunk.append(item)
        size += item_size
    if chunk:
        yield chunk
