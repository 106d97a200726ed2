"""The stand-in's HTTP server, its modes and what tests can see and steer of it.

The model name chooses the mode (a prefix such as ``openai/`` is not sent by clients):

- ``stand-in`` or any other name: answers;
- ``no-logprobs``: 400 when token probabilities are asked for; ``ignores-logprobs``: leaves them out;
- ``garbage``: never a label word; ``malformed``: 200 with a body that is not JSON;
- ``down``: 500; ``hang-up``: closes the connection; ``rate-limited``: 429 with Retry-After;
- ``bad-key``: 401; ``unknown-model``: 404; ``too-long``: 400 for the context length;
- ``slow``: waits for `StandIn.release`, at most 30 s;
- ``flaky-N``: 500 for the first N times that a body comes, then answers.

``GET /v1/calls`` tells how many requests have come in, for those in other processes.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import threading
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from aiohttp import web

from tests.stand_in.answers import Answer, answer
from tests.stand_in.wires import (
    anthropic_body,
    anthropic_messages,
    embeddings_body,
    openai_body,
    token_count,
)

__all__ = ["StandIn", "running_stand_in"]

T = TypeVar("T")

_SLOW_S = 30.0
_GARBAGE = Answer("Hmm, that is hard to say.")
_FAILURES = {
    "down": (500, "internal_error", "The server had an error."),
    "rate-limited": (429, "rate_limit_exceeded", "Too many requests."),
    "bad-key": (401, "invalid_api_key", "Incorrect API key provided."),
    "unknown-model": (404, "model_not_found", "The model does not exist."),
    "too-long": (400, "context_length_exceeded", "Prompt is over the context length."),
}
_FLAKY = re.compile(r"flaky-(\d+)$")


class StandIn:
    """The state of a running stand-in; safe to use from the test's thread.

    Something else may decide what is said: ``answerer`` gets the messages and the model's name.

    Attributes:
        base_url: Of the OpenAI wire, ending in ``/v1``; None until it serves.
        anthropic_url: Of the Anthropic wire.
        requests: Bodies received, oldest first (empty if ``record`` is off).
        headers: Their headers, lower-case names.
        call_count: Requests received.
        max_in_flight: Most requests that were in progress at once.
        disconnects: Requests whose caller went away.
        retry_after: Value of the header that goes with 429.
    """

    def __init__(
        self,
        *,
        record: bool = True,
        latency_s: float = 0.0,
        answerer: Callable[[list[dict[str, str]], str], Answer] | None = None,
    ) -> None:
        self.base_url = ""
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.call_count = 0
        self.max_in_flight = 0
        self.disconnects = 0
        self.retry_after = "0.02"
        self._record = record
        self._latency_s = latency_s
        self._answerer = answerer
        self._in_flight = 0
        self._fail_from: int | None = None
        self._seen: Counter[bytes] = Counter()
        self._prefixes: set[int] = set()
        # Guards what wait_for looks at.
        self._changed = threading.Condition()
        self._released = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def anthropic_url(self) -> str:
        """Base URL of the Anthropic wire."""
        return self.base_url

    def fail_after(self, count: int | None) -> None:
        """Answer ``count`` more requests, then 500 to all; None ends the outage."""
        self._fail_from = None if count is None else self.call_count + count

    def release(self) -> None:
        """Let all waiting requests of the model ``slow`` go on, and later ones pass."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._released.set)

    def wait_for_calls(self, count: int, *, timeout_s: float = 10.0) -> None:
        """Block until ``count`` requests have come in all; TimeoutError if they do not."""
        self._wait(lambda: self.call_count >= count, timeout_s)

    def wait_for_disconnects(self, count: int, *, timeout_s: float = 10.0) -> None:
        """Block until ``count`` callers have gone away; TimeoutError if they do not."""
        self._wait(lambda: self.disconnects >= count, timeout_s)

    def _wait(self, predicate: Any, timeout_s: float) -> None:
        with self._changed:
            if not self._changed.wait_for(predicate, timeout_s):
                raise TimeoutError

    async def serve(self, host: str = "127.0.0.1", port: int = 0) -> web.ServerRunner:
        """Listen and set the URLs; the caller cleans the runner up."""
        self._loop = asyncio.get_running_loop()
        runner = web.ServerRunner(
            web.Server(self._handle, handler_cancellation=True, access_log=None),
            shutdown_timeout=0.1,
        )
        await runner.setup()
        await web.TCPSite(runner, host, port).start()
        self.base_url = f"http://{host}:{runner.addresses[0][1]}/v1"
        return runner

    async def _handle(self, request: web.BaseRequest) -> web.Response:
        if request.path == "/v1/models":
            return _json({"object": "list", "data": [{"id": "stand-in"}]})
        if request.path == "/v1/calls":
            return _json({"calls": self.call_count})
        if request.path not in {
            "/v1/chat/completions",
            "/v1/messages",
            "/v1/embeddings",
        }:
            return _failure(404, "not_found", f"No such path: {request.path}")
        raw = await request.read()
        number = self._arrive(request, raw)
        try:
            if self._latency_s:
                await asyncio.sleep(self._latency_s)
            if self._fail_from is not None and number > self._fail_from:
                return _failure(*_FAILURES["down"])
            return await self._answer(request, raw)
        except asyncio.CancelledError:
            with self._changed:
                self.disconnects += 1
                self._changed.notify_all()
            raise
        finally:
            self._in_flight -= 1

    def _arrive(self, request: web.BaseRequest, raw: bytes) -> int:
        with self._changed:
            self.call_count += 1
            self._in_flight += 1
            self.max_in_flight = max(self.max_in_flight, self._in_flight)
            if self._record:
                self.requests.append(json.loads(raw))
                self.headers.append({k.lower(): v for k, v in request.headers.items()})
            self._changed.notify_all()
            return self.call_count

    async def _answer(self, request: web.BaseRequest, raw: bytes) -> web.Response:
        body = json.loads(raw)
        mode = str(body.get("model", ""))
        if mode in _FAILURES:
            return self._fail(mode)
        if mode == "malformed":
            return web.Response(text="<html>not JSON</html>")
        if mode == "hang-up":
            if request.transport is not None:
                request.transport.abort()
            return web.Response()
        if mode == "slow":
            async with asyncio.timeout(_SLOW_S):
                await self._released.wait()
        if mode == "no-logprobs" and body.get("logprobs"):
            message = "This model does not support logprobs."
            return _failure(400, "unsupported_parameter", message)
        if mode == "ignores-logprobs":
            body.pop("logprobs", None)
        if match := _FLAKY.match(mode):
            digest = hashlib.sha256(raw).digest()
            self._seen[digest] += 1
            if self._seen[digest] <= int(match[1]):
                return _failure(*_FAILURES["down"])
        return self._success(body, request.path)

    def _fail(self, mode: str) -> web.Response:
        response = _failure(*_FAILURES[mode])
        if mode == "rate-limited":
            response.headers["Retry-After"] = self.retry_after
        return response

    def _success(self, body: dict[str, Any], path: str) -> web.Response:
        if path == "/v1/embeddings":
            return _json(embeddings_body(body))
        anthropic = path == "/v1/messages"
        messages = anthropic_messages(body) if anthropic else body["messages"]
        if body["model"] == "garbage":
            said = _GARBAGE
        elif self._answerer is not None:
            said = self._answerer(messages, body["model"])
        else:
            said = answer(messages)
        # A system message that came before counts as cached.
        prefix = hash(messages[0]["content"])
        cached = token_count(messages[:1]) if prefix in self._prefixes else 0
        self._prefixes.add(prefix)
        wire = anthropic_body if anthropic else openai_body
        total = token_count(messages)
        data = wire(
            body, said, prompt_tokens=total, cached_tokens=min(cached, total - 1)
        )
        return web.Response(body=data, content_type="application/json")


def _failure(status: int, code: str, message: str) -> web.Response:
    error = {"type": code, "code": code, "message": message}
    return _json({"type": "error", "error": error}, status=status)


def _json(body: dict[str, Any], *, status: int = 200) -> web.Response:
    return web.Response(
        body=json.dumps(body).encode(), status=status, content_type="application/json"
    )


@contextmanager
def running_stand_in(**options: Any) -> Iterator[StandIn]:
    """Serve a stand-in, made with these options, from a thread of its own while the context lasts."""
    stand_in = StandIn(**options)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="stand-in", daemon=True)
    thread.start()

    def run(coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, loop).result(10)

    try:
        runner = run(stand_in.serve())
        try:
            yield stand_in
        finally:
            stand_in.release()
            run(runner.cleanup())
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()
