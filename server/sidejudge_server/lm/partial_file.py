"""A file under construction: hashed while it is written, and given its name only if it is right."""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from sidejudge_server.lm.catalogue import (
    ModelFile,
    ModelMismatchError,
    final_path,
    remember_verified,
)

__all__ = ["CHUNK_BYTES", "PartialFile", "PullInProgressError"]

CHUNK_BYTES = 1024 * 1024


class PullInProgressError(Exception):
    """Another process is writing the same file."""


class PartialFile:
    """The temporary file of one model; a context manager that locks it.

    It outlives a failure, so that a download can go on where it stopped; wrong bytes are deleted.
    """

    def __init__(
        self, model: ModelFile, model_dir: Path, *, progress: Callable[[int], None]
    ) -> None:
        self._model = model
        self._final = final_path(model, model_dir)
        self._path = self._final.with_name(f".{self._final.name}.part")
        self._progress = progress
        self._file: BinaryIO | None = None
        self._digest = hashlib.sha256()
        self.size_bytes = 0

    def __enter__(self) -> PartialFile:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        file = self._path.open("a+b")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            message = f"another process is pulling {self._model.name}; wait for it"
            raise PullInProgressError(message) from None
        self._file = file
        file.seek(0)
        while chunk := file.read(CHUNK_BYTES):
            self._digest.update(chunk)
            self.size_bytes += len(chunk)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if not self.size_bytes:
            self._path.unlink(missing_ok=True)  # no later download could go on with it
        if self._file is not None:
            self._file.close()
            self._file = None

    def restart(self) -> None:
        """Forget what has been written."""
        self._open_file.truncate(0)
        self._digest = hashlib.sha256()
        self.size_bytes = 0

    def write(self, chunk: bytes, *, source: str) -> None:
        """Append bytes; ModelMismatchError, and nothing is kept, if they become too many."""
        self.size_bytes += len(chunk)
        if self.size_bytes > self._model.size_bytes:
            self._reject(
                source,
                expected=f"{self._model.size_bytes} bytes",
                got=f"{self.size_bytes} bytes or more",
            )
        self._digest.update(chunk)
        self._open_file.write(chunk)
        self._progress(self.size_bytes)

    def finish(self, *, source: str) -> Path:
        """Give the file its name and return it; ModelMismatchError, and nothing is kept, if it is wrong."""
        if self.size_bytes != self._model.size_bytes:
            self._reject(
                source,
                expected=f"{self._model.size_bytes} bytes",
                got=f"{self.size_bytes} bytes",
            )
        digest = self._digest.hexdigest()
        if digest != self._model.sha256:
            self._reject(source, expected=f"SHA-256 {self._model.sha256}", got=digest)
        self._open_file.flush()
        os.fsync(self._open_file.fileno())
        self._path.replace(self._final)
        remember_verified(self._final, self._model)
        return self._final

    @property
    def directory(self) -> Path:
        """Where the file is."""
        return self._path.parent

    @property
    def _open_file(self) -> BinaryIO:
        if self._file is None:
            message = "the partial file is not open"
            raise ValueError(message)
        return self._file

    def _reject(self, source: str, *, expected: str, got: str) -> None:
        # The next source starts anew in the same, still locked file.
        self.restart()
        raise ModelMismatchError(source, expected=expected, got=got)
