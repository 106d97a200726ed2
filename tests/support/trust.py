"""Labels of audit items over gRPC, for tests of what they certify."""

from __future__ import annotations

import asyncio
from typing import Any

import sidejudge
from sidejudge.v1 import (
    evaluation_pb2,
    evaluation_service_pb2,
    feedback_pb2,
    feedback_service_pb2,
    judge_pb2,
)
from sidejudge.v1 import monitoring_service_pb2 as monitoring
from tests.support.calls import artifact
from tests.support.experiments import JUDGE
from tests.support.server import RunningServer

__all__ = ["KNOWN", "TARGET", "audit", "drain", "judge_and_label", "judged"]

TARGET = evaluation_pb2.Selection(target_agreement=0.8)


def audit(client: sidejudge.Client, share: float) -> None:
    """Set the share of audit items."""
    monitor = monitoring.Monitor(name=f"{JUDGE}/monitor", audit_share=share)
    request = monitoring.UpdateMonitorRequest(monitor=monitor)
    request.update_mask.paths.append("audit_share")
    client.monitoring.UpdateMonitor(request)


def judge_and_label(server: RunningServer, items: list[tuple[float, bool]]) -> None:
    """Judge items with a stated p(yes) and label them; a label is whether the judge was right."""
    client = server.client
    requests = [
        # Groups of their own names decide the folds of a cross-validation.
        artifact(f"Item {number}: p(yes)={p}", omit_reasoning=True, group=f"g{number}")
        for number, (p, _) in enumerate(items)
    ]
    batch = evaluation_service_pb2.BatchEvaluateRequest(requests=requests)
    found = {
        answer.index: answer.evaluation
        for answer in client.evaluation.BatchEvaluate(batch, timeout=60)
    }
    feedback = []
    for index, (_, right) in enumerate(items):
        passed = found[index].judgment.verdict == judge_pb2.VERDICT_PASS
        verdict = judge_pb2.VERDICT_PASS if passed == right else judge_pb2.VERDICT_FAIL
        feedback.append(
            feedback_pb2.Feedback(evaluation=found[index].name, verdict=verdict)
        )
    client.feedback.BatchRecordFeedback(
        feedback_service_pb2.BatchRecordFeedbackRequest(feedback=feedback)
    )
    drain(server)


def drain(server: RunningServer) -> None:
    """Wait until all labels are looked at."""
    asyncio.run_coroutine_threadsafe(_all_looked_at(server), server.loop).result(60)


def judged(
    client: sidejudge.Client,
    p: float | str,
    *,
    selection: evaluation_pb2.Selection | None = TARGET,
    **fields: Any,
) -> evaluation_pb2.Evaluation:
    """Judge an item with a stated p(yes)."""
    request = artifact(f"New: p(yes)={p}", omit_reasoning=True, **fields)
    if selection is not None:
        request.selection.CopyFrom(selection)
    answer: evaluation_service_pb2.EvaluateResponse
    answer = client.evaluation.Evaluate(request, timeout=30)
    return answer.evaluation


# Sure answers are right, unsure ones half the time.
KNOWN = [(0.96 + i / 1000, True) for i in range(30)] + [
    (0.75 + i / 1000, i % 2 == 0) for i in range(30)
]


async def _all_looked_at(server: RunningServer) -> None:
    reliabilities = server.application.reliabilities
    assert reliabilities is not None
    await reliabilities.drain()
