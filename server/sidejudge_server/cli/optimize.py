"""`sidejudge optimize`: look for a better version of a judge."""

from __future__ import annotations

import argparse

from sidejudge.v1 import optimization_pb2, optimization_service_pb2
from sidejudge_server.cli.connection import Session, connect
from sidejudge_server.cli.failures import EXIT_USAGE, CommandError
from sidejudge_server.cli.names import judge_name, short
from sidejudge_server.cli.optimizations import watch_to_end
from sidejudge_server.cli.printing import print_message, say, warn

__all__ = ["run", "search_config", "start"]

# option -> field of OptimizationConfig
_NUMBERS = {
    "trials": "num_trials",
    "candidates": "num_candidates",
    "seed": "seed",
    "bootstrapped_demos": "max_bootstrapped_demos",
    "labeled_demos": "max_labeled_demos",
}


def run(args: argparse.Namespace) -> int:
    """Start a run; with --watch follow it and exit 1 if it failed or was cancelled."""
    config = search_config(args)
    with connect(args) as session:
        started = start(
            session,
            judge_name(args.judge),
            config,
            deploy_if_better=args.deploy_if_better,
        )
        if args.watch:
            warn(f"{started.name}")
            return watch_to_end(session, started.name, as_json=args.json)
    if args.json:
        print_message(started)
    else:
        say(f"{started.name} is started.")
        say(f"`sidejudge optimizations watch {short(started.name)}` follows it.")
    return 0


def start(
    session: Session,
    judge: str,
    config: optimization_pb2.OptimizationConfig,
    *,
    deploy_if_better: bool,
) -> optimization_pb2.Optimization:
    """Start a run; a call that is repeated on the way starts only one."""
    started: optimization_pb2.Optimization
    started = session.client.optimization.CreateOptimization(
        optimization_service_pb2.CreateOptimizationRequest(
            optimization=optimization_pb2.Optimization(
                judge=judge, config=config, deploy_if_better=deploy_if_better
            ),
        ),
        timeout=session.timeout_s,
    ).optimization
    return started


def search_config(args: argparse.Namespace) -> optimization_pb2.OptimizationConfig:
    """Return what the options ask for; the server decides the rest.

    Raises:
        CommandError: A preset is given together with numbers that it decides.
    """
    if args.auto and (args.trials is not None or args.candidates is not None):
        raise CommandError(
            "--auto decides the numbers of trials and candidates; leave those out",
            exit_code=EXIT_USAGE,
        )
    config = optimization_pb2.OptimizationConfig()
    for option, field in _NUMBERS.items():
        if (value := getattr(args, option)) is not None:
            setattr(config, field, value)
    if args.auto:
        config.auto = optimization_pb2.OptimizationConfig.Auto.Value(
            f"AUTO_{args.auto.upper()}"
        )
    if args.instruction_source:
        config.instruction_source = (
            optimization_pb2.OptimizationConfig.InstructionSource.Value(
                f"INSTRUCTION_SOURCE_{args.instruction_source.upper()}"
            )
        )
    return config
