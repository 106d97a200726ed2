"""What experiments add to an evaluation, over gRPC against a sidecar with the stand-in LM.

`make bench-experiments` times single calls, one after the other, in turns: evaluations with and
without a running split, AssignVariant and RecordOutcome. Nothing is asserted.
"""

from __future__ import annotations

import argparse
import tempfile
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
    experiment_pb2,
    experiment_service_pb2,
    judge_pb2,
    judge_service_pb2,
)

SPLIT = "judges/safety"
_TEXT = "The order was sent back and the money returned within two days. " * 20


def prepare(client: sidejudge.Client) -> None:
    """Give one judge a second version in a split, and start an experiment with named arms."""
    client.judges.CreateJudgeVersion(
        judge_service_pb2.CreateJudgeVersionRequest(
            parent=SPLIT,
            judge_version=judge_pb2.JudgeVersion(instructions="Be strict: yes or no."),
        )
    )
    arm = experiment_pb2.ExperimentArm(
        arm="candidate", judge_version=f"{SPLIT}/versions/2"
    )
    split = experiment_pb2.Experiment(
        judge=SPLIT, mode=experiment_pb2.Experiment.MODE_SPLIT, arms=[arm]
    )
    metric = experiment_pb2.ExperimentMetric(
        metric="solved",
        role=experiment_pb2.ExperimentMetric.ROLE_PRIMARY,
        kind=experiment_pb2.ExperimentMetric.KIND_BINARY,
    )
    named = experiment_pb2.Experiment(
        arms=[experiment_pb2.ExperimentArm(arm=a) for a in ("old", "new")],
        metrics=[metric],
    )
    for name, experiment in (("split", split), ("named", named)):
        client.experiments.CreateExperiment(
            experiment_service_pb2.CreateExperimentRequest(
                experiment_id=name, experiment=experiment
            )
        )
        client.experiments.StartExperiment(
            experiment_service_pb2.StartExperimentRequest(name=f"experiments/{name}")
        )


def operations(client: sidejudge.Client) -> dict[str, Callable[[int], object]]:
    """Return what is timed, by name; each takes the number of the call."""

    def evaluate(*, in_split: bool) -> Callable[[int], object]:
        def run(number: int) -> object:
            # An explicit version is no part of an experiment.
            version = "" if in_split else f"{SPLIT}/versions/{1 + number % 2}"
            return client.evaluation.Evaluate(
                evaluation_service_pb2.EvaluateRequest(
                    judge=SPLIT,
                    judge_version=version,
                    artifact_input=evaluation_pb2.ArtifactInput(
                        artifact=f"p(yes)=0.9 {number} {_TEXT}",
                        context="What happened?",
                    ),
                    subject=f"task-{number}",
                    omit_reasoning=True,
                    request_id=str(uuid.uuid4()),
                )
            )

        return run

    def assign(number: int) -> object:
        return client.experiments.AssignVariant(
            experiment_service_pb2.AssignVariantRequest(
                name="experiments/named", subject=f"task-{number}"
            )
        )

    def outcome(number: int) -> object:
        return client.experiments.RecordOutcome(
            experiment_service_pb2.RecordOutcomeRequest(
                name="experiments/named",
                subject=f"task-{number}",
                values={"solved": float(number % 2)},
                request_id=str(uuid.uuid4()),
            )
        )

    return {
        "Evaluate, no experiment": evaluate(in_split=False),
        "Evaluate, in a split": evaluate(in_split=True),
        "AssignVariant, new subject": assign,
        "RecordOutcome": outcome,
    }


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=1500)
    arguments = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as directory,
        stand_in() as lm,
        sidecar(Path(directory), port=free_port(), lm_base_url=lm) as running,
        sidejudge.Client(grpc.insecure_channel(running.address)) as client,
    ):
        prepare(client)
        medians = print_medians(operations(client), calls=arguments.calls)
    plain, split = list(medians.values())[:2]
    print(f"{'a split adds to Evaluate':<40} {split - plain:+7.3f} ms  (<= 0.3 ms)")


if __name__ == "__main__":
    main()
