"""Python client of sidejudge and its generated gRPC code (`sidejudge.v1`)."""

from sidejudge.client import AsyncClient, Client, connect, connect_async
from sidejudge.errors import SidejudgeError, Violation

__all__ = [
    "AsyncClient",
    "Client",
    "SidejudgeError",
    "Violation",
    "connect",
    "connect_async",
]
