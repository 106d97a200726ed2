"""All pages of a List call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

__all__ = ["collect_pages"]

_MAX_PAGE = 1000


class _PageRequest(Protocol):
    page_size: int
    page_token: str


class _Page(Protocol):
    @property
    def next_page_token(self) -> str: ...
    def ClearField(self, field_name: Any, /) -> None: ...  # noqa: ANN401, N802 - protobuf's own signature: a Literal that differs by message


_Request = TypeVar("_Request", bound=_PageRequest)
_Response = TypeVar("_Response", bound="_Page")


def collect_pages(
    call: Callable[..., _Response],
    request: _Request,
    field: str,
    *,
    limit: int | None = None,
    timeout_s: float,
) -> _Response:
    """Return one response that holds the rows of all pages.

    Args:
        call: The List call.
        request: Its request; page_size and page_token are overwritten.
        field: Name of the repeated field.
        limit: Stop after so many rows; None reads all.
        timeout_s: Deadline of each page.
    """
    total: _Response | None = None
    while True:
        have = 0 if total is None else len(getattr(total, field))
        request.page_size = _MAX_PAGE if limit is None else min(_MAX_PAGE, limit - have)
        page = call(request, timeout=timeout_s)
        request.page_token = page.next_page_token
        if total is None:
            total = page
        else:
            getattr(total, field).extend(getattr(page, field))
        enough = limit is not None and len(getattr(total, field)) >= limit
        if enough or not request.page_token:
            break
    total.ClearField("next_page_token")
    return total
