"""The policies of judges: kept, changed by hand, and asked what they wait for."""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import takewhile
from typing import Any, Protocol

from sidejudge_server.config import Settings
from sidejudge_server.errors import ConflictError, InvalidRequestError
from sidejudge_server.judges.codec import canonical_json
from sidejudge_server.judges.registry import JudgeRegistry
from sidejudge_server.judges.requests import commit
from sidejudge_server.optimization.budget import OptimizationBudget, unpriced_models
from sidejudge_server.optimization.plan import OptimizationConfig
from sidejudge_server.optimization.policy import (
    DAY,
    Policy,
    Ruling,
    Situation,
    Spent,
    rule,
)
from sidejudge_server.optimization.queue import CreateOptimization, OptimizationService
from sidejudge_server.training.labels import SCORE_DIFFERENCE
from sidejudge_server.training.origins import REAL
from sidejudge_server.training.readiness import Readiness
from sidejudge_storage import (
    OptimizationFilter,
    OptimizationPolicyRecord,
    OptimizationRecord,
    ReplaceOptimizationPolicy,
    RevisionConflictError,
    Storage,
)

__all__ = ["Clock", "PolicyListener", "PolicyService", "PolicyState", "utc_now"]

Clock = Callable[[], datetime]
PolicyListener = Callable[[str], None]
"""Hears the id of a judge whose policy was changed."""

_LOOKED_BACK = 50
"""Runs to look at for the last one that took the data in; more failures in a row are all new data."""


def utc_now() -> datetime:
    """Return the time."""
    return datetime.now(UTC)


class Settled(Protocol):
    """Who can say that all acknowledged feedback has become examples."""

    async def settle(self) -> None:
        """Return when it has."""
        ...


@dataclass(frozen=True, slots=True)
class PolicyState:
    """A policy with what it sees and has done.

    Attributes:
        judge_id: The judge.
        policy: As set, or the defaults.
        etag: Changes with every change by hand.
        situation: What it looks at.
        ruling: What follows.
        last: The last run that it started, None if it has started none.
    """

    judge_id: str
    policy: Policy
    etag: str
    situation: Situation
    ruling: Ruling
    last: OptimizationRecord | None


