"""The storage of sidejudge: what the rest of it holds on to."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from sidejudge_storage.commands import Command
from sidejudge_storage.database import Database, RepairReport, StorageOptions
from sidejudge_storage.queries import QueryRunner
from sidejudge_storage.readers.enrolments import EnrolmentReader
from sidejudge_storage.readers.evaluations import EvaluationReader
from sidejudge_storage.readers.examples import ExampleReader
from sidejudge_storage.readers.experiment_statistics import (
    ExperimentStatisticsReader,
)
from sidejudge_storage.readers.experiments import ExperimentReader
from sidejudge_storage.readers.feedback import FeedbackReader
from sidejudge_storage.readers.gate_uses import GateUseReader
from sidejudge_storage.readers.judges import JudgeReader
from sidejudge_storage.readers.juries import DeliberationReader, JuryReader
from sidejudge_storage.readers.monitors import MonitorReader
from sidejudge_storage.readers.optimizations import OptimizationReader
from sidejudge_storage.readers.policies import OptimizationPolicyReader
from sidejudge_storage.readers.quality import QualityReader
from sidejudge_storage.readers.reliability import ReliabilityReader
from sidejudge_storage.readers.requests import RequestReader
from sidejudge_storage.readers.review import ReviewReader
from sidejudge_storage.readers.shadow_candidates import ShadowCandidateReader
from sidejudge_storage.readers.shadow_judgments import ShadowJudgmentReader
from sidejudge_storage.writer import Writer

__all__ = ["Storage"]

_READERS = 2


class Storage:
    """An open database: one writer thread, two reader threads.

    Reads see every write that was awaited before.
    """

    def __init__(self, database: Database) -> None:
        """Serve a database that is open; ``Storage.open`` is the usual way."""
        self._database = database
        self._writer = Writer(database)
        self._executor = ThreadPoolExecutor(_READERS, "sidejudge-reader")
        self._closed = False
        self.judges = JudgeReader(database, self._executor)
        self.evaluations = EvaluationReader(database, self._executor)
        self.feedback = FeedbackReader(database, self._executor)
        self.examples = ExampleReader(database, self._executor)
        self.experiments = ExperimentReader(database, self._executor)
        self.experiment_statistics = ExperimentStatisticsReader(
            database, self._executor
        )
        self.enrolments = EnrolmentReader(database, self._executor)
        self.optimizations = OptimizationReader(database, self._executor)
        self.gate_uses = GateUseReader(database, self._executor)
        self.policies = OptimizationPolicyReader(database, self._executor)
        self.shadow_candidates = ShadowCandidateReader(database, self._executor)
        self.shadow_judgments = ShadowJudgmentReader(database, self._executor)
        self.monitors = MonitorReader(database, self._executor)
        self.juries = JuryReader(database, self._executor)
        self.deliberations = DeliberationReader(database, self._executor)
        self.reliability = ReliabilityReader(database, self._executor)
        self.review = ReviewReader(database, self._executor)
        self.quality = QualityReader(database, self._executor)
        self.queries = QueryRunner(database)
        self.requests = RequestReader(database, self._executor)

    @classmethod
    def open(cls, path: Path, options: StorageOptions | None = None) -> Storage:
        """Open a database file, making it if it is not there; blocks.

        Raises:
            DatabaseLockedError: It is in use.
            DatabaseTooNewError: A newer sidejudge wrote it.
            AcknowledgedRowsMissingError: It lost acknowledged commits and the options do not
                accept that; nothing was changed.
            StorageError: It cannot be opened.
        """
        return cls(Database(path, options or StorageOptions()))

    @property
    def database_id(self) -> str:
        """The id that the database file got when it was made."""
        return str(self._database.database_id)

    @property
    def repair(self) -> RepairReport | None:
        """What had to be repaired at the last opening; None if nothing."""
        return self._database.repair

    async def write(self, *commands: Command) -> None:
        """Write commands as one atomic unit and return when they are durable.

        Units of concurrent callers share a transaction; each is stored wholly or not at all. A
        caller that is cancelled does not take its unit back.

        Raises:
            RevisionConflictError: A ``ReplaceJudge`` came too late.
            DuplicateKeyError: The key of a judge, version, deployment or optimization is taken.
            RowMissingError: A row to change is not there.
            WriteFailedError: The disk or DuckDB refused, or the queue is full or closed.
            ValueError: A text is not Unicode or a time has no zone.
        """
        if commands:
            await self._writer.write(commands)

    async def close(self) -> None:
        """Write what waits, checkpoint and close the file; safe to call twice."""
        await asyncio.to_thread(self.close_blocking)

    def close_blocking(self) -> None:
        """Do what ``close`` does, outside an event loop."""
        if not self._closed:
            self._closed = True
            self._writer.close()
            self.queries.close()
            self._executor.shutdown()
            self._database.close()
