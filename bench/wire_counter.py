"""A proxy in front of an OpenAI-compatible endpoint that counts what goes over the wire."""

from __future__ import annotations

import json
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

__all__ = ["Wire", "WireCount", "counted"]

_TIMEOUT_S = 900.0


@dataclass(frozen=True, slots=True)
class WireCount:
    """What went over the wire: requests, and tokens as the endpoint counted them."""

    calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0

    def since(self, earlier: WireCount) -> WireCount:
        """Return what was added since an earlier count."""
        return WireCount(
            self.calls - earlier.calls,
            self.input_tokens - earlier.input_tokens,
            self.output_tokens - earlier.output_tokens,
        )


class Wire:
    """Where to send requests, and how many have been answered."""

    def __init__(self, upstream: str, api_key: str) -> None:
        self._upstream = upstream.rstrip("/")
        self._api_key = api_key
        self._lock = threading.Lock()  # the count changes in the threads of the server
        self._count = WireCount()
        self.base_url = ""

    @property
    def count(self) -> WireCount:
        """What went over the wire so far, failed requests included."""
        with self._lock:
            return self._count

    def forward(self, path: str, body: bytes) -> tuple[int, bytes]:
        """Send a request on and return status and body of the answer."""
        request = urllib.request.Request(  # noqa: S310 - the address is the caller's own model
            self._upstream + path.removeprefix("/v1"),
            data=body,
            headers={
                "Authorization": f"Bearer {self._api_key}",
                "Content-Type": "application/json",
            },
        )
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer:  # noqa: S310 - as above
                status, content = answer.status, answer.read()
        except urllib.error.HTTPError as error:
            status, content = error.code, error.read()
        self._add(content)
        return status, content

    def _add(self, content: bytes) -> None:
        try:
            usage = json.loads(content).get("usage") or {}
        except (ValueError, AttributeError):
            usage = {}
        with self._lock:
            self._count = WireCount(
                self._count.calls + 1,
                self._count.input_tokens + int(usage.get("prompt_tokens", 0)),
                self._count.output_tokens + int(usage.get("completion_tokens", 0)),
            )


@contextmanager
def counted(upstream: str, api_key: str) -> Iterator[Wire]:
    """Serve a proxy of an endpoint on loopback while the context lasts.

    Args:
        upstream: Base URL that ends in ``/v1``.
        api_key: What the endpoint asks for; callers of the proxy need none.
    """
    wire = Wire(upstream, api_key)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            status, content = wire.forward(self.path, body)
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Say nothing: what was judged is nobody's business."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    wire.base_url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    try:
        yield wire
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)
