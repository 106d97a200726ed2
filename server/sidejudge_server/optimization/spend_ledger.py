"""Requests of a run on disk before they are made, so that a killed worker's are counted too.

What a run has spent is told to the server every second, and answers are in the run's cache; requests
that were in flight when a process was killed are in neither. The ledger is a file of fixed records,
two for each request: what it may take when it begins, and that it has been settled. Writes go to the
system's cache: they survive a killed process, not a failing machine, which may lose the last ones.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from pathlib import Path

from sidejudge_server.lm.attempts import AttemptBound

__all__ = ["LedgerSums", "SpendLedger"]

_RECORD = struct.Struct("<bqd")
_BEGUN = 1
_SETTLED = -1
_PRIVATE_FILE = 0o600


@dataclass(frozen=True, slots=True)
class LedgerSums:
    """What earlier processes have written.

    Attributes:
        attempts: Requests that were begun.
        unsettled_tokens: Most tokens of those whose end is not known.
        unsettled_usd: Most money of those.
    """

    attempts: int = 0
    unsettled_tokens: int = 0
    unsettled_usd: float = 0.0


class SpendLedger:
    """The file. One process at a time may use it; its methods may be called from several threads."""

    def __init__(self, path: Path) -> None:
        """Open it and read what is there; a torn record at the end is cut off.

        Args:
            path: Its file, made if missing, as are its directories.

        Raises:
            OSError: It cannot be read or written.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        self._file = os.open(path, flags, _PRIVATE_FILE)
        data = path.read_bytes()
        whole = len(data) - len(data) % _RECORD.size
        os.ftruncate(self._file, whole)
        self.before = _sums(data[:whole])

    def begun(self, bound: AttemptBound) -> None:
        """Write that a request is about to be made; OSError if that is impossible."""
        self._write(_BEGUN, bound)

    def settled(self, bound: AttemptBound) -> None:
        """Write that it is known what a request took; OSError if that is impossible."""
        self._write(_SETTLED, bound)

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)

    def _write(self, kind: int, bound: AttemptBound) -> None:
        record = _RECORD.pack(kind, bound.tokens, bound.cost_usd or 0.0)
        # One call of the system with O_APPEND: records of several threads do not mix.
        if os.write(self._file, record) != len(record):
            raise OSError("a record of the ledger was not written as a whole")


def _sums(data: bytes) -> LedgerSums:
    attempts, tokens, usd = 0, 0, 0.0
    for kind, record_tokens, record_usd in _RECORD.iter_unpack(data):
        attempts += kind == _BEGUN
        tokens += kind * record_tokens
        usd += kind * record_usd
    return LedgerSums(attempts, max(0, tokens), max(0.0, usd))
