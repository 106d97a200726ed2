"""Run labelled examples through a sidecar; an interrupted run goes on where it stopped."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import grpc

import sidejudge
from sidejudge.v1 import (
    evaluation_pb2,
    evaluation_service_pb2,
    server_service_pb2,
)
from sidejudge_server.benchmark.agreement import Answer
from sidejudge_server.benchmark.labelled import Label, LabelledExample
from sidejudge_server.benchmark.wire import answer_of, evaluate_request
from sidejudge_server.judges.types import ArtifactInput, Verdict

__all__ = ["ItemFailure", "RunOptions", "RunResult", "run_examples"]


_SCORE_SWAP = 0.1
"""How far apart two scores of one item are to be called different."""


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How examples are judged."""

    judge: str
    """`judges/{judge}`."""

    judge_version: str
    """`judges/{judge}/versions/{version}`; fixed, so that a deployment in between changes nothing."""

    timeout_s: float = 300.0
    """Deadline of each call."""

    concurrency: int = 1
    """Calls in flight."""

    omit_reasoning: bool = True
    """Verdict only: the same verdict, sooner."""

    n_samples: int = 1
    """How often each example is judged, from the second time on in another order."""


@dataclass(frozen=True, slots=True)
class ItemFailure:
    """An example that got no answer."""

    key: str
    code: str
    detail: str


@dataclass(frozen=True, slots=True)
class RunResult:
    """What a run gave.

    Attributes:
        answers: In the order of the examples; those without an answer are left out.
        failures: Examples without an answer: an error, never a wrong answer.
        model: The model that answered; empty if nothing was answered.
        lm_calls: LM calls of all answers, also those of an earlier run.
        lm_seconds: Time spent waiting for the LM, likewise.
        reused: How many answers an earlier run had left.
    """

    answers: tuple[Answer, ...]
    failures: tuple[ItemFailure, ...]
    model: str
    lm_calls: int
    lm_seconds: float
    reused: int


def run_examples(
    client: sidejudge.Client,
    examples: Sequence[LabelledExample],
    options: RunOptions,
    *,
    rows_path: Path | None = None,
    on_answer: Callable[[], None] = lambda: None,
) -> RunResult:
    """Judge examples and put each answer beside its label.

    Args:
        client: Connection to the sidecar.
        examples: What to judge.
        options: How.
        rows_path: JSONL file of answers, without any judged text. Answers found there of the same
            version and model to the same input are taken instead of asking again; new ones are
            appended.
        on_answer: Called after each example, found or judged or failed.

    Raises:
        ValueError: A label does not fit the judge's kind of answer.
        OSError: The file of answers cannot be used.
    """
    found: dict[str, dict[str, object]] = {}
    if rows_path and rows_path.exists():
        request = server_service_pb2.GetServerInfoRequest()
        info = client.server.GetServerInfo(request, timeout=options.timeout_s)
        found = _read_rows(rows_path, options.judge_version, model=info.task_model)
    rows: dict[str, dict[str, object]] = {}
    failures: list[ItemFailure] = []
    waiting = []
    for example in examples:
        fingerprint = _fingerprint(example, options)
        if fingerprint in found:
            rows[example.key] = found[fingerprint]
            on_answer()
        else:
            waiting.append(example)
    reused = len(rows)
    out = _open_rows(rows_path) if rows_path else None
    try:
        for example, outcome in _judge(client, waiting, options):
            if isinstance(outcome, ItemFailure):
                failures.append(outcome)
            else:
                rows[example.key] = _row(example, outcome, options)
                _append(out, rows[example.key])
            on_answer()
    finally:
        if out:
            out.close()
    kept = [(e, rows[e.key]) for e in examples if e.key in rows]
    return RunResult(
        answers=tuple(_answer(example, row) for example, row in kept),
        failures=tuple(failures),
        model=str(kept[0][1]["model"]) if kept else "",
        lm_calls=sum(int(str(row["lm_calls"])) for _, row in kept),
        lm_seconds=sum(float(str(row["lm_seconds"])) for _, row in kept),
        reused=reused,
    )


