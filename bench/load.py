"""A load generator: one scenario against one server, in a process of its own.

`python -m bench.load SCENARIO --target ADDRESS --callers N --count M` runs M operations from N
concurrent callers after a warm-up and prints one JSON line with the median, the 99th percentile
(milliseconds) and the rate (operations, or rows, a second). Count and callers bound the load.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import time
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import aiohttp
import grpc

from sidejudge.v1 import (
    evaluation_pb2,
    evaluation_service_pb2,
    evaluation_service_pb2_grpc,
    feedback_pb2,
    feedback_service_pb2,
    feedback_service_pb2_grpc,
    judge_pb2,
)

__all__ = ["Measurement", "artifact_request", "main"]

JUDGE = "judges/relevance"
BATCH_ROWS = 10_000
_MESSAGE_LIMIT = 64 * 1024 * 1024
_WORDS = (
    "The order was shipped on Monday and the customer was told by mail. "
    "The refund covers the second item only, as the policy asks for. "
)


@dataclass(frozen=True, slots=True)
class Measurement:
    """Latencies in milliseconds, rate in operations (or rows) a second."""

    operations: int
    callers: int
    median_ms: float
    p99_ms: float
    rate: float


def artifact_request(number: int) -> evaluation_service_pb2.EvaluateRequest:
    """Return a request of about 1,500 characters that differs from all others."""
    return evaluation_service_pb2.EvaluateRequest(
        judge=JUDGE,
        artifact_input=evaluation_pb2.ArtifactInput(
            artifact=f"Answer {number}. " + _WORDS * 8,
            context=f"Question {number}: what happened to my order? " + _WORDS * 3,
        ),
        subject=f"agent-{number % 7}",
        request_id=str(uuid.uuid4()),  # as every client sends it
    )


async def measure(
    operation: Callable[[int], Awaitable[None]],
    *,
    callers: int,
    count: int,
    rows: int = 1,
) -> Measurement:
    """Run an operation `count` times from `callers` tasks; each latency is timed on its own."""
    latencies: list[float] = []
    numbers = iter(range(count))

    async def caller() -> None:
        for number in numbers:
            started = time.perf_counter()
            await operation(number)
            latencies.append(time.perf_counter() - started)

    for warm_up in range(min(callers, 16)):
        await operation(count + warm_up)
    started = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(callers)))
    elapsed = time.perf_counter() - started
    ordered = sorted(latencies)
    return Measurement(
        operations=count,
        callers=callers,
        median_ms=1000 * statistics.median(ordered),
        p99_ms=1000 * ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))],
        rate=count * rows / elapsed,
    )


async def empty(channel: grpc.aio.Channel, *, callers: int, count: int) -> Measurement:
    """Call the empty rpc of `bench.empty_server`."""
    call = channel.unary_unary("/bench.Empty/Call")

    async def operation(_: int) -> None:
        await call(b"")

    return await measure(operation, callers=callers, count=count)


async def evaluate(
    channel: grpc.aio.Channel, *, callers: int, count: int
) -> Measurement:
    """Evaluate items that all differ."""
    stub = evaluation_service_pb2_grpc.EvaluationServiceStub(channel)
    first = time.time_ns() % 1_000_000_000  # no item repeats between runs

    async def operation(number: int) -> None:
        await stub.Evaluate(artifact_request(first + number))

    return await measure(operation, callers=callers, count=count)


def _correction(evaluation: str, number: int) -> feedback_pb2.Feedback:
    passed = number % 2 == 0
    return feedback_pb2.Feedback(
        evaluation=evaluation,
        verdict=judge_pb2.VERDICT_PASS if passed else judge_pb2.VERDICT_FAIL,
        source=feedback_pb2.Feedback.SOURCE_EXPERT,
        author=f"author-{number % 5}",
        comment="The answer says what happened to the order.",
    )


async def feedback(
    channel: grpc.aio.Channel, *, callers: int, count: int, evaluations: list[str]
) -> Measurement:
    """Correct evaluations one by one."""
    stub = feedback_service_pb2_grpc.FeedbackServiceStub(channel)

    async def operation(number: int) -> None:
        await stub.RecordFeedback(
            feedback_service_pb2.RecordFeedbackRequest(
                feedback=_correction(evaluations[number % len(evaluations)], number),
                request_id=str(uuid.uuid4()),
            )
        )

    return await measure(operation, callers=callers, count=count)


async def feedback_batch(
    channel: grpc.aio.Channel, *, callers: int, count: int, evaluations: list[str]
) -> Measurement:
    """Correct evaluations 10,000 at a time; the rate is in rows a second."""
    stub = feedback_service_pb2_grpc.FeedbackServiceStub(channel)
    requests = [
        feedback_service_pb2.BatchRecordFeedbackRequest(
            feedback=[
                _correction(evaluations[row % len(evaluations)], row + batch)
                for row in range(BATCH_ROWS)
            ]
        )
        for batch in range(count + min(callers, 16))
    ]

    async def operation(number: int) -> None:
        answer = await stub.BatchRecordFeedback(requests[number])
        if answer.recorded_count != BATCH_ROWS:
            raise RuntimeError(f"only {answer.recorded_count} rows recorded")

    return await measure(operation, callers=callers, count=count, rows=BATCH_ROWS)


async def http(target: str, *, callers: int, count: int, body: bytes) -> Measurement:
    """Call the stand-in directly with the body that the sidecar sends."""
    headers = {"Content-Type": "application/json"}
    async with aiohttp.ClientSession() as session:

        async def operation(_: int) -> None:
            async with session.post(target, data=body, headers=headers) as answer:
                answer.raise_for_status()
                json.loads(await answer.read())

        return await measure(operation, callers=callers, count=count)


async def _run(arguments: argparse.Namespace, given: str) -> Measurement:
    if arguments.scenario == "http":
        return await http(
            arguments.target,
            callers=arguments.callers,
            count=arguments.count,
            body=given.encode(),
        )
    options = [
        ("grpc.max_send_message_length", _MESSAGE_LIMIT),
        ("grpc.max_receive_message_length", _MESSAGE_LIMIT),
    ]
    async with grpc.aio.insecure_channel(arguments.target, options=options) as channel:
        if arguments.scenario in {"empty", "evaluate"}:
            scenario = {"empty": empty, "evaluate": evaluate}[arguments.scenario]
            return await scenario(
                channel, callers=arguments.callers, count=arguments.count
            )
        batches = {"feedback": feedback, "feedback-batch": feedback_batch}
        return await batches[arguments.scenario](
            channel,
            callers=arguments.callers,
            count=arguments.count,
            evaluations=given.split(),
        )


def main() -> None:
    """Run one scenario and print its measurement."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "scenario", choices=["http", "empty", "evaluate", "feedback", "feedback-batch"]
    )
    parser.add_argument("--target", required=True)
    parser.add_argument("--callers", type=int, default=1)
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--input", help="body of http; evaluation names of feedback")
    arguments = parser.parse_args()
    given = Path(arguments.input).read_text() if arguments.input else ""
    print(json.dumps(asdict(asyncio.run(_run(arguments, given)))))


if __name__ == "__main__":
    main()
