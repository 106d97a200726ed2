"""Takes queued runs to their end: a worker slot, a process, its events, what it leaves on disk."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from sidejudge_server.config import LMSettings, Settings
from sidejudge_server.errors import StorageUnavailableError
from sidejudge_server.judges.codec import program_to_json
from sidejudge_server.judges.kinds import curated_instructions
from sidejudge_server.judges.versions import JudgeVersion
from sidejudge_server.optimization.budget import OptimizationBudget
from sidejudge_server.optimization.executor import Executor
from sidejudge_server.optimization.finish import Finisher
from sidejudge_server.optimization.gate_uses import earlier_uses, held_out_of
from sidejudge_server.optimization.plan import SearchPlan
from sidejudge_server.optimization.run_errors import server_restarted
from sidejudge_server.optimization.run_log import LiveRun, first_payload
from sidejudge_server.optimization.spec import (
    EventKind,
    Phase,
    Progress,
    RunExample,
    RunSpec,
    spent_before,
)
from sidejudge_server.training.origins import SYNTHETIC
from sidejudge_server.training.service import TrainingData
from sidejudge_storage import ExampleRecord, Storage

__all__ = ["ResolveLM", "Runner"]

T = TypeVar("T")

_RETRY_S = 5.0

ResolveLM = Callable[[LMSettings], Awaitable[LMSettings]]

_LOGGED = {
    EventKind.INSTRUCTION_PROPOSED,
    EventKind.TRIAL_COMPLETED,
    EventKind.BEST_IMPROVED,
    EventKind.WARNING,
}


class Runner:
    """Executes runs, as many at once as the settings say."""

    def __init__(
        self,
        executor: Executor,
        finisher: Finisher,
        storage: Storage,
        settings: Settings,
        *,
        resolve_lm: ResolveLM,
    ) -> None:
        self._executor = executor
        self._finisher = finisher
        self._storage = storage
        self._settings = settings
        self._resolve_lm = resolve_lm
        self._slots = asyncio.Semaphore(settings.optimization.max_workers)
        self._closing = asyncio.Event()

    @property
    def is_full(self) -> bool:
        """Whether a further run would have to wait."""
        return self._slots.locked()

    async def close(self) -> None:
        """Kill all workers; their runs end as failed with SERVER_RESTARTED."""
        self._closing.set()
        await self._executor.close()

    async def cancel(self, run: LiveRun) -> None:
        """Ask a run to stop; no-op before it has a process, which then ends at once."""
        await self._executor.cancel(run.run_id)

    async def execute(
        self,
        run: LiveRun,
        version: JudgeVersion,
        plan: SearchPlan,
        *,
        data: TrainingData,
    ) -> None:
        """Take a run to its end. Whatever happens, it ends."""
        last: Mapping[str, Any] = {"kind": EventKind.CANCELLED.value}
        try:
            if await self._slot(run):
                try:
                    last = await self._run(run, version, plan, data=data)
                finally:
                    self._slots.release()
        except Exception as error:  # noqa: BLE001 - a fault must end the run, not the server
            last = {"kind": EventKind.FAILED.value, "error": _fault(error)}
        if await self._finish(run, self._judged(run, last)):
            self.clean(run.run_id, keep_log=run.record.state == "failed")

    async def _finish(self, run: LiveRun, last: Mapping[str, Any]) -> bool:
        """Store the end of a run; return False if the server stopped before that was possible."""
        kept = True
        while True:
            try:
                await self._finisher.finish(run, last)
            except StorageUnavailableError:
                # Watchers wait for the end, and the judge for its next run: try until it is stored.
                # If the server stops before, its next start ends the run.
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._closing.wait(), _RETRY_S)
                    return False
            except Exception as error:
                if not kept:
                    raise
                # What the worker came to cannot be kept; the run ends with the best before.
                kept = False
                last = {"kind": EventKind.FAILED.value, "error": _fault(error)}
            else:
                return True

    def _judged(self, run: LiveRun, last: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return what a worker's last word means after what was asked of it."""
        finished = last["kind"] == EventKind.RESULT.value
        if run.record.state == "cancelling":
            if finished and last["candidate"] is not None:
                # Asked to stop a moment too late: keep the result, deploy nothing.
                score = run.progress.best_score
                run.best = {"program": last["candidate"], "score": score or 0.0}
            return {"kind": EventKind.CANCELLED.value}
        if self._closing.is_set() and not finished:
            error = asdict(server_restarted(run.run_id))
            return {"kind": EventKind.FAILED.value, "error": error}
        return last

    async def _slot(self, run: LiveRun) -> bool:
        """Wait for a worker; return False if the run is cancelled before there is one."""
        slot = asyncio.ensure_future(self._slots.acquire())
        cancelled = asyncio.ensure_future(run.cancel_asked.wait())
        await asyncio.wait({slot, cancelled}, return_when=asyncio.FIRST_COMPLETED)
        cancelled.cancel()
        if run.cancel_asked.is_set():
            if slot.done():
                self._slots.release()
            slot.cancel()
            return False
        if run.record.state == "queued":
            try:
                await run.append(
                    EventKind.PHASE_CHANGED,
                    first_payload(Phase.PREPARING, run.progress),
                    state="running",
                    phase=Phase.PREPARING.value,
                    started_at=datetime.now(UTC),
                )
            except BaseException:
                self._slots.release()
                raise
        return True

    async def _run(
        self,
        run: LiveRun,
        version: JudgeVersion,
        plan: SearchPlan,
        *,
        data: TrainingData,
    ) -> Mapping[str, Any]:
        """Run the worker and return its last word."""
        for warning in data.training_set.warnings:
            await run.append(EventKind.WARNING, {"message": warning})
        preparing = self._spec(run, version, plan, examples=data.examples)
        spec = await _unless_cancelled(run, preparing)
        if spec is None:
            return {"kind": EventKind.CANCELLED.value}
        await self._executor.submit(run.run_id, spec.to_json())
        events = self._executor.events(run.run_id)
        try:
            if run.cancel_asked.is_set():
                await self._executor.cancel(run.run_id)
            async for event in events:
                kind = EventKind(event["kind"])
                if kind.is_final:
                    if "progress" in event:
                        run.progress = Progress.from_json(event["progress"])
                    return event
                await self._take(run, kind, event)
        finally:
            # Closing the iterator ends the process, also when an event could not be stored.
            with contextlib.suppress(AttributeError):
                await events.aclose()  # type: ignore[attr-defined]  # generators have it
        raise RuntimeError("the executor's events ended without a final one")

    async def _take(
        self, run: LiveRun, kind: EventKind, event: Mapping[str, Any]
    ) -> None:
        payload = {k: v for k, v in event.items() if k != "kind"}
        if "progress" in payload:
            run.progress = Progress.from_json(payload["progress"])
        if kind is EventKind.PHASE_CHANGED:
            await run.append(kind, payload, phase=payload["phase"])
        elif kind in _LOGGED:
            if kind is EventKind.BEST_IMPROVED:
                run.best = payload
            await run.append(kind, payload)

    async def _spec(
        self,
        run: LiveRun,
        version: JudgeVersion,
        plan: SearchPlan,
        *,
        examples: Sequence[ExampleRecord],
    ) -> RunSpec:
        prompt_lm = self._settings.prompt_lm
        test = _examples(examples, "test")
        run.held_out = held_out_of(test)
        earlier = await earlier_uses(self._storage, run.record, test)
        return RunSpec(
            optimization_id=run.run_id,
            program_json=program_to_json(version.program),
            train=_examples(examples, "train"),
            validation=_examples(examples, "validation"),
            test=test,
            plan=plan,
            curated=tuple(curated_instructions(version.program)),
            task_lm=await self._resolve_lm(self._settings.task_lm),
            prompt_lm=await self._resolve_lm(prompt_lm) if prompt_lm else None,
            model_dir=str(self._settings.model_dir),
            work_dir=str(self._work_dir(run.run_id).absolute()),
            shared_with_earlier=earlier.shared,
            budget=OptimizationBudget.from_json(json.loads(run.record.budget_json)),
            spent=spent_before(run.progress),
            elapsed_s=run.progress.elapsed_s,
            lm_outage_s=self._settings.optimization.lm_outage_s,
        )

    def _work_dir(self, run_id: str) -> Path:
        configured = self._settings.optimization.work_dir
        path = self._settings.storage.path
        root = configured or path.with_name(f"{path.name}.runs")
        return root / run_id

    def clean(self, run_id: str, *, keep_log: bool) -> None:
        """Delete what a run leaves on disk; of a failed one its log stays.

        Call caches hold judged texts: they do not outlive the run.
        """
        directory = self._work_dir(run_id)
        if not keep_log:
            shutil.rmtree(directory, ignore_errors=True)
            return
        for path in directory.glob("*"):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            elif path.suffix != ".log":
                path.unlink(missing_ok=True)


async def _unless_cancelled(run: LiveRun, work: Coroutine[Any, Any, T]) -> T | None:
    """Return what comes out of some work, None as soon as somebody wants the run to stop."""
    task = asyncio.create_task(work)
    cancelled = asyncio.create_task(run.cancel_asked.wait())
    try:
        await asyncio.wait({task, cancelled}, return_when=asyncio.FIRST_COMPLETED)
        return task.result() if task.done() else None
    finally:
        task.cancel()
        cancelled.cancel()


def _examples(records: Sequence[ExampleRecord], split: str) -> tuple[RunExample, ...]:
    return tuple(
        RunExample(
            r.example_id,
            r.input_json,
            r.verdict,
            r.score,
            r.rationale,
            synthetic=r.origin == SYNTHETIC,
            group=r.group_key,
        )
        for r in records
        if r.split == split
    )


def _fault(error: Exception) -> dict[str, Any]:
    return {
        "code": getattr(error, "code", "INTERNAL"),
        "reason": getattr(error, "reason", "INTERNAL"),
        "message": getattr(
            error, "message", f"fault in sidejudge: {type(error).__name__}"
        ),
        "metadata": dict(getattr(error, "metadata", {})),
    }
