"""What becomes of a run: versions, deployment, the last event."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from sidejudge_server.errors import (
    InvalidRequestError,
    NotFoundError,
    SidejudgeError,
)
from sidejudge_server.judges.codec import (
    CodecError,
    canonical_json,
    program_from_json,
)
from sidejudge_server.judges.registry import JudgeRegistry
from sidejudge_server.judges.types import JudgeProgram
from sidejudge_server.judges.versions import Lineage
from sidejudge_server.optimization.budget import OptimizationBudget
from sidejudge_server.optimization.gate_decision import Outcome, Stage
from sidejudge_server.optimization.gate_uses import gate_use
from sidejudge_server.optimization.outcome import (
    cancelled,
    decided,
    failed,
    out_of_budget,
)
from sidejudge_server.optimization.run_errors import (
    RunError,
    server_restarted,
    worker_crashed,
)
from sidejudge_server.optimization.run_log import LiveRun
from sidejudge_server.optimization.shadow import ShadowCandidates
from sidejudge_server.optimization.spec import EventKind
from sidejudge_server.optimization.stops import StopReason
from sidejudge_storage import Command, OptimizationRecord

__all__ = ["Finisher"]

_AUTHOR = "sidejudge"


def _budget(record: OptimizationRecord) -> OptimizationBudget:
    return OptimizationBudget.from_json(json.loads(record.budget_json))


class Finisher:
    """Ends runs: stores the candidate as a version, deploys it if asked to, writes the last event.

    The version comes first, then the deployment, then the run's row with its last event. A server
    that dies in between goes on with the run when it starts again, comes to the same program, and
    finds its version there.
    """

    def __init__(self, registry: JudgeRegistry, shadows: ShadowCandidates) -> None:
        self._registry = registry
        self._shadows = shadows

    async def finish(self, run: LiveRun, last: Mapping[str, Any]) -> None:
        """End a run with its worker's last word.

        Args:
            run: The run.
            last: A final event: result, failed, cancelled or crashed.

        Raises:
            StorageUnavailableError: The end could not be stored; the next start goes on with the run.
        """
        kind = EventKind(last["kind"])
        if kind is EventKind.RESULT:
            await self._succeed(run, last)
            return
        version = await self._keep_best(run)
        error: RunError | None = None
        if kind is EventKind.CRASHED:
            error = worker_crashed(run.run_id, last)
        elif kind is EventKind.FAILED:
            error = RunError(**last["error"])
        await self._stop(run, error, version=version)

    async def give_up(self, run: LiveRun, last: Mapping[str, Any]) -> None:
        """End a run as failed and keep nothing, not even its best so far.

        Args:
            run: The run, of which nothing else could be ended with.
            last: A final event of kind failed.

        Raises:
            StorageUnavailableError: The end could not be stored.
        """
        await self._stop(run, RunError(**last["error"]), version=None)

    async def abandon(self, run: LiveRun, *, cause: str) -> None:
        """End a run that was going when the server died, keeping its best version.

        Args:
            run: With its log. One that was to be cancelled is cancelled now.
            cause: Why any other cannot go on.
        """
        version = await self._keep_best(run)
        asked_to_stop = run.record.state == "cancelling"
        error = None if asked_to_stop else server_restarted(run.run_id, cause)
        await self._stop(run, error, version=version)

    async def _stop(
        self, run: LiveRun, error: RunError | None, *, version: int | None
    ) -> None:
        """Write the last event of a run that somebody or an error has stopped."""
        if error is None:
            ending = cancelled(progress=run.progress, version=version)
        else:
            ending = failed(error.message, progress=run.progress, version=version)
        await run.append(
            EventKind.FINISHED,
            {},
            state="cancelled" if error is None else "failed",
            phase="",
            candidate_version=version,
            error_json=canonical_json(asdict(error)) if error else None,
            ended_at=datetime.now(UTC),
            **ending.columns(),
        )

    async def _run_out(self, run: LiveRun, last: Mapping[str, Any]) -> None:
        """Write the last event of a run whose budget ended before the gate could decide."""
        if last.get("candidate") is not None:
            score = run.progress.best_score or 0.0
            run.best = {"program": last["candidate"], "score": score}
        version = await self._keep_best(run)
        ending = out_of_budget(
            StopReason(last["stop_reason"]),
            last["shortage"],
            progress=run.progress,
            budget=_budget(run.record),
            version=version,
        )
        await run.append(
            EventKind.FINISHED,
            {},
            state="succeeded",
            phase="",
            candidate_version=version,
            ended_at=datetime.now(UTC),
            **ending.columns(),
        )

    async def _succeed(self, run: LiveRun, last: Mapping[str, Any]) -> None:
        if last["decision"] is None:
            await self._run_out(run, last)
            return
        record = run.record
        decision = dict(last["decision"])
        version = await self._store(
            record, last.get("candidate"), metrics=last.get("metrics", {})
        )
        if await self._cancelled_before_it_serves(run, version):
            return
        if version is not None and decision["outcome"] == Outcome.IMPROVED:
            if decision.get("stage") == Stage.SHADOW:
                if not await self._overtaken(run, version, "does not go into shadow"):
                    async with self._shadows.entering(
                        record, version, decision
                    ) as commands:
                        await self._succeeded(run, last, version, decision, *commands)
                    return
            elif record.deploy_if_better:
                decision["deployed"] = await self._deploy(
                    run, version, decision["summary"]
                )
        await self._succeeded(run, last, version, decision)

    async def _cancelled_before_it_serves(
        self, run: LiveRun, version: int | None
    ) -> bool:
        """End a run whose cancel came while its version was stored; False if there was none.

        One whose version serves already, because its end is being tried again, has come too far.
        """
        if not run.cancel_asked.is_set():
            return False
        judge = self._registry.find(run.record.judge_id)
        if judge is not None and version == judge.deployed_version:
            return False
        await self._stop(run, None, version=version)
        return True

    async def _succeeded(
        self,
        run: LiveRun,
        last: Mapping[str, Any],
        version: int | None,
        decision: Mapping[str, Any],
        *more: Command,
    ) -> None:
        """Write the last event with the use of the held-out examples, if there was one.

        Args:
            run: The run.
            last: The worker's last word.
            version: The candidate.
            decision: The gate's.
            more: What puts the candidate into shadow, if it goes there.
        """
        now = datetime.now(UTC)
        uses: list[Command] = []
        if last.get("candidate") is not None:
            uses = [gate_use(run.record, decision, held_out=run.held_out, now=now)]
        ending = decided(
            decision,
            StopReason(last.get("stop_reason", StopReason.COMPLETED)),
            progress=run.progress,
            budget=_budget(run.record),
            version=version,
            in_shadow=bool(more),
        )
        await run.append(
            EventKind.FINISHED,
            {},
            *uses,
            *more,
            state="succeeded",
            phase="",
            candidate_version=version,
            decision_json=canonical_json(decision),
            ended_at=now,
            **ending.columns(),
        )

    async def _overtaken(self, run: LiveRun, version: int, consequence: str) -> bool:
        """Warn and return True if what serves is not what the candidate was compared with."""
        record = run.record
        serving = self._registry.get(record.judge_id).deployed_version
        if serving in {version, record.baseline_version}:
            return False
        await run.append(
            EventKind.WARNING,
            {
                "message": f"version {serving} was deployed during the run; the candidate was "
                f"compared with version {record.baseline_version} and {consequence}"
            },
        )
        return True

    async def _deploy(self, run: LiveRun, version: int, summary: str) -> bool:
        record = run.record
        judge = self._registry.get(record.judge_id)
        if judge.deployed_version == version:
            return True  # this end was begun before and not stored to its last row
        if await self._overtaken(run, version, "is not deployed over it"):
            return False
        try:
            await self._registry.deploy(
                record.judge_id,
                version,
                author=_AUTHOR,
                reason=f"optimizations/{record.optimization_id}: {summary}",
                etag=judge.etag,
                verb="gate",
            )
        except SidejudgeError as error:
            await run.append(
                EventKind.WARNING, {"message": f"not deployed: {error.message}"}
            )
            return False
        return True

    async def _keep_best(self, run: LiveRun) -> int | None:
        """Store the best so far of a run that did not finish; None if there was none.

        One that is no version is left out with a warning: the run must end all the same.
        """
        record, best = run.record, run.best
        if best is None:
            return self._existing(record)
        try:
            return await self._store(
                record, best.get("program"), metrics={"validation.score": best["score"]}
            )
        except (InvalidRequestError, CodecError) as error:
            text = f"the best version so far cannot be kept: {error}"
            await run.append(EventKind.WARNING, {"message": text})
            return None

    async def _store(
        self,
        record: OptimizationRecord,
        program_json: str | None,
        *,
        metrics: Mapping[str, float],
    ) -> int | None:
        if program_json is None:
            return self._existing(record)
        program = program_from_json(program_json)
        existing = self._existing(record, program)
        if existing is not None:
            return existing
        try:
            version = await self._registry.add_version(
                record.judge_id,
                program,
                origin="optimization",
                parent_version=record.baseline_version,
                optimization_id=record.optimization_id,
                data_digest=json.loads(record.dataset_json)["digest"],
                model=record.task_model,
                metrics=metrics,
                lineage=Lineage(
                    split_seed=record.judge_id,
                    seed=json.loads(record.config_json)["seed"],
                ),
            )
        except NotFoundError:
            return None  # the judge was deleted while the run was going
        return version.version

    def _existing(
        self, record: OptimizationRecord, program: JudgeProgram | None = None
    ) -> int | None:
        """Return the last version that this run has made already, if it has.

        Args:
            record: The run. One that was resumed may have left a version behind before.
            program: Only a version with this program.
        """
        try:
            versions = self._registry.list_versions(record.judge_id)
        except NotFoundError:
            return None
        return next(
            (
                v.version
                for v in sorted(versions, key=lambda v: -v.version)
                if v.optimization_id == record.optimization_id
                and (program is None or v.program == program)
            ),
            None,
        )
