"""An import of training examples: many messages, one answer."""

from __future__ import annotations

from typing import Final

from sidejudge.v1 import feedback_service_pb2 as pb
from sidejudge_server.api.convert_training import (
    imported_examples,
    rejection_value,
    training_set_message,
)
from sidejudge_server.api.validate import Checker
from sidejudge_server.training.service import MAX_IMPORT, FeedbackService

__all__ = ["Import"]

MAX_REJECTED_SHOWN: Final = 100


class Import:
    """What has come in so far. Not shared between calls."""

    def __init__(self, service: FeedbackService) -> None:
        self._service = service
        self._judge_id = ""
        self._taken = 0
        self._imported = 0
        self._rejected = 0
        self._shown: list[pb.RejectedExample] = []

    async def take(self, request: pb.ImportTrainingExamplesRequest) -> None:
        """Import one message as one transaction.

        Raises:
            InvalidRequestError: Fields are wrong; messages before are imported already.
            NotFoundError: There is no such judge.
        """
        self._check(request)
        examples = imported_examples(request)
        if not examples:
            return
        outcome = await self._service.import_examples(self._judge_id, examples)
        for item in outcome.rejected[: MAX_REJECTED_SHOWN - len(self._shown)]:
            self._shown.append(
                pb.RejectedExample(
                    index=self._taken + item.index,
                    rejection=rejection_value(item.rejection),
                    detail=item.detail,
                )
            )
        self._taken += len(examples)
        self._imported += outcome.imported_count
        self._rejected += len(outcome.rejected)

    async def finish(self) -> pb.ImportTrainingExamplesResponse:
        """Return what became of all messages.

        Raises:
            InvalidRequestError: There was no message.
        """
        if not self._judge_id:
            checker = Checker(0)
            checker.add("judge", "is required in the first message")
            checker.raise_if_any()
        training_set = await self._service.training_set(self._judge_id)
        return pb.ImportTrainingExamplesResponse(
            imported_count=self._imported,
            rejected_count=self._rejected,
            rejected=self._shown,
            training_set=training_set_message(training_set),
        )

    def _check(self, request: pb.ImportTrainingExamplesRequest) -> None:
        checker = Checker(0)
        judge_id = checker.judge("judge", request.judge, required=not self._judge_id)
        if judge_id and self._judge_id and judge_id != self._judge_id:
            checker.add("judge", "must be the judge of the first message, or empty")
        checker.count(
            "training_examples", len(request.training_examples), low=0, high=MAX_IMPORT
        )
        checker.raise_if_any()
        self._judge_id = self._judge_id or judge_id or ""
