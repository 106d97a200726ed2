"""Short ways to make requests and to look at failures."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable
from typing import Any

import grpc
import pytest

import sidejudge
from sidejudge.v1 import (
    evaluation_pb2,
    evaluation_service_pb2,
    feedback_pb2,
    feedback_service_pb2,
    judge_pb2,
)

__all__ = ["artifact", "correction", "evaluate", "failure", "new_uuid", "rubric"]


def new_uuid() -> str:
    """Return a fresh request_id."""
    return str(uuid.uuid4())


def artifact(
    text: str = "p(yes)=0.9 fine", *, judge: str = "judges/safety", **fields: Any
) -> evaluation_service_pb2.EvaluateRequest:
    """Return a request to judge an artifact."""
    ground_truth = fields.pop("ground_truth", None)
    item = evaluation_pb2.ArtifactInput(
        artifact=text, context="What was asked.", ground_truth=ground_truth
    )
    return evaluation_service_pb2.EvaluateRequest(
        judge=judge, artifact_input=item, **fields
    )


def rubric(text: str = "grade=4.0 fine", **fields: Any) -> Any:
    """Return a request to score an output."""
    item = evaluation_pb2.RubricInput(task_context="The task.", agent_output=text)
    return evaluation_service_pb2.EvaluateRequest(
        judge="judges/rubric", rubric_input=item, **fields
    )


def evaluate(client: sidejudge.Client, **options: Any) -> evaluation_pb2.Evaluation:
    """Judge an artifact and return the evaluation."""
    return client.evaluation.Evaluate(artifact(**options), timeout=30).evaluation


def correction(
    evaluation: str, *, verdict: int = judge_pb2.VERDICT_FAIL, **fields: Any
) -> feedback_service_pb2.RecordFeedbackRequest:
    """Return a request to correct an evaluation's verdict; ``score`` replaces the verdict."""
    request_id = fields.pop("request_id", "")
    label = {} if "score" in fields else {"verdict": verdict}
    message = feedback_pb2.Feedback(evaluation=evaluation, **label, **fields)
    return feedback_service_pb2.RecordFeedbackRequest(
        feedback=message, request_id=request_id
    )


def failure(
    method: Callable[..., Any], request: Any, **options: Any
) -> sidejudge.SidejudgeError:
    """Make a call that must fail, read its stream if it has one, and return the error."""
    with pytest.raises(grpc.RpcError) as caught:
        _consume(method(request, timeout=options.pop("timeout", 30), **options))
    return sidejudge.SidejudgeError.from_rpc_error(caught.value)


def _consume(answer: Any) -> None:
    if isinstance(answer, Iterable):
        for _ in answer:
            pass
