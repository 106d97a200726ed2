"""`sidejudge experiments`: create, run and read experiments."""

from __future__ import annotations

import argparse
from datetime import timedelta
from typing import Any

from sidejudge.v1 import experiment_pb2
from sidejudge.v1 import experiment_service_pb2 as pb
from sidejudge_server.cli.connection import connect
from sidejudge_server.cli.experiment_report import (
    decision_text,
    print_analysis,
    print_event,
    print_experiment,
)
from sidejudge_server.cli.failures import EXIT_USAGE, CommandError
from sidejudge_server.cli.names import short
from sidejudge_server.cli.paging import collect_pages
from sidejudge_server.cli.printing import (
    key_values,
    print_message,
    print_table,
    say,
)

__all__ = [
    "analyze",
    "assign",
    "conclude",
    "create",
    "list_all",
    "outcome",
    "plan",
    "show",
    "start",
    "watch",
]

_Experiment = experiment_pb2.Experiment
_Metric = experiment_pb2.ExperimentMetric


def create(args: argparse.Namespace) -> int:
    """Create an experiment, and start it if that is asked for."""
    experiment = _Experiment(
        judge=f"judges/{args.judge}" if args.judge else "",
        arms=_arms(args),
        metrics=[_metric(text, first=i == 0) for i, text in enumerate(args.metric)],
        namespace=args.namespace,
        description=args.description,
        act_on_decision=args.act,
        traffic_share=args.traffic_share,
        shadow_share=args.shadow_share,
    )
    if args.mode:
        experiment.mode = _Experiment.Mode.Value(f"MODE_{args.mode.upper()}")
    rule = experiment.stopping_rule
    for field in ("alpha", "min_improvement", "max_units"):
        if (value := getattr(args, field)) is not None:
            setattr(rule, field, value)
    if args.max_days is not None:
        rule.max_duration.FromTimedelta(timedelta(days=args.max_days))
    experiment.rollout.stages.extend(_stage(text) for text in args.stage)
    if not args.stage:
        experiment.ClearField("rollout")
    request = pb.CreateExperimentRequest(
        experiment_id=args.experiment, experiment=experiment
    )
    with connect(args) as session:
        service, timeout = session.client.experiments, session.timeout_s
        made = service.CreateExperiment(request, timeout=timeout).experiment
        if args.start:
            made = service.StartExperiment(
                pb.StartExperimentRequest(name=made.name), timeout=timeout
            ).experiment
    return _show(args, made)


def list_all(args: argparse.Namespace) -> int:
    """List experiments."""
    request = pb.ListExperimentsRequest(
        judge=f"judges/{args.judge}" if args.judge else ""
    )
    if args.state:
        request.state = _Experiment.State.Value(f"STATE_{args.state.upper()}")
    with connect(args) as session:
        page = collect_pages(
            session.client.experiments.ListExperiments,
            request,
            "experiments",
            timeout_s=session.timeout_s,
        )
    if args.json:
        print_message(page)
        return 0
    print_table(
        ["experiment", "state", "mode", "judge", "arms", "decision"],
        [
            (
                short(e.name),
                _Experiment.State.Name(e.state).removeprefix("STATE_").lower(),
                _Experiment.Mode.Name(e.mode).removeprefix("MODE_").lower(),
                short(e.judge) if e.judge else None,
                ", ".join(arm.arm for arm in e.arms),
                decision_text(e.conclusion.decision)
                if e.HasField("conclusion")
                else None,
            )
            for e in page.experiments
        ],
    )
    return 0


def show(args: argparse.Namespace) -> int:
    """Show an experiment."""
    request = pb.GetExperimentRequest(name=_name(args))
    with connect(args) as session:
        found = session.client.experiments.GetExperiment(
            request, timeout=session.timeout_s
        ).experiment
    return _show(args, found)


def start(args: argparse.Namespace) -> int:
    """Start a draft."""
    request = pb.StartExperimentRequest(
        name=_name(args), author=args.author, reason=args.reason
    )
    with connect(args) as session:
        found = session.client.experiments.StartExperiment(
            request, timeout=session.timeout_s
        ).experiment
    return _show(args, found)


def conclude(args: argparse.Namespace) -> int:
    """End an experiment."""
    request = pb.ConcludeExperimentRequest(
        name=_name(args),
        winner=args.winner,
        deploy_winner=args.deploy_winner,
        author=args.author,
        reason=args.reason,
    )
    if args.decision:
        request.decision = experiment_pb2.Decision.Value(
            f"DECISION_{args.decision.upper()}"
        )
    with connect(args) as session:
        found = session.client.experiments.ConcludeExperiment(
            request, timeout=session.timeout_s
        ).experiment
    return _show(args, found)


def assign(args: argparse.Namespace) -> int:
    """Say which arm a subject has."""
    request = pb.AssignVariantRequest(name=_name(args), subject=args.subject)
    with connect(args) as session:
        found = session.client.experiments.AssignVariant(
            request, timeout=session.timeout_s
        )
    if args.json:
        print_message(found)
        return 0
    part = "" if found.takes_part else " (does not take part)"
    say(f"{found.arm}{part}")
    return 0


