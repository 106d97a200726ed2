"""Optimizations as a service: create, watch, cancel, and what becomes of a result."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from sidejudge_server.config import LMSettings, Settings
from sidejudge_server.errors import InvalidRequestError, NotFoundError
from sidejudge_server.judges.codec import canonical_json
from sidejudge_server.judges.registry import JudgeRegistry
from sidejudge_server.judges.requests import Claim, RequestLog, commit
from sidejudge_server.optimization.budget import unpriced_models
from sidejudge_server.optimization.estimator import Estimator, Preview
from sidejudge_server.optimization.executor import Executor
from sidejudge_server.optimization.finish import Finisher
from sidejudge_server.optimization.journal import Journal, JournalError, Journals
from sidejudge_server.optimization.ladder import planned_trials
from sidejudge_server.optimization.new_run import (
    CreateOptimization,
    check_ready,
    in_progress,
    new_journal,
    new_record,
)
from sidejudge_server.optimization.plan import OptimizationConfig, within_trials
from sidejudge_server.optimization.planning import plan_for
from sidejudge_server.optimization.resume import (
    ASKED,
    RESTARTED,
    Reopened,
    ResumeOptimization,
    Resumer,
    new_budget,
    not_resumable,
    resumed_changes,
    resumed_payload,
)
from sidejudge_server.optimization.run_log import (
    LiveRun,
    WatchEvent,
    first_payload,
    watch_ended,
    watch_live,
)
from sidejudge_server.optimization.runner import ResolveLM, Runner
from sidejudge_server.optimization.shadow import ShadowCandidates
from sidejudge_server.optimization.slots import POLICY
from sidejudge_server.optimization.spec import (
    EventKind,
    Phase,
    Progress,
)
from sidejudge_server.training.service import TrainingSets
from sidejudge_storage import (
    Command,
    OptimizationEventRecord,
    OptimizationFilter,
    OptimizationRecord,
    Storage,
)

__all__ = ["CreateOptimization", "OptimizationService"]

T = TypeVar("T")


async def _uninterrupted(work: Coroutine[Any, Any, T]) -> T:
    """Do all of something that is durable in part; a caller that goes away stops nothing."""
    task = asyncio.create_task(work)
    # An error that nobody is left to hear of is not a fault of the program.
    task.add_done_callback(lambda done: done.cancelled() or done.exception())
    return await asyncio.shield(task)


async def _as_configured(settings: LMSettings) -> LMSettings:
    return settings


class OptimizationService:
    """Starts runs, keeps their logs and puts their results into service."""

    def __init__(
        self,
        storage: Storage,
        registry: JudgeRegistry,
        training: TrainingSets,
        executor: Executor,
        settings: Settings,
        *,
        requests: RequestLog | None = None,
        resolve_lm: ResolveLM = _as_configured,
        shadows: ShadowCandidates | None = None,
    ) -> None:
        """Create it; call `start` before anything else.

        Args:
            storage: The database.
            registry: The judges.
            training: Their training sets.
            executor: Runs the worker processes.
            settings: Of the server.
            requests: Of the server; None for one of its own.
            resolve_lm: Turns configured LM settings into those a worker process connects with: the
                embedded model gets the ``base_url`` of the server's own model process.
            shadows: Where candidates go that few examples speak for; None for one of its own.
        """
        self._storage = storage
        self._registry = registry
        self._training = training
        self._settings = settings
        self._requests = requests or RequestLog(storage)
        self._estimator = Estimator(storage, registry, training, settings)
        self._shadows = shadows or ShadowCandidates(storage)
        self._finisher = Finisher(registry, self._shadows)
        self._journals = Journals(settings, storage.database_id)
        self._resumer = Resumer(storage, registry, self._journals)
        self._runner = Runner(
            executor,
            self._finisher,
            storage,
            settings,
            journals=self._journals,
            resolve_lm=resolve_lm,
        )
        self._live: dict[str, LiveRun] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._creating = asyncio.Lock()
        self._ended: list[Callable[[str], None]] = []

    async def start(self) -> None:
        """Go on with the runs that were going when the server stopped, and delete old journals.

        A run that was to be cancelled is cancelled; one that cannot go on fails with
        SERVER_RESTARTED and the cause. Both keep their best version.
        """
        await self._shadows.load()
        for record in await self._storage.optimizations.active():
            try:
                reopened = await self._resumer.reopen_after_restart(record)
            except JournalError as error:
                run = await self._resumer.open(record)
                await self._finisher.abandon(run, cause=str(error))
            else:
                await self._go_on(reopened, reason=RESTARTED)
        await self._resumer.sweep()

    async def close(self) -> None:
        """Stop all runs where they are; they go on when the server starts again."""
        tasks = list(self._tasks.values())
        await self._runner.close()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def create(self, command: CreateOptimization) -> OptimizationRecord:
        """Start a run, or queue it; its row and first event are on disk on return.

        Raises:
            NotFoundError: There is no such judge.
            InvalidRequestError: Configuration or budget are out of range, or the request_id was used.
            FailedPreconditionError: TRAINING_SET_TOO_SMALL or TRAINING_SET_NOT_READY.
            ConflictError: The judge is being optimized already (OPTIMIZATION_IN_PROGRESS).
        """
        violations = [
            *command.config.violations(),
            *command.budget.violations(unpriced=self.unpriced(command.config)),
        ]
        if violations:
            raise InvalidRequestError(violations)

        async def perform(claim: Claim) -> OptimizationRecord:
            async with self._creating:
                return await self._create(command, claim=claim)

        once = self._requests.once(
            command.request_id,
            method="CreateOptimization",
            fingerprint=canonical_json(
                [
                    command.judge_id,
                    command.config.to_json(),
                    command.deploy_if_better,
                    command.budget.to_json(),
                ]
            ),
            perform=perform,
            recall=self.get,
        )
        return await _uninterrupted(once)

    def unpriced(self, config: OptimizationConfig) -> list[str]:
        """Return the models that a run may ask and whose price is not known."""
        return unpriced_models(self._settings, source=config.instruction_source)

    async def estimate(self, command: CreateOptimization) -> Preview:
        """Say what a run would take; starts nothing, and answers also if the data are not ready.

        Raises:
            NotFoundError: There is no such judge.
            InvalidRequestError: The configuration is out of range.
            StorageUnavailableError: Examples could not be derived from feedback.
        """
        found = await self._estimator.preview(
            command.judge_id, command.config, command.budget
        )
        if active := self.active_run(command.judge_id):
            busy = (
                f"the judge is being optimized by optimizations/{active}: another run would be "
                "refused until it ends"
            )
            found = replace(found, warnings=(busy, *found.warnings))
        return found

    async def get(self, optimization_id: str) -> OptimizationRecord:
        """Return a run; NotFoundError if there is none."""
        live = self._live.get(optimization_id)
        if live is not None:
            return live.record
        record = await self._storage.optimizations.get(optimization_id)
        if record is None:
            name = f"optimizations/{optimization_id}"
            raise NotFoundError(
                f"there is no {name}",
                reason="OPTIMIZATION_NOT_FOUND",
                resource_type="Optimization",
                resource_name=name,
            )
        return record

    async def list(
        self, criteria: OptimizationFilter, *, before: str | None = None, limit: int
    ) -> Sequence[OptimizationRecord]:
        """Return runs that match, newest first, at most ``limit``, older than ``before``."""
        found = await self._storage.optimizations.list(
            criteria, before=before, limit=limit
        )
        live = self._live
        return [
            live[r.optimization_id].record if r.optimization_id in live else r
            for r in found
        ]

    async def list_trials(
        self, optimization_id: str, *, after_sequence: int = 0, limit: int
    ) -> Sequence[OptimizationEventRecord]:
        """Return ``trial_completed`` events in order, at most ``limit``, after a position.

        Raises:
            NotFoundError: There is no such run.
        """
        await self.get(optimization_id)
        return await self._storage.optimizations.events(
            optimization_id,
            after_sequence=after_sequence,
            limit=limit,
            kinds=(EventKind.TRIAL_COMPLETED.value,),
        )

    async def watch(
        self, optimization_id: str, *, after_sequence: int | None = None
    ) -> AsyncGenerator[WatchEvent, None]:
        """Yield a run's events, ending with ``finished``; without a position first a snapshot.

        Raises:
            NotFoundError: There is no such run.
            InvalidTokenError: The position lies in the future.
            ServerStoppingError: The server stops before the run has ended.
        """
        record = await self.get(optimization_id)
        live = self._live.get(optimization_id)
        events = (
            watch_live(
                live,
                after_sequence=after_sequence,
                heartbeat_s=self._settings.optimization.heartbeat_s,
            )
            if live is not None
            else watch_ended(record, self._storage, after_sequence=after_sequence)
        )
        async with contextlib.aclosing(events):
            async for event in events:
                yield event

    async def cancel(self, optimization_id: str) -> OptimizationRecord:
        """Ask a run to stop and return it as it is now; one that has ended stays as it is.

        Raises:
            NotFoundError: There is no such run.
        """
        live = self._live.get(optimization_id)
        if live is None:
            return await self.get(optimization_id)

        async def stop() -> None:
            if await live.ask_to_stop():
                await self._runner.cancel(live)

        await _uninterrupted(stop())
        return live.record

    async def resume(self, command: ResumeOptimization) -> OptimizationRecord:
        """Go on with a run that has ended undecided; one that is going stays as it is.

        Raises:
            NotFoundError: There is no such run.
            FailedPreconditionError: It cannot go on (OPTIMIZATION_NOT_RESUMABLE).
            ConflictError: The judge is being optimized by another run (OPTIMIZATION_IN_PROGRESS).
            InvalidRequestError: The budget is out of range, or the request_id was used.
        """

        async def perform(claim: Claim) -> OptimizationRecord:
            async with self._creating:
                return await self._resume(command, claim=claim)

        once = self._requests.once(
            command.request_id,
            method="ResumeOptimization",
            fingerprint=canonical_json([command.optimization_id, dict(command.bounds)]),
            perform=perform,
            recall=self.get,
        )
        return await _uninterrupted(once)

    def on_ended(self, listener: Callable[[str], None]) -> None:
        """Call back with the judge's id whenever one of its runs has ended."""
        self._ended.append(listener)

    def active_run(self, judge_id: str) -> str:
        """Return the id of the run of a judge that has not ended, "" if there is none."""
        return next(
            (r.run_id for r in self._live.values() if r.record.judge_id == judge_id), ""
        )

    @property
    def active_count(self) -> int:
        """Runs that have not ended."""
        return len(self._live)

    # --- Creating -------------------------------------------------------------------------------

    async def _create(
        self, command: CreateOptimization, *, claim: Claim
    ) -> OptimizationRecord:
        self._registry.get(command.judge_id)
        self._require_idle(command.judge_id)
        data = await self._training.training_data(
            command.judge_id, synthetic=command.config.synthetic
        )
        training_set = data.training_set
        check_ready(training_set, self._settings.optimization.min_examples)
        version = self._registry.get_version(command.judge_id)
        plan = plan_for(self._settings, command.config, version, training_set)
        expected = await self._estimator.estimate(
            version, plan, data=data, bounds=command.budget
        )
        record = new_record(
            self._settings,
            command,
            version,
            training_set,
            plan=plan,
            estimate=expected.estimate,
            waiting=self._is_full,
        )
        run = LiveRun(record, self._storage)
        most = command.budget.max_trials
        trials = planned_trials(within_trials(plan, most), most)
        run.progress = Progress(trials_total=trials)
        journal = new_journal(self._settings, record, version, plan=plan, data=data)
        await self._resumer.keep(journal)
        kind = EventKind.PHASE_CHANGED
        payload: dict[str, Any] = first_payload(Phase.PREPARING, run.progress)
        if record.state == "queued":
            kind = EventKind.WARNING
            payload = {"message": self._waiting(record.trigger_source)}
        try:
            await run.create(kind, payload, *claim(run.run_id))
        except BaseException:
            self._journals.end(record, nothing_to_resume=True)
            raise
        self._begin(run, journal)
        return run.record

    @property
    def _is_full(self) -> bool:
        """Whether a further run has to wait; one begun a moment ago has no worker yet."""
        return (
            self._runner.is_full
            or sum(not run.interrupted for run in self._live.values())
            >= self._settings.optimization.max_workers
        )

    def _waiting(self, trigger_source: str) -> str:
        """Say what a run that has to wait is waiting for, and at which place."""
        before = sum(
            run.record.state == "queued"
            and (trigger_source == POLICY or run.record.trigger_source != POLICY)
            for run in self._live.values()
        )
        workers = self._settings.optimization.max_workers
        at_once = (
            "1 optimization runs" if workers == 1 else f"{workers} optimizations run"
        )
        place = "the next one" if not before else f"number {before + 1} in the queue"
        return f"waiting for a worker: {at_once} at once; this is {place}"

    def _require_idle(self, judge_id: str) -> None:
        if active := self.active_run(judge_id):
            raise in_progress(self._registry.get(judge_id), active)

    async def _resume(
        self, command: ResumeOptimization, *, claim: Claim
    ) -> OptimizationRecord:
        record = await self.get(command.optimization_id)
        if record.optimization_id in self._live:
            if claimed := claim(record.optimization_id):
                await commit(self._storage, *claimed)
            return record
        try:
            reopened = await self._resumer.reopen(record)
        except JournalError as error:
            raise not_resumable(record.optimization_id, error) from error
        config = OptimizationConfig.from_json(json.loads(record.config_json))
        budget = new_budget(record, command, unpriced=self.unpriced(config))
        self._require_idle(record.judge_id)
        claimed = claim(record.optimization_id)
        return await self._go_on(
            reopened,
            *claimed,
            reason=ASKED,
            budget_json=canonical_json(budget.to_json()),
        )

    async def _go_on(
        self, reopened: Reopened, *more: Command, reason: str, **changes: object
    ) -> OptimizationRecord:
        run, record = reopened.run, reopened.run.record
        waiting = self._is_full
        payload = resumed_payload(
            record, reason=reason, answers_kept=reopened.answers_kept, waiting=waiting
        )
        changes |= resumed_changes(record, waiting=waiting)
        await run.append(EventKind.RESUMED, payload, *more, **changes)
        self._begin(run, reopened.journal)
        return run.record

    def _begin(self, run: LiveRun, journal: Journal) -> None:
        self._live[run.run_id] = run
        task = asyncio.create_task(
            self._execute(run, journal), name=f"optimization-{run.run_id}"
        )
        self._tasks[run.run_id] = task

    async def _execute(self, run: LiveRun, journal: Journal) -> None:
        try:
            await self._runner.execute(run, journal)
        finally:
            self._tasks.pop(run.run_id, None)
            # One that is left to the next start keeps its judge: a second run of the judge would be
            # there beside it then.
            if not run.interrupted:
                self._live.pop(run.run_id, None)
                for listener in self._ended:
                    listener(run.record.judge_id)
