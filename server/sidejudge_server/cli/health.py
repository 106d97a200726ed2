"""`sidejudge health`: does a sidecar serve, and what is it."""

from __future__ import annotations

import argparse

from grpc_health.v1 import health_pb2, health_pb2_grpc

from sidejudge.v1 import server_service_pb2
from sidejudge_server.cli.connection import connect
from sidejudge_server.cli.failures import EXIT_FAILED, EXIT_OK
from sidejudge_server.cli.printing import key_values, print_json

__all__ = ["run"]


def run(args: argparse.Namespace) -> int:
    """Print status, version and models; exit code 0 only if it serves."""
    with connect(args) as session:
        answer = health_pb2_grpc.HealthStub(session.client.channel).Check(
            health_pb2.HealthCheckRequest(), timeout=session.timeout_s
        )
        serving = answer.status == health_pb2.HealthCheckResponse.SERVING
        status = health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
        info = session.client.server.GetServerInfo(
            server_service_pb2.GetServerInfoRequest(), timeout=session.timeout_s
        )
    facts = {
        "status": status,
        "address": session.address,
        "version": info.version,
        "task_model": info.task_model,
        "prompt_model": info.prompt_model,
        "database_id": info.database_id,
        "storage_repair": info.storage_repair,
    }
    if args.json:
        print_json(facts)
    else:
        key_values((name.replace("_", " "), value) for name, value in facts.items())
    return EXIT_OK if serving else EXIT_FAILED
