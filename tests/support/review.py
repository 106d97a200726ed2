"""The review queue over gRPC, with a clock that tests set."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

import sidejudge
from sidejudge.v1 import evaluation_service_pb2, monitoring_service_pb2
from sidejudge.v1 import review_service_pb2 as pb
from tests.support.calls import artifact
from tests.support.server import RunningServer

__all__ = ["JUDGE", "claim", "forward", "judge_items", "names", "queue", "set_audit"]

JUDGE = "judges/safety"
_BATCH = 100


def judge_items(
    client: sidejudge.Client, probabilities: Iterable[float], **fields: Any
) -> list[str]:
    """Judge an item for each P(yes) and return the names of the evaluations."""
    requests = [
        artifact(f"Item {n}: p(yes)={p}", omit_reasoning=True, **fields)
        for n, p in enumerate(probabilities)
    ]
    names = []
    for first in range(0, len(requests), _BATCH):
        batch = evaluation_service_pb2.BatchEvaluateRequest(
            requests=requests[first : first + _BATCH]
        )
        results = client.evaluation.BatchEvaluate(batch, timeout=60)
        found = {result.index: result.evaluation.name for result in results}
        names += [found[n] for n in sorted(found)]
    return names


def set_audit(client: sidejudge.Client, share: float, judge: str = JUDGE) -> None:
    """Set the share of evaluations that are audit items."""
    request = monitoring_service_pb2.UpdateMonitorRequest()
    request.monitor.name = f"{judge}/monitor"
    request.monitor.audit_share = share
    request.update_mask.paths.append("audit_share")
    client.monitoring.UpdateMonitor(request)


def queue(client: sidejudge.Client, **fields: Any) -> list[pb.ReviewItem]:
    """List the queue of the judge."""
    request = pb.ListReviewQueueRequest(**({"judge": JUDGE} | fields))
    return list(client.review.ListReviewQueue(request).items)


def claim(
    client: sidejudge.Client, annotator: str, count: int = 1, **fields: Any
) -> list[pb.ReviewItem]:
    """Claim items of the judge."""
    request = pb.ClaimReviewItemsRequest(
        **({"judge": JUDGE, "annotator": annotator, "max_items": count} | fields)
    )
    return list(client.review.ClaimReviewItems(request).items)


def names(items: Iterable[pb.ReviewItem]) -> list[str]:
    """Return the evaluations of items."""
    return [item.evaluation.name for item in items]


def forward(server: RunningServer, **time: float) -> None:
    """Let the review queue believe that it is so much later than now."""
    review = server.application.review
    assert review is not None
    review.clock = lambda: datetime.now(UTC) + timedelta(**time)
