"""What a watcher of a run sees, measured over gRPC: first event, silence, cancelling, memory.

`python -m bench.run_events` starts a sidecar beside the simulated judge, for answers of 20 ms and of
1 s, watches a run from its first event on, cancels it in the middle and prints a table.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc

from bench.processes import free_port, peak_mib, sidecar, simulated_judge
from bench.simulated_judge import item_text
from sidejudge.v1 import (
    evaluation_pb2,
    feedback_pb2,
    feedback_service_pb2,
    feedback_service_pb2_grpc,
    judge_pb2,
    optimization_pb2,
    optimization_service_pb2,
    optimization_service_pb2_grpc,
)

JUDGE = "judges/safety"
_MEMORY_EVERY_S = 0.1


@dataclass(slots=True)
class Seen:
    """What was measured of one run; seconds and MiB; NaN if the run ended before it was cancelled."""

    first_event_s: float = 0.0
    longest_silence_s: float = 0.0
    cancel_s: float = float("nan")
    events: int = 0
    worker_mib: dict[str, float] = field(default_factory=dict)


def _import(channel: grpc.Channel, count: int) -> None:
    examples = [
        feedback_pb2.TrainingExample(
            artifact_input=evaluation_pb2.ArtifactInput(
                artifact=item_text(
                    "instructions", 1, number, "pass" if number % 2 else "fail"
                )
            ),
            verdict=judge_pb2.VERDICT_PASS if number % 2 else judge_pb2.VERDICT_FAIL,
            group=f"g{number}",
        )
        for number in range(count)
    ]
    stub = feedback_service_pb2_grpc.FeedbackServiceStub(channel)
    request = feedback_service_pb2.ImportTrainingExamplesRequest(
        judge=JUDGE, training_examples=examples
    )
    stub.ImportTrainingExamples(iter([request]))


@contextmanager
def _watching_memory(pid: int, seen: Seen) -> Iterator[None]:
    """Keep the peak of the largest process under the sidecar, which is the worker."""
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(_MEMORY_EVERY_S):
            for name, mib in peak_mib(pid).items():
                seen.worker_mib[name] = max(seen.worker_mib.get(name, 0.0), mib)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _watch(channel: grpc.Channel, *, watch_s: float, seen: Seen) -> None:
    stub = optimization_service_pb2_grpc.OptimizationServiceStub(channel)
    name = ""
    asked = last = time.perf_counter()
    cancelled: float | None = None
    for message in stub.Optimize(
        optimization_service_pb2.OptimizeRequest(
            optimization=optimization_pb2.Optimization(judge=JUDGE)
        )
    ):
        now = time.perf_counter()
        event = message.event
        seen.events += 1
        if not name:
            name = event.snapshot.name
            seen.first_event_s = now - asked
        elif cancelled is None:
            seen.longest_silence_s = max(seen.longest_silence_s, now - last)
        last = now
        if event.WhichOneof("event") == "finished":
            if cancelled is not None:
                seen.cancel_s = now - cancelled
            return
        if cancelled is None and now - asked > watch_s:
            cancelled = time.perf_counter()
            stub.CancelOptimization(
                optimization_service_pb2.CancelOptimizationRequest(name=name)
            )


def measure(latency_ms: float, *, examples: int, watch_s: float) -> Seen:
    """Run one optimization and cancel it after a while."""
    seen = Seen()
    with (
        tempfile.TemporaryDirectory(prefix="sidejudge-bench-") as directory,
        simulated_judge(latency_ms) as base_url,
        sidecar(
            Path(directory),
            port=free_port(),
            settings={
                "SIDEJUDGE_LM": "openai/simulated-instructions_1-0-50-0",
                "SIDEJUDGE_LM_BASE_URL": base_url,
                "SIDEJUDGE_LM_API_KEY": "bench",
            },
        ) as server,
        grpc.insecure_channel(server.address) as channel,
    ):
        _import(channel, examples)
        with _watching_memory(server.pid, seen):
            _watch(channel, watch_s=watch_s, seen=seen)
    return seen


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=int, default=200)
    parser.add_argument("--watch-s", type=float, default=15.0)
    arguments = parser.parse_args()
    before = os.getloadavg()[0]
    rows = {
        latency: measure(
            latency, examples=arguments.examples, watch_s=arguments.watch_s
        )
        for latency in (20.0, 1000.0)
    }
    print(f"Load average {before:.1f} before, {os.getloadavg()[0]:.1f} after.\n")
    print(
        "| an answer, ms | first event, s | longest silence, s | cancel, s | events | "
        "worker's peak, MiB RSS | PSS |"
    )
    print("|---|---|---|---|---|---|---|")
    for latency, seen in rows.items():
        print(
            f"| {latency:.0f} | {seen.first_event_s:.2f} | {seen.longest_silence_s:.2f} | "
            f"{seen.cancel_s:.2f} | {seen.events} | {seen.worker_mib['rss']:.0f} | "
            f"{seen.worker_mib['pss']:.0f} |"
        )


if __name__ == "__main__":
    main()
