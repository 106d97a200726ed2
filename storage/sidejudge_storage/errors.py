"""Every error of the storage package.

StorageError
├── DatabaseLockedError             another process has the file open
├── DatabaseTooNewError             a newer sidejudge wrote the file
├── AcknowledgedRowsMissingError    commits that were acknowledged are gone
├── RevisionConflictError           the row changed since the caller read it
├── RowMissingError                 the row to change is not there
├── DuplicateKeyError               the key is taken
├── QueryRefusedError               SQL of others does more than read
├── QueryFailedError                SQL of others can't be run
├── QueryLimitError                 SQL of others takes too much
├── TooManyQueriesError             others' queries are running
└── WriteFailedError                nothing of the unit is acknowledged
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

__all__ = [
    "AcknowledgedRowsMissingError",
    "CommitGap",
    "DatabaseLockedError",
    "DatabaseTooNewError",
    "DuplicateKeyError",
    "QueryFailedError",
    "QueryLimitError",
    "QueryRefusedError",
    "RevisionConflictError",
    "RowMissingError",
    "StorageError",
    "TooManyQueriesError",
    "WriteFailedError",
]


class StorageError(Exception):
    """Base of all errors of this package; its message says the way out."""


class DatabaseLockedError(StorageError):
    """Another process, or another Storage of this one, has the file open."""


class DatabaseTooNewError(StorageError):
    """The file holds migrations that this version does not know."""


@dataclass(frozen=True, slots=True)
class CommitGap:
    """Acknowledged commits that the file does not hold: ``first`` to ``last``, inclusive."""

    first: int
    last: int
    stored_at: datetime | None
    """When the last commit before the gap was made; None if there is none."""
    acknowledged_at: datetime
    """When the last commit of the gap was acknowledged."""


class AcknowledgedRowsMissingError(StorageError):
    """The file lacks commits that were acknowledged; the message names them."""

    def __init__(self, message: str, *, gap: CommitGap) -> None:
        super().__init__(message)
        self.gap = gap


class RevisionConflictError(StorageError):
    """The stored revision is not the expected one."""


class RowMissingError(StorageError):
    """The row to change does not exist."""


class DuplicateKeyError(StorageError):
    """A row with this key exists already."""


class WriteFailedError(StorageError):
    """The unit was not acknowledged.

    Nothing of it is stored, unless the database failed after the commit and cannot be reopened:
    then the unit appears whole when it can be. Retry with new ids.
    """


class QueryRefusedError(StorageError):
    """SQL of others does more than read the documented views; the message says what."""


class QueryFailedError(StorageError):
    """DuckDB can't run SQL of others; the message is DuckDB's first line."""


class QueryLimitError(StorageError):
    """SQL of others takes more time or memory than it may."""


class TooManyQueriesError(StorageError):
    """As many queries of others are running as may."""
