"""Connections with the stubs of all services, retries that are safe, and no other magic."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Self, cast

import grpc
import grpc.aio

from sidejudge.v1.analytics_service_pb2_grpc import AnalyticsServiceStub
from sidejudge.v1.evaluation_service_pb2_grpc import EvaluationServiceStub
from sidejudge.v1.experiment_service_pb2_grpc import ExperimentServiceStub
from sidejudge.v1.feedback_service_pb2_grpc import FeedbackServiceStub
from sidejudge.v1.judge_service_pb2_grpc import JudgeServiceStub
from sidejudge.v1.jury_service_pb2_grpc import JuryServiceStub
from sidejudge.v1.monitoring_service_pb2_grpc import MonitoringServiceStub
from sidejudge.v1.optimization_service_pb2_grpc import OptimizationServiceStub
from sidejudge.v1.review_service_pb2_grpc import ReviewServiceStub
from sidejudge.v1.server_service_pb2_grpc import ServerServiceStub
from sidejudge.v1.trust_service_pb2_grpc import TrustServiceStub

if TYPE_CHECKING:
    from sidejudge.v1.analytics_service_pb2_grpc import AnalyticsServiceAsyncStub
    from sidejudge.v1.evaluation_service_pb2_grpc import EvaluationServiceAsyncStub
    from sidejudge.v1.experiment_service_pb2_grpc import ExperimentServiceAsyncStub
    from sidejudge.v1.feedback_service_pb2_grpc import FeedbackServiceAsyncStub
    from sidejudge.v1.judge_service_pb2_grpc import JudgeServiceAsyncStub
    from sidejudge.v1.jury_service_pb2_grpc import JuryServiceAsyncStub
    from sidejudge.v1.monitoring_service_pb2_grpc import MonitoringServiceAsyncStub
    from sidejudge.v1.optimization_service_pb2_grpc import OptimizationServiceAsyncStub
    from sidejudge.v1.review_service_pb2_grpc import ReviewServiceAsyncStub
    from sidejudge.v1.server_service_pb2_grpc import ServerServiceAsyncStub
    from sidejudge.v1.trust_service_pb2_grpc import TrustServiceAsyncStub

__all__ = ["AsyncClient", "Client", "connect", "connect_async"]

_SERVICES: Final = (
    "Evaluation",
    "Judge",
    "Feedback",
    "Optimization",
    "Experiment",
    "Monitoring",
    "Trust",
    "Jury",
    "Review",
    "Analytics",
    "Server",
)
_MAX_MESSAGE_BYTES: Final = 16 * 1024 * 1024
# A restarting sidecar is back within seconds: 5 attempts bridge it.
_SERVICE_CONFIG: Final = {
    "methodConfig": [
        {
            "name": [{"service": f"sidejudge.v1.{name}Service"} for name in _SERVICES],
            "retryPolicy": {
                "maxAttempts": 5,
                "initialBackoff": "0.2s",
                "maxBackoff": "2s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ]
}
_OPTIONS: Final = (
    ("grpc.service_config", json.dumps(_SERVICE_CONFIG)),
    ("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", _MAX_MESSAGE_BYTES),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 500),
    ("grpc.keepalive_time_ms", 60_000),
)


class Client:
    """A connection for blocking callers; a context manager. Safe to share between threads.

    Requests without a `request_id` get one, so that an attempt repeated by the connection never
    judges, records or starts anything twice.
    """

    def __init__(self, channel: grpc.Channel) -> None:
        self.channel = channel
        filled = grpc.intercept_channel(channel, _FillRequestId())
        self.evaluation: EvaluationServiceStub = EvaluationServiceStub(filled)
        self.judges: JudgeServiceStub = JudgeServiceStub(filled)
        self.feedback: FeedbackServiceStub = FeedbackServiceStub(filled)
        self.optimization: OptimizationServiceStub = OptimizationServiceStub(filled)
        self.experiments: ExperimentServiceStub = ExperimentServiceStub(filled)
        self.monitoring: MonitoringServiceStub = MonitoringServiceStub(filled)
        self.review: ReviewServiceStub = ReviewServiceStub(filled)
        self.analytics: AnalyticsServiceStub = AnalyticsServiceStub(filled)
        self.trust: TrustServiceStub = TrustServiceStub(filled)
        self.juries: JuryServiceStub = JuryServiceStub(filled)
        self.server: ServerServiceStub = ServerServiceStub(filled)

    def close(self) -> None:
        """Close the connection; calls in progress are cancelled."""
        self.channel.close()

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the connection."""
        self.close()


