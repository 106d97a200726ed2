"""`sidejudge optimize` and `estimate`: look for a better version of a judge, or say what it takes."""

from __future__ import annotations

import argparse

from sidejudge.v1 import optimization_pb2, optimization_service_pb2
from sidejudge_server.cli.connection import Session, connect
from sidejudge_server.cli.failures import EXIT_USAGE, CommandError
from sidejudge_server.cli.names import judge_name, optimization_name, short
from sidejudge_server.cli.optimizations import estimate_words, watch_to_end
from sidejudge_server.cli.printing import key_values, print_message, say, warn
from sidejudge_server.cli.run_report import write_report
from sidejudge_server.cli.training import print_training_set

__all__ = ["budget", "estimate", "resume", "run", "search_config", "start"]

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
    if args.estimate:
        return estimate(args)
    config = search_config(args)
    with connect(args) as session:
        started = start(
            session,
            judge_name(args.judge),
            config,
            deploy_if_better=args.deploy_if_better,
            spending=budget(args),
        )
        if args.watch or args.report:
            warn(f"{started.name}")
            code = watch_to_end(session, started.name, as_json=args.json)
            if args.report:
                write_report(session, started.name, args.report)
                warn(f"The report is in {args.report}.")
            return code
    if args.json:
        print_message(started)
    else:
        say(f"{started.name} is started.")
        say(f"`sidejudge optimizations watch {short(started.name)}` follows it.")
    return 0


def resume(args: argparse.Namespace) -> int:
    """Go on with a run that was cancelled, failed or ran out of its budget."""
    request = optimization_service_pb2.ResumeOptimizationRequest(
        name=optimization_name(args.optimization), budget=budget(args)
    )
    with connect(args) as session:
        resumed = session.client.optimization.ResumeOptimization(
            request, timeout=session.timeout_s
        ).optimization
        if args.watch:
            warn(f"{resumed.name} goes on")
            return watch_to_end(session, resumed.name, as_json=args.json)
    if args.json:
        print_message(resumed)
    else:
        say(f"{resumed.name} goes on.")
        say(f"`sidejudge optimizations watch {short(resumed.name)}` follows it.")
    return 0


def estimate(args: argparse.Namespace) -> int:
    """Print what a run would take and whether the data are ready; start nothing."""
    asked = optimization_pb2.Optimization(
        judge=judge_name(args.judge), config=search_config(args), budget=budget(args)
    )
    with connect(args) as session:
        answer = session.client.optimization.EstimateOptimization(
            optimization_service_pb2.EstimateOptimizationRequest(optimization=asked),
            timeout=session.timeout_s,
        )
    if args.json:
        print_message(answer)
        return 0
    config = answer.config
    key_values(
        [
            ("estimate", estimate_words(answer.estimate)),
            ("trials", config.num_trials),
            ("candidates", config.num_candidates),
            ("seed", config.seed),
            ("basis", answer.estimate.basis),
            *(("note", text) for text in answer.warnings),
        ]
    )
    say()
    print_training_set(answer.training_set)
    return 0


def start(
    session: Session,
    judge: str,
    config: optimization_pb2.OptimizationConfig,
    *,
    deploy_if_better: bool,
    spending: optimization_pb2.OptimizationBudget | None = None,
) -> optimization_pb2.Optimization:
    """Start a run; a call that is repeated on the way starts only one."""
    started: optimization_pb2.Optimization
    started = session.client.optimization.CreateOptimization(
        optimization_service_pb2.CreateOptimizationRequest(
            optimization=optimization_pb2.Optimization(
                judge=judge,
                config=config,
                deploy_if_better=deploy_if_better,
                budget=spending,
            ),
        ),
        timeout=session.timeout_s,
    ).optimization
    return started


def budget(args: argparse.Namespace) -> optimization_pb2.OptimizationBudget:
    """Return the bounds that the options ask for; the server has defaults for the rest."""
    message = optimization_pb2.OptimizationBudget()
    for name in ("max_lm_calls", "max_tokens", "max_cost_usd", "max_trials"):
        if (bound := getattr(args, name)) is not None:
            setattr(message, name, bound)
    if args.max_minutes is not None:
        message.max_duration.FromMilliseconds(round(args.max_minutes * 60_000))
    return message


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
    if args.algorithm:
        name = args.algorithm.replace("-", "_").upper()
        config.algorithm = optimization_pb2.OptimizationConfig.Algorithm.Value(
            f"ALGORITHM_{name}"
        )
    if args.no_early_stopping:
        config.early_stopping = False
    if args.no_synthetic:
        config.use_synthetic_examples = False
    if args.instruction_source:
        config.instruction_source = (
            optimization_pb2.OptimizationConfig.InstructionSource.Value(
                f"INSTRUCTION_SOURCE_{args.instruction_source.upper()}"
            )
        )
    return config
