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
        items: Key and answer of each held-out example, as version 1 serves them; empty for a run.
        changed: Whether version 1 and the candidate are right, by key, on held-out examples that they
            answer differently in the gate; empty without a candidate.
        run: The optimization as JSON; None for version 1.
        trials: Its trials as JSON.
        scoring: Calls and seconds of version 1's answers.
    """

    splits: Splits
    items: list[dict[str, Any]]
    changed: dict[str, list[bool]]
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
    """Run an algorithm from version 1, or judge the held-out examples with version 1.

    On a sidecar and database of its own: every run is the first use of the held-out examples, and the
    server splits the same examples in the same order in the same way. What a candidate says on
    the held-out examples is taken from its gate.

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
        stored = _import(client, judge, examples)
        splits = stored.splits(examples)
        if algorithm is None:
            items, scoring = _judge(client, judge, splits, examples)
            return SidecarRow(splits, items, {}, None, [], scoring)
        run = _optimize(client, judge, algorithm, search)
        request = optimization_service_pb2.ListTrialsRequest(
            parent=run.name, page_size=1000
        )
        trials = client.optimization.ListTrials(request).trials
        return SidecarRow(
            splits,
            [],
            {
                stored.keys[example.training_example]: [
                    example.baseline_quality > 0,
                    example.candidate_quality > 0,
                ]
                for example in run.decision.changed_examples
            },
            MessageToDict(run, preserving_proto_field_name=True),
            [MessageToDict(t, preserving_proto_field_name=True) for t in trials],
            {"calls": 0.0, "seconds": 0.0},
        )


def _judge(
    client: sidejudge.Client,
    judge: str,
    splits: Splits,
    examples: Sequence[LabelledExample],
) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """Return version 1's answers to the held-out examples, and the calls and seconds they took."""
    held_out = set(splits.test)
    result = run_examples(
        client,
        [e for e in examples if e.key in held_out],
        RunOptions(judge, f"{judge}/versions/1", timeout_s=_CALL_S),
    )
    if result.failures:
        raise RuntimeError(f"no answer: {result.failures[0]}")
    items = [{"key": a.key, "answer": str(a.answer)} for a in result.answers]
    return items, {"calls": float(result.lm_calls), "seconds": result.lm_seconds}


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


@dataclass(frozen=True, slots=True)
class _Stored:
    """The examples as the server has them.

    Attributes:
        keys: Our key by the server's name.
        sides: Side of the split by our key; without those that the server left out.
    """

    keys: dict[str, str]
    sides: dict[str, _Split.ValueType]

    def splits(self, examples: Sequence[LabelledExample]) -> Splits:
        """Return the keys of each side in the order of the import."""
        train, validation, test = (
            [e.key for e in examples if self.sides.get(e.key) == side]
            for side in (
                _Split.SPLIT_TRAIN,
                _Split.SPLIT_VALIDATION,
                _Split.SPLIT_TEST,
            )
        )
        return Splits(train, validation, test)


def _import(
    client: sidejudge.Client, judge: str, examples: Sequence[LabelledExample]
) -> _Stored:
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
    key_of = {
        (texts["artifact"], texts["ground_truth"], texts["context"]): texts["key"]
        for texts in map(row, examples)
    }
    request = feedback_service_pb2.ListTrainingExamplesRequest(
        judge=judge, page_size=1000
    )
    stored = _Stored({}, {})
    for message in client.feedback.ListTrainingExamples(request).training_examples:
        given = message.artifact_input
        key = key_of[given.artifact, given.ground_truth, given.context]
        stored.keys[message.name] = key
        stored.sides[key] = message.split
    return stored


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
