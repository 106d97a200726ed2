"""Connection of a command to a running sidecar, and what to say when it fails."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import grpc

import sidejudge
from sidejudge_server.cli.failures import EXIT_USAGE, CommandError
from sidejudge_server.cli.status import describe

__all__ = ["DEFAULT_SERVER", "Session", "connect", "server_address"]

DEFAULT_SERVER = "127.0.0.1:50510"


@dataclass(frozen=True, slots=True)
class Session:
    """A connection as one command uses it."""

    address: str
    """Where the sidecar listens, as gRPC wants it."""

    timeout_s: float
    """Deadline of each call."""

    client: sidejudge.Client
    """Stubs; repeats calls over restarts of the sidecar and fills in request ids."""


def server_address(args: argparse.Namespace) -> str:
    """Return the address from --server, else SIDEJUDGE_SERVER, else the default.

    Raises:
        CommandError: The address is no ``host:port`` and no ``unix:/path``.
    """
    address = str(args.server or os.environ.get("SIDEJUDGE_SERVER") or DEFAULT_SERVER)
    if address.startswith("unix:"):
        return address
    port = address.rpartition(":")[2]
    if not (":" in address and port.isdigit()):
        raise CommandError(
            f"--server {address!r} is neither host:port nor unix:/path",
            exit_code=EXIT_USAGE,
        )
    return address


@contextmanager
def connect(args: argparse.Namespace) -> Iterator[Session]:
    """Connect for one command; failures of calls inside become CommandErrors.

    Args:
        args: Needs `server` and `timeout`, the deadline of each call in seconds.
    """
    address = server_address(args)
    try:
        with sidejudge.connect(address) as client:
            yield Session(address, float(args.timeout), client)
    except grpc.RpcError as error:
        raise CommandError(describe(error, address)) from error
