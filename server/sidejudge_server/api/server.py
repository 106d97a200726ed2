"""The gRPC server: services, health, reflection, and how it stops."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from sidejudge.v1 import (
    analytics_service_pb2,
    evaluation_service_pb2,
    experiment_service_pb2,
    feedback_service_pb2,
    judge_service_pb2,
    jury_service_pb2,
    monitoring_service_pb2,
    optimization_service_pb2,
    review_service_pb2,
    server_service_pb2,
    trust_service_pb2,
)
from sidejudge.v1.analytics_service_pb2_grpc import (
    add_AnalyticsServiceServicer_to_server,
)
from sidejudge.v1.evaluation_service_pb2_grpc import (
    add_EvaluationServiceServicer_to_server,
)
from sidejudge.v1.experiment_service_pb2_grpc import (
    add_ExperimentServiceServicer_to_server,
)
from sidejudge.v1.feedback_service_pb2_grpc import add_FeedbackServiceServicer_to_server
from sidejudge.v1.judge_service_pb2_grpc import add_JudgeServiceServicer_to_server
from sidejudge.v1.jury_service_pb2_grpc import add_JuryServiceServicer_to_server
from sidejudge.v1.monitoring_service_pb2_grpc import (
    add_MonitoringServiceServicer_to_server,
)
from sidejudge.v1.optimization_service_pb2_grpc import (
    add_OptimizationServiceServicer_to_server,
)
from sidejudge.v1.review_service_pb2_grpc import add_ReviewServiceServicer_to_server
from sidejudge.v1.server_service_pb2_grpc import add_ServerServiceServicer_to_server
from sidejudge.v1.trust_service_pb2_grpc import add_TrustServiceServicer_to_server
from sidejudge_server.api.address import listen_address, private_socket
from sidejudge_server.api.analytics import AnalyticsServicer
from sidejudge_server.api.evaluation import EvaluationServicer
from sidejudge_server.api.experiments import ExperimentServicer
from sidejudge_server.api.feedback import FeedbackServicer
from sidejudge_server.api.interceptors import CallInterceptor
from sidejudge_server.api.judges import JudgeServicer
from sidejudge_server.api.juries import JuryServicer
from sidejudge_server.api.monitoring import MonitoringServicer
from sidejudge_server.api.optimization import OptimizationServicer
from sidejudge_server.api.review import ReviewServicer
from sidejudge_server.api.server_info import ServerServicer
from sidejudge_server.api.tokens import TokenCodec
from sidejudge_server.api.trust import TrustServicer
from sidejudge_server.config import ConfigError, Settings
from sidejudge_server.experiments.experimenting import Experimenting
from sidejudge_server.judges.registry import JudgeRegistry
from sidejudge_server.judges.service import EvaluationService
from sidejudge_server.juries.service import JuryService
from sidejudge_server.monitoring.monitors import Monitors
from sidejudge_server.optimization.policies import PolicyService
from sidejudge_server.optimization.queue import OptimizationService
from sidejudge_server.optimization.shadow import ShadowCandidates
from sidejudge_server.review.annotators import AnnotatorAgreements
from sidejudge_server.review.estimates import AgreementEstimates
from sidejudge_server.review.queue import ReviewQueue
from sidejudge_server.training.service import FeedbackService
from sidejudge_server.training.synthesis import Synthesizer
from sidejudge_server.trust.reliabilities import Reliabilities
from sidejudge_storage import Storage

__all__ = ["SERVICES", "DomainServices", "GrpcServer"]

SERVICES: Final = tuple(
    module.DESCRIPTOR.services_by_name[name].full_name
    for module, name in (
        (evaluation_service_pb2, "EvaluationService"),
        (judge_service_pb2, "JudgeService"),
        (feedback_service_pb2, "FeedbackService"),
        (optimization_service_pb2, "OptimizationService"),
        (experiment_service_pb2, "ExperimentService"),
        (monitoring_service_pb2, "MonitoringService"),
        (trust_service_pb2, "TrustService"),
        (jury_service_pb2, "JuryService"),
        (review_service_pb2, "ReviewService"),
        (analytics_service_pb2, "AnalyticsService"),
        (server_service_pb2, "ServerService"),
    )
)
_KEEPALIVE_MS: Final = 30_000


@dataclass(frozen=True, slots=True)
class DomainServices:
    """What the servicers delegate to."""

    registry: JudgeRegistry
    evaluations: EvaluationService
    feedback: FeedbackService
    synthesizer: Synthesizer
    optimizations: OptimizationService
    policies: PolicyService
    shadows: ShadowCandidates
    experimenting: Experimenting
    monitors: Monitors
    reliabilities: Reliabilities
    juries: JuryService
    review: ReviewQueue
    storage: Storage
    database_id: str
    storage_repair: str


class GrpcServer:
    """All services behind one address."""

    def __init__(self, settings: Settings, services: DomainServices) -> None:
        """Make a server; nothing listens before `start`.

        Raises:
            ConfigError: The address is not one to listen on.
        """
        self._address = listen_address(settings.server.address)
        self._server = grpc.aio.server(
            interceptors=[CallInterceptor(settings.server.default_deadline_s)],
            options=[
                ("grpc.max_receive_message_length", settings.server.max_message_bytes),
                ("grpc.max_send_message_length", settings.server.max_message_bytes),
                # A second server on the port must fail, not share the calls.
                ("grpc.so_reuseport", 0),
                # Watchers keep idle connections alive with pings.
                (
                    "grpc.http2.min_ping_interval_without_data_ms",
                    _KEEPALIVE_MS,
                ),
                ("grpc.keepalive_permit_without_calls", 1),
            ],
        )
        by_service = _ByService(self._server)
        self._health = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, by_service)
        _add_services(by_service, services, settings)
        if settings.server.reflection:
            names = (*SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME)
            reflection.enable_server_reflection(names, self._server)

    async def start(self) -> str:
        """Listen, report SERVING and return the address that clients connect to.

        Raises:
            ConfigError: The address is in use.
        """
        address = self._address
        with private_socket(address):
            try:
                port = self._server.add_insecure_port(address.text)
            except RuntimeError:
                problem = "cannot be listened on; is another server there?"
                raise ConfigError(
                    [f"server.address = {address.text!r} {problem}"]
                ) from None
        await self._server.start()
        for name in ("", *SERVICES):
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)
        return address.with_port(port)

    async def drain(self) -> None:
        """Report NOT_SERVING for good."""
        await self._health.enter_graceful_shutdown()

    async def stop(self, grace_s: float) -> None:
        """Refuse new calls, give running ones time to end, then cancel them."""
        await self._server.stop(grace_s)


class _ByService:
    """Lets generated code add its services to a server, but not their methods one by one.

    A server of grpc.aio waits for a call of each registered method with a future of its own and
    puts its callbacks on all of them again for every call that comes: with the 35 methods here,
    22 of the 360 us that a RecordFeedback took of its thread. A service finds its methods by name.
    """

    def __init__(self, server: Any) -> None:  # noqa: ANN401 - grpc has no type stubs
        self._server = server

    def add_generic_rpc_handlers(self, handlers: Any) -> None:  # noqa: ANN401 - grpc has no type stubs
        """Add a service."""
        self._server.add_generic_rpc_handlers(handlers)

    def add_registered_method_handlers(self, service: str, handlers: Any) -> None:  # noqa: ANN401 - grpc has no type stubs
        """Do nothing: the same methods have come as a service."""


def _add_services(
    server: _ByService,
    services: DomainServices,
    settings: Settings,
) -> None:
    tokens = TokenCodec(services.database_id)
    add_EvaluationServiceServicer_to_server(
        EvaluationServicer(services.evaluations, tokens, settings), server
    )
    add_JudgeServiceServicer_to_server(
        JudgeServicer(services.registry, services.shadows, tokens, settings), server
    )
    add_FeedbackServiceServicer_to_server(
        FeedbackServicer(
            services.feedback,
            services.synthesizer,
            tokens,
            settings,
            claim_outcome=services.review.outcome,
        ),
        server,
    )
    add_OptimizationServiceServicer_to_server(
        OptimizationServicer(
            services.optimizations, services.policies, tokens, settings
        ),
        server,
    )
    add_ExperimentServiceServicer_to_server(
        ExperimentServicer(
            services.experimenting.registry,
            services.experimenting.enrolment,
            services.experimenting.analyst,
            tokens,
            settings,
        ),
        server,
    )
    add_MonitoringServiceServicer_to_server(
        MonitoringServicer(
            services.monitors, services.registry, services.storage, tokens, settings
        ),
        server,
    )
    add_TrustServiceServicer_to_server(
        TrustServicer(services.reliabilities, services.registry, settings), server
    )
    add_JuryServiceServicer_to_server(
        JuryServicer(services.juries, tokens, settings), server
    )
    add_ReviewServiceServicer_to_server(
        ReviewServicer(
            services.review,
            AgreementEstimates(services.storage, services.registry, settings.review),
            AnnotatorAgreements(services.storage, services.registry),
            tokens,
            settings,
        ),
        server,
    )
    add_AnalyticsServiceServicer_to_server(
        AnalyticsServicer(services.storage, settings), server
    )
    add_ServerServiceServicer_to_server(
        ServerServicer(
            settings,
            database_id=services.database_id,
            storage_repair=services.storage_repair,
        ),
        server,
    )
