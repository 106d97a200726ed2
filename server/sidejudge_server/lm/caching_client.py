"""A client that looks for answers that were paid for before it asks."""

from __future__ import annotations

import asyncio
import concurrent.futures
import json
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from sidejudge_server.errors import DeadlineError, LMRequestError
from sidejudge_server.lm.call_cache import CallCache, call_key
from sidejudge_server.lm.embedding import embedding_request
from sidejudge_server.lm.types import (
    ChatClient,
    ChatRequest,
    ChatResponse,
    EmbeddingClient,
    Embeddings,
    LMUsage,
)

__all__ = ["CachingClient"]

T = TypeVar("T")

_NO_LOGPROBS = "no log probabilities"


@dataclass(slots=True)
class _Call:
    task: asyncio.Task[ChatResponse]
    waiters: int = 0


class CachingClient:
    """A `ChatClient` that asks another one only what is not in a cache.

    A cached answer has empty usage: it costs nothing now. Identical requests at the same time are
    answered by one call, whose usage only the first of them reports. What an earlier process has paid
    for is no gain of caching: the first time it is asked for, it has the usage that it had then.

    That a model gives no log probabilities is kept too, and refusals if wanted: who asks the same
    again after a restart, in the same order, is answered the same.
    """

    def __init__(
        self,
        client: ChatClient,
        cache: CallCache,
        *,
        on_hit: Callable[[], None] | None = None,
        keep_refusals: bool = False,
    ) -> None:
        """Wrap a client.

        Args:
            client: The model.
            cache: Of answers.
            on_hit: Called for every answer from the cache.
            keep_refusals: True to refuse again what the model refused, without asking.
        """
        self._client = client
        self._cache = cache
        self._on_hit = on_hit
        self._keep_refusals = keep_refusals
        self._identity = str(getattr(client, "identity", client.model))
        self._running: dict[str, _Call] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._settling = False

    @property
    def model(self) -> str:
        """The model as configured."""
        return self._client.model

    @property
    def identity(self) -> str:
        """The model and its address."""
        return self._identity

    @property
    def supports_logprobs(self) -> bool:
        """Whether answers carry token probabilities, as far as is known by now."""
        return self._client.supports_logprobs and _NO_LOGPROBS not in self._cache.notes

    @property
    def cache(self) -> CallCache:
        """Where answers are kept, with counts of hits and misses."""
        return self._cache

    async def complete(
        self, request: ChatRequest, *, timeout_s: float | None = None
    ) -> ChatResponse:
        """Answer one request from the cache, else from the client; raises what that raises."""
        self._loop = asyncio.get_running_loop()
        key = call_key(self._identity, request)
        if key not in self._running:
            if (answer := self._cache.get(key)) is not None:
                if self._cache.is_replay(key):
                    return answer
                return self._hit(answer)
            if (refusal := self._cache.refusal(key)) is not None:
                raise refusal
            return await self._lead(key, request, timeout_s)
        try:
            answer = await self._follow(key, self._running[key])
        except DeadlineError:
            # The other caller's time was up, not ours.
            return await self.complete(request, timeout_s=timeout_s)
        self._cache.hits += 1
        return self._hit(answer)

    @property
    def embedding_model(self) -> str:
        """The embedding model of the client; "" if it has none."""
        return str(getattr(self._client, "embedding_model", ""))

    async def embed(
        self, texts: tuple[str, ...], *, timeout_s: float | None = None
    ) -> Embeddings:
        """Return vectors from the cache, asking the client for the others at once.

        Raises what the client raises; identical texts at the same time may be asked for twice.
        """
        if not isinstance(self._client, EmbeddingClient):
            raise TypeError(f"{self.model} does not embed")
        self._loop = asyncio.get_running_loop()
        identity = f"{self._identity} embeds with {self.embedding_model}"
        keys = {text: call_key(identity, embedding_request((text,))) for text in texts}
        known = {text: self._cache.get(key) for text, key in keys.items()}
        missing = tuple(text for text, answer in known.items() if answer is None)
        usage = LMUsage()
        if missing:
            asked = self._embed(self._client, missing, keys, timeout_s)
            known |= (found := await self._kept(asked))
            usage = sum((answer.usage for answer in found.values()), usage)
        elif self._on_hit is not None:
            self._on_hit()
        vectors = {text: _vector(answer) for text, answer in known.items()}
        return Embeddings(tuple(vectors[text] for text in texts), usage)

    async def _embed(
        self,
        client: EmbeddingClient,
        texts: tuple[str, ...],
        keys: Mapping[str, str],
        timeout_s: float | None,
    ) -> dict[str, ChatResponse]:
        """Ask for vectors and keep them as answers, the first one with the usage of the call."""
        found = await client.embed(texts, timeout_s=timeout_s)
        usage, answers = found.usage, {}
        for text, vector in zip(texts, found.vectors, strict=True):
            answers[text] = ChatResponse(json.dumps(vector), (), usage, "stop")
            self._cache.put(keys[text], answers[text])
            usage = LMUsage()
        return answers

    async def _kept(self, call: Coroutine[Any, Any, T]) -> T:
        """Make a call whose answer is kept though its caller goes away in the last moments."""
        if self._settling:
            call.close()
            await asyncio.Event().wait()
        task = asyncio.create_task(call)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if not self._settling:
                task.cancel()
            raise

    def keep_what_comes(self) -> None:
        """Make no further calls, and keep the answers of those in progress though nobody waits.

        For the last moments of a process: a call that would be needed waits for ever. Thread-safe.
        """
        self._settling = True

    def settle(self, timeout_s: float) -> None:
        """Do as `keep_what_comes` does and wait until no call is in progress. From another thread.

        Args:
            timeout_s: How long at most.
        """
        self.keep_what_comes()
        if self._loop is None:
            return
        settled = asyncio.run_coroutine_threadsafe(self._settled(), self._loop)
        with suppress(concurrent.futures.TimeoutError):
            settled.result(timeout_s)

    async def _settled(self) -> None:
        while self._tasks:
            await asyncio.wait(set(self._tasks))

    async def close(self) -> None:
        """Close the client and the cache."""
        await self._client.close()
        self._cache.close()

    def _hit(self, answer: ChatResponse) -> ChatResponse:
        if self._on_hit is not None:
            self._on_hit()
        return replace(answer, usage=LMUsage())

    async def _lead(
        self, key: str, request: ChatRequest, timeout_s: float | None
    ) -> ChatResponse:
        if self._settling:
            await asyncio.Event().wait()
        task = asyncio.create_task(self._call(key, request, timeout_s))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self._running[key] = call = _Call(task)
        return await self._follow(key, call)

    async def _call(
        self, key: str, request: ChatRequest, timeout_s: float | None
    ) -> ChatResponse:
        try:
            answer = await self._client.complete(request, timeout_s=timeout_s)
        except LMRequestError as error:
            if self._keep_refusals:
                self._cache.put_refusal(key, error)
            raise
        self._cache.put(key, answer)
        if not self._client.supports_logprobs:
            self._cache.note(_NO_LOGPROBS)
        return answer

    async def _follow(self, key: str, call: _Call) -> ChatResponse:
        """Wait for a running call; the last waiter that is cancelled cancels it."""
        call.waiters += 1
        try:
            return await asyncio.shield(call.task)
        finally:
            call.waiters -= 1
            if not call.waiters or call.task.done():
                # Nobody may join a call that ends now.
                if self._running.get(key) is call:
                    del self._running[key]
                if not self._settling:
                    call.task.cancel()  # does nothing if it is done


def _vector(answer: ChatResponse | None) -> tuple[float, ...]:
    """Return the vector that an answer of the cache stands for."""
    if answer is None:
        raise AssertionError("every text was asked for")
    return tuple(json.loads(answer.text))