def outcome(args: argparse.Namespace) -> int:
    """Record what was measured for a subject."""
    try:
        values = {name: float(value) for name, value in args.values}
    except ValueError as error:
        raise CommandError(
            f"a value is no number: {error}", exit_code=EXIT_USAGE
        ) from None
    request = pb.RecordOutcomeRequest(
        name=_name(args), subject=args.subject, arm=args.arm, values=values
    )
    with connect(args) as session:
        found = session.client.experiments.RecordOutcome(
            request, timeout=session.timeout_s
        )
    if args.json:
        print_message(found)
        return 0
    say(f"recorded for {found.arm}")
    return 0


def analyze(args: argparse.Namespace) -> int:
    """Say what is known now."""
    request = pb.AnalyzeExperimentRequest(name=_name(args))
    with connect(args) as session:
        found = session.client.experiments.AnalyzeExperiment(
            request, timeout=session.timeout_s
        ).analysis
    if args.json:
        print_message(found)
    else:
        print_analysis(found)
    return 0


def watch(args: argparse.Namespace) -> int:
    """Follow an experiment to its end; goes on after a restart of the sidecar."""
    request = pb.WatchExperimentRequest(name=_name(args), from_start=args.from_start)
    with connect(args) as session:
        while True:
            ended = False
            # No deadline: an experiment takes as long as its labels.
            for response in session.client.experiments.WatchExperiment(request):
                event = response.event
                request.resume_token = event.resume_token
                request.from_start = False
                ended = event.WhichOneof("event") == "concluded"
                if args.json:
                    print_message(event)
                else:
                    print_event(event)
            if ended:
                return 0


def plan(args: argparse.Namespace) -> int:
    """Say how many labels an experiment would take."""
    request = pb.PlanExperimentRequest(
        judge=f"judges/{args.judge}" if args.judge else "",
        baseline_rate=args.baseline_rate,
        min_improvement=args.min_improvement,
        loss_rate=args.loss_rate,
        alpha=args.alpha,
        power=args.power,
        labels_per_day=args.labels_per_day,
        max_labels=args.max_labels,
    )
    with connect(args) as session:
        found = session.client.experiments.PlanExperiment(
            request, timeout=session.timeout_s
        )
    if args.json:
        print_message(found)
        return 0
    say(found.summary)
    say()
    key_values(
        [
            ("shadow, one look", _labels(found, "paired_labels")),
            ("shadow, arms independent", _labels(found, "paired_independent_labels")),
            ("shadow, always valid", _labels(found, "sequential_labels", about=True)),
            ("split, one look", _labels(found, "split_labels")),
            ("notes", "; ".join(found.notes)),
        ]
    )
    return 0


def _labels(found: Any, field: str, *, about: bool = False) -> str:  # noqa: ANN401 - a response
    if not found.HasField(field):
        return "unknown"
    return f"{'about ' if about else ''}{getattr(found, field)} labels"


def _show(args: argparse.Namespace, experiment: experiment_pb2.Experiment) -> int:
    if args.json:
        print_message(experiment)
    else:
        print_experiment(experiment)
    return 0


def _name(args: argparse.Namespace) -> str:
    return f"experiments/{args.experiment.removeprefix('experiments/')}"


def _arms(args: argparse.Namespace) -> list[experiment_pb2.ExperimentArm]:
    arms = []
    for index, version in enumerate(args.candidate):
        name = "candidate" if len(args.candidate) == 1 else f"candidate-{index + 1}"
        version_name = f"judges/{args.judge}/versions/{version}"
        arms.append(experiment_pb2.ExperimentArm(arm=name, judge_version=version_name))
    for text in args.arm:
        name, separator, weight = text.partition("=")
        arm = experiment_pb2.ExperimentArm(arm=name)
        if separator:
            arm.weight = _number(weight, "--arm NAME=WEIGHT")
        arms.append(arm)
    return arms


def _metric(text: str, *, first: bool) -> experiment_pb2.ExperimentMetric:
    name, kind, role, direction, *rest = [*text.split(":"), "", "", "", ""]
    if any(rest[1:]):
        raise CommandError(
            f"--metric {text!r} has too many parts", exit_code=EXIT_USAGE
        )
    metric = _Metric(metric=name)
    metric.role = _Metric.ROLE_PRIMARY if first else _Metric.ROLE_EXPLORATORY
    try:
        if kind:
            metric.kind = _Metric.Kind.Value(f"KIND_{kind.upper()}")
        if role:
            metric.role = _Metric.Role.Value(f"ROLE_{role.upper()}")
        if direction:
            metric.direction = _Metric.Direction.Value(f"DIRECTION_{direction.upper()}")
    except ValueError:
        raise CommandError(
            f"--metric {text!r} is not NAME:KIND[:ROLE[:DIRECTION]]",
            exit_code=EXIT_USAGE,
        ) from None
    return metric


def _stage(text: str) -> experiment_pb2.RolloutStage:
    share, _, units = text.partition(":")
    if not units.isdigit():
        raise CommandError(
            f"--stage {text!r} is not SHARE:UNITS, such as 0.05:500",
            exit_code=EXIT_USAGE,
        )
    return experiment_pb2.RolloutStage(
        share=_number(share, "--stage SHARE:UNITS"), min_units=int(units)
    )


def _number(text: str, option: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise CommandError(
            f"{option}: {text!r} is no number", exit_code=EXIT_USAGE
        ) from None
