"""Judges, their versions and which one serves.

Everything is kept in memory; the database is read once and written through. Changes of one judge
happen one after the other, and each is refused if the caller's etag is out of date.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from sidejudge_server.errors import (
    ConflictError,
    FailedPreconditionError,
    NotFoundError,
)
from sidejudge_server.judges.codec import (
    canonical_json,
    program_to_json,
    spec_to_json,
)
from sidejudge_server.judges.failures import name_taken, no_judge, outdated
from sidejudge_server.judges.kinds import BUILT_IN_JUDGES, JudgeSpec
from sidejudge_server.judges.requests import Claim, RequestLog, commit
from sidejudge_server.judges.types import Criterion, JudgeProgram
from sidejudge_server.judges.versions import (
    Judge,
    JudgeEntry,
    JudgeVersion,
    Lineage,
    check_program,
    judge_from_record,
    judge_to_record,
    new_entry,
    served_before,
    version_from_record,
    version_to_record,
)
from sidejudge_storage import (
    Command,
    DeploymentRecord,
    DuplicateKeyError,
    ReplaceJudge,
    RevisionConflictError,
    Storage,
)

__all__ = ["JudgeRegistry"]


class JudgeRegistry:
    """All judges of a database."""

    def __init__(self, storage: Storage, requests: RequestLog | None = None) -> None:
        self._storage = storage
        self._requests = requests or RequestLog(storage)
        self._entries: dict[str, JudgeEntry] = {}
        self._listeners: list[Callable[[str], None]] = []
        # One change of a judge at a time; also makes two creations of one name meet.
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def load(self) -> None:
        """Read all judges and create the built-in ones that are missing, as one unit."""
        entries = {
            record.judge_id: JudgeEntry(judge_from_record(record))
            for record in await self._storage.judges.all()
        }
        for version in await self._storage.judges.all_versions():
            entry = entries[version.judge_id]
            entry.versions[version.version] = version_from_record(version)
        for judge_id, entry in entries.items():
            entry.history = await self._storage.judges.deployments(judge_id)
        commands: list[Command] = []
        for built_in in BUILT_IN_JUDGES:
            if built_in.judge_id not in entries:
                entry = new_entry(
                    built_in.judge_id,
                    built_in.spec,
                    display_name=built_in.display_name,
                    description=built_in.description,
                    built_in=True,
                )
                entries[built_in.judge_id] = entry
                commands += entry.rows()
        if commands:
            await commit(self._storage, *commands)
        self._entries = entries

    def on_deployed(self, listener: Callable[[str], None]) -> None:
        """Call back with the judge's id whenever another version serves; must not block or raise."""
        self._listeners.append(listener)

    def get(self, judge_id: str) -> Judge:
        """Return a judge that is in service.

        Raises:
            NotFoundError: There is none of that name, or it was deleted.
        """
        judge = self.find(judge_id)
        if judge is None or judge.deleted:
            raise no_judge(judge_id)
        return judge

    def find(self, judge_id: str) -> Judge | None:
        """Return a judge even if it was deleted; None if there never was one."""
        entry = self._entries.get(judge_id)
        return entry.judge if entry else None

    def list(self) -> list[Judge]:
        """Return the judges in service by id."""
        judges = (entry.judge for entry in self._entries.values())
        return sorted(
            (judge for judge in judges if not judge.deleted), key=lambda j: j.judge_id
        )

    def get_version(self, judge_id: str, version: int | None = None) -> JudgeVersion:
        """Return a version, of a deleted judge too.

        Args:
            judge_id: The judge.
            version: None for the one that serves.

        Raises:
            NotFoundError: There is no such judge or version.
        """
        entry = self._entry(judge_id)
        number = entry.judge.deployed_version if version is None else version
        if number not in entry.versions:
            name = f"judges/{judge_id}/versions/{number}"
            raise NotFoundError(
                f"there is no {name}",
                reason="JUDGE_VERSION_NOT_FOUND",
                resource_type="JudgeVersion",
                resource_name=name,
            )
        return entry.versions[number]

    def list_versions(self, judge_id: str) -> Sequence[JudgeVersion]:
        """Return all versions of a judge, newest first; NotFoundError without the judge."""
        versions = self._entry(judge_id).versions
        return [versions[number] for number in sorted(versions, reverse=True)]

    def deployments(self, judge_id: str) -> Sequence[DeploymentRecord]:
        """Return a judge's deployment history, ascending; NotFoundError without the judge."""
        return tuple(self._entry(judge_id).history)

    async def create(
        self,
        judge_id: str,
        spec: JudgeSpec,
        *,
        display_name: str = "",
        description: str = "",
        labels: Mapping[str, str] | None = None,
        instructions: str = "",
        author: str = "",
        request_id: str = "",
    ) -> Judge:
        """Create a judge whose version 1 serves.

        Raises:
            AlreadyExistsError: The name is taken, perhaps by a deleted judge.
        """
        entry = new_entry(
            judge_id,
            spec,
            display_name=display_name,
            description=description,
            labels=labels or {},
            instructions=instructions,
            author=author,
        )
        check_program(spec, entry.versions[1].program)

        async def perform(claim: Claim) -> Judge:
            async with self._locks[judge_id]:
                if judge_id in self._entries:
                    raise name_taken(judge_id)
                try:
                    await commit(self._storage, *entry.rows(), *claim(judge_id))
                except DuplicateKeyError:
                    raise name_taken(judge_id) from None
                self._entries[judge_id] = entry
                return entry.judge

        return await self._requests.once(
            request_id,
            method="CreateJudge",
            fingerprint=canonical_json(
                [
                    judge_id,
                    spec_to_json(spec),
                    display_name,
                    description,
                    dict(labels or {}),
                    instructions,
                ]
            ),
            perform=perform,
            recall=self._recall_judge,
        )

    async def update(
        self,
        judge_id: str,
        *,
        display_name: str | None = None,
        description: str | None = None,
        labels: Mapping[str, str] | None = None,
        default_criteria: Sequence[Criterion] | None = None,
        etag: str = "",
    ) -> Judge:
        """Change what does not affect how a judge's versions answer; None leaves a part as it is.

        Raises:
            NotFoundError: There is no such judge.
            ConflictError: The etag is out of date.
        """
        async with self._locks[judge_id]:
            judge = self._checked(judge_id, etag)
            spec = judge.spec
            if default_criteria is not None:
                spec = replace(spec, default_criteria=tuple(default_criteria))
            return await self._replace(
                replace(
                    judge,
                    spec=spec,
                    display_name=_or(display_name, judge.display_name),
                    description=_or(description, judge.description),
                    labels=dict(judge.labels if labels is None else labels),
                )
            )

    async def delete(self, judge_id: str, *, etag: str = "") -> None:
        """Take a judge out of service; its versions and evaluations stay.

        Raises:
            NotFoundError: There is no such judge.
            FailedPreconditionError: It is built in, or a running experiment uses it.
            ConflictError: The etag is out of date, or the judge is being optimized.
        """
        async with self._locks[judge_id]:
            judge = self._checked(judge_id, etag)
            if judge.built_in:
                raise FailedPreconditionError(
                    f"{judge.name} is built in and cannot be deleted",
                    reason="JUDGE_BUILT_IN",
                    metadata={"judge": judge.name},
                )
            for run in await self._storage.optimizations.active():
                if run.judge_id == judge_id:
                    name = f"optimizations/{run.optimization_id}"
                    raise ConflictError(
                        f"{judge.name} is being optimized by {name}; cancel that first",
                        reason="OPTIMIZATION_IN_PROGRESS",
                        metadata={"optimization": name},
                    )
            for experiment in await self._storage.experiments.running(judge_id):
                name = f"experiments/{experiment.experiment_id}"
                raise FailedPreconditionError(
                    f"{judge.name} is used by {name}; conclude that first",
                    reason="EXPERIMENT_IN_PROGRESS",
                    metadata={"judge": judge.name, "experiment": name},
                )
            await self._replace(replace(judge, deleted=True))

    async def add_version(
        self,
        judge_id: str,
        program: JudgeProgram,
        *,
        origin: str = "manual",
        parent_version: int | None = None,
        optimization_id: str | None = None,
        data_digest: str | None = None,
        model: str | None = None,
        metrics: Mapping[str, float] | None = None,
        lineage: Lineage | None = None,
        method: str = "CreateJudgeVersion",
        request_id: str = "",
    ) -> JudgeVersion:
        """Add a version; it does not serve until it is deployed.

        Raises:
            NotFoundError: There is no such judge.
            InvalidRequestError: The program does not fit the judge.
        """
        check_program(self.get(judge_id).spec, program)
        made_from = lineage or Lineage()

        async def perform(claim: Claim) -> JudgeVersion:
            async with self._locks[judge_id]:
                self.get(judge_id)
                entry = self._entries[judge_id]
                version = JudgeVersion(
                    judge_id=judge_id,
                    version=max(entry.versions) + 1,
                    program=program,
                    origin=origin,
                    parent_version=parent_version,
                    optimization_id=optimization_id,
                    data_digest=data_digest,
                    model=model,
                    created_at=datetime.now(UTC),
                    metrics=dict(metrics or {}),
                    lineage=made_from,
                )
                await commit(
                    self._storage,
                    version_to_record(version),
                    *claim(f"{judge_id}/{version.version}"),
                )
                entry.versions[version.version] = version
                return version

        async def recall(resource_id: str) -> JudgeVersion:
            judge, _, number = resource_id.partition("/")
            return self.get_version(judge, int(number))

        return await self._requests.once(
            request_id,
            method=method,
            fingerprint=f"{judge_id}\n{made_from.import_digest}\n{program_to_json(program)}",
            perform=perform,
            recall=recall,
        )

    async def deploy(
        self,
        judge_id: str,
        version: int,
        *,
        author: str,
        reason: str,
        etag: str = "",
        verb: str = "deploy",
        request_id: str = "",
        further: Sequence[Command] = (),
    ) -> Judge:
        """Make a version serve.

        Args:
            judge_id: The judge.
            version: Any of its versions.
            author: Who deploys.
            reason: Why.
            etag: If not empty, must match.
            verb: ``deploy``, ``gate`` if an optimization's gate does it, ``experiment`` if an
                experiment does.
            request_id: UUID of the request, or "".
            further: What is written in the same unit.

        Raises:
            NotFoundError: There is no such judge or version.
            ConflictError: The etag is out of date.
        """

        async def perform(claim: Claim) -> Judge:
            async with self._locks[judge_id]:
                judge = self._checked(judge_id, etag)
                self.get_version(judge_id, version)
                return await self._serve(
                    judge,
                    version,
                    verb=verb,
                    author=author,
                    reason=reason,
                    further=(*further, *claim(judge_id)),
                )

        return await self._requests.once(
            request_id,
            method="DeployJudgeVersion",
            fingerprint=canonical_json([judge_id, version, author, reason, etag]),
            perform=perform,
            recall=self._recall_judge,
        )

    async def rollback(
        self,
        judge_id: str,
        *,
        author: str,
        reason: str,
        etag: str = "",
        request_id: str = "",
        further: Sequence[Command] = (),
    ) -> Judge:
        """Return to the version that served before the current one; ``further`` as in `deploy`.

        Raises:
            NotFoundError: There is no such judge.
            FailedPreconditionError: No other version served before.
            ConflictError: The etag is out of date.
        """

        async def perform(claim: Claim) -> Judge:
            async with self._locks[judge_id]:
                judge = self._checked(judge_id, etag)
                previous = served_before(self._entries[judge_id].history)
                if previous is None:
                    raise FailedPreconditionError(
                        f"no other version of {judge.name} has served before",
                        reason="NO_PREVIOUS_VERSION",
                        metadata={"judge": judge.name},
                    )
                return await self._serve(
                    judge,
                    previous,
                    verb="rollback",
                    author=author,
                    reason=reason,
                    further=(*further, *claim(judge_id)),
                )

        return await self._requests.once(
            request_id,
            method="RollbackJudge",
            fingerprint=canonical_json([judge_id, author, reason, etag]),
            perform=perform,
            recall=self._recall_judge,
        )

    def _entry(self, judge_id: str) -> JudgeEntry:
        entry = self._entries.get(judge_id)
        if entry is None:
            raise no_judge(judge_id)
        return entry

    def _checked(self, judge_id: str, etag: str) -> Judge:
        """Return the judge if the caller has seen its latest state. Call under its lock."""
        judge = self.get(judge_id)
        if etag and etag != judge.etag:
            raise outdated(expected=judge.etag, got=etag)
        return judge

    async def _serve(
        self,
        judge: Judge,
        version: int,
        *,
        verb: str,
        author: str,
        reason: str,
        further: Sequence[Command],
    ) -> Judge:
        history = self._entries[judge.judge_id].history
        deployment = DeploymentRecord(
            judge_id=judge.judge_id,
            sequence=history[-1].sequence + 1 if history else 1,
            version=version,
            previous_version=judge.deployed_version,
            verb=verb,
            author=author,
            reason=reason,
            created_at=datetime.now(UTC),
        )
        changed = await self._replace(
            replace(judge, deployed_version=version),
            deployment,
            *further,
        )
        history.append(deployment)
        for listener in self._listeners:
            listener(judge.judge_id)
        return changed

    async def _replace(self, judge: Judge, *further: Command) -> Judge:
        """Write a changed judge as its next revision. Call under its lock."""
        changed = replace(
            judge, revision=judge.revision + 1, updated_at=datetime.now(UTC)
        )
        try:
            await commit(
                self._storage,
                ReplaceJudge(
                    judge_to_record(changed), expected_revision=judge.revision
                ),
                *further,
            )
        except RevisionConflictError:
            raise outdated(expected="another revision", got=judge.etag) from None
        self._entries[judge.judge_id].judge = changed
        return changed

    async def _recall_judge(self, judge_id: str) -> Judge:
        return self.get(judge_id)


def _or(value: str | None, default: str) -> str:
    return default if value is None else value
