"""`sidejudge optimizations`: runs, their trials and decisions."""

from __future__ import annotations

import argparse

from sidejudge.v1 import optimization_pb2, optimization_service_pb2
from sidejudge_server.cli.connection import Session, connect
from sidejudge_server.cli.failures import EXIT_FAILED, EXIT_OK
from sidejudge_server.cli.names import judge_name, optimization_name, short
from sidejudge_server.cli.paging import collect_pages
from sidejudge_server.cli.printing import (
    duration,
    key_values,
    money,
    number,
    print_message,
    print_table,
    say,
    warn,
)
from sidejudge_server.cli.status import describe_status
from sidejudge_server.cli.trial_chart import print_trial_chart
from sidejudge_server.cli.watching import follow, open_view, phase_word

__all__ = [
    "cancel",
    "estimate_words",
    "list_runs",
    "print_run",
    "show",
    "trials",
    "watch",
    "watch_to_end",
]


def list_runs(args: argparse.Namespace) -> int:
    """List runs, newest first."""
    with connect(args) as session:
        page = collect_pages(
            session.client.optimization.ListOptimizations,
            optimization_service_pb2.ListOptimizationsRequest(
                judge=judge_name(args.judge) if args.judge else ""
            ),
            "optimizations",
            limit=args.limit,
            timeout_s=session.timeout_s,
        )
    if args.json:
        print_message(page)
        return 0
    print_table(
        [
            "optimization",
            "judge",
            "state",
            ">trials",
            "outcome",
            "candidate",
            "started",
        ],
        (
            (
                short(o.name),
                short(o.judge),
                _state(o),
                f"{o.progress.trials_completed}/{o.progress.trials_total}",
                _outcome(o) or None,
                short(o.candidate_version) if o.candidate_version else None,
                f"{o.create_time.ToDatetime():%Y-%m-%d %H:%M:%S}",
            )
            for o in page.optimizations
        ),
    )
    return 0


def show(args: argparse.Namespace) -> int:
    """Show a run and its decision."""
    with connect(args) as session:
        run = session.client.optimization.GetOptimization(
            optimization_service_pb2.GetOptimizationRequest(
                name=optimization_name(args.optimization)
            ),
            timeout=session.timeout_s,
        ).optimization
    if args.json:
        print_message(run)
    else:
        print_run(run)
    return 0


def trials(args: argparse.Namespace) -> int:
    """List the trials in order with a chart; trial 0 is the baseline."""
    with connect(args) as session:
        page = _trial_page(session, optimization_name(args.optimization))
    if args.json:
        print_message(page)
        return 0
    print_trial_chart(page.trials)
    say()
    print_table(
        [">trial", ">score", "", ">examples", ">demos", "instructions"],
        (
            (
                short(t.name),
                number(t.score),
                "best" if t.best else "",
                f"{t.example_count}{'' if t.full_evaluation else ' of more'}",
                t.demonstration_count,
                f"{t.instruction_index}: {t.instructions[:80]}",
            )
            for t in page.trials
        ),
    )
    return 0


def watch(args: argparse.Namespace) -> int:
    """Show the progress until the run ends; exit code 1 if it failed or was cancelled."""
    name = optimization_name(args.optimization)
    with connect(args) as session:
        return watch_to_end(session, name, as_json=args.json)


def cancel(args: argparse.Namespace) -> int:
    """Ask a run to stop."""
    with connect(args) as session:
        run = session.client.optimization.CancelOptimization(
            optimization_service_pb2.CancelOptimizationRequest(
                name=optimization_name(args.optimization)
            ),
            timeout=session.timeout_s,
        ).optimization
    if args.json:
        print_message(run)
    else:
        say(f"{run.name} is {_state(run)}.")
    return 0


def watch_to_end(session: Session, name: str, *, as_json: bool) -> int:
    """Follow a run, print its decision and return the exit code of the command."""
    try:
        with open_view() as view:
            run = follow(session, name, view)
    except KeyboardInterrupt:
        warn(
            f"\nThe run goes on without you. `sidejudge optimizations watch {short(name)}`"
            f" follows it, `sidejudge optimizations cancel {short(name)}` stops it."
        )
        raise
    if as_json:
        print_message(run)
    else:
        print_run(run)
        say()
        print_trial_chart(_trial_page(session, name).trials)
    succeeded = run.state == optimization_pb2.Optimization.STATE_SUCCEEDED
    return EXIT_OK if succeeded else EXIT_FAILED


def print_run(run: optimization_pb2.Optimization) -> None:
    """Print a run: what it did, what it cost, what the gate said."""
    progress = run.progress
    running = run.state == optimization_pb2.Optimization.STATE_RUNNING
    key_values(
        [
            ("optimization", short(run.name)),
            ("judge", short(run.judge)),
            ("state", _state(run)),
            ("outcome", _outcome(run) or None),
            ("phase", phase_word(run.phase) if running else None),
            (
                "data",
                (
                    f"{run.dataset.train_count} train, {run.dataset.validation_count}"
                    f" validation, {run.dataset.test_count} held out"
                ),
            ),
            ("trials", f"{progress.trials_completed} of {progress.trials_total}"),
            (
                "cost",
                _cost(run),
            ),
            (
                "estimated",
                estimate_words(run.estimate) if run.HasField("estimate") else None,
            ),
            ("budget", _budget(run)),
            ("started by", _trigger(run)),
            ("baseline", short(run.baseline_version)),
            (
                "candidate",
                short(run.candidate_version) if run.candidate_version else None,
            ),
            ("error", describe_status(run.error) if run.HasField("error") else None),
        ]
    )
    if summary := run.summary or run.decision.summary:
        say()
        say(summary)
    if run.HasField("decision"):
        _print_decision(run.decision)


