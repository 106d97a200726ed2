"""One row of the comparison through a real sidecar: import, optimize, judge the held-out examples."""

from __future__ import annotations

import contextlib
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.duration_pb2 import Duration
from google.protobuf.json_format import MessageToDict

import sidejudge
from bench.judge_tasks import row
from bench.processes import free_port, sidecar
from sidejudge.v1 import (
    feedback_pb2,
    feedback_service_pb2,
    optimization_pb2,
    optimization_service_pb2,
)
from sidejudge_server.benchmark.labelled import LabelledExample
from sidejudge_server.benchmark.runner import RunOptions, run_examples
from sidejudge_server.benchmark.wire import example_message

__all__ = ["ALGORITHMS", "Search", "Splits", "run_row"]

_CALL_S = 900.0
_RUN_S = 2 * 3600
_Split = feedback_pb2.TrainingExample.Split

ALGORITHMS = {
    "calibration": optimization_pb2.OptimizationConfig.ALGORITHM_CALIBRATION,
    "labeled demonstrations": optimization_pb2.OptimizationConfig.ALGORITHM_LABELED_DEMONSTRATIONS,
    "memory": optimization_pb2.OptimizationConfig.ALGORITHM_MEMORY,
    "MIPROv2": optimization_pb2.OptimizationConfig.ALGORITHM_MIPROV2,
}


@dataclass(frozen=True, slots=True)
class Search:
    """Numbers of a MIPROv2 search, the same for plain DSPy."""

    trials: int = 6
    candidates: int = 4
    labeled_demos: int = 6
    bootstrapped_demos: int = 1
    seed: int = 9


@dataclass(frozen=True, slots=True)
class Splits:
    """Keys of the examples on each side of the split, in the order of the import."""

    train: list[str]
    validation: list[str]
    test: list[str]


@dataclass(frozen=True, slots=True)
class SidecarRow:
    """What a row gave.

    Attributes:
        splits: As the server made them.
        items: Key, answer and confidence of each held-out example, as served.
        run: The optimization as JSON; None for version 1.
        trials: Its trials as JSON.
        scoring: Calls and seconds of the served held-out answers.
    """

    splits: Splits
    items: list[dict[str, Any]]
    run: dict[str, Any] | None
    trials: list[dict[str, Any]]
    scoring: dict[str, float]


def run_row(
    judge_id: str,
    examples: Sequence[LabelledExample],
    *,
    algorithm: str | None,
    search: Search,
    settings: Mapping[str, str],
    log: Path,
) -> SidecarRow:
    """Run an algorithm from version 1 on a sidecar of its own and judge the held-out examples.

    A database of its own: every run is the first use of the held-out examples, and the server splits
    the same examples in the same order in the same way.

    Args:
        judge_id: A built-in judge.
        examples: What to import.
        algorithm: One of `ALGORITHMS`; None judges with version 1.
        search: Numbers of the search.
        settings: Environment of the sidecar that names its model.
        log: File that the sidecar's log is copied to.
    """
    judge = f"judges/{judge_id}"
    with _client(settings, log) as client:
        splits = _import(client, judge, examples)
        run = None
        trials: list[dict[str, Any]] = []
        version = f"{judge}/versions/1"
        if algorithm is not None:
            finished = _optimize(client, judge, algorithm, search)
            run = MessageToDict(finished, preserving_proto_field_name=True)
            request = optimization_service_pb2.ListTrialsRequest(
                parent=finished.name, page_size=1000
            )
            trials = [
                MessageToDict(trial, preserving_proto_field_name=True)
                for trial in client.optimization.ListTrials(request).trials
            ]
            version = finished.candidate_version
        items: list[dict[str, Any]] = []
        scoring = {"calls": 0.0, "seconds": 0.0}
        if version:
            held_out = set(splits.test)
            result = run_examples(
                client,
                [e for e in examples if e.key in held_out],
                RunOptions(judge, version, timeout_s=_CALL_S),
            )
            if result.failures:
                raise RuntimeError(f"no answer: {result.failures[0]}")
            items = [{"key": a.key, "answer": str(a.answer)} for a in result.answers]
            scoring = {
                "calls": float(result.lm_calls),
                "seconds": result.lm_seconds,
            }
        return SidecarRow(splits, items, run, trials, scoring)


