"""Why a run failed, as its row keeps it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sidejudge_server.optimization.watchdog import Cause

__all__ = ["RunError", "server_restarted", "worker_crashed"]


@dataclass(frozen=True, slots=True)
class RunError:
    """Why a run failed: gRPC code by name, reason without prefix, dynamic parts."""

    code: str
    reason: str
    message: str
    metadata: Mapping[str, str] = field(default_factory=dict)


def server_restarted(run_id: str, cause: str) -> RunError:
    """Return the error of a run that could not go on after its server was started again.

    Args:
        run_id: The run.
        cause: Half a sentence that says why.
    """
    name = f"optimizations/{run_id}"
    return RunError(
        "ABORTED",
        "SERVER_RESTARTED",
        f"the server stopped while {name} was going, and it cannot go on: {cause}",
        {"optimization": name, "cause": cause},
    )


def worker_crashed(run_id: str, last: Mapping[str, Any]) -> RunError:
    """Return the error of a run whose process died or was ended for breaking its limits.

    Args:
        run_id: The run.
        last: The executor's event ``crashed``: ``exit_code``, and ``cause`` with its ``limit``.
    """
    name = f"optimizations/{run_id}"
    limit = f"{last.get('limit') or 0:g}"
    if last.get("cause") == Cause.MEMORY:
        return RunError(
            "RESOURCE_EXHAUSTED",
            "WORKER_OUT_OF_MEMORY",
            f"the worker process of {name} took more than {limit} MiB; raise "
            "optimization.worker_memory_mb or use shorter examples",
            {"optimization": name, "limit_mb": limit},
        )
    if last.get("cause") == Cause.SILENCE:
        return RunError(
            "INTERNAL",
            "WORKER_SILENT",
            f"the worker process of {name} said nothing for {limit} s and was ended",
            {"optimization": name, "silence_s": limit},
        )
    exit_code = last.get("exit_code")
    code = "unknown" if exit_code is None else str(exit_code)
    return RunError(
        "INTERNAL",
        "WORKER_CRASHED",
        f"the worker process of {name} died with exit code {code}; -9 is often a lack of memory",
        {"optimization": name, "exit_code": code},
    )
