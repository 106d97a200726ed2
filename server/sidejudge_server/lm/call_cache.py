"""Answers that were paid for once: a file of calls, and a client that looks there first."""

from __future__ import annotations

import asyncio
import concurrent.futures
import hashlib
import json
import os
import threading
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from sidejudge_server.errors import DeadlineError
from sidejudge_server.lm.embedding import embedding_request
from sidejudge_server.lm.types import (
    ChatClient,
    ChatRequest,
    ChatResponse,
    EmbeddingClient,
    Embeddings,
    LMUsage,
    TokenLogprobs,
)

__all__ = ["CachingClient", "CallCache", "call_key"]

T = TypeVar("T")

_PRIVATE_FILE = 0o600
_SYNC_S = 0.5


def call_key(identity: str, request: ChatRequest) -> str:
    """Return the SHA-256, in hex, of a model and all that is asked of it.

    Args:
        identity: Model and address.
        request: What is asked.
    """
    document = json.dumps([identity, asdict(request)], separators=(",", ":"))
    return hashlib.sha256(document.encode()).hexdigest()


class CallCache:
    """Answers by key, in memory and in an append-only file of one JSON line each.

    A process that is killed leaves at most one torn line, which is cut off at the next start; other
    lines that cannot be read are skipped. One process at a time may use a file. A machine that fails
    loses at most the answers of its last half second: forcing each to the disk would cost more than
    many a model takes to answer.

    Attributes:
        hits: Answers found.
        misses: Answers not found.
        stored_usage: What the answers in the cache cost when they were made.
        replayed: Answers found that an earlier process had paid for, each counted once and as no hit.
    """

    def __init__(self, path: Path | None = None) -> None:
        """Open a cache.

        Args:
            path: Its file, made if missing, as are its directories; None keeps it in memory.
        """
        self.hits = 0
        self.misses = 0
        self.stored_usage = LMUsage()
        self.replayed = 0
        self._from_before: set[str] = set()
        self._answers: dict[str, ChatResponse] = {}
        self._file: BinaryIO | None = None
        self._sync: _Sync | None = None
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
            self._file = os.fdopen(os.open(path, flags, _PRIVATE_FILE), "a+b")
            self._load(self._file)
            self._sync = _Sync(self._file.fileno())

    def __len__(self) -> int:
        """Return the number of answers."""
        return len(self._answers)

    def get(self, key: str) -> ChatResponse | None:
        """Return an answer with the usage of the original call; counts a hit, a replay or a miss."""
        answer = self._answers.get(key)
        if answer is None:
            self.misses += 1
        elif key in self._from_before:
            self.replayed += 1
        else:
            self.hits += 1
        return answer

    def is_replay(self, key: str) -> bool:
        """Say, once, whether an answer was paid for by an earlier process."""
        if key in self._from_before:
            self._from_before.discard(key)
            return True
        return False

    def put(self, key: str, answer: ChatResponse) -> None:
        """Keep an answer; OSError if the file cannot be written."""
        if key in self._answers:
            return
        self._remember(key, answer)
        if self._file is not None:
            line = json.dumps({"key": key, "answer": asdict(answer)})
            self._file.write(line.encode() + b"\n")
            self._file.flush()
            if self._sync is not None:
                self._sync.soon()

    def close(self) -> None:
        """Close the file; its answers are on disk then."""
        if self._sync is not None:
            self._sync.close()
            self._sync = None
        if self._file is not None:
            self._file.close()
            self._file = None

    def _remember(self, key: str, answer: ChatResponse) -> None:
        self._answers[key] = answer
        self.stored_usage += answer.usage

    def _load(self, file: BinaryIO) -> None:
        file.seek(0)
        end = 0
        for line in file:
            if not line.endswith(b"\n"):
                break
            end += len(line)
            try:
                entry = json.loads(line)
                key, answer = str(entry["key"]), _answer(entry["answer"])
            except (ValueError, KeyError, TypeError):
                continue
            if key not in self._answers:
                self._remember(key, answer)
        self._from_before = set(self._answers)
        file.truncate(end)


class _Sync:
    """Forces a file to the disk from a thread, at most twice a second."""

    def __init__(self, number: int) -> None:
        self._number = number
        self._written = threading.Event()
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    def soon(self) -> None:
        """Take note that there is something to force."""
        if self._thread is None:
            self._thread = threading.Thread(
                target=self._run, name="call-cache-sync", daemon=True
            )
            self._thread.start()
        self._written.set()

    def close(self) -> None:
        """Force what is left and end the thread."""
        self._closed.set()
        self._written.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while not self._closed.wait(_SYNC_S):
            self._written.wait()
            self._written.clear()
            os.fsync(self._number)
        os.fsync(self._number)


def _answer(fields: dict[str, Any]) -> ChatResponse:
    return ChatResponse(
        text=str(fields["text"]),
        logprobs=tuple(
            TokenLogprobs(
                str(entry["token"]),
                tuple((str(t), float(p)) for t, p in entry["alternatives"]),
            )
            for entry in fields["logprobs"]
        ),
        usage=LMUsage(**fields["usage"]),
        finish_reason=str(fields["finish_reason"]),
    )


def _vector(answer: ChatResponse | None) -> tuple[float, ...]:
    """Return the vector that an answer of the cache stands for."""
    if answer is None:
        raise AssertionError("every text was asked for")
    return tuple(json.loads(answer.text))


@dataclass(slots=True)
class _Call:
    task: asyncio.Task[ChatResponse]
    waiters: int = 0


class CachingClient:
    """A `ChatClient` that asks another one only what is not in a cache.

    A cached answer has empty usage: it costs nothing now. Identical requests at the same time are
    answered by one call, whose usage only the first of them reports. What an earlier process has paid
    for is no gain of caching: the first time it is asked for, it has the usage that it had then.
    """

    def __init__(
        self,
        client: ChatClient,
        cache: CallCache,
        *,
        on_hit: Callable[[], None] | None = None,
    ) -> None:
        self._client = client
        self._cache = cache
        self._on_hit = on_hit
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
        """Whether answers carry token probabilities."""
        return self._client.supports_logprobs

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
        answer = await self._client.complete(request, timeout_s=timeout_s)
        self._cache.put(key, answer)
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