def _trial_page(
    session: Session, name: str
) -> optimization_service_pb2.ListTrialsResponse:
    page: optimization_service_pb2.ListTrialsResponse = collect_pages(
        session.client.optimization.ListTrials,
        optimization_service_pb2.ListTrialsRequest(parent=name),
        "trials",
        timeout_s=session.timeout_s,
    )
    return page


def _cost(run: optimization_pb2.Optimization) -> str:
    progress = run.progress
    cost = money(progress.cost_usd if progress.HasField("cost_usd") else None)
    return (
        f"{progress.lm_calls} calls of {run.task_model}"
        f" (+{progress.cached_calls} from the cache), {progress.input_tokens} +"
        f" {progress.output_tokens} tokens, {cost},"
        f" {duration(progress.elapsed.ToTimedelta())}"
    )


def estimate_words(estimate: optimization_pb2.OptimizationEstimate) -> str:
    """Return an estimate in one line, in the order of the actual cost."""
    cost = money(estimate.cost_usd if estimate.HasField("cost_usd") else None)
    return (
        f"{estimate.lm_calls} calls, {estimate.input_tokens} +"
        f" {estimate.output_tokens} tokens, {cost},"
        f" {duration(estimate.duration.ToTimedelta())}, {estimate.trials} trials"
    )


def _trigger(run: optimization_pb2.Optimization) -> str | None:
    """Return why the policy started a run; None for a run that somebody asked for."""
    by_policy = run.trigger.source == optimization_pb2.OptimizationTrigger.SOURCE_POLICY
    return f"the policy: {run.trigger.reason}" if by_policy else None


def _print_decision(decision: optimization_pb2.GateDecision) -> None:
    if decision.pair_count:
        print_table(
            [
                f"{decision.metric} on {decision.pair_count} held-out items",
                ">value",
                "95 %",
            ],
            [
                (what, number(e.value), f"{e.lower:.3f} to {e.upper:.3f}")
                for what, e in (
                    ("baseline", decision.baseline),
                    ("candidate", decision.candidate),
                    ("difference", decision.difference),
                )
            ],
        )
    key_values(
        [
            ("wins, losses", f"{decision.wins}, {decision.losses}"),
            (
                "p-value",
                number(decision.p_value, digits=4)
                if decision.HasField("p_value")
                else "cannot be told",
            ),
            (
                "evidence",
                number(decision.e_value, digits=1)
                if decision.HasField("e_value")
                else None,
            ),
            ("use of these items", decision.use_count or None),
            ("fresh labels needed", decision.fresh_labels_needed or None),
            ("more items needed", decision.additional_examples_needed or None),
            *(
                (c.name, f"{'holds' if c.passed else 'does not hold'}: {c.detail}")
                for c in decision.checks
            ),
            ("deployed", _deployed(decision)),
        ]
    )


def _deployed(decision: optimization_pb2.GateDecision) -> str:
    if decision.stage == optimization_pb2.GateDecision.STAGE_SHADOW:
        return "no, in shadow"
    return "yes" if decision.deployed else "no"


def _state(run: optimization_pb2.Optimization) -> str:
    name = optimization_pb2.Optimization.State.Name(run.state)
    return name.removeprefix("STATE_").lower()


def _outcome(run: optimization_pb2.Optimization) -> str:
    """Return what came out in words; empty for a run that has not ended."""
    if not run.outcome:  # of a run that ended before outcomes were kept
        return _outcome_words(run.decision) if run.HasField("decision") else ""
    name = optimization_pb2.Optimization.Outcome.Name(run.outcome)
    return name.removeprefix("OUTCOME_").replace("_", " ").lower()


def _budget(run: optimization_pb2.Optimization) -> str:
    """Return the bounds of a run in one line."""
    bounds = run.budget
    parts = [duration(bounds.max_duration.ToTimedelta())]
    if bounds.HasField("max_lm_calls"):
        parts.append(f"{bounds.max_lm_calls:,} calls")
    if bounds.HasField("max_tokens"):
        parts.append(f"{bounds.max_tokens:,} tokens")
    if bounds.HasField("max_trials"):
        parts.append(f"{bounds.max_trials:,} trials")
    if bounds.HasField("max_cost_usd"):
        parts.append(money(bounds.max_cost_usd))
    return f"at most {', '.join(parts)}"


def _outcome_words(decision: optimization_pb2.GateDecision) -> str:
    name = optimization_pb2.GateDecision.Outcome.Name(decision.outcome)
    return name.removeprefix("OUTCOME_").replace("_", " ").lower()
