"""Where serving begins. Imports neither gRPC nor DuckDB before the fork server runs."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from sidejudge_server.config import Settings

__all__ = ["run"]


def run(settings: Settings, *, ready_file: Path | None = None) -> int:
    """Serve until SIGTERM or SIGINT.

    Once calls are answered, one JSON line with the address goes to standard output.

    Args:
        settings: All settings.
        ready_file: Gets the same line, so that other processes can wait for it.

    Returns:
        Exit code: 0 after an orderly stop, 1 if the database cannot be opened.

    Raises:
        ConfigError: The address cannot be listened on, or there is no such model.
    """
    _import_structlog_alone()
    # Workers are forked from a process that has seen no thread, no gRPC and no DuckDB.
    from sidejudge_server.optimization.executor import start_fork_server

    start_fork_server()
    import uvloop

    from sidejudge_server.application import serve

    # A tenth less CPU per call than asyncio's own loop, measured under gRPC.
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(serve(settings, ready_file=ready_file))


def _import_structlog_alone() -> None:
    """Import structlog without rich, with which it colours tracebacks on consoles: 5 MB of a sidecar."""
    if "rich" in sys.modules:
        return
    sys.modules["rich"] = None  # type: ignore[assignment] # so that importing it fails
    try:
        import structlog  # noqa: F401 - for the sake of importing it
    finally:
        del sys.modules["rich"]
