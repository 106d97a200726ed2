"""Reading experiments and their events."""

from __future__ import annotations

from concurrent.futures import Executor
from dataclasses import dataclass

from sidejudge_storage.database import Database
from sidejudge_storage.readers.base import Reader, Where
from sidejudge_storage.records import ExperimentEventRecord, ExperimentRecord
from sidejudge_storage.tables import EXPERIMENT_EVENTS, EXPERIMENTS

__all__ = ["ExperimentFilter", "ExperimentReader"]


@dataclass(frozen=True, slots=True)
class ExperimentFilter:
    """Which experiments to list; None means any."""

    judge_id: str | None = None
    state: str | None = None


class ExperimentReader(Reader[ExperimentRecord]):
    """Reads experiments."""

    def __init__(self, database: Database, executor: Executor) -> None:
        super().__init__(database, executor, EXPERIMENTS)
        self._events: Reader[ExperimentEventRecord] = Reader(
            database, executor, EXPERIMENT_EVENTS
        )

    async def all(self) -> list[ExperimentRecord]:
        """Return every experiment, oldest first."""
        return await self._select(Where(), order="created_at, experiment_id")

    async def running(self, judge_id: str) -> list[ExperimentRecord]:
        """Return the running experiments of a judge."""
        return await self._select(Where().equals(judge_id=judge_id, state="running"))

    async def last_sequences(self) -> dict[str, int]:
        """Return the number of the last event of each experiment that has events."""
        rows = await self._rows(
            "SELECT experiment_id, max(sequence) FROM experiment_events GROUP BY ALL",
            [],
        )
        return dict(rows)

    async def events(
        self, experiment_id: str, *, after: int = 0, limit: int | None = None
    ) -> list[ExperimentEventRecord]:
        """Return events in order, those beyond a sequence number."""
        where = Where().equals(experiment_id=experiment_id).add("sequence > ?", after)
        return await self._events._select(where, order="sequence", limit=limit)  # noqa: SLF001 - the same class
