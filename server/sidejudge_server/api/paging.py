"""Pages of list methods: keyset pagination, cut where a message would become too large."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from google.protobuf.message import Message

from sidejudge_server.api.tokens import PageScope, TokenCodec

__all__ = ["MAX_PAGE_BYTES", "Page", "chunks_by_size", "cut_page"]

MAX_PAGE_BYTES: Final = 3_500_000
"""Stays under the 4 MB that gRPC clients accept by default."""

Record = TypeVar("Record")
Resource = TypeVar("Resource", bound=Message)


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
    page_size: int,
    tokens: TokenCodec,
    scope: PageScope,
) -> Page[Resource]:
    """Convert records to a page.

    Args:
        records: Up to ``page_size + 1`` records; one more than a page means that there are more.
        convert: Makes the resource of a record.
        key: The record's place in the order.
        page_size: Most items of the page. A page ends earlier, after at least one item, where
            the message would outgrow MAX_PAGE_BYTES.
        tokens: Makes the token of the next page.
        scope: What the token is good for.
    """
    items: list[Resource] = []
    size = 0
    for record in records[:page_size]:
        item = convert(record)
        size += item.ByteSize()
        if items and size > MAX_PAGE_BYTES:
            break
        items.append(item)
    more = len(records) > len(items)
    last = tokens.page(scope, key(records[len(items) - 1])) if more and items else ""
    return Page(items, last)


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