@contextlib.contextmanager
def _client(settings: Mapping[str, str], log: Path) -> Iterator[sidejudge.Client]:
    with tempfile.TemporaryDirectory(prefix="sidejudge-bench-") as name:
        directory = Path(name)
        try:
            with (
                sidecar(directory, port=free_port(), settings=settings) as server,
                sidejudge.connect(server.address) as client,
            ):
                yield client
        finally:
            log.write_bytes((directory / "sidecar.log").read_bytes())


def _import(
    client: sidejudge.Client, judge: str, examples: Sequence[LabelledExample]
) -> Splits:
    client.feedback.ImportTrainingExamples(
        iter(
            [
                feedback_service_pb2.ImportTrainingExamplesRequest(
                    judge=judge,
                    training_examples=[example_message(e) for e in examples],
                )
            ]
        )
    )
    request = feedback_service_pb2.ListTrainingExamplesRequest(
        judge=judge, page_size=1000
    )
    split = {}
    for stored in client.feedback.ListTrainingExamples(request).training_examples:
        given = stored.artifact_input
        split[given.artifact, given.ground_truth, given.context] = stored.split
    sides: dict[_Split.ValueType, list[str]] = {
        _Split.SPLIT_TRAIN: [],
        _Split.SPLIT_VALIDATION: [],
        _Split.SPLIT_TEST: [],
    }
    for example in examples:
        texts = row(example)
        side = split.pop(
            (texts["artifact"], texts["ground_truth"], texts["context"]), None
        )
        if side is not None:  # None: a duplicate that the server left out
            sides[side].append(example.key)
    return Splits(*sides.values())


def _optimize(
    client: sidejudge.Client, judge: str, algorithm: str, search: Search
) -> optimization_pb2.Optimization:
    config = optimization_pb2.OptimizationConfig(
        algorithm=ALGORITHMS[algorithm], seed=search.seed
    )
    if algorithm == "MIPROv2":
        config.num_trials = search.trials
        config.num_candidates = search.candidates
        config.max_labeled_demos = search.labeled_demos
        config.max_bootstrapped_demos = search.bootstrapped_demos
        config.instruction_source = config.INSTRUCTION_SOURCE_CURATED
    request = optimization_service_pb2.CreateOptimizationRequest(
        optimization=optimization_pb2.Optimization(
            judge=judge,
            config=config,
            budget=optimization_pb2.OptimizationBudget(
                max_duration=Duration(seconds=_RUN_S)
            ),
        )
    )
    run = client.optimization.CreateOptimization(request).optimization
    token = ""
    while True:
        watch = optimization_service_pb2.WatchOptimizationRequest(
            name=run.name, resume_token=token
        )
        try:
            for message in client.optimization.WatchOptimization(watch):
                token = message.event.resume_token
                if message.event.HasField("finished"):
                    finished: optimization_pb2.Optimization
                    finished = message.event.finished.optimization
                    return finished
                _say(message.event)
        except grpc.RpcError as error:
            # A stream may be cut; what has been seen is in the token.
            if error.code() is not grpc.StatusCode.UNAVAILABLE:
                raise


def _say(event: optimization_service_pb2.OptimizationEvent) -> None:
    kind = event.WhichOneof("event")
    if kind == "trial_completed":
        trial = event.trial_completed.trial
        text = f"{trial.score:.3f} on {trial.example_count}"
    elif kind == "phase_changed":
        text = optimization_pb2.Optimization.Phase.Name(event.phase_changed.phase)
    elif kind == "warning":
        text = event.warning.message
    else:
        return
    print(f"    {kind}: {text}", file=sys.stderr, flush=True)
