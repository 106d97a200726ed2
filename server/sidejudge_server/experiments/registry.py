"""All experiments of a database, in memory as they are on disk, and how they begin and end."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from sidejudge_server.errors import FailedPreconditionError, NotFoundError
from sidejudge_server.experiments.codec import (
    experiment_from_record,
    experiment_to_record,
)
from sidejudge_server.experiments.conclusion import (
    Conclusion,
    settled,
    version_to_deploy,
)
from sidejudge_server.experiments.definition import Draft, define, redefine
from sidejudge_server.experiments.event_log import Event, EventKind, EventLog
from sidejudge_server.experiments.preconditions import (
    name_taken,
    outdated,
    require_baseline,
    require_draft,
    require_slice,
)
from sidejudge_server.experiments.status import Decision, Status
from sidejudge_server.experiments.types import Experiment, State
from sidejudge_server.judges.codec import canonical_json
from sidejudge_server.judges.registry import JudgeRegistry
from sidejudge_server.judges.requests import Claim, RequestLog, commit
from sidejudge_storage import (
    Command,
    DuplicateKeyError,
    ExperimentEventRecord,
    ReplaceExperiment,
    RevisionConflictError,
    Storage,
)

__all__ = ["SIDEJUDGE", "ExperimentRegistry"]

SIDEJUDGE = "sidejudge"
"""Author of what it does by itself."""

FinalAnalysis = Callable[[Experiment], Awaitable[Mapping[str, Any] | None]]
"""Returns the analysis of an experiment as JSON, to be kept with its conclusion."""


class ExperimentRegistry:
    """All experiments. Belongs to one event loop."""

    def __init__(
        self, storage: Storage, judges: JudgeRegistry, requests: RequestLog
    ) -> None:
        self._storage = storage
        self._judges = judges
        self._requests = requests
        self._experiments: dict[str, Experiment] = {}
        self._logs: dict[str, EventLog] = {}
        self._running: dict[str, tuple[Experiment, ...]] = {}
        self._any_running = False
        self._listeners: list[Callable[[str], None]] = []
        # One change of an experiment at a time: each starts from what the one before has made of it.
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        # Two starts must not take the same part of a namespace.
        self._starting = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self.final_analysis: FinalAnalysis | None = None
        """Asked for the analysis that a conclusion keeps."""

    async def load(self) -> None:
        """Read all experiments, and end those whose judge was changed under them."""
        last = await self._storage.experiments.last_sequences()
        for record in await self._storage.experiments.all():
            experiment = experiment_from_record(record)
            experiment_id = experiment.experiment_id
            self._experiments[experiment_id] = experiment
            log = EventLog(
                self._storage, experiment_id, last=last.get(experiment_id, 0)
            )
            if experiment.state is State.CONCLUDED:
                log.end()
            self._logs[experiment_id] = log
        self._index()
        self._judges.on_deployed(self._judge_changed)
        for judge_id in list(self._running):
            await self._end_overtaken(judge_id)

    async def close(self) -> None:
        """Send the watchers away and let what is being written end."""
        for log in self._logs.values():
            await log.stop()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def on_changed(self, listener: Callable[[str], None]) -> None:
        """Call back with the id of an experiment that has changed; must not block or raise."""
        self._listeners.append(listener)

    def get(self, experiment_id: str) -> Experiment:
        """Return an experiment; NotFoundError (EXPERIMENT_NOT_FOUND) if there is none."""
        experiment = self._experiments.get(experiment_id)
        if experiment is None:
            name = f"experiments/{experiment_id}"
            raise NotFoundError(
                f"there is no {name}",
                reason="EXPERIMENT_NOT_FOUND",
                resource_type="Experiment",
                resource_name=name,
            )
        return experiment

    def list(
        self, *, judge_id: str | None = None, state: State | None = None
    ) -> Sequence[Experiment]:
        """Return experiments, newest first."""
        found = (
            experiment
            for experiment in self._experiments.values()
            if judge_id in (None, experiment.judge_id)
            and state in (None, experiment.state)
        )
        return sorted(found, key=_age, reverse=True)

    def running_of(self, judge_id: str) -> tuple[Experiment, ...]:
        """Return the running experiments whose arms are versions of a judge."""
        return self._running.get(judge_id, ())

    @property
    def any_running(self) -> bool:
        """Whether any experiment is running."""
        return self._any_running

    def log(self, experiment_id: str) -> EventLog:
        """Return the events of an experiment; NotFoundError if there is none."""
        self.get(experiment_id)
        return self._logs[experiment_id]

    async def create(
        self,
        experiment_id: str,
        draft: Draft,
        *,
        request_id: str = "",
        fingerprint: str = "",
    ) -> Experiment:
        """Create an experiment as a draft.

        Args:
            experiment_id: Its name.
            draft: What is asked for.
            request_id: UUID of the request, or "".
            fingerprint: Equal for equal requests.

        Raises:
            InvalidRequestError: Something is wrong with it; all violations at once.
            NotFoundError: There is no such judge or version.
            AlreadyExistsError: The name is taken.
        """

        async def perform(claim: Claim) -> Experiment:
            experiment = define(experiment_id, draft, self._judges)
            async with self._locks[experiment_id]:
                if experiment_id in self._experiments:
                    raise name_taken(experiment_id)
                record = experiment_to_record(experiment)
                try:
                    await commit(self._storage, record, *claim(experiment_id))
                except DuplicateKeyError:
                    raise name_taken(experiment_id) from None
                self._logs[experiment_id] = EventLog(self._storage, experiment_id)
                self._put(experiment)
                return experiment

        return await self._requests.once(
            request_id,
            method="CreateExperiment",
            fingerprint=fingerprint,
            perform=perform,
            recall=self._recall,
        )

    async def update(
        self,
        experiment_id: str,
        change: Callable[[Experiment], Experiment | Draft],
        *,
        etag: str = "",
    ) -> Experiment:
        """Change an experiment.

        Args:
            experiment_id: Which.
            change: Given the experiment, returns it with other display fields, or the draft to
                define it anew, which only a draft can be.
            etag: If not empty, must match.

        Raises:
            NotFoundError: There is no such experiment.
            FailedPreconditionError: It was started (EXPERIMENT_NOT_DRAFT).
            ConflictError: The etag is out of date.
            InvalidRequestError: Something is wrong with it.
        """
        async with self._locks[experiment_id]:
            experiment = self._checked(experiment_id, etag)
            changed = change(experiment)
            if isinstance(changed, Draft):
                require_draft(experiment, "changed but for its name and description")
                changed = redefine(experiment, changed, self._judges)
            return await self._write(changed)

    async def start(
        self,
        experiment_id: str,
        *,
        author: str = "",
        reason: str = "",
        etag: str = "",
        request_id: str = "",
    ) -> Experiment:
        """Start a draft.

        Raises:
            NotFoundError: There is no such experiment.
            FailedPreconditionError: It was started before (EXPERIMENT_NOT_DRAFT), its baseline does
                not serve (EXPERIMENT_BASELINE_NOT_DEPLOYED), or its namespace is taken
                (NAMESPACE_FULL).
            ConflictError: The etag is out of date.
        """

        async def perform(claim: Claim) -> Experiment:
            async with self._starting, self._locks[experiment_id]:
                experiment = self._checked(experiment_id, etag)
                require_draft(experiment, "started")
                require_baseline(experiment, self._judges)
                part = require_slice(experiment, self._experiments.values())
                now = datetime.now(UTC)
                started = replace(
                    experiment,
                    state=State.RUNNING,
                    slice_low=part.low,
                    slice_high=part.high,
                    started_at=now,
                    status=Status(stage_started_at=now),
                )
                event = Event(EventKind.STARTED, {"author": author, "reason": reason})
                running = await self._write(started, [event], claim(experiment_id))
            if running.judge_id is not None:
                # Another version may have been deployed while this was written.
                self._judge_changed(running.judge_id)
            return running

        return await self._requests.once(
            request_id,
            method="StartExperiment",
            fingerprint=canonical_json([experiment_id, author, reason, etag]),
            perform=perform,
            recall=self._recall,
        )

    async def record(
        self,
        experiment_id: str,
        *,
        status: Status | None = None,
        events: Sequence[Event] = (),
    ) -> Experiment:
        """Write what a running experiment has come to; one that has ended stays as it is.

        Args:
            experiment_id: Which.
            status: Its new status, None to keep it.
            events: What happened, in order.
        """
        async with self._locks[experiment_id]:
            experiment = self.get(experiment_id)
            if experiment.state is not State.RUNNING:
                return experiment
            changed = (
                experiment if status is None else replace(experiment, status=status)
            )
            return await self._write(changed, events)

    async def conclude(
        self,
        experiment_id: str,
        conclusion: Conclusion,
        *,
        etag: str = "",
        request_id: str = "",
        events: Sequence[Event] = (),
    ) -> Experiment:
        """End an experiment, and deploy its winner in the same unit if that is asked for.

        Args:
            experiment_id: Which.
            conclusion: How it ends.
            etag: If not empty, must match.
            request_id: UUID of the request, or "".
            events: What happened before the end, in order.

        Raises:
            NotFoundError: There is no such experiment.
            FailedPreconditionError: It was concluded before (EXPERIMENT_CONCLUDED).
            InvalidRequestError: There is no such decision or winner.
            ConflictError: The etag is out of date.
        """

        async def perform(claim: Claim) -> Experiment:
            async with self._locks[experiment_id]:
                experiment = self._checked(experiment_id, etag)
                return await self._conclude(
                    experiment, conclusion, events, claim(experiment_id)
                )

        return await self._requests.once(
            request_id,
            method="ConcludeExperiment",
            fingerprint=canonical_json(
                [
                    experiment_id,
                    conclusion.decision,
                    conclusion.winner,
                    conclusion.deploy_winner,
                    conclusion.author,
                    conclusion.reason,
                    etag,
                ]
            ),
            perform=perform,
            recall=self._recall,
        )

    async def _conclude(
        self,
        experiment: Experiment,
        conclusion: Conclusion,
        events: Sequence[Event],
        further: Sequence[Command],
    ) -> Experiment:
        if experiment.state is State.CONCLUDED:
            raise FailedPreconditionError(
                f"{experiment.name} was concluded before; its conclusion says how",
                reason="EXPERIMENT_CONCLUDED",
                metadata={"experiment": experiment.name},
            )
        decision, winner = settled(experiment, conclusion)
        version = version_to_deploy(experiment, conclusion, winner)
        analysis = None
        if self.final_analysis is not None and experiment.state is State.RUNNING:
            analysis = await self.final_analysis(experiment)
        now = datetime.now(UTC)
        document: dict[str, Any] = {
            "decision": decision.value,
            "winner": winner,
            "deployed": version is not None,
            "author": conclusion.author,
            "reason": conclusion.reason or experiment.status.reason,
            "analysis": analysis,
        }
        ended = replace(
            experiment, state=State.CONCLUDED, conclusion=document, ended_at=now
        )
        if version is None or experiment.judge_id is None:
            return await self._write(ended, self._with_end(events), further)
        ended, commands, rows = self._unit(ended, self._with_end(events))
        await self._judges.deploy(
            experiment.judge_id,
            version,
            author=conclusion.author,
            reason=f"{experiment.name}: {document['reason']}"[:2000],
            verb="experiment",
            further=(*commands, *further),
        )
        await self._published(ended, rows)
        return ended

    @staticmethod
    def _with_end(events: Sequence[Event]) -> Sequence[Event]:
        return [*events, Event(EventKind.CONCLUDED)]

    async def _write(
        self,
        experiment: Experiment,
        events: Sequence[Event] = (),
        further: Sequence[Command] = (),
    ) -> Experiment:
        """Write a changed experiment as its next revision. Call under its lock."""
        changed, commands, rows = self._unit(experiment, events)
        try:
            await commit(self._storage, *commands, *further)
        except RevisionConflictError:
            raise outdated(experiment, "another revision") from None
        await self._published(changed, rows)
        return changed

    def _unit(
        self, experiment: Experiment, events: Sequence[Event]
    ) -> tuple[Experiment, Sequence[Command], Sequence[ExperimentEventRecord]]:
        before = self._experiments[experiment.experiment_id]
        changed = replace(
            experiment, revision=before.revision + 1, updated_at=datetime.now(UTC)
        )
        rows = self._logs[experiment.experiment_id].rows(events)
        replacing = ReplaceExperiment(
            experiment_to_record(changed), expected_revision=before.revision
        )
        return changed, [replacing, *rows], rows

    async def _published(
        self, experiment: Experiment, rows: Sequence[ExperimentEventRecord]
    ) -> None:
        self._put(experiment)
        await self._logs[experiment.experiment_id].published(rows)

    def _put(self, experiment: Experiment) -> None:
        self._experiments[experiment.experiment_id] = experiment
        self._index()
        for listener in self._listeners:
            listener(experiment.experiment_id)

    def _index(self) -> None:
        running: defaultdict[str, list[Experiment]] = defaultdict(list)
        for experiment in self._experiments.values():
            if experiment.state is State.RUNNING and experiment.judge_id is not None:
                running[experiment.judge_id].append(experiment)
        self._running = {judge: tuple(of) for judge, of in running.items()}
        self._any_running = any(
            experiment.state is State.RUNNING
            for experiment in self._experiments.values()
        )

    def _checked(self, experiment_id: str, etag: str) -> Experiment:
        experiment = self.get(experiment_id)
        if etag and etag != experiment.etag:
            raise outdated(experiment, etag)
        return experiment

    def _judge_changed(self, judge_id: str) -> None:
        if judge_id in self._running:
            task = asyncio.get_running_loop().create_task(self._end_overtaken(judge_id))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _end_overtaken(self, judge_id: str) -> None:
        """End the experiments of a judge whose baseline does not serve any more."""
        for experiment in self.running_of(judge_id):
            experiment_id = experiment.experiment_id
            async with self._locks[experiment_id]:
                now = self.get(experiment_id)
                deployed = self._judges.get_version(judge_id).version
                if now.state is not State.RUNNING or now.baseline.version == deployed:
                    continue
                reason = (
                    f"version {deployed} of judges/{judge_id} was deployed while version"
                    f" {now.baseline.version} was the baseline"
                )
                invalid = Conclusion(Decision.INVALID, author=SIDEJUDGE, reason=reason)
                await self._conclude(now, invalid, (), ())

    async def _recall(self, experiment_id: str) -> Experiment:
        return self.get(experiment_id)


def _age(experiment: Experiment) -> tuple[datetime, str]:
    return experiment.created_at, experiment.experiment_id
