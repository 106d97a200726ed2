"""Getting past a damaged write-ahead log without losing sight of what it held.

DuckDB drops an incomplete last entry by itself. A power cut can also leave zeros or old blocks at
the end of the log, and then it refuses to open the database at all; cutting the log at the byte it
names recovers everything before. Some damage it does not even report: it stops replaying there and
later removes the log. Therefore the log is copied before the database is opened, and whether the
rest may be lost is decided by the high-water mark, not here.
"""

from __future__ import annotations

import os
import re
import shutil
import struct
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from sidejudge_storage.errors import DatabaseLockedError, StorageError

if TYPE_CHECKING:
    import duckdb

__all__ = ["Cut", "WalCopies", "connect_cutting", "wal_files"]

_SUFFIXES = (".wal", ".wal.checkpoint", ".wal.recovery")
"""The log, and the two files that DuckDB 1.5 and later have beside it during a checkpoint."""

_POSITION = re.compile(r"at byte position (\d+)")
_ENTRY_HEADER = struct.Struct("<QQ")  # size, checksum
_FIRST_ENTRY_RANGE = range(16, 128)
"""Where the first entry may start; the length of the log's own header depends on the version."""

_MAX_CUTS = 8

_TEMPORARY = ".before-open"


@dataclass(frozen=True, slots=True)
class Cut:
    """What was cut off a log and what DuckDB had said about it."""

    wal: Path
    bytes_cut: int
    complaint: str


def wal_files(database: Path) -> list[Path]:
    """Return the log files of a database that exist and hold anything."""
    paths = [database.with_name(database.name + suffix) for suffix in _SUFFIXES]
    return [p for p in paths if p.exists() and p.stat().st_size > 0]


class WalCopies:
    """Copies of the logs as they were before the database was opened."""

    def __init__(self, database: Path) -> None:
        self._database = database
        self._before = _state(database)
        self._copies: dict[Path, Path] = {}
        self._taken = False

    def take(self) -> None:
        """Copy every log of the database.

        Raises:
            StorageError: There is no room for the copy.
        """
        self._taken = True
        for wal in wal_files(self._database):
            copy = wal.with_name(wal.name + _TEMPORARY)
            try:
                shutil.copyfile(wal, copy)
            except OSError as error:
                copy.unlink(missing_ok=True)
                raise StorageError(
                    f"cannot copy {wal} before opening the database: {error}. Free"
                    f" {wal.stat().st_size} bytes and start again."
                ) from error
            self._copies[wal] = copy

    @property
    def exist(self) -> bool:
        """Whether there was anything to copy."""
        return bool(self._copies)

    @property
    def kept(self) -> bool:
        """Whether the copies have been kept."""
        return any(map(_is_kept, self._copies.values()))

    def keep(self) -> list[Path]:
        """Move the copies to names that say what they are, durably; return those names.

        Raises:
            StorageError: They were not taken before and there is no room.
        """
        if not self._taken:
            self.take()
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
        for wal, copy in self._copies.items():
            kept = wal.with_name(f"{wal.name}.corrupt.{stamp}")
            if not _is_kept(copy):
                _sync(copy)
                copy.rename(kept)
                self._copies[wal] = kept
        if self._copies:
            _sync(self._database.parent)
        return list(self._copies.values())

    def restore(self) -> bool:
        """Put the logs back as they were; False if the database itself has changed since.

        Refusing to start must not change anything, so that every start says the same.
        """
        if _state(self._database) != self._before:
            self.keep()
            return False
        for wal, copy in self._copies.items():
            copy.replace(wal)
        self._copies = {}
        _sync(self._database.parent)
        return True

    def discard(self) -> None:
        """Remove the copies that were not kept."""
        for copy in self._copies.values():
            if not _is_kept(copy):
                copy.unlink(missing_ok=True)


def connect_cutting(
    database: Path,
    connect: Callable[[], duckdb.DuckDBPyConnection],
    copies: WalCopies,
) -> tuple[duckdb.DuckDBPyConnection, list[Cut]]:
    """Open a database, cutting its logs where DuckDB says that they are damaged.

    Args:
        database: Its file.
        connect: Opens it.
        copies: Copies of its logs, kept before the first cut. If the database cannot be opened
            the logs are put back.

    Raises:
        DatabaseLockedError: Another process has it open.
        StorageError: It cannot be opened for another reason.
    """
    import duckdb

    cuts: list[Cut] = []
    while True:
        try:
            return connect(), cuts
        except duckdb.Error as error:
            complaint = str(error).split("\n", 1)[0]
            if "Could not set lock on file" in complaint:
                copies.discard()  # and touch nothing: the logs are in use
                raise DatabaseLockedError(
                    f"{database} is open in another process; stop it first. ({complaint})"
                ) from error
            if "replaying WAL file" not in complaint or len(cuts) >= _MAX_CUTS:
                if cuts:
                    copies.restore()
                copies.discard()
                raise StorageError(f"cannot open {database}: {complaint}") from error
            copies.keep()
            cuts.append(_cut(database, complaint))


def _cut(database: Path, complaint: str) -> Cut:
    named = [p for p in wal_files(database) if f'"{p}"' in complaint]
    candidates = named or wal_files(database)
    if not candidates:
        raise StorageError(f"cannot open {database}: {complaint}")
    wal = candidates[0]
    size = wal.stat().st_size
    match = _POSITION.search(complaint)
    position = int(match[1]) if match else size
    if position >= size:
        position = _end_of_entries(wal.read_bytes())
    if position >= size:
        position = 0  # the complaint is about the log as a whole
    with wal.open("r+b") as file:
        file.truncate(position)
        os.fsync(file.fileno())
    return Cut(wal, size - position, complaint)


def _end_of_entries(log: bytes) -> int:
    """Return where the chain of entries ends, for complaints that name no useful position.

    DuckDB 1.5 and 2.0 name none when the size of an entry is absurd, and 1.5 names the end of an
    entry whose size is zero, which stays in its way after the cut. Entries are chained by
    their sizes; the start that yields the longest chain is the true one. Returns the length of the
    log if the chain covers it all.
    """
    furthest = 0
    for start in _FIRST_ENTRY_RANGE:
        at = start
        while at + _ENTRY_HEADER.size <= len(log):
            size, _ = _ENTRY_HEADER.unpack_from(log, at)
            if size == 0 or size > len(log) - at - _ENTRY_HEADER.size:
                break
            at += _ENTRY_HEADER.size + size
        if at > start:
            furthest = max(furthest, at)
    return furthest


def _is_kept(copy: Path) -> bool:
    return not copy.name.endswith(_TEMPORARY)


def _state(path: Path) -> tuple[int, int] | None:
    if not path.exists():
        return None
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
