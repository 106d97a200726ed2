"""Reading judges, their versions and their deployments."""

from __future__ import annotations

from concurrent.futures import Executor

from sidejudge_storage.database import Database
from sidejudge_storage.readers.base import Reader, Where
from sidejudge_storage.records import (
    DeploymentRecord,
    JudgeRecord,
    JudgeVersionRecord,
)
from sidejudge_storage.tables import DEPLOYMENTS, JUDGE_VERSIONS, JUDGES

__all__ = ["JudgeReader"]


class JudgeReader:
    """Reads judges, deleted ones included."""

    def __init__(self, database: Database, executor: Executor) -> None:
        self._judges = _Judges(database, executor, JUDGES)
        self._versions = _Versions(database, executor, JUDGE_VERSIONS)
        self._deployments = _Deployments(database, executor, DEPLOYMENTS)

    async def all(self) -> list[JudgeRecord]:
        """Return all judges by id, deleted ones included."""
        return await self._judges.all()

    async def versions(self, judge_id: str) -> list[JudgeVersionRecord]:
        """Return the versions of a judge in ascending order."""
        return await self._versions.matching(Where().equals(judge_id=judge_id))

    async def all_versions(self) -> list[JudgeVersionRecord]:
        """Return all versions by judge and number."""
        return await self._versions.matching(Where())

    async def deployments(self, judge_id: str) -> list[DeploymentRecord]:
        """Return the deployment history of a judge, oldest first."""
        return await self._deployments.of(judge_id)


class _Judges(Reader[JudgeRecord]):
    async def all(self) -> list[JudgeRecord]:
        return await self._select(Where(), order="judge_id")


class _Versions(Reader[JudgeVersionRecord]):
    async def matching(self, where: Where) -> list[JudgeVersionRecord]:
        return await self._select(where, order="judge_id, version")


class _Deployments(Reader[DeploymentRecord]):
    async def of(self, judge_id: str) -> list[DeploymentRecord]:
        return await self._select(Where().equals(judge_id=judge_id), order="sequence")