class AsyncClient:
    """A connection for asyncio; an asynchronous context manager. Fills in ids as `Client` does."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.channel = channel
        self.evaluation = cast(
            "EvaluationServiceAsyncStub", EvaluationServiceStub(channel)
        )
        self.judges = cast("JudgeServiceAsyncStub", JudgeServiceStub(channel))
        self.feedback = cast("FeedbackServiceAsyncStub", FeedbackServiceStub(channel))
        self.optimization = cast(
            "OptimizationServiceAsyncStub", OptimizationServiceStub(channel)
        )
        self.experiments = cast(
            "ExperimentServiceAsyncStub", ExperimentServiceStub(channel)
        )
        self.monitoring = cast(
            "MonitoringServiceAsyncStub", MonitoringServiceStub(channel)
        )
        self.review = cast("ReviewServiceAsyncStub", ReviewServiceStub(channel))
        self.analytics = cast(
            "AnalyticsServiceAsyncStub", AnalyticsServiceStub(channel)
        )
        self.trust = cast("TrustServiceAsyncStub", TrustServiceStub(channel))
        self.juries = cast("JuryServiceAsyncStub", JuryServiceStub(channel))
        self.server = cast("ServerServiceAsyncStub", ServerServiceStub(channel))

    async def close(self) -> None:
        """Close the connection; calls in progress are cancelled."""
        await self.channel.close()

    async def __aenter__(self) -> Self:
        """Return itself."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the connection."""
        await self.close()


def connect(address: str) -> Client:
    """Connect to a sidecar at ``host:port`` or ``unix:/path``; it need not be up yet."""
    return Client(grpc.insecure_channel(address, options=_OPTIONS))


def connect_async(address: str) -> AsyncClient:
    """Connect as `connect` does, for asyncio; call it inside the event loop that uses it."""
    interceptors = [_FillRequestIdUnary(), _FillRequestIdStream()]
    channel = grpc.aio.insecure_channel(
        address, options=_OPTIONS, interceptors=interceptors
    )
    return AsyncClient(channel)


def _with_request_id(request: Any) -> Any:  # noqa: ANN401 - any request message
    """Return the request, or a copy in which every empty `request_id` is filled."""
    fields = request.DESCRIPTOR.fields_by_name
    single = "request_id" in fields and not request.request_id
    batch = request.DESCRIPTOR.name == "BatchEvaluateRequest"
    if not single and not batch:
        return request
    copy = type(request)()
    copy.CopyFrom(request)
    for message in copy.requests if batch else (copy,):
        message.request_id = message.request_id or str(uuid.uuid4())
    return copy


class _FillRequestId(
    grpc.UnaryUnaryClientInterceptor,  # type: ignore[misc] # grpc has no type stubs
    grpc.UnaryStreamClientInterceptor,  # type: ignore[misc] # grpc has no type stubs
):
    def intercept_unary_unary(
        self, continuation: Callable[..., Any], details: object, request: object
    ) -> Any:  # noqa: ANN401 - grpc has no type stubs
        return continuation(details, _with_request_id(request))

    intercept_unary_stream = intercept_unary_unary


class _FillRequestIdUnary(grpc.aio.UnaryUnaryClientInterceptor):  # type: ignore[misc] # grpc has no type stubs
    async def intercept_unary_unary(
        self, continuation: Callable[..., Any], details: object, request: object
    ) -> Any:  # noqa: ANN401 - grpc has no type stubs
        return await continuation(details, _with_request_id(request))


class _FillRequestIdStream(grpc.aio.UnaryStreamClientInterceptor):  # type: ignore[misc] # grpc has no type stubs
    async def intercept_unary_stream(
        self, continuation: Callable[..., Any], details: object, request: object
    ) -> Any:  # noqa: ANN401 - grpc has no type stubs
        return await continuation(details, _with_request_id(request))
