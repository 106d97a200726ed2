"""Answers that were paid for once: a file of calls."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

from sidejudge_server.errors import LMRequestError
from sidejudge_server.lm.types import (
    ChatRequest,
    ChatResponse,
    LMUsage,
    TokenLogprobs,
)

__all__ = ["CallCache", "call_key"]

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
        notes: What was found out about the model.
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
        self.notes: set[str] = set()
        self._from_before: set[str] = set()
        self._refusals: dict[str, LMRequestError] = {}
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
        self._write({"key": key, "answer": asdict(answer)})

    def refusal(self, key: str) -> LMRequestError | None:
        """Return how the model refused a request, None if it did not."""
        return self._refusals.get(key)

    def put_refusal(self, key: str, error: LMRequestError) -> None:
        """Keep that a request is refused; OSError if the file cannot be written."""
        self._refusals[key] = error
        told = [error.message, error.reason, error.metadata]
        self._write({"key": key, "refusal": told})

    def note(self, text: str) -> None:
        """Keep what was found out; OSError if the file cannot be written."""
        if text not in self.notes:
            self.notes.add(text)
            self._write({"note": text})

    def _write(self, entry: dict[str, Any]) -> None:
        if self._file is not None:
            self._file.write(json.dumps(entry).encode() + b"\n")
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

    def _take(self, entry: dict[str, Any]) -> None:
        """Take in a line of the file; ValueError, KeyError or TypeError if it is none."""
        if "note" in entry:
            self.notes.add(str(entry["note"]))
        elif "refusal" in entry:
            message, reason, metadata = entry["refusal"]
            self._refusals[entry["key"]] = LMRequestError(
                str(message), reason=str(reason), metadata=dict(metadata)
            )
        else:
            key, answer = str(entry["key"]), _answer(entry["answer"])
            if key not in self._answers:
                self._remember(key, answer)

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
                self._take(json.loads(line))
            except (ValueError, KeyError, TypeError):
                continue
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
