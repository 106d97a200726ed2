"""`sidejudge policy`: when a judge is optimized by itself."""

from __future__ import annotations

import argparse

from google.protobuf.field_mask_pb2 import FieldMask

from sidejudge.v1 import optimization_pb2
from sidejudge.v1 import optimization_service_pb2 as pb
from sidejudge_server.cli.connection import connect
from sidejudge_server.cli.failures import EXIT_USAGE, CommandError
from sidejudge_server.cli.names import policy_name, short
from sidejudge_server.cli.optimize import budget, search_config
from sidejudge_server.cli.printing import (
    duration,
    key_values,
    money,
    print_message,
)

__all__ = ["pause", "resume", "set_policy", "show"]


def show(args: argparse.Namespace) -> int:
    """Show the policy of a judge, what it has seen and what it waits for."""
    with connect(args) as session:
        policy = session.client.optimization.GetOptimizationPolicy(
            pb.GetOptimizationPolicyRequest(name=policy_name(args.judge)),
            timeout=session.timeout_s,
        ).optimization_policy
    return _print(args, policy)


def set_policy(args: argparse.Namespace) -> int:
    """Change what the options name; the rest stays."""
    request = pb.UpdateOptimizationPolicyRequest(
        optimization_policy=pb.OptimizationPolicy(name=policy_name(args.judge))
    )
    wanted, paths = request.optimization_policy, []
    for field in (
        "enabled",
        "min_new_examples",
        "min_disagreements",
        "deploy_if_better",
    ):
        if (value := getattr(args, field)) is not None:
            setattr(wanted, field, value)
            paths.append(field)
    if args.cool_down is not None:
        wanted.cool_down.FromMilliseconds(round(args.cool_down * 3_600_000))
        paths.append("cool_down")
    spending = budget(args)
    if spending.ByteSize():
        wanted.daily_budget.CopyFrom(spending)
        paths.append("daily_budget")
    config = search_config(args)
    if config.ByteSize():
        wanted.config.CopyFrom(config)
        paths.append("config")
    if not paths:
        raise CommandError(
            "nothing to change; see `sidejudge policy set --help`",
            exit_code=EXIT_USAGE,
        )
    request.update_mask.CopyFrom(FieldMask(paths=paths))
    with connect(args) as session:
        policy = session.client.optimization.UpdateOptimizationPolicy(
            request, timeout=session.timeout_s
        ).optimization_policy
    return _print(args, policy)


def pause(args: argparse.Namespace) -> int:
    """Start nothing by itself until it is resumed."""
    with connect(args) as session:
        policy = session.client.optimization.PauseOptimizationPolicy(
            pb.PauseOptimizationPolicyRequest(
                name=policy_name(args.judge), reason=args.reason
            ),
            timeout=session.timeout_s,
        ).optimization_policy
    return _print(args, policy)


def resume(args: argparse.Namespace) -> int:
    """End a pause."""
    with connect(args) as session:
        policy = session.client.optimization.ResumeOptimizationPolicy(
            pb.ResumeOptimizationPolicyRequest(name=policy_name(args.judge)),
            timeout=session.timeout_s,
        ).optimization_policy
    return _print(args, policy)


def _print(args: argparse.Namespace, policy: pb.OptimizationPolicy) -> int:
    if args.json:
        print_message(policy)
        return 0
    state = "enabled" if policy.enabled else "not enabled"
    if policy.paused:
        state += f", paused{f': {policy.pause_reason}' if policy.pause_reason else ''}"
    started = policy.last_start_time.ToDatetime()
    key_values(
        [
            ("judge", policy.name.split("/")[1]),
            ("policy", state),
            ("new examples", f"{policy.new_examples} of {policy.min_new_examples}"),
            (
                "disagreements",
                f"{policy.new_disagreements} of {policy.min_disagreements}",
            ),
            ("cool-down", duration(policy.cool_down.ToTimedelta())),
            ("daily budget", _daily(policy.daily_budget)),
            ("deploys if better", "yes" if policy.deploy_if_better else "no"),
            ("waiting for", policy.waiting_for or "nothing: a run is about to start"),
            (
                "last run",
                (
                    f"{short(policy.last_optimization)} at {started:%Y-%m-%d %H:%M:%S}"
                    f" because of {policy.last_reason}"
                )
                if policy.last_optimization
                else "none",
            ),
        ]
    )
    return 0


def _daily(bounds: optimization_pb2.OptimizationBudget) -> str:
    calls = f"{bounds.max_lm_calls} calls" if bounds.HasField("max_lm_calls") else ""
    tokens = f"{bounds.max_tokens} tokens" if bounds.HasField("max_tokens") else ""
    cost = money(bounds.max_cost_usd) if bounds.HasField("max_cost_usd") else ""
    trials = (
        f"{bounds.max_trials} trials a run" if bounds.HasField("max_trials") else ""
    )
    time = f"{duration(bounds.max_duration.ToTimedelta())} a run"
    return ", ".join(part for part in (calls, tokens, cost, trials, time) if part)
