"""Takes queued runs to their end: a worker slot, a process, its events, what it leaves on disk."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, TypeVar

from sidejudge_server.config import LMSettings, Settings
from sidejudge_server.errors import StorageUnavailableError
from sidejudge_server.optimization.budget import OptimizationBudget
from sidejudge_server.optimization.child import LEAVE_S
from sidejudge_server.optimization.executor import Executor
from sidejudge_server.optimization.finish import Finisher
from sidejudge_server.optimization.gate_uses import earlier_uses, held_out_of
from sidejudge_server.optimization.journal import Journal, Journals
from sidejudge_server.optimization.replay import Replay, continued
from sidejudge_server.optimization.resume import resumed_payload
from sidejudge_server.optimization.run_log import LiveRun, first_payload
from sidejudge_server.optimization.slots import WorkerSlots
from sidejudge_server.optimization.spec import (
    EventKind,
    Phase,
    Progress,
    RunSpec,
    spent_before,
)
from sidejudge_storage import Storage

__all__ = ["ResolveLM", "Runner"]

T = TypeVar("T")
_log = logging.getLogger(__name__)

_RETRY_S = 5.0
MAX_CRASHES = 2
"""Deaths of a worker after which a run goes on by itself; the next one ends it."""

ResolveLM = Callable[[LMSettings], Awaitable[LMSettings]]

_LOGGED = {
    EventKind.PHASE_CHANGED,
    EventKind.INSTRUCTION_PROPOSED,
    EventKind.TRIAL_COMPLETED,
    EventKind.BEST_IMPROVED,
    EventKind.WARNING,
}


class _ServerStops(Exception):  # noqa: N818 - not an error
    """The run stays as it is; the next start of the server goes on with it."""


class Runner:
    """Executes runs, as many at once as the settings say."""

    def __init__(
        self,
        executor: Executor,
        finisher: Finisher,
        storage: Storage,
        settings: Settings,
        *,
        journals: Journals,
        resolve_lm: ResolveLM,
    ) -> None:
        self._executor = executor
        self._finisher = finisher
        self._storage = storage
        self._settings = settings
        self._journals = journals
        self._resolve_lm = resolve_lm
        self._slots = WorkerSlots(settings.optimization.max_workers)
        self._closing = asyncio.Event()

    @property
    def is_full(self) -> bool:
        """Whether a further run would have to wait."""
        return self._slots.is_full

    async def close(self) -> None:
        """End all workers; their runs stay as they are and go on when the server starts again."""
        self._closing.set()
        grace_s = min(self._settings.server.drain_s, LEAVE_S)
        await self._executor.close(grace_s=grace_s)

    async def cancel(self, run: LiveRun) -> None:
        """Ask a run to stop; no-op before it has a process, which then ends at once."""
        await self._executor.cancel(run.run_id)

    async def execute(self, run: LiveRun, journal: Journal) -> None:
        """Take a run to its end, unless the server stops before: then leave it as it is.

        Args:
            run: The run, perhaps with a log from earlier lives.
            journal: What it does.
        """
        last: Mapping[str, Any] = {"kind": EventKind.CANCELLED.value}
        try:
            if await self._slot(run):
                try:
                    last = await self._run(run, journal)
                finally:
                    self._slots.release()
        except _ServerStops:
            await run.interrupt()
            return
        except Exception as error:  # noqa: BLE001 - a fault must end the run, not the server
            if self._closing.is_set():
                await run.interrupt()
                return
            last = {"kind": EventKind.FAILED.value, "error": _fault(error)}
        if await self._finish(run, self._judged(run, last)):
            # Not from a thread: who hears of the end may start or resume a run at once.
            self._journals.end(run.record)
        else:
            await run.interrupt()

    async def _finish(self, run: LiveRun, last: Mapping[str, Any]) -> bool:
        """Store the end of a run; return False if that is left to the next start of the server.

        A fault takes the candidate from the end, and a second one the best before too: only the
        row with the reason is left. A third one is not of the run but of the server, which would
        meet it again with every run of the judge: it leaves the run as it is.
        """
        ends = [self._finisher.finish, self._finisher.finish, self._finisher.give_up]
        while True:
            try:
                await ends[0](run, last)
            except StorageUnavailableError:
                # Watchers wait for the end, and the judge for its next run: try until it is stored.
                # If the server stops before, its next start goes on with the run.
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._closing.wait(), _RETRY_S)
                    return False
            except Exception as error:  # noqa: BLE001 - nobody else would end the run
                del ends[0]
                if not ends:
                    cause = type(error).__name__  # the text may quote what was judged
                    _log.error(
                        "optimizations/%s cannot be ended: %s", run.run_id, cause
                    )
                    return False
                last = {"kind": EventKind.FAILED.value, "error": _fault(error)}
            else:
                return True

    def _judged(self, run: LiveRun, last: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return what a worker's last word means after what was asked of it."""
        finished = last["kind"] == EventKind.RESULT.value
        if run.cancel_asked.is_set():
            if finished and last["candidate"] is not None:
                # Asked to stop a moment too late: keep the result, deploy nothing.
                score = run.progress.best_score
                run.best = {"program": last["candidate"], "score": score or 0.0}
            return {"kind": EventKind.CANCELLED.value}
        return last

    async def _slot(self, run: LiveRun) -> bool:
        """Wait for a worker; return False if the run is cancelled before there is one.

        Raises:
            _ServerStops: Before there was one.
        """
        taking = self._slots.acquire(run.record.trigger_source)
        slot = asyncio.ensure_future(taking)
        cancelled = asyncio.ensure_future(run.cancel_asked.wait())
        closing = asyncio.ensure_future(self._closing.wait())
        await asyncio.wait(
            {slot, cancelled, closing}, return_when=asyncio.FIRST_COMPLETED
        )
        cancelled.cancel()
        closing.cancel()
        if run.cancel_asked.is_set() or self._closing.is_set():
            if slot.done():
                self._slots.release()
            slot.cancel()
            if run.cancel_asked.is_set():
                return False
            raise _ServerStops
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

    async def _run(self, run: LiveRun, journal: Journal) -> Mapping[str, Any]:
        """Run the worker, again if it dies, and return its last word.

        Raises:
            _ServerStops: Before there was one.
        """
        crashes = 0
        while True:
            last = await self._live(run, journal)
            if last["kind"] != EventKind.CRASHED.value:
                return last
            if run.cancel_asked.is_set():
                return {"kind": EventKind.CANCELLED.value}
            if self._closing.is_set():
                raise _ServerStops
            # A worker that broke a limit would break it again.
            if crashes == MAX_CRASHES or "cause" in last:
                return last
            crashes += 1
            await self._note_crash(run, last.get("exit_code"))

    async def _note_crash(self, run: LiveRun, exit_code: int | None) -> None:
        payload = resumed_payload(
            run.record,
            reason=f"the worker process died with exit code {exit_code}",
            answers_kept=await asyncio.to_thread(
                self._journals.answers_kept, run.run_id
            ),
        )
        await self._append(
            run,
            EventKind.RESUMED,
            payload,
            resume_count=payload["resume_count"],
            phase=Phase.PREPARING.value,
        )

    async def _live(self, run: LiveRun, journal: Journal) -> Mapping[str, Any]:
        """Run one worker process and return its last word."""
        replay = Replay(run.log)
        for warning in journal.warnings:
            message = {"message": warning}
            await self._take(run, EventKind.WARNING, message, replay=replay)
        spec = await self._unless_stopped(run, self._resolved(run, journal.spec))
        if spec is None:
            return {"kind": EventKind.CANCELLED.value}
        earlier = run.progress
        await self._executor.submit(run.run_id, spec.to_json())
        events = self._executor.events(run.run_id)
        try:
            if run.cancel_asked.is_set():
                await self._executor.cancel(run.run_id)
            async for event in events:
                kind = EventKind(event["kind"])
                payload = {k: v for k, v in event.items() if k != "kind"}
                if "progress" in payload:
                    now = Progress.from_json(payload["progress"])
                    run.progress = continued(earlier, now)
                    payload["progress"] = run.progress.to_json()
                if kind.is_final:
                    return event
                await self._take(run, kind, payload, replay=replay)
        finally:
            # Closing the iterator ends the process, also when an event could not be stored.
            with contextlib.suppress(AttributeError):
                await events.aclose()  # type: ignore[attr-defined]  # generators have it
        raise RuntimeError("the executor's events ended without a final one")

    async def _take(
        self,
        run: LiveRun,
        kind: EventKind,
        payload: Mapping[str, Any],
        *,
        replay: Replay,
    ) -> None:
        """Write an event to the log, unless it is there from an earlier life."""
        if kind not in _LOGGED:
            return
        if replay.is_known(kind, payload):
            if kind is EventKind.PHASE_CHANGED:
                run.show_phase(payload["phase"])
            difference = replay.difference(kind, payload)
            if difference is not None:
                await self._append(run, EventKind.WARNING, {"message": difference})
            return
        if kind is EventKind.PHASE_CHANGED:
            await self._append(run, kind, payload, phase=payload["phase"])
            return
        if kind is EventKind.BEST_IMPROVED:
            run.best = payload
        await self._append(run, kind, payload)

    async def _append(
        self,
        run: LiveRun,
        kind: EventKind,
        payload: Mapping[str, Any],
        **changes: object,
    ) -> None:
        """Write an event of a run that is going, however long the database takes none.

        The worker goes on meanwhile, and what it says waits in order.

        Raises:
            StorageUnavailableError: Somebody wants the run to stop.
            _ServerStops: Before it could be written.
        """
        while True:
            try:
                await run.append(kind, payload, **changes)
            except StorageUnavailableError:
                if run.cancel_asked.is_set():
                    raise
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._closing.wait(), _RETRY_S)
                    raise _ServerStops from None
            else:
                return

    async def _resolved(self, run: LiveRun, spec: RunSpec) -> RunSpec:
        """Return a spec with all that is found out anew for each life of a worker."""
        prompt_lm = spec.prompt_lm
        run.held_out = held_out_of(spec.test)
        earlier = await earlier_uses(self._storage, run.record, spec.test)
        return replace(
            spec,
            task_lm=await self._resolve_lm(spec.task_lm),
            prompt_lm=await self._resolve_lm(prompt_lm) if prompt_lm else None,
            shared_with_earlier=earlier.shared,
            budget=OptimizationBudget.from_json(json.loads(run.record.budget_json)),
            # Answers that were asked for again are counted when they are asked for again.
            spent=replace(spent_before(run.progress), cached_calls=0),
            work_dir=str(self._journals.work_dir(run.run_id)),
            elapsed_s=run.progress.elapsed_s,
            lm_outage_s=self._settings.optimization.lm_outage_s,
        )

    async def _unless_stopped(
        self, run: LiveRun, work: Coroutine[Any, Any, T]
    ) -> T | None:
        """Return what comes out of some work, None as soon as somebody wants the run to stop.

        Raises:
            _ServerStops: Before it came out.
        """
        task = asyncio.create_task(work)
        cancelled = asyncio.create_task(run.cancel_asked.wait())
        closing = asyncio.create_task(self._closing.wait())
        try:
            await asyncio.wait(
                {task, cancelled, closing}, return_when=asyncio.FIRST_COMPLETED
            )
            if task.done():
                return task.result()
            if run.cancel_asked.is_set():
                return None
            raise _ServerStops
        finally:
            task.cancel()
            cancelled.cancel()
            closing.cancel()


def _fault(error: Exception) -> dict[str, Any]:
    return {
        "code": getattr(error, "code", "INTERNAL"),
        "reason": getattr(error, "reason", "INTERNAL"),
        "message": getattr(
            error, "message", f"fault in sidejudge: {type(error).__name__}"
        ),
        "metadata": dict(getattr(error, "metadata", {})),
    }