def _judge(
    client: sidejudge.Client,
    examples: Sequence[LabelledExample],
    options: RunOptions,
) -> Iterator[tuple[LabelledExample, evaluation_pb2.Evaluation | ItemFailure]]:
    def judge(
        example: LabelledExample,
    ) -> evaluation_pb2.Evaluation | ItemFailure:
        request = _request(example, options)
        try:
            response: evaluation_service_pb2.EvaluateResponse
            response = client.evaluation.Evaluate(request, timeout=options.timeout_s)
        except grpc.RpcError as error:
            failure = sidejudge.SidejudgeError.from_rpc_error(error)
            if not failure.reason and failure.code is grpc.StatusCode.UNAVAILABLE:
                raise  # no sidecar: the other examples would fail likewise
            return ItemFailure(
                example.key, failure.reason or failure.code.name, failure.message
            )
        return response.evaluation

    with ThreadPoolExecutor(max_workers=options.concurrency) as pool:
        try:
            yield from zip(examples, pool.map(judge, examples), strict=True)
        finally:
            pool.shutdown(cancel_futures=True)


def _request(
    example: LabelledExample, options: RunOptions
) -> evaluation_service_pb2.EvaluateRequest:
    request = evaluate_request(options.judge, example.input)
    request.judge_version = options.judge_version
    request.omit_reasoning = options.omit_reasoning
    request.group = example.group
    request.labels["benchmark"] = "quality"
    if options.n_samples > 1:
        request.n_samples = options.n_samples
    return request


def _fingerprint(example: LabelledExample, options: RunOptions) -> str:
    """Return what an answer belongs to: the version and the exact input."""
    request = _request(example, options)
    return hashlib.sha256(request.SerializeToString(deterministic=True)).hexdigest()


def _row(
    example: LabelledExample, evaluation: evaluation_pb2.Evaluation, options: RunOptions
) -> dict[str, object]:
    answer = answer_of(evaluation)
    if isinstance(answer, Verdict) != isinstance(example.label, Verdict):
        raise ValueError(
            f"{example.key}: the label {example.label} does not fit an answer of"
            f" {options.judge}"
        )
    judgment = evaluation.judgment
    return {
        "fingerprint": _fingerprint(example, options),
        "key": example.key,
        "judge_version": options.judge_version,
        "answer": answer,
        "confidence": judgment.confidence if judgment.HasField("confidence") else None,
        "label": example.label,
        "source": example.source,
        "evaluation": evaluation.name,
        "model": evaluation.usage.model,
        "values": list(evaluation.consistency.values),
        "swapped": _swapped(evaluation.consistency),
        "lm_calls": evaluation.usage.lm_calls,
        "lm_seconds": evaluation.usage.lm_latency.ToTimedelta().total_seconds(),
    }


def _append(out: IO[str] | None, row: dict[str, object]) -> None:
    if out:
        out.write(json.dumps(row) + "\n")
        out.flush()


def _open_rows(path: Path) -> IO[str]:
    """Open the file of answers to append to it, on a line of its own after a torn one."""
    out = path.open("a+", encoding="utf-8")
    out.seek(0)
    if not (out.read() or "\n").endswith("\n"):
        out.write("\n")
    return out


def _read_rows(
    path: Path, judge_version: str, *, model: str
) -> dict[str, dict[str, object]]:
    """Return earlier answers of version and model by fingerprint, but for a torn last line."""
    found: dict[str, dict[str, object]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            continue
        if (row.get("judge_version"), row.get("model")) == (judge_version, model):
            found[row["fingerprint"]] = row
    return found


def _answer(example: LabelledExample, row: dict[str, object]) -> Answer:
    given: Label
    given = (
        Verdict(str(row["answer"]))
        if isinstance(example.label, Verdict)
        else float(str(row["answer"]))
    )
    item = example.input
    text = item.artifact if isinstance(item, ArtifactInput) else item.agent_output
    values = row.get("values")
    return Answer(
        example.key,
        example.label,
        given,
        example.group,
        example.source,
        length=len(text),
        writer=example.writer,
        repeats=tuple(values) if isinstance(values, list) else (),
        swapped=bool(row.get("swapped")),
    )


def _swapped(consistency: evaluation_pb2.Consistency) -> bool:
    """Return whether the second judgment differs from the first one."""
    if len(consistency.verdicts) > 1:
        return consistency.verdicts[0] != consistency.verdicts[1]
    values = consistency.values
    return len(values) > 1 and abs(values[1] - values[0]) > _SCORE_SWAP
