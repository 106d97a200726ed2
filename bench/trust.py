"""What calibration and selection add to an evaluation, over gRPC against a sidecar with the stand-in LM.

`make bench-trust` labels audit items of one judge, then times evaluations with a target for that judge
and without one for a judge that has no labels, in turns. Nothing is asserted.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import grpc

import sidejudge
from bench.processes import free_port, sidecar, stand_in
from bench.turns import print_medians
from sidejudge.v1 import (
    evaluation_pb2,
    evaluation_service_pb2,
    feedback_pb2,
    feedback_service_pb2,
    judge_pb2,
    monitoring_service_pb2,
    trust_service_pb2,
)

LABELLED, PLAIN = "judges/safety", "judges/relevance"
LABELS = 1_000
TARGET = evaluation_pb2.Selection(target_agreement=0.8)
_BATCH = 250
_TEXT = "The order was sent back and the money returned within two days. " * 20


def request(
    judge: str, number: int, p: float
) -> evaluation_service_pb2.EvaluateRequest:
    """Return a request for an item with a given P(yes)."""
    return evaluation_service_pb2.EvaluateRequest(
        judge=judge,
        artifact_input=evaluation_pb2.ArtifactInput(
            artifact=f"p(yes)={p:.3f} {number} {_TEXT}", context="What happened?"
        ),
        omit_reasoning=True,
        request_id=str(uuid.uuid4()),
    )


def prepare(client: sidejudge.Client) -> int:
    """Judge and label items, all drawn by chance, and return how many labels are known of."""
    rng = random.Random(1)  # noqa: S311 - no secret
    monitor = monitoring_service_pb2.Monitor(
        name=f"{LABELLED}/monitor", audit_share=1.0
    )
    update = monitoring_service_pb2.UpdateMonitorRequest(monitor=monitor)
    update.update_mask.paths.append("audit_share")
    client.monitoring.UpdateMonitor(update)
    for start in range(0, LABELS, _BATCH):
        batch = evaluation_service_pb2.BatchEvaluateRequest(
            requests=[
                request(LABELLED, start + i, rng.uniform(0.5, 1)) for i in range(_BATCH)
            ]
        )
        feedback = []
        for answer in client.evaluation.BatchEvaluate(batch):
            right = rng.random() < answer.evaluation.judgment.confidence
            verdict = judge_pb2.VERDICT_PASS if right else judge_pb2.VERDICT_FAIL
            feedback.append(
                feedback_pb2.Feedback(
                    evaluation=answer.evaluation.name, verdict=verdict
                )
            )
        client.feedback.BatchRecordFeedback(
            feedback_service_pb2.BatchRecordFeedbackRequest(feedback=feedback)
        )
    known = 0
    until = time.monotonic() + 60
    while known < LABELS // 2 and time.monotonic() < until:
        answer = client.trust.GetConfidenceCalibration(
            trust_service_pb2.GetConfidenceCalibrationRequest(name=LABELLED)
        )
        known = answer.calibration.labels
        time.sleep(0.2)
    return known


def operations(client: sidejudge.Client) -> dict[str, Callable[[int], object]]:
    """Return what is timed, by name."""

    def evaluate(judge: str, *, selected: bool) -> Callable[[int], object]:
        def run(number: int) -> object:
            wanted = request(judge, LABELS + number, 0.5 + number % 500 / 1000)
            if selected:
                wanted.selection.CopyFrom(TARGET)
            return client.evaluation.Evaluate(wanted)

        return run

    return {
        "Evaluate, nothing known": evaluate(PLAIN, selected=False),
        "Evaluate, calibrated and selected": evaluate(LABELLED, selected=True),
    }


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=2000)
    arguments = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as directory,
        stand_in() as lm,
        sidecar(Path(directory), port=free_port(), lm_base_url=lm) as running,
        sidejudge.Client(grpc.insecure_channel(running.address)) as client,
    ):
        print(f"{prepare(client)} labels are known of {LABELLED}")
        plain, known = print_medians(operations(client), calls=arguments.calls).values()
    print(f"{'trust adds to Evaluate':<40} {known - plain:+7.3f} ms  (<= 0.2 ms)")


if __name__ == "__main__":
    main()
