"""What ends a run from inside its worker.

DSPy turns every ordinary exception into a score of 0 and goes on, so a fault would look like "no
improvement". What must end a run is therefore raised as a BaseException, which passes through DSPy
and optuna at once.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from sidejudge_server.errors import (
    MetricError,
    SidejudgeError,
    WorkDirError,
    WorkerMemoryError,
)

__all__ = [
    "RunAborted",
    "error_document",
    "error_of",
    "guarded_metric",
    "work_dir_error",
]

P = ParamSpec("P")
T = TypeVar("T")


class RunAborted(BaseException):
    """The run cannot go on; ``cause`` says why. No Exception, so that DSPy cannot swallow it."""

    def __init__(self, cause: SidejudgeError) -> None:
        super().__init__(cause.reason)
        self.cause = cause


def work_dir_error(error: OSError) -> WorkDirError:
    """Return the error of a work directory that cannot be written."""
    cause = os.strerror(error.errno).lower() if error.errno else type(error).__name__
    return WorkDirError(
        f"the work directory of the run cannot be written ({cause}); make room, then resume the run",
        reason="WORK_DIR_UNAVAILABLE",
        metadata={"cause": cause},
    )


def error_of(error: Exception) -> SidejudgeError:
    """Return an exception as what watchers of the run are told; texts stay in the run's log."""
    if isinstance(error, SidejudgeError):
        return error
    if isinstance(error, MemoryError):
        return WorkerMemoryError(
            "the run took more memory than optimization.worker_memory_mb allows; raise it or use "
            "shorter examples, then resume the run",
            reason="WORKER_OUT_OF_MEMORY",
        )
    if isinstance(error, OSError):
        return work_dir_error(error)
    return SidejudgeError(
        f"fault in sidejudge: {type(error).__name__}; the run's log has more",
        reason="INTERNAL",
    )


def guarded_metric(metric: Callable[P, T]) -> Callable[P, T]:
    """Return a metric whose errors end the run instead of being scores of 0.

    Raises:
        RunAborted: When called and the metric raises; the reason is METRIC_FAILED.
    """

    @functools.wraps(metric)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return metric(*args, **kwargs)
        except MemoryError as error:
            raise RunAborted(error_of(error)) from error
        except Exception as error:
            kind = type(error).__name__
            raise RunAborted(
                MetricError(
                    f"the metric that scores candidates raised {kind}; the run's log has more",
                    reason="METRIC_FAILED",
                    metadata={"exception": kind},
                )
            ) from error

    return guarded


def error_document(error: SidejudgeError) -> dict[str, Any]:
    """Return an error as it goes up the pipe."""
    return {
        "code": error.code,
        "reason": error.reason,
        "message": error.message,
        "metadata": error.metadata,
    }
