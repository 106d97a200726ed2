"""Runs that go on: after a restart of the server by themselves, after another end when asked to."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from sidejudge_server.errors import (
    FailedPreconditionError,
    InvalidRequestError,
    NotFoundError,
    StorageUnavailableError,
)
from sidejudge_server.judges.registry import JudgeRegistry
from sidejudge_server.optimization.budget import OptimizationBudget
from sidejudge_server.optimization.journal import (
    Journal,
    JournalError,
    Journals,
    undecided,
)
from sidejudge_server.optimization.run_log import LiveRun
from sidejudge_server.optimization.spec import EventKind, Phase
from sidejudge_storage import OptimizationEventRecord, OptimizationRecord, Storage

__all__ = [
    "ASKED",
    "RESTARTED",
    "Reopened",
    "ResumeOptimization",
    "Resumer",
    "new_budget",
    "not_resumable",
    "resumed_changes",
    "resumed_payload",
]

RESTARTED = "the server was restarted"
ASKED = "it was asked to go on"
MAX_FRUITLESS = 5
"""Restarts without a new answer in between after which a run does not go on by itself."""
_PAGE = 500


@dataclass(frozen=True, slots=True)
class ResumeOptimization:
    """A run to go on with.

    Attributes:
        optimization_id: The run.
        bounds: Bounds of its budget to replace, by their names in `OptimizationBudget`.
        request_id: UUID of the request, or "".
    """

    optimization_id: str
    bounds: Mapping[str, float] = field(default_factory=dict)
    request_id: str = ""


@dataclass(frozen=True, slots=True)
class Reopened:
    """A run that can go on: its log, what it does, and how many answers it has already."""

    run: LiveRun
    journal: Journal
    answers_kept: int


class Resumer:
    """Checks whether a run can go on, and opens it."""

    def __init__(
        self, storage: Storage, registry: JudgeRegistry, journals: Journals
    ) -> None:
        self._storage = storage
        self._registry = registry
        self._journals = journals

    async def reopen(
        self, record: OptimizationRecord, *, by_itself: bool = False
    ) -> Reopened:
        """Return a run as it was left. Writes nothing.

        Args:
            record: The run's row.
            by_itself: True after a restart: a run that makes no progress is then left alone.

        Raises:
            JournalError: It cannot go on.
        """
        if not undecided(record):
            raise JournalError("it has succeeded")
        try:
            self._registry.get(record.judge_id)
            self._registry.get_version(record.judge_id, record.baseline_version)
        except NotFoundError as error:
            raise JournalError("its judge was deleted") from error
        journal = await asyncio.to_thread(self._journals.read, record)
        run_id = record.optimization_id
        answers = await asyncio.to_thread(self._journals.answers_kept, run_id)
        run = await self.open(record)
        working = by_itself and record.state != "queued"
        if working and _fruitless(run.log, answers) >= MAX_FRUITLESS:
            raise JournalError(
                f"{MAX_FRUITLESS} restarts in a row came before any new answer of a model"
            )
        return Reopened(run, journal, answers)

    async def open(self, record: OptimizationRecord) -> LiveRun:
        """Return a run with its log, whether it can go on or not."""
        log = await self._log(record.optimization_id)
        return LiveRun(record, self._storage, log=log)

    async def reopen_after_restart(self, record: OptimizationRecord) -> Reopened:
        """Return a run that was going when the server stopped.

        Raises:
            JournalError: It does not go on by itself.
        """
        if record.state == "cancelling":
            raise JournalError("it was to be cancelled")
        return await self.reopen(record, by_itself=True)

    async def keep(self, journal: Journal) -> None:
        """Write a journal; it is on disk on return.

        Raises:
            StorageUnavailableError: It cannot be written.
        """
        try:
            await asyncio.to_thread(self._journals.write, journal)
        except OSError as error:
            raise StorageUnavailableError(
                f"the run's journal cannot be written: {error.strerror}; nothing was started",
                reason="STORAGE_UNAVAILABLE",
                retry_after_s=1.0,
            ) from error

    async def sweep(self) -> None:
        """Delete the journals and logs of runs that ended too long ago, and of none."""
        ended: dict[str, datetime | None] = {}
        for directory in await asyncio.to_thread(self._journals.directories):
            record = await self._storage.optimizations.get(directory.name)
            if record is not None:
                ended[directory.name] = record.ended_at
        await asyncio.to_thread(self._journals.sweep, ended, now=datetime.now(UTC))

    async def _log(self, run_id: str) -> list[OptimizationEventRecord]:
        log: list[OptimizationEventRecord] = []
        while page := await self._storage.optimizations.events(
            run_id, after_sequence=len(log), limit=_PAGE
        ):
            log += page
        return log


def new_budget(
    record: OptimizationRecord,
    command: ResumeOptimization,
    *,
    unpriced: Sequence[str] = (),
) -> OptimizationBudget:
    """Return the budget of a run that goes on.

    Args:
        record: The run's row, with the budget so far.
        command: Replaces some bounds.
        unpriced: Models that the run may ask and whose price is not known.

    Raises:
        InvalidRequestError: Bounds are out of range.
    """
    so_far = OptimizationBudget.from_json(json.loads(record.budget_json))
    budget = so_far.with_bounds(command.bounds)
    violations = budget.violations(unpriced=unpriced, prefix="budget.")
    if violations:
        raise InvalidRequestError(violations)
    return budget


def resumed_changes(record: OptimizationRecord, *, waiting: bool) -> dict[str, Any]:
    """Return the fields of a run's row that change when it goes on.

    Args:
        record: The row as it is.
        waiting: True if it has to wait for a worker.
    """
    started = None if waiting else datetime.now(UTC)
    return {
        "state": "queued" if waiting else "running",
        "phase": "" if waiting else Phase.PREPARING.value,
        "resume_count": record.resume_count + 1,
        "started_at": record.started_at or started,
        "ended_at": None,
        "decision_json": None,
        "error_json": None,
        "outcome": "",
        "stop_reason": "",
        "summary": "",
    }


def resumed_payload(
    record: OptimizationRecord, *, reason: str, answers_kept: int, waiting: bool = False
) -> dict[str, Any]:
    """Return the payload of ``resumed``.

    Args:
        record: The row as it was.
        reason: Why, for people.
        answers_kept: Answers in the call caches.
        waiting: True if it has to wait for a worker.
    """
    return {
        "reason": reason,
        "resume_count": record.resume_count + 1,
        "answers_kept": answers_kept,
        "waiting": waiting,
    }


def not_resumable(run_id: str, error: JournalError) -> FailedPreconditionError:
    """Return what somebody hears who asked a run to go on that cannot."""
    name = f"optimizations/{run_id}"
    return FailedPreconditionError(
        f"{name} cannot go on: {error}; start a new run",
        reason="OPTIMIZATION_NOT_RESUMABLE",
        metadata={"optimization": name, "cause": str(error)},
    )


def _fruitless(log: Sequence[OptimizationEventRecord], answers: int) -> int:
    """Return how often in a row the run went on after a restart and got no new answer."""
    count = 0
    for event in reversed(log):
        if event.kind == EventKind.FINISHED.value:
            break
        if event.kind == EventKind.RESUMED.value:
            payload = json.loads(event.payload_json)
            if payload["answers_kept"] != answers:
                break
            count += not payload["waiting"]
    return count
