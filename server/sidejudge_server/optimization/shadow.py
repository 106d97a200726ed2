"""Candidates that passed the gate on few examples and prove themselves on later corrections.

Each judge has at most one that is active: a newer one takes the place of the one before. What is in
memory is what is on disk; changes happen one after the other.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from sidejudge_server.judges.codec import canonical_json
from sidejudge_server.judges.requests import commit
from sidejudge_server.optimization.shadow_evidence import BAR, Evidence
from sidejudge_storage import (
    Command,
    OptimizationRecord,
    ReplaceShadowCandidate,
    ShadowCandidateRecord,
    Storage,
    new_id,
)

__all__ = [
    "ACTIVE",
    "DEPLOYED",
    "DROPPED",
    "PROVEN",
    "ShadowCandidates",
    "evidence_of",
    "figures",
    "overtaken",
]

ACTIVE, DEPLOYED, PROVEN, DROPPED = "active", "deployed", "proven", "dropped"


class ShadowCandidates:
    """The candidates of all judges. Belongs to one event loop."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._latest: dict[str, ShadowCandidateRecord] = {}
        # One change at a time: each starts from what the one before has made of it.
        self._changing = asyncio.Lock()
        self._listeners: list[Callable[[str], None]] = []

    async def load(self) -> None:
        """Read the newest candidate of each judge."""
        self._latest = await self._storage.shadow_candidates.latest()

    def on_entered(self, listener: Callable[[str], None]) -> None:
        """Call back with the judge's id when a candidate has come."""
        self._listeners.append(listener)

    def latest(self, judge_id: str) -> ShadowCandidateRecord | None:
        """Return the newest candidate of a judge in whatever state; None if it never had one."""
        return self._latest.get(judge_id)

    def active(self, judge_id: str) -> ShadowCandidateRecord | None:
        """Return the candidate of a judge that waits for corrections, if there is one."""
        candidate = self._latest.get(judge_id)
        return candidate if candidate and candidate.state == ACTIVE else None

    def active_judges(self) -> list[str]:
        """Return the judges that have an active candidate."""
        return [judge for judge in self._latest if self.active(judge)]

    @asynccontextmanager
    async def entering(
        self, run: OptimizationRecord, version: int, decision: Mapping[str, Any]
    ) -> AsyncIterator[list[Command]]:
        """Yield what puts a candidate into shadow, to be written within the context.

        Args:
            run: The run that made it.
            version: The candidate.
            decision: JSON of the run's `GateDecision`.
        """
        async with self._changing:
            now, start = datetime.now(UTC), new_id()
            evidence = Evidence.of_decision(decision)
            entry = ShadowCandidateRecord(
                judge_id=run.judge_id,
                optimization_id=run.optimization_id,
                version=version,
                baseline_version=run.baseline_version,
                deploy=run.deploy_if_better,
                wins=evidence.wins,
                losses=evidence.losses,
                pairs=evidence.pairs,
                gate_pairs=evidence.pairs,
                sums_json=_sums_json(evidence),
                e_value=evidence.e_value,
                state=ACTIVE,
                reason="",
                start_id=start,
                last_example_id=start,
                created_at=now,
                updated_at=now,
            )
            commands: list[Command] = [entry]
            before = self.active(run.judge_id)
            if before is not None:
                reason = f"version {version} took its place"
                commands.append(
                    ReplaceShadowCandidate(_ended(before, DROPPED, reason, now))
                )
            yield commands
            self._latest[run.judge_id] = entry
        for listener in self._listeners:
            listener(run.judge_id)

    async def add(
        self, candidate: ShadowCandidateRecord, difference: float, *, example_id: str
    ) -> ShadowCandidateRecord | None:
        """Count a pair; the example is never counted again.

        Args:
            candidate: As it was read.
            difference: Quality of the candidate minus that of the baseline.
            example_id: The correction, after the last one that was counted.

        Returns:
            The candidate with the pair; None if it changed meanwhile and nothing was counted.

        Raises:
            StorageUnavailableError: Nothing was written.
        """
        scores = candidate.sums_json is not None
        evidence = evidence_of(candidate).plus(Evidence.of([difference], scores=scores))
        return await self._change(
            candidate,
            wins=evidence.wins,
            losses=evidence.losses,
            pairs=evidence.pairs,
            sums_json=_sums_json(evidence),
            e_value=evidence.e_value,
            last_example_id=example_id,
        )

    async def skip(
        self, candidate: ShadowCandidateRecord, *, example_id: str
    ) -> ShadowCandidateRecord | None:
        """Leave a correction out for good; see `add`."""
        return await self._change(candidate, last_example_id=example_id)

    async def end(
        self, candidate: ShadowCandidateRecord, state: str, reason: str
    ) -> ShadowCandidateRecord | None:
        """End the shadow of a candidate; see `add`.

        Args:
            candidate: As it was read.
            state: deployed, proven or dropped.
            reason: Why, for people.
        """
        return await self._change(candidate, state=state, reason=reason)

    async def _change(
        self,
        candidate: ShadowCandidateRecord,
        **changes: Any,  # noqa: ANN401 - fields of a record
    ) -> ShadowCandidateRecord | None:
        async with self._changing:
            if self._latest.get(candidate.judge_id) is not candidate:
                return None
            changed = replace(candidate, updated_at=datetime.now(UTC), **changes)
            await commit(self._storage, ReplaceShadowCandidate(changed))
            self._latest[candidate.judge_id] = changed
            return changed


def evidence_of(candidate: ShadowCandidateRecord) -> Evidence:
    """Return the evidence that a candidate has gathered."""
    sums = None
    if candidate.sums_json is not None:
        towards, against = json.loads(candidate.sums_json)
        sums = tuple(towards), tuple(against)
    return Evidence(candidate.wins, candidate.losses, candidate.pairs, sums)


def overtaken(
    candidate: ShadowCandidateRecord, deployed_version: int
) -> tuple[str, str] | None:
    """Return state and reason of a candidate whose comparison a deployment has ended, else None.

    Args:
        candidate: An active one.
        deployed_version: What serves now.
    """
    if deployed_version == candidate.baseline_version:
        return None
    reason = f"version {deployed_version} was deployed"
    if deployed_version != candidate.version:
        return DROPPED, reason
    if candidate.e_value >= BAR:  # on its evidence, which is not written down yet
        reason = figures(candidate, candidate.e_value, "better")
    return DEPLOYED, reason


def figures(candidate: ShadowCandidateRecord, e_value: float, what: str) -> str:
    """Return what the evidence says, in words.

    Args:
        candidate: The candidate.
        e_value: For or against it.
        what: better or worse.
    """
    later = candidate.pairs - candidate.gate_pairs
    return (
        f"in shadow the evidence that version {candidate.version} is {what} than version "
        f"{candidate.baseline_version} reached {e_value:.3g} (bar {BAR:g}): {candidate.wins} wins "
        f"and {candidate.losses} losses in {candidate.pairs} pairs, {later} of them later "
        "corrections"
    )


def _ended(
    candidate: ShadowCandidateRecord, state: str, reason: str, now: datetime
) -> ShadowCandidateRecord:
    return replace(candidate, state=state, reason=reason, updated_at=now)


def _sums_json(evidence: Evidence) -> str | None:
    return None if evidence.sums is None else canonical_json(list(evidence.sums))
