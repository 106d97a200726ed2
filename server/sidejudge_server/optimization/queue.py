"""Optimizations as a service: create, watch, cancel, and what becomes of a result."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, TypeVar

from sidejudge_server.config import LMSettings, Settings
from sidejudge_server.errors import (
    ConflictError,
    FailedPreconditionError,
    InvalidRequestError,
    NotFoundError,
)
from sidejudge_server.judges.codec import canonical_json
from sidejudge_server.judges.registry import JudgeRegistry
from sidejudge_server.judges.requests import Claim, RequestLog
from sidejudge_server.judges.versions import Judge, JudgeVersion
from sidejudge_server.optimization.budget import (
    OptimizationBudget,
    unpriced_models,
)
from sidejudge_server.optimization.estimate import RunEstimate
from sidejudge_server.optimization.estimator import Estimator, Preview
from sidejudge_server.optimization.executor import Executor
from sidejudge_server.optimization.finish import Finisher
from sidejudge_server.optimization.ladder import planned_trials
from sidejudge_server.optimization.plan import (
    InstructionSource,
    OptimizationConfig,
    SearchPlan,
    within_trials,
)
from sidejudge_server.optimization.planning import completed_config, plan_for
from sidejudge_server.optimization.run_log import (
    LiveRun,
    WatchEvent,
    first_payload,
    watch_ended,
    watch_live,
)
from sidejudge_server.optimization.runner import ResolveLM, Runner
from sidejudge_server.optimization.shadow import ShadowCandidates
from sidejudge_server.optimization.spec import (
    EventKind,
    Phase,
    Progress,
)
from sidejudge_server.training.readiness import Readiness, TrainingSet
from sidejudge_server.training.service import TrainingData, TrainingSets
from sidejudge_storage import (
    OptimizationEventRecord,
    OptimizationFilter,
    OptimizationRecord,
    Storage,
)
from sidejudge_storage.ids import new_id

__all__ = ["CreateOptimization", "OptimizationService"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class CreateOptimization:
    """A run to start.

    Attributes:
        judge_id: The judge.
        config: How to search.
        deploy_if_better: True to deploy a candidate that the gate says is better.
        request_id: UUID of the request, or "".
        budget: What it may spend.
        trigger_source: caller or policy.
        trigger_reason: Why a policy starts it, with figures; "" for a caller.
    """

    judge_id: str
    config: OptimizationConfig = field(default_factory=OptimizationConfig)
    deploy_if_better: bool = False
    request_id: str = ""
    budget: OptimizationBudget = field(default_factory=OptimizationBudget)
    trigger_source: str = "caller"
    trigger_reason: str = ""


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
        self._finisher = Finisher(storage, registry, self._shadows)
        self._runner = Runner(
            executor, self._finisher, storage, settings, resolve_lm=resolve_lm
        )
        self._live: dict[str, LiveRun] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._creating = asyncio.Lock()
        self._ended: list[Callable[[str], None]] = []

    async def start(self) -> None:
        """End the runs that were going when the server died, keeping their best versions."""
        await self._shadows.load()
        for record in await self._storage.optimizations.active():
            await self._finisher.abandon(record)
            self._runner.clean(record.optimization_id, keep_log=True)

    async def close(self) -> None:
        """Stop all runs; they end as failed with SERVER_RESTARTED, their best versions are kept."""
        tasks = list(self._tasks.values())
        for run in self._live.values():
            run.cancel_asked.set()
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
        judge = self._registry.get(command.judge_id)
        if active := self.active_run(command.judge_id):
            raise _in_progress(judge, active)
        data = await self._training.training_data(
            command.judge_id, synthetic=command.config.synthetic
        )
        training_set = data.training_set
        _check_ready(training_set, self._settings.optimization.min_examples)
        version = self._registry.get_version(command.judge_id)
        plan = plan_for(self._settings, command.config, version, training_set)
        expected = await self._estimator.estimate(
            version, plan, data=data, bounds=command.budget
        )
        record = self._record(
            command, version, training_set, plan=plan, estimate=expected.estimate
        )
        run = LiveRun(record, self._storage)
        most = command.budget.max_trials
        trials = planned_trials(within_trials(plan, most), most)
        run.progress = Progress(trials_total=trials)
        if self._runner.is_full:
            workers = self._settings.optimization.max_workers
            await run.create(
                EventKind.WARNING,
                {"message": f"waiting: {workers} optimizations run at once"},
                *claim(run.run_id),
            )
        else:
            await run.create(
                EventKind.PHASE_CHANGED,
                first_payload(Phase.PREPARING, run.progress),
                *claim(run.run_id),
            )
        self._live[run.run_id] = run
        task = asyncio.create_task(
            self._execute(run, version, plan, data=data),
            name=f"optimization-{run.run_id}",
        )
        self._tasks[run.run_id] = task
        return run.record

    def _record(
        self,
        command: CreateOptimization,
        version: JudgeVersion,
        training_set: TrainingSet,
        *,
        plan: SearchPlan,
        estimate: RunEstimate,
    ) -> OptimizationRecord:
        prompt_lm = self._settings.prompt_lm or self._settings.task_lm
        proposes = plan.instruction_source is InstructionSource.PROPOSER
        now = datetime.now(UTC)
        waiting = self._runner.is_full
        return OptimizationRecord(
            optimization_id=new_id(),
            judge_id=command.judge_id,
            state="queued" if waiting else "running",
            phase="" if waiting else Phase.PREPARING.value,
            config_json=canonical_json(completed_config(command.config, plan)),
            deploy_if_better=command.deploy_if_better,
            baseline_version=version.version,
            candidate_version=None,
            decision_json=None,
            error_json=None,
            progress_json="{}",
            dataset_json=canonical_json(
                {
                    "train_count": training_set.train_count,
                    "validation_count": training_set.validation_count,
                    "test_count": training_set.test_count,
                    "digest": training_set.digest,
                    "synthetic_count": training_set.synthetic_count,
                }
            ),
            task_model=self._settings.task_lm.model,
            prompt_model=prompt_lm.model if proposes else "",
            created_at=now,
            started_at=None if waiting else now,
            ended_at=None,
            estimate_json=canonical_json(estimate.to_json()),
            budget_json=canonical_json(command.budget.to_json()),
            trigger_source=command.trigger_source,
            trigger_reason=command.trigger_reason,
        )

    async def _execute(
        self,
        run: LiveRun,
        version: JudgeVersion,
        plan: SearchPlan,
        *,
        data: TrainingData,
    ) -> None:
        try:
            await self._runner.execute(run, version, plan, data=data)
        finally:
            self._live.pop(run.run_id, None)
            self._tasks.pop(run.run_id, None)
            for listener in self._ended:
                listener(run.record.judge_id)


def _check_ready(training_set: TrainingSet, need: int) -> None:
    have = training_set.example_count
    if have < need:
        raise FailedPreconditionError(
            f"there are {have} training examples, {need} are needed; record feedback or import more",
            reason="TRAINING_SET_TOO_SMALL",
            metadata={"have": str(have), "need": str(need)},
        )
    if training_set.readiness is Readiness.NOT_READY:
        problems = "; ".join(training_set.problems)
        raise FailedPreconditionError(
            f"the training examples cannot teach this judge: {problems}",
            reason="TRAINING_SET_NOT_READY",
            metadata={"problems": problems},
        )


def _in_progress(judge: Judge, run_id: str) -> ConflictError:
    name = f"optimizations/{run_id}"
    return ConflictError(
        f"{judge.name} is being optimized by {name}; watch that one or cancel it first",
        reason="OPTIMIZATION_IN_PROGRESS",
        metadata={"optimization": name},
    )
