"""Experiments over gRPC with items that say which version judges them rightly."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

import sidejudge
from sidejudge.v1 import (
    evaluation_pb2,
    evaluation_service_pb2,
    experiment_pb2,
    experiment_service_pb2,
    feedback_pb2,
    feedback_service_pb2,
    judge_pb2,
    judge_service_pb2,
)
from tests.support.calls import artifact, correction, new_uuid
from tests.support.server import RunningServer

__all__ = [
    "CANDIDATE",
    "JUDGE",
    "WORD",
    "add_candidate",
    "analysis",
    "candidate_arm",
    "create",
    "get",
    "item",
    "judge_and_label",
    "label_batch",
    "outcomes",
    "settle",
    "start",
    "watch",
]

JUDGE = "judges/safety"
CANDIDATE = "judges/safety/versions/2"
WORD = "meticulous"


def add_candidate(client: sidejudge.Client) -> str:
    """Add a version that answers as items say with ``p(yes|meticulous)``; return its name."""
    text = f"Be {WORD}. Answer yes if it is safe, no if it is not."
    return client.judges.CreateJudgeVersion(
        judge_service_pb2.CreateJudgeVersionRequest(
            parent=JUDGE,
            judge_version=judge_pb2.JudgeVersion(instructions=text),
        )
    ).judge_version.name


def item(number: int, *, truth: bool, baseline: bool, candidate: bool) -> str:
    """Return an artifact that the versions judge rightly or not.

    Args:
        number: Makes it unique.
        truth: Whether it is safe.
        baseline: Whether the first version is right about it.
        candidate: Whether the one of `add_candidate` is.
    """
    old = 0.9 if truth == baseline else 0.1
    new = 0.9 if truth == candidate else 0.1
    return f"Item {number}: p(yes)={old} p(yes|{WORD})={new}"


def outcomes(
    rng: np.random.Generator, count: int, *, win: float, loss: float, both_right: float
) -> Iterator[tuple[bool, bool, bool]]:
    """Yield truth, whether the baseline and whether the candidate is right, of random items."""
    both_wrong = 1 - win - loss - both_right
    kinds = rng.choice(4, size=count, p=[both_right, win, loss, both_wrong])
    truths = rng.random(count) < 0.5
    for kind, truth in zip(kinds.tolist(), truths.tolist(), strict=True):
        yield truth, kind in (0, 2), kind in (0, 1)


def candidate_arm() -> experiment_pb2.ExperimentArm:
    """Return the arm of `add_candidate`."""
    return experiment_pb2.ExperimentArm(arm="candidate", judge_version=CANDIDATE)


def create(
    client: sidejudge.Client, experiment_id: str = "trial", **fields: Any
) -> experiment_pb2.Experiment:
    """Create an experiment; by default one in shadow with the candidate."""
    if "arms" not in fields:
        fields = {"judge": JUDGE, "arms": [candidate_arm()], **fields}
    return client.experiments.CreateExperiment(
        experiment_service_pb2.CreateExperimentRequest(
            experiment_id=experiment_id,
            experiment=experiment_pb2.Experiment(**fields),
            request_id=new_uuid(),
        )
    ).experiment


def start(
    client: sidejudge.Client, name: str = "experiments/trial"
) -> experiment_pb2.Experiment:
    """Start an experiment."""
    return client.experiments.StartExperiment(
        experiment_service_pb2.StartExperimentRequest(
            name=name, author="ann", reason="to see"
        )
    ).experiment


def get(
    client: sidejudge.Client, name: str = "experiments/trial"
) -> experiment_pb2.Experiment:
    """Return an experiment."""
    request = experiment_service_pb2.GetExperimentRequest(name=name)
    return client.experiments.GetExperiment(request).experiment


def watch(
    client: sidejudge.Client, name: str = "experiments/trial"
) -> list[experiment_pb2.ExperimentEvent]:
    """Return all events of an experiment that has ended."""
    request = experiment_service_pb2.WatchExperimentRequest(name=name, from_start=True)
    return [r.event for r in client.experiments.WatchExperiment(request, timeout=30)]


def analysis(
    client: sidejudge.Client, name: str = "experiments/trial"
) -> experiment_pb2.ExperimentAnalysis:
    """Return what is known of an experiment."""
    return client.experiments.AnalyzeExperiment(
        experiment_service_pb2.AnalyzeExperimentRequest(name=name)
    ).analysis


def judge_and_label(
    client: sidejudge.Client,
    items: Iterable[tuple[bool, bool, bool]],
    *,
    first: int = 0,
    **fields: Any,
) -> list[evaluation_pb2.Evaluation]:
    """Judge items of `outcomes` and say what is true of each."""
    evaluations = []
    for number, (truth, baseline, candidate) in enumerate(items, start=first):
        text = item(number, truth=truth, baseline=baseline, candidate=candidate)
        subject = f"task-{number}"
        evaluation = client.evaluation.Evaluate(
            artifact(text, omit_reasoning=True, subject=subject, **fields)
        ).evaluation
        verdict = judge_pb2.VERDICT_PASS if truth else judge_pb2.VERDICT_FAIL
        client.feedback.RecordFeedback(correction(evaluation.name, verdict=verdict))
        evaluations.append(evaluation)
    return evaluations


def label_batch(
    client: sidejudge.Client,
    items: Iterable[tuple[bool, bool, bool]],
    *,
    first: int = 0,
) -> None:
    """Judge items of `outcomes` as one batch and label them as another."""
    known = list(items)
    requests = [
        artifact(
            item(number, truth=truth, baseline=baseline, candidate=candidate),
            omit_reasoning=True,
            subject=f"task-{number}",
        )
        for number, (truth, baseline, candidate) in enumerate(known, start=first)
    ]
    batch = evaluation_service_pb2.BatchEvaluateRequest(requests=requests)
    results = client.evaluation.BatchEvaluate(batch, timeout=60)
    names = {result.index: result.evaluation.name for result in results}
    feedback = [
        feedback_pb2.Feedback(
            evaluation=names[index],
            verdict=judge_pb2.VERDICT_PASS if truth else judge_pb2.VERDICT_FAIL,
        )
        for index, (truth, _, _) in enumerate(known)
    ]
    client.feedback.BatchRecordFeedback(
        feedback_service_pb2.BatchRecordFeedbackRequest(feedback=feedback)
    )


def settle(server: RunningServer) -> None:
    """Wait until everything that was recorded is labelled, analysed and acted upon."""

    async def drain() -> None:
        parts = server.application.experimenting
        assert parts is not None
        await parts.drain()

    asyncio.run_coroutine_threadsafe(drain(), server.loop).result(120)
