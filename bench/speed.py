"""Speed and memory of the sidecar beside the bare operations it is made of.

`make bench` prints a table; `--json FILE` keeps the figures. Bounds are ratios against operations
timed in the same run, so that a busy machine moves both sides. Nothing is asserted: the table says
what was seen, and the load of the machine with it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import duckdb
import grpc

from bench.load import JUDGE, artifact_request
from bench.processes import (
    ROOT,
    empty_server,
    free_port,
    resident_mib,
    sidecar,
    stand_in,
)
from sidejudge.v1 import (
    evaluation_pb2,
    evaluation_service_pb2,
    evaluation_service_pb2_grpc,
    feedback_pb2,
    feedback_service_pb2,
    feedback_service_pb2_grpc,
    judge_pb2,
    optimization_pb2,
    optimization_service_pb2,
    optimization_service_pb2_grpc,
)
from sidejudge_server.judges.kinds import BUILT_IN_JUDGES, initial_program
from sidejudge_server.judges.prompt import build_request
from sidejudge_server.judges.types import ArtifactInput

EVALUATIONS_FOR_FEEDBACK = 2_000


def _load(scenario: str, target: str, **options: object) -> dict[str, float]:
    """Run the load generator in its own process and return its measurement."""
    arguments = [sys.executable, "-m", "bench.load", scenario, "--target", target]
    for name, value in options.items():
        arguments += [f"--{name}", str(value)]
    output = subprocess.run(
        arguments, cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout
    measurement: dict[str, float] = json.loads(output)
    return measurement


def _body() -> bytes:
    """Return the HTTP body that the sidecar sends for one item."""
    item = artifact_request(1).artifact_input
    spec = next(j.spec for j in BUILT_IN_JUDGES if f"judges/{j.judge_id}" == JUDGE)
    request = build_request(
        initial_program(spec),
        ArtifactInput(artifact=item.artifact, context=item.context),
        explain=True,
        supports_logprobs=True,
    )
    return json.dumps(
        {
            "model": "stand-in",
            "messages": [
                {"role": m.role, "content": m.content} for m in request.messages
            ],
            "max_tokens": request.max_tokens,
            "temperature": request.temperature,
            "logprobs": True,
            "top_logprobs": request.top_logprobs,
        }
    ).encode()


def _bare_commit_ms(directory: Path, commits: int) -> float:
    """Return the median of a single-row commit of an evaluation's columns and text."""
    text = artifact_request(1).artifact_input.artifact
    row: list[Any] = ["0190-id", JUDGE, 1, text, "pass", 0.9, "logprob", 0.9, 0.0, 0.1]
    row += [
        "It answers the question.",
        "[]",
        "openai/stand-in",
        300,
        0,
        20,
        1,
        0.0,
        1.5,
    ]
    row += ["agent", "group", "{}"]
    types = {str: "VARCHAR", int: "BIGINT", float: "DOUBLE"}
    with duckdb.connect(str(directory / "bare.duckdb")) as connection:
        columns = ", ".join(f"c{i} {types[type(v)]}" for i, v in enumerate(row))
        connection.execute(f"CREATE TABLE IF NOT EXISTS bare ({columns})")
        marks = ", ".join("?" for _ in row)
        seconds = []
        for _ in range(commits):
            started = time.perf_counter()
            connection.execute(f"INSERT INTO bare VALUES ({marks})", row).fetchall()
            seconds.append(time.perf_counter() - started)
    return 1000 * statistics.median(seconds)


def _fill(channel: grpc.Channel, count: int) -> list[str]:
    """Evaluate `count` items and return their names."""
    stub = evaluation_service_pb2_grpc.EvaluationServiceStub(channel)
    names: list[str] = []
    for start in range(0, count, 250):
        batch = evaluation_service_pb2.BatchEvaluateRequest(
            requests=[
                artifact_request(10_000_000 + start + i)
                for i in range(min(250, count - start))
            ]
        )
        names += [answer.evaluation.name for answer in stub.BatchEvaluate(batch)]
    return names


def _first_event_s(channel: grpc.Channel) -> float:
    """Return the seconds from Optimize to its first event; the run is cancelled afterwards."""
    judge = "judges/faithfulness"
    examples = [
        feedback_pb2.TrainingExample(
            artifact_input=evaluation_pb2.ArtifactInput(
                artifact=f"Claim {n} says p(yes)={0.3 + 0.4 * (n % 2)}.",
                ground_truth=f"Source number {n}.",
                context="Summarise.",
            ),
            verdict=judge_pb2.VERDICT_PASS if n % 2 else judge_pb2.VERDICT_FAIL,
        )
        for n in range(80)
    ]
    feedback_service_pb2_grpc.FeedbackServiceStub(channel).ImportTrainingExamples(
        iter(
            [
                feedback_service_pb2.ImportTrainingExamplesRequest(
                    judge=judge, training_examples=examples
                )
            ]
        )
    )
    optimization = optimization_service_pb2_grpc.OptimizationServiceStub(channel)
    started = time.perf_counter()
    stream = optimization.Optimize(
        optimization_service_pb2.OptimizeRequest(
            optimization=optimization_pb2.Optimization(judge=judge)
        )
    )
    first = next(iter(stream))
    elapsed = time.perf_counter() - started
    stream.cancel()
    optimization.CancelOptimization(
        optimization_service_pb2.CancelOptimizationRequest(
            name=first.event.snapshot.name
        )
    )
    return elapsed


