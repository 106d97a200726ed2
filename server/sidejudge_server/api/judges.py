"""JudgeService."""

from __future__ import annotations

from typing import Final

from sidejudge.v1 import judge_pb2
from sidejudge.v1 import judge_service_pb2 as pb
from sidejudge.v1.judge_service_pb2_grpc import JudgeServiceServicer
from sidejudge_server.api.convert_judge import (
    changes_from,
    description,
    display_name,
    instructions_of_new_judge,
    judge_message,
    spec_from,
)
from sidejudge_server.api.convert_version import program_from, version_message
from sidejudge_server.api.paging import cut_page, read_paging
from sidejudge_server.api.tokens import TokenCodec
from sidejudge_server.api.validate import Checker
from sidejudge_server.config import Settings
from sidejudge_server.judges.portable import (
    MAX_DOCUMENT_CHARS,
    read_version,
    write_version,
)
from sidejudge_server.judges.registry import JudgeRegistry
from sidejudge_server.judges.versions import Judge, JudgeVersion
from sidejudge_server.optimization.shadow import ShadowCandidates

__all__ = ["JudgeServicer"]

MAX_AUTHOR_CHARS: Final = 128
MAX_REASON_CHARS: Final = 2_000


class JudgeServicer(JudgeServiceServicer):
    """Converts and delegates to `judges.registry.JudgeRegistry`."""

    def __init__(
        self,
        registry: JudgeRegistry,
        shadows: ShadowCandidates,
        tokens: TokenCodec,
        settings: Settings,
    ) -> None:
        self._registry = registry
        self._shadows = shadows
        self._tokens = tokens
        self._max_text_chars = settings.server.max_text_chars

    async def CreateJudge(
        self, request: pb.CreateJudgeRequest, context: object
    ) -> pb.CreateJudgeResponse:
        """Create a judge with version 1, deployed."""
        checker = Checker(self._max_text_chars)
        at = checker.within("judge.")
        judge = await self._registry.create(
            checker.judge_id("judge_id", request.judge_id),
            spec_from(checker, request.judge),
            display_name=display_name(at, request.judge),
            description=description(at, request.judge),
            labels=at.labels("labels", request.judge.labels),
            instructions=instructions_of_new_judge(checker, request),
            request_id=checker.last_request_id(request.request_id),
        )
        return pb.CreateJudgeResponse(judge=self._message(judge))

    async def GetJudge(
        self, request: pb.GetJudgeRequest, context: object
    ) -> pb.GetJudgeResponse:
        """Read one judge."""
        checker = Checker(self._max_text_chars)
        judge_id = checker.passed(checker.judge("name", request.name))
        judge = self._registry.get(judge_id)
        return pb.GetJudgeResponse(judge=self._message(judge))

    async def ListJudges(
        self, request: pb.ListJudgesRequest, context: object
    ) -> pb.ListJudgesResponse:
        """List judges by name."""
        paging = read_paging(Checker(self._max_text_chars), request, self._tokens)
        after = paging.last_key or ""
        judges = [judge for judge in self._registry.list() if judge.judge_id > after]
        page = cut_page(judges, self._message, key=lambda j: j.judge_id, paging=paging)
        return pb.ListJudgesResponse(
            judges=page.items, next_page_token=page.next_page_token
        )

    async def UpdateJudge(
        self, request: pb.UpdateJudgeRequest, context: object
    ) -> pb.UpdateJudgeResponse:
        """Change what does not affect answers."""
        checker = Checker(self._max_text_chars)
        judge_id = checker.passed(checker.judge("judge.name", request.judge.name))
        kind = self._registry.get(judge_id).spec.kind
        changes = changes_from(checker, request.judge, request.update_mask, kind=kind)
        judge = await self._registry.update(
            judge_id,
            display_name=changes.display_name,
            description=changes.description,
            labels=changes.labels,
            default_criteria=changes.default_criteria,
            etag=request.judge.etag,
        )
        return pb.UpdateJudgeResponse(judge=self._message(judge))

    async def DeleteJudge(
        self, request: pb.DeleteJudgeRequest, context: object
    ) -> pb.DeleteJudgeResponse:
        """Take a judge out of service."""
        checker = Checker(self._max_text_chars)
        judge_id = checker.passed(checker.judge("name", request.name))
        await self._registry.delete(judge_id, etag=request.etag)
        return pb.DeleteJudgeResponse()

    async def CreateJudgeVersion(
        self, request: pb.CreateJudgeVersionRequest, context: object
    ) -> pb.CreateJudgeVersionResponse:
        """Add a version written by hand."""
        checker = Checker(self._max_text_chars)
        judge_id = checker.passed(checker.judge("parent", request.parent))
        judge = self._registry.get(judge_id)
        version = await self._registry.add_version(
            judge_id,
            program_from(checker, request.judge_version, judge.spec),
            parent_version=judge.deployed_version,
            request_id=checker.last_request_id(request.request_id),
        )
        return pb.CreateJudgeVersionResponse(judge_version=version_message(version))

    async def GetJudgeVersion(
        self, request: pb.GetJudgeVersionRequest, context: object
    ) -> pb.GetJudgeVersionResponse:
        """Read one version."""
        checker = Checker(self._max_text_chars)
        name = checker.passed(checker.version("name", request.name))
        version = self._registry.get_version(name.judge_id, name.version)
        return pb.GetJudgeVersionResponse(judge_version=version_message(version))

    async def ListJudgeVersions(
        self, request: pb.ListJudgeVersionsRequest, context: object
    ) -> pb.ListJudgeVersionsResponse:
        """List versions, newest first."""
        checker = Checker(self._max_text_chars)
        judge_id = checker.judge("parent", request.parent)
        paging = read_paging(checker, request, self._tokens)
        versions = self._registry.list_versions(checker.passed(judge_id))
        if paging.last_key:
            versions = [v for v in versions if v.version < int(paging.last_key)]
        page = cut_page(versions, _listed, key=lambda v: str(v.version), paging=paging)
        return pb.ListJudgeVersionsResponse(
            judge_versions=page.items, next_page_token=page.next_page_token
        )

    async def DeployJudgeVersion(
        self, request: pb.DeployJudgeVersionRequest, context: object
    ) -> pb.DeployJudgeVersionResponse:
        """Make a version serve."""
        checker = Checker(self._max_text_chars)
        version = checker.version("name", request.name)
        author = checker.text("author", request.author, limit=MAX_AUTHOR_CHARS)
        reason = checker.text("reason", request.reason, limit=MAX_REASON_CHARS)
        request_id = checker.last_request_id(request.request_id)
        name = checker.passed(version)
        judge = await self._registry.deploy(
            name.judge_id,
            name.version,
            author=author,
            reason=reason,
            etag=request.etag,
            request_id=request_id,
        )
        return pb.DeployJudgeVersionResponse(judge=self._message(judge))

    async def RollbackJudge(
        self, request: pb.RollbackJudgeRequest, context: object
    ) -> pb.RollbackJudgeResponse:
        """Return to the version that served before."""
        checker = Checker(self._max_text_chars)
        judge_id = checker.judge("name", request.name)
        author = checker.text("author", request.author, limit=MAX_AUTHOR_CHARS)
        reason = checker.text("reason", request.reason, limit=MAX_REASON_CHARS)
        request_id = checker.last_request_id(request.request_id)
        judge = await self._registry.rollback(
            checker.passed(judge_id),
            author=author,
            reason=reason,
            etag=request.etag,
            request_id=request_id,
        )
        return pb.RollbackJudgeResponse(judge=self._message(judge))

    async def ExportJudgeVersion(
        self, request: pb.ExportJudgeVersionRequest, context: object
    ) -> pb.ExportJudgeVersionResponse:
        """Return a version as a JSON document."""
        checker = Checker(self._max_text_chars)
        name = checker.passed(checker.version("name", request.name))
        version = self._registry.get_version(name.judge_id, name.version)
        return pb.ExportJudgeVersionResponse(document=write_version(version))

    async def ImportJudgeVersion(
        self, request: pb.ImportJudgeVersionRequest, context: object
    ) -> pb.ImportJudgeVersionResponse:
        """Add the version of a JSON document."""
        checker = Checker(MAX_DOCUMENT_CHARS)
        judge_id = checker.judge("parent", request.parent)
        checker.text("document", request.document, required=True)
        request_id = checker.last_request_id(request.request_id)
        judge = self._registry.get(checker.passed(judge_id))
        found = read_version(request.document)
        version = await self._registry.add_version(
            judge.judge_id,
            found.program,
            origin="import",
            data_digest=found.data_digest,
            model=found.model,
            metrics=found.metrics,
            lineage=found.lineage,
            method="ImportJudgeVersion",
            request_id=request_id,
        )
        return pb.ImportJudgeVersionResponse(judge_version=version_message(version))

    def _message(self, judge: Judge) -> judge_pb2.Judge:
        return judge_message(judge, self._shadows.latest(judge.judge_id))


def _listed(version: JudgeVersion) -> judge_pb2.JudgeVersion:
    """Return a version without its memory's examples: a page of them would be too large."""
    return version_message(version, remembered=False)
