"""Models from the model hub by HTTP, going on where an earlier download stopped."""

from __future__ import annotations

import http.client
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus

from sidejudge_server.lm.catalogue import HubFile, ModelFile
from sidejudge_server.lm.partial_file import CHUNK_BYTES, PartialFile

__all__ = ["DEFAULT_HUB_URL", "HubError", "HubSource"]

DEFAULT_HUB_URL = "https://huggingface.co"
_ATTEMPTS = 4


class HubError(Exception):
    """The hub cannot be reached or does not have the file."""


@dataclass(frozen=True, slots=True)
class HubSource:
    """A hub.

    Attributes:
        base_url: Its address.
        timeout_s: For connecting and for each read. Short, because a machine without internet must
            not wait long for the next source.
    """

    base_url: str = DEFAULT_HUB_URL
    timeout_s: float = 5.0

    def fetch(self, hub_file: HubFile, model: ModelFile, target: PartialFile) -> None:
        """Append what is missing of a file.

        Raises:
            HubError: It is not there, or broke off too often; what came stays in the file.
            ModelMismatchError: It is longer than the model.
        """
        url = (
            f"{self.base_url.rstrip('/')}/{hub_file.repository}"
            f"/resolve/main/{hub_file.file}"
        )
        if not url.startswith(("https://", "http://")):
            message = f"the hub's address {self.base_url!r} is not an http or https URL"
            raise HubError(message)
        for attempt in range(1, _ATTEMPTS + 1):
            if target.size_bytes == model.size_bytes:
                return
            before = target.size_bytes
            try:
                self._append(url, model, target)
            except (OSError, http.client.HTTPException) as error:
                # Without any progress there is no reason to hope, above all without a network.
                if target.size_bytes == before or attempt == _ATTEMPTS:
                    raise HubError(_cause(error)) from None
        if target.size_bytes == model.size_bytes:
            return
        message = f"broke off after {target.size_bytes} bytes"
        raise HubError(message)

    def _append(self, url: str, model: ModelFile, target: PartialFile) -> None:
        request = urllib.request.Request(url)  # noqa: S310 - the scheme is checked above
        if target.size_bytes:
            request.add_header("Range", f"bytes={target.size_bytes}-")
        with urllib.request.urlopen(request, timeout=self.timeout_s) as response:  # noqa: S310 - as above
            if response.status != HTTPStatus.PARTIAL_CONTENT:
                target.restart()  # the whole file comes, whatever was asked for
            length = _length(response.headers)
            if length is not None and target.size_bytes + length != model.size_bytes:
                message = f"has another size: {target.size_bytes + length} bytes"
                raise HubError(message)
            while chunk := response.read(CHUNK_BYTES):
                target.write(chunk, source=url)


def _length(headers: Mapping[str, str]) -> int | None:
    text = headers.get("Content-Length", "")
    return int(text) if text.isdigit() else None


def _cause(error: Exception) -> str:
    if isinstance(error, urllib.error.HTTPError):
        error.close()
        return f"HTTP {error.code}"
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    return str(getattr(reason, "strerror", None) or reason or type(error).__name__)
