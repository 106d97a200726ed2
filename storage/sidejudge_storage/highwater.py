"""The high-water mark: which commits were acknowledged, kept beside the database.

DuckDB's write-ahead log cannot tell an unacknowledged tail, which may be cut off, from
acknowledged rows, which may not. The mark can. It is written (into the page cache) after a commit
is durable and before anyone hears of it, and forced to disk at most once a second and at close. A
crash of the process keeps the page cache, so the mark is exact; a power cut may leave one that is
up to a second stale. Stale is the safe direction: the mark never claims a commit that was not
durable, so it can miss a loss of the last second but never raise a false alarm.
"""

from __future__ import annotations

import fcntl
import os
import struct
import uuid
import zlib
from dataclasses import dataclass
from pathlib import Path

from sidejudge_storage.errors import DatabaseLockedError

__all__ = ["HighWaterFile", "Mark"]

_MAGIC = b"sjacked1"
_BODY = struct.Struct("<8s16sQQ")  # magic, database id, commit, microseconds since 1970
_SUM = struct.Struct("<I")
_SLOT_BYTES = 512
"""A sector: the two slots never share one, so a torn write spoils the newer slot only."""


@dataclass(frozen=True, slots=True)
class Mark:
    """The last acknowledged commit of a database and when it was, in microseconds since 1970."""

    database_id: uuid.UUID
    commit: int
    at_micros: int


class HighWaterFile:
    """The file of the mark. While it is open, its lock keeps other sidecars out."""

    def __init__(self, path: Path) -> None:
        """Open or create the file and lock it.

        The lock is ours and not only DuckDB's, because DuckDB shares one database among all
        connections of a process, and because a repair must not touch a file that is in use.

        Raises:
            DatabaseLockedError: Somebody holds the lock.
        """
        self.path = path
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(self._fd).st_size < 2 * _SLOT_BYTES:
                os.ftruncate(self._fd, 2 * _SLOT_BYTES)
        except BlockingIOError:
            os.close(self._fd)
            raise DatabaseLockedError(
                f"{path} is locked: another sidejudge is using this database. Stop it, or give"
                " this one another database file."
            ) from None
        except OSError:
            os.close(self._fd)
            raise
        self._slot = 0
        self._dirty = False

    def read(self) -> Mark | None:
        """Return the readable mark of the latest commit; None if there is none."""
        marks = [self._read_slot(0), self._read_slot(1)]
        newest = max((m for m in marks if m), key=lambda m: m.commit, default=None)
        if newest is not None:
            self._slot = 1 - marks.index(newest)
        return newest

    def _read_slot(self, slot: int) -> Mark | None:
        block = os.pread(self._fd, _BODY.size + _SUM.size, slot * _SLOT_BYTES)
        if len(block) < _BODY.size + _SUM.size:
            return None
        body = block[: _BODY.size]
        if _SUM.unpack(block[_BODY.size :])[0] != zlib.crc32(body):
            return None
        magic, database_id, commit, at_micros = _BODY.unpack(body)
        if magic != _MAGIC:
            return None
        return Mark(uuid.UUID(bytes=database_id), commit, at_micros)

    def write(self, mark: Mark) -> None:
        """Write a mark over the older of the two; see the module for when it is on disk.

        Raises:
            OSError: It could not be written.
        """
        body = _BODY.pack(_MAGIC, mark.database_id.bytes, mark.commit, mark.at_micros)
        os.pwrite(
            self._fd, body + _SUM.pack(zlib.crc32(body)), self._slot * _SLOT_BYTES
        )
        self._slot = 1 - self._slot
        self._dirty = True

    def reset(self, mark: Mark) -> None:
        """Make a mark the only one, on disk, whatever was there.

        Raises:
            OSError: It could not be written.
        """
        self.write(mark)
        self.write(mark)
        os.fsync(self._fd)
        self._dirty = False

    @property
    def dirty(self) -> bool:
        """Whether there is something to sync."""
        return self._dirty

    def sync(self) -> None:
        """Force the mark to disk if it changed since the last time."""
        if self._dirty:
            os.fdatasync(self._fd)
            self._dirty = False

    def close(self) -> None:
        """Sync, unlock and close."""
        try:
            self.sync()
        finally:
            os.close(self._fd)
