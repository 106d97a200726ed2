"""JuryService."""

from __future__ import annotations

from sidejudge.v1 import jury_service_pb2 as pb
from sidejudge.v1.jury_service_pb2_grpc import JuryServiceServicer
from sidejudge_server.api.call_context import remaining_s
from sidejudge_server.api.convert_jury import (
    comparison_message,
    create_command,
    deliberate_command,
    deliberation_message,
    jury_message,
)
from sidejudge_server.api.paging import cut_page, read_paging
from sidejudge_server.api.tokens import TokenCodec
from sidejudge_server.api.validate import Checker
from sidejudge_server.config import Settings
from sidejudge_server.juries.service import JuryService

__all__ = ["JuryServicer"]


class JuryServicer(JuryServiceServicer):
    """Converts and delegates to `juries`."""

    def __init__(
        self, juries: JuryService, tokens: TokenCodec, settings: Settings
    ) -> None:
        self._juries = juries
        self._tokens = tokens
        self._max_text_chars = settings.server.max_text_chars

    async def CreateJury(
        self, request: pb.CreateJuryRequest, context: object
    ) -> pb.CreateJuryResponse:
        """Make a jury."""
        command = create_command(Checker(self._max_text_chars), request)
        return pb.CreateJuryResponse(
            jury=jury_message(await self._juries.create(command))
        )

    async def GetJury(
        self, request: pb.GetJuryRequest, context: object
    ) -> pb.GetJuryResponse:
        """Read a jury."""
        jury = self._juries.get(self._jury_id("name", request.name))
        return pb.GetJuryResponse(jury=jury_message(jury))

    async def ListJuries(
        self, request: pb.ListJuriesRequest, context: object
    ) -> pb.ListJuriesResponse:
        """List juries by name."""
        paging = read_paging(Checker(self._max_text_chars), request, self._tokens)
        juries = self._juries.list(after=paging.last_key, limit=paging.limit)
        page = cut_page(juries, jury_message, key=lambda j: j.jury_id, paging=paging)
        return pb.ListJuriesResponse(
            juries=page.items, next_page_token=page.next_page_token
        )

    async def Deliberate(
        self, request: pb.DeliberateRequest, context: object
    ) -> pb.DeliberateResponse:
        """Ask a jury about an item."""
        checker = Checker(self._max_text_chars)
        command = deliberate_command(checker, request, timeout_s=remaining_s())
        said = await self._juries.deliberate(command)
        jury = self._juries.get(said.jury_id)
        return pb.DeliberateResponse(deliberation=deliberation_message(said, jury))

    async def GetDeliberation(
        self, request: pb.GetDeliberationRequest, context: object
    ) -> pb.GetDeliberationResponse:
        """Read a deliberation."""
        checker = Checker(self._max_text_chars)
        found = checker.resource("name", request.name, "deliberations")
        said = await self._juries.get_deliberation(checker.passed(found))
        jury = self._juries.get(said.jury_id)
        return pb.GetDeliberationResponse(deliberation=deliberation_message(said, jury))

    async def ListDeliberations(
        self, request: pb.ListDeliberationsRequest, context: object
    ) -> pb.ListDeliberationsResponse:
        """List deliberations, newest first."""
        checker = Checker(self._max_text_chars)
        found = checker.resource("jury", request.jury, "juries")
        paging = read_paging(checker, request, self._tokens)
        jury = self._juries.get(checker.passed(found))
        said = await self._juries.list_deliberations(
            jury.jury_id,
            audited=request.audited,
            before=paging.last_key,
            limit=paging.limit,
        )
        page = cut_page(
            said,
            lambda one: deliberation_message(one, jury),
            key=lambda one: one.deliberation_id,
            paging=paging,
        )
        return pb.ListDeliberationsResponse(
            deliberations=page.items, next_page_token=page.next_page_token
        )

    async def CompareJury(
        self, request: pb.CompareJuryRequest, context: object
    ) -> pb.CompareJuryResponse:
        """Put a jury beside its members."""
        found, weights = await self._juries.compare(self._jury_id("name", request.name))
        return pb.CompareJuryResponse(
            labels=found.labels,
            rows=map(comparison_message, found.rows),
            reason=found.reason,
            weights=weights.values,
            weights_learned=weights.learned,
            weights_reason=weights.reason,
        )

    def _jury_id(self, field: str, name: str) -> str:
        checker = Checker(self._max_text_chars)
        found = checker.resource(field, name, "juries")
        return checker.passed(found)