def run(repetitions: int) -> dict[str, Any]:
    """Measure everything once, medians over interleaved repetitions."""
    result: dict[str, Any] = {
        "python": platform.python_version(),
        "duckdb": duckdb.__version__,
        "grpc": grpc.__version__,
        "cores": os.cpu_count(),
        "load_before": os.getloadavg()[0],
    }
    with (
        tempfile.TemporaryDirectory(prefix="sidejudge-bench-") as name,
        stand_in() as base_url,
        empty_server() as empty_address,
    ):
        directory = Path(name)
        body = directory / "body.json"
        body.write_bytes(_body())
        chat = base_url.rstrip("/") + "/chat/completions"
        with sidecar(directory, port=free_port(), lm_base_url=base_url) as server:
            time.sleep(3)  # idle means idle: start-up work has settled
            result["start_s"] = server.start_s
            result["idle_mib"] = resident_mib(server.pid)
            with grpc.insecure_channel(server.address) as channel:
                result["first_event_s"] = _first_event_s(channel)
                names = directory / "names.txt"
                names.write_text("\n".join(_fill(channel, EVALUATIONS_FOR_FEEDBACK)))
            rounds = [
                {
                    "http_ms": _load("http", chat, count=300, input=body)["median_ms"],
                    "commit_ms": _bare_commit_ms(directory, 200),
                    "empty_ms": _load("empty", empty_address, count=500)["median_ms"],
                    "evaluate_ms": _load("evaluate", server.address, count=300)[
                        "median_ms"
                    ],
                    "feedback_ms": _load(
                        "feedback", server.address, count=300, input=names
                    )["median_ms"],
                    "empty_64_rate": _load(
                        "empty", empty_address, callers=64, count=6000
                    )["rate"],
                    "evaluate_64_rate": _load(
                        "evaluate", server.address, callers=64, count=1500
                    )["rate"],
                    "feedback_64_rate": _load(
                        "feedback", server.address, callers=64, count=3000, input=names
                    )["rate"],
                }
                for _ in range(repetitions)
            ]
            result["rounds"] = rounds
            for figure in rounds[0]:
                result[figure] = statistics.median(r[figure] for r in rounds)
            batches = [
                _load("feedback-batch", server.address, count=3, input=names)["rate"]
                for _ in range(repetitions)
            ]
            result["feedback_batch_rows_s"] = statistics.median(batches)
    result["load_after"] = os.getloadavg()[0]
    return result


def table(result: dict[str, Any]) -> str:
    """Return the figures as a Markdown table, each beside its bound."""
    evaluate_bound = result["http_ms"] + result["commit_ms"] + 4
    feedback_bound = 1.5 * result["commit_ms"] + result["empty_ms"]
    rows: list[tuple[str, float, str, float, bool]] = [
        ("start to SERVING, s", result["start_s"], "at most", 3.0, True),
        ("idle, all processes, MiB RSS", result["idle_mib"]["rss"], "at most", 150, True),
        ("idle, all processes, MiB PSS", result["idle_mib"]["pss"], "at most", 150, True),
        ("direct HTTP call, ms", result["http_ms"], "", 0, True),
        ("bare DuckDB commit, ms", result["commit_ms"], "", 0, True),
        ("empty rpc, ms", result["empty_ms"], "", 0, True),
        ("Evaluate, 1 caller, median ms", result["evaluate_ms"], "at most", evaluate_bound, True),
        ("Evaluate, 64 callers, per s", result["evaluate_64_rate"], "at least", 250, False),
        ("RecordFeedback, 1 caller, median ms", result["feedback_ms"], "at most", feedback_bound, True),
        ("empty rpc, 64 callers, per s", result["empty_64_rate"], "", 0, True),
        ("RecordFeedback, 64 callers, per s", result["feedback_64_rate"], "at least", 0.4 * result["empty_64_rate"], False),
        ("BatchRecordFeedback, rows per s", result["feedback_batch_rows_s"], "at least", 10_000, False),
        ("Optimize to first event, s", result["first_event_s"], "at most", 1.0, True),
    ]  # fmt: skip
    lines = [
        (
            f"Load average {result['load_before']:.1f} before, {result['load_after']:.1f} after; "
            f"{result['cores']} cores, Python {result['python']}, DuckDB {result['duckdb']}, "
            f"grpcio {result['grpc']}."
        ),
        "",
        "| what | seen | bound | holds |",
        "|---|---|---|---|",
    ]
    for what, seen, word, bound, upper in rows:
        holds = "" if not word else "yes" if (seen <= bound) == upper else "**no**"
        limit = f"{word} {bound:,.2f}" if word else "-"
        lines.append(f"| {what} | {seen:,.2f} | {limit} | {holds} |")
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--json", type=Path, help="file for the figures")
    arguments = parser.parse_args()
    result = run(arguments.repetitions)
    print(table(result))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
