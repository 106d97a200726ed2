"""ServerService."""

from __future__ import annotations

from google.protobuf.duration_pb2 import Duration

from sidejudge.v1 import server_service_pb2 as pb
from sidejudge.v1.server_service_pb2_grpc import ServerServiceServicer
from sidejudge_server import __version__
from sidejudge_server.api.evaluation import MAX_BATCH_ITEMS
from sidejudge_server.api.feedback import MAX_FEEDBACK_BATCH_ITEMS
from sidejudge_server.config import Settings

__all__ = ["ServerServicer"]


class ServerServicer(ServerServiceServicer):
    """Says what this server is and allows; never a secret."""

    def __init__(
        self, settings: Settings, *, database_id: str, storage_repair: str
    ) -> None:
        deadline = Duration()
        deadline.FromMilliseconds(round(settings.server.default_deadline_s * 1000))
        self._info = pb.GetServerInfoResponse(
            version=__version__,
            database_id=database_id,
            task_model=settings.task_lm.model,
            prompt_model=settings.prompt_lm.model if settings.prompt_lm else "",
            limits=pb.Limits(
                max_message_bytes=settings.server.max_message_bytes,
                max_text_chars=settings.server.max_text_chars,
                max_batch_items=MAX_BATCH_ITEMS,
                max_feedback_batch_items=MAX_FEEDBACK_BATCH_ITEMS,
                default_deadline=deadline,
                min_training_examples=settings.optimization.min_examples,
                recommended_training_examples=settings.optimization.recommended_examples,
            ),
            storage_repair=storage_repair,
        )

    async def GetServerInfo(
        self, request: pb.GetServerInfoRequest, context: object
    ) -> pb.GetServerInfoResponse:
        """Read version, limits and models."""
        return self._info
