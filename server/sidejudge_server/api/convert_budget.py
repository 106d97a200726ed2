"""Budgets, outcomes and stop reasons between protobuf and domain."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from google.protobuf.duration_pb2 import Duration

from sidejudge.v1 import optimization_pb2 as pb
from sidejudge_server.optimization.budget import OptimizationBudget

__all__ = ["budget_bounds", "budget_message", "outcome_value", "stop_reason_value"]

_BOUNDS: Final = ("max_lm_calls", "max_tokens", "max_cost_usd", "max_trials")
_NANOS: Final = 1_000_000_000


def budget_bounds(budget: pb.OptimizationBudget) -> dict[str, float]:
    """Return the bounds that are set, by the names of `OptimizationBudget`; ranges are the domain's.

    `OptimizationBudget().with_bounds(...)` completes them with the defaults, `with_bounds` of
    another budget replaces some of its.
    """
    bounds: dict[str, float] = {
        name: getattr(budget, name) for name in _BOUNDS if budget.HasField(name)
    }
    if budget.HasField("max_duration"):
        # Not ToTimedelta, which refuses what the domain should name as out of range.
        duration = budget.max_duration
        bounds["max_duration_s"] = duration.seconds + duration.nanos / _NANOS
    return bounds


def budget_message(budget: Mapping[str, Any]) -> pb.OptimizationBudget:
    """Return a stored budget as message; bounds that are not there are unset."""
    known = OptimizationBudget.from_json(budget)
    duration = Duration()
    duration.FromMilliseconds(round(known.max_duration_s * 1000))
    message = pb.OptimizationBudget(max_duration=duration)
    for name in _BOUNDS:
        if (bound := getattr(known, name)) is not None:
            setattr(message, name, bound)
    return message


def outcome_value(outcome: str) -> pb.Optimization.Outcome.ValueType:
    """Return the enum value of an outcome; unspecified for ""."""
    return pb.Optimization.Outcome.Value(f"OUTCOME_{outcome.upper() or 'UNSPECIFIED'}")


def stop_reason_value(reason: str) -> pb.Optimization.StopReason.ValueType:
    """Return the enum value of a stop reason; unspecified for ""."""
    name = f"STOP_REASON_{reason.upper() or 'UNSPECIFIED'}"
    return pb.Optimization.StopReason.Value(name)