class PolicyService:
    """Reads and changes policies, at most one a judge."""

    def __init__(
        self,
        storage: Storage,
        registry: JudgeRegistry,
        feedback: Settled,
        optimizations: OptimizationService,
        settings: Settings,
        *,
        clock: Clock = utc_now,
    ) -> None:
        """Make it.

        Args:
            storage: Keeps policies, and the runs and examples that they look at.
            registry: The judges.
            feedback: Knows when all feedback has become examples.
            optimizations: Knows what is going on and what a run would take.
            settings: Says which models have a price.
            clock: Tells the time.
        """
        self._storage = storage
        self._registry = registry
        self._feedback = feedback
        self._optimizations = optimizations
        self._settings = settings
        self._clock = clock
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self.listeners: list[PolicyListener] = []

    async def get(self, judge_id: str) -> PolicyState:
        """Return the policy of a judge, the defaults (not enabled) if none was set.

        It has seen all feedback that was acknowledged before.

        Raises:
            NotFoundError: There is no such judge.
            StorageUnavailableError: Examples could not be derived from feedback.
        """
        self._registry.get(judge_id)
        await self._feedback.settle()
        return await self._state(judge_id)

    async def update(
        self, judge_id: str, changes: Mapping[str, Any], *, etag: str = ""
    ) -> PolicyState:
        """Change a policy.

        Args:
            judge_id: The judge.
            changes: New values by field of `Policy`; fields that are not named stay.
            etag: If not empty, must match.

        Raises:
            NotFoundError: There is no such judge.
            InvalidRequestError: Something is out of range.
            ConflictError: The etag is out of date.
        """
        return await self._change(judge_id, changes, etag=etag)

    async def pause(self, judge_id: str, reason: str = "") -> PolicyState:
        """Start nothing until `resume`; raises as `get`."""
        return await self._change(judge_id, {"paused": True, "pause_reason": reason})

    async def resume(self, judge_id: str) -> PolicyState:
        """End a pause; raises as `get`."""
        return await self._change(judge_id, {"paused": False, "pause_reason": ""})

    async def enabled(self) -> list[str]:
        """Return the judges whose policies may start runs, those without a judge left out."""
        records = await self._storage.policies.enabled()
        return [r.judge_id for r in records if self._in_service(r.judge_id)]

    async def start_if_due(self, judge_id: str) -> PolicyState | None:
        """Start a run if one is due; return what was seen, None if the judge has no policy.

        Raises:
            SidejudgeError: A run was due and could not be started.
        """
        # Who pauses the policy waits until a run that is being started is there to be seen, and
        # none starts afterwards. Creating a run asks nothing of policies, so nobody waits in turn.
        async with self._locks[judge_id]:
            return await self._start_if_due(judge_id)

    def _in_service(self, judge_id: str) -> bool:
        judge = self._registry.find(judge_id)
        return judge is not None and not judge.deleted

    async def _start_if_due(self, judge_id: str) -> PolicyState | None:
        record = await self._storage.policies.get(judge_id)
        if record is None or not record.enabled or not self._in_service(judge_id):
            return None
        state = await self._state(judge_id)
        if not state.ruling.waiting_for:
            await self._optimizations.create(
                CreateOptimization(
                    judge_id,
                    state.policy.config,
                    deploy_if_better=state.policy.deploy_if_better,
                    budget=state.ruling.budget,
                    trigger_source="policy",
                    trigger_reason=state.ruling.reason,
                )
            )
        return state

    async def _change(
        self, judge_id: str, changes: Mapping[str, Any], *, etag: str = ""
    ) -> PolicyState:
        self._registry.get(judge_id)
        async with self._locks[judge_id]:
            record = await self._storage.policies.get(judge_id)
            if etag and etag != _etag(judge_id, record):
                raise _outdated(expected=_etag(judge_id, record), got=etag)
            policy = replace(_policy(record), **changes)
            unpriced = unpriced_models(
                self._settings, source=policy.config.instruction_source
            )
            if violations := policy.violations(unpriced=unpriced):
                raise InvalidRequestError(violations)
            await self._write(judge_id, policy, record)
        for listener in self.listeners:
            listener(judge_id)
        return await self._state(judge_id)

    async def _write(
        self, judge_id: str, policy: Policy, old: OptimizationPolicyRecord | None
    ) -> None:
        now = self._clock()
        new = OptimizationPolicyRecord(
            judge_id=judge_id,
            enabled=policy.enabled,
            min_new_examples=policy.min_new_examples,
            min_disagreements=policy.min_disagreements,
            cool_down_s=policy.cool_down.total_seconds(),
            daily_budget_json=canonical_json(policy.daily_budget.to_json()),
            config_json=canonical_json(policy.config.to_json()),
            deploy_if_better=policy.deploy_if_better,
            paused=policy.paused,
            pause_reason=policy.pause_reason,
            revision=old.revision + 1 if old else 1,
            created_at=old.created_at if old else now,
            updated_at=now,
        )
        if old is None:
            await commit(self._storage, new)
            return
        try:
            await commit(self._storage, ReplaceOptimizationPolicy(new, old.revision))
        except RevisionConflictError:
            raise _outdated(
                expected="another revision", got=_etag(judge_id, old)
            ) from None

    async def _state(self, judge_id: str) -> PolicyState:
        record = await self._storage.policies.get(judge_id)
        policy = _policy(record)
        situation = await self._situation(judge_id)
        ruling = rule(policy, situation)
        if not ruling.waiting_for:
            ruling = await self._checked(judge_id, policy, ruling)
        started = await self._storage.optimizations.list(
            OptimizationFilter(judge_id=judge_id, trigger_source="policy"),
            before=None,
            limit=1,
        )
        return PolicyState(
            judge_id,
            policy,
            _etag(judge_id, record),
            situation,
            ruling,
            started[0] if started else None,
        )

    async def _checked(self, judge_id: str, policy: Policy, ruling: Ruling) -> Ruling:
        """Hold back a run that would be refused, or end before its gate."""
        preview = await self._optimizations.estimate(
            CreateOptimization(judge_id, policy.config, budget=ruling.budget)
        )
        if preview.training_set.readiness is Readiness.NOT_READY:
            problems = "; ".join(preview.training_set.problems)
            return replace(ruling, waiting_for=f"the data: {problems}", reason="")
        if not preview.reaches_gate:
            return replace(
                ruling,
                waiting_for="a daily budget that reaches the gate: "
                + preview.warnings[0],
                reason="",
                look_again_at=self._clock() + timedelta(hours=1),
            )
        return ruling

    async def _situation(self, judge_id: str) -> Situation:
        now = self._clock()
        optimizations = self._storage.optimizations
        runs = await optimizations.list(
            OptimizationFilter(judge_id=judge_id), before=None, limit=_LOOKED_BACK
        )
        used = next((run for run in runs if run.state != "failed"), None)
        states = [run.state for run in runs if run.ended_at is not None]
        failures = sum(1 for _ in takewhile("failed".__eq__, states))
        new = await self._storage.examples.new(
            judge_id,
            after=used.optimization_id if used else None,
            origins=REAL,
            score_difference=SCORE_DIFFERENCE,
        )
        recent = await optimizations.of_policy(judge_id, since=now - DAY)
        active = self._optimizations.active_run(judge_id)
        return Situation(
            now=now,
            new_examples=new.count,
            new_disagreements=new.disagreements,
            last_run=f"optimizations/{used.optimization_id}" if used else "",
            last_run_at=used.created_at if used else None,
            last_end=max(
                (run.ended_at for run in runs if run.ended_at is not None), default=None
            ),
            active=f"optimizations/{active}" if active else "",
            failures=failures,
            spent=Spent.of(json.loads(run.progress_json) for run in recent),
            oldest_spend_at=recent[0].created_at if recent else None,
        )


def _policy(record: OptimizationPolicyRecord | None) -> Policy:
    if record is None:
        return Policy()
    return Policy(
        enabled=record.enabled,
        min_new_examples=record.min_new_examples,
        min_disagreements=record.min_disagreements,
        cool_down=timedelta(seconds=record.cool_down_s),
        daily_budget=OptimizationBudget.from_json(json.loads(record.daily_budget_json)),
        config=OptimizationConfig.from_json(json.loads(record.config_json)),
        deploy_if_better=record.deploy_if_better,
        paused=record.paused,
        pause_reason=record.pause_reason,
    )


def _etag(judge_id: str, record: OptimizationPolicyRecord | None) -> str:
    return f"{record.revision if record else 0:x}-{judge_id}"


def _outdated(*, expected: str, got: str) -> ConflictError:
    return ConflictError(
        "somebody changed the policy since it was read; read it again and retry",
        reason="ETAG_MISMATCH",
        metadata={"expected": expected, "got": got},
    )
