"""Optimization policies between protobuf and domain."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, Final

from google.protobuf.field_mask_pb2 import FieldMask

from sidejudge.v1 import optimization_service_pb2 as pb
from sidejudge_server.api.convert_budget import budget_bounds, budget_message
from sidejudge_server.api.convert_optimization import config_from, config_message
from sidejudge_server.api.names import optimization_name, policy_name
from sidejudge_server.api.validate import Checker
from sidejudge_server.optimization.budget import OptimizationBudget
from sidejudge_server.optimization.policies import PolicyState
from sidejudge_server.optimization.policy import Policy

__all__ = ["MAX_PAUSE_REASON_CHARS", "policy_changes", "policy_message"]

MAX_PAUSE_REASON_CHARS: Final = 512

_DEFAULT: Final = Policy()


def policy_changes(
    checker: Checker, message: pb.OptimizationPolicy, mask: FieldMask
) -> dict[str, Any]:
    """Read the fields of a policy that change; ranges are the domain's to check.

    Raises:
        InvalidRequestError: Fields are wrong; all violations at once.
    """
    at = checker.within("optimization_policy.")
    readers: Mapping[str, Callable[[], object]] = {
        "enabled": lambda: message.enabled,
        "min_new_examples": lambda: (
            message.min_new_examples
            if message.HasField("min_new_examples")
            else _DEFAULT.min_new_examples
        ),
        "min_disagreements": lambda: (
            message.min_disagreements
            if message.HasField("min_disagreements")
            else _DEFAULT.min_disagreements
        ),
        "cool_down": lambda: _cool_down(at, message),
        "daily_budget": lambda: OptimizationBudget().with_bounds(
            budget_bounds(message.daily_budget)
        ),
        "config": lambda: config_from(at.within("config."), message.config),
        "deploy_if_better": lambda: message.deploy_if_better,
    }
    paths = set(mask.paths) or set(readers)
    for path in sorted(paths.difference(readers)):
        checker.add(
            "update_mask", f"{path} cannot change; any of {', '.join(readers)} can"
        )
    changes = {path: read() for path, read in readers.items() if path in paths}
    checker.raise_if_any()
    return changes


def _cool_down(at: Checker, message: pb.OptimizationPolicy) -> timedelta:
    if not message.HasField("cool_down"):
        return _DEFAULT.cool_down
    try:
        return message.cool_down.ToTimedelta()
    except (ValueError, OverflowError):
        at.add("cool_down", "is not a duration")
        return _DEFAULT.cool_down


def policy_message(state: PolicyState) -> pb.OptimizationPolicy:
    """Return a policy with what it sees and has done as message."""
    policy = state.policy
    message = pb.OptimizationPolicy(
        name=policy_name(state.judge_id),
        enabled=policy.enabled,
        min_new_examples=policy.min_new_examples,
        min_disagreements=policy.min_disagreements,
        daily_budget=budget_message(policy.daily_budget.to_json()),
        config=config_message(policy.config.to_json()),
        deploy_if_better=policy.deploy_if_better,
        paused=policy.paused,
        pause_reason=policy.pause_reason,
        new_examples=state.situation.new_examples,
        new_disagreements=state.situation.new_disagreements,
        waiting_for=state.ruling.waiting_for,
        etag=state.etag,
    )
    message.cool_down.FromTimedelta(policy.cool_down)
    if state.last is not None:
        message.last_optimization = optimization_name(state.last.optimization_id)
        message.last_reason = state.last.trigger_reason
        message.last_start_time.FromDatetime(state.last.created_at)
    return message
