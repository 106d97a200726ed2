"""Experiments and their analyses for the terminal."""

from __future__ import annotations

import math

from sidejudge.v1 import experiment_pb2
from sidejudge_server.cli.names import short
from sidejudge_server.cli.printing import key_values, number, print_table, say

__all__ = ["decision_text", "print_analysis", "print_event", "print_experiment"]

_Experiment = experiment_pb2.Experiment
_Metric = experiment_pb2.ExperimentMetric
_Comparison = experiment_pb2.MetricComparison
_CHART_WIDTH = 41


def decision_text(decision: int) -> str:
    """Return a decision as a word."""
    name = experiment_pb2.Decision.Name(experiment_pb2.Decision.ValueType(decision))
    return name.removeprefix("DECISION_").lower()


def print_experiment(experiment: experiment_pb2.Experiment) -> None:
    """Print an experiment."""
    conclusion = experiment.conclusion if experiment.HasField("conclusion") else None
    state = _Experiment.State.Name(experiment.state).removeprefix("STATE_").lower()
    mode = _Experiment.Mode.Name(experiment.mode).removeprefix("MODE_").lower()
    arms = ", ".join(
        f"{a.arm}"
        + (f" (version {short(a.judge_version)})" if a.judge_version else "")
        + (f" {a.weight:.0%}" if a.HasField("weight") else "")
        for a in experiment.arms
    )
    metrics = ", ".join(
        f"{m.metric} ({_Metric.Role.Name(m.role).removeprefix('ROLE_').lower()})"
        for m in experiment.metrics
    )
    rollout = None
    if experiment.HasField("rollout_status"):
        status = experiment.rollout_status
        rollout = f"stage {status.stage}, {status.share:.0%} of the subjects"
    key_values(
        [
            ("experiment", short(experiment.name)),
            ("state", state),
            ("mode", mode),
            ("judge", short(experiment.judge) if experiment.judge else None),
            ("arms", arms),
            ("metrics", metrics),
            ("namespace", experiment.namespace),
            ("traffic", f"{experiment.traffic_share:.0%}"),
            ("rollout", rollout),
            ("description", experiment.description),
            ("decision", decision_text(conclusion.decision) if conclusion else None),
            ("winner", conclusion.winner if conclusion else None),
            ("deployed", "yes" if conclusion and conclusion.deployed else None),
            ("concluded by", conclusion.author if conclusion else None),
            ("reason", conclusion.reason if conclusion else None),
        ]
    )


def print_analysis(analysis: experiment_pb2.ExperimentAnalysis) -> None:
    """Print an analysis: the decision first, then what it rests on."""
    say(f"{decision_text(analysis.decision).upper()}: {analysis.reason}")
    if analysis.HasField("expected_units_to_decision"):
        say(
            f"about {analysis.expected_units_to_decision} more labelled units until a decision"
        )
    if analysis.HasField("rollout"):
        rollout = analysis.rollout
        say(
            f"stage {rollout.stage} ({rollout.share:.0%}), {rollout.stage_units} labelled units in"
            f" it, harm e-value {rollout.harm_e_value:.3g}; waiting for"
            f" {rollout.waiting_for or 'nothing'}"
        )
    say()
    print_table(
        ["arm", ">units", ">labelled", ">evaluations", ">failures", "labels only", "with the judge", ">p50 ms"],
        [
            (
                arm.arm,
                arm.units,
                arm.labelled_units,
                arm.evaluations,
                arm.failures,
                _estimate(arm.labels_only),
                _estimate(arm.judge_corrected)
                if arm.HasField("judge_corrected")
                else None,
                number(arm.latency_ms_p50, digits=0)
                if arm.HasField("latency_ms_p50")
                else None,
            )
            for arm in analysis.arms
        ],
    )  # fmt: skip
    print_table(
        ["metric", "role", "arm", ">n", ">won", ">lost", ">tied", ">effect", "always valid", ">e-value", ">p", "status"],
        [_comparison_row(c) for c in analysis.comparisons],
    )  # fmt: skip
    _print_chart(analysis)
    if analysis.HasField("sample_ratio"):
        ratio = analysis.sample_ratio
        alarm = "ALARM: the split is not what it should be" if ratio.alarm else "fine"
        say(f"sample ratio: {alarm} (e-value {ratio.e_value:.3g}, alarm at 1000)")
    for comparison in analysis.comparisons:
        if comparison.cannot_say:
            say(f"{comparison.metric} of {comparison.arm}: {comparison.cannot_say}")
    for warning in analysis.warnings:
        say(f"note: {warning}")


def print_event(event: experiment_pb2.ExperimentEvent) -> None:
    """Print an event as a line or two; nothing for heartbeats."""
    at = f"{event.create_time.ToDatetime():%H:%M:%S}"
    match event.WhichOneof("event"):
        case "snapshot":
            print_experiment(event.snapshot.experiment)
            if event.snapshot.HasField("analysis"):
                _print_line(at, event.snapshot.analysis)
        case "started":
            by = f" by {event.started.author}" if event.started.author else ""
            say(f"{at} started{by} {event.started.reason}".rstrip())
        case "analysis":
            _print_line(at, event.analysis)
        case "stage_changed":
            changed = event.stage_changed
            say(
                f"{at} stage {changed.from_stage} -> {changed.to_stage},"
                f" {changed.share:.0%}: {changed.reason}"
            )
        case "warning":
            say(f"{at} {event.warning.code}: {event.warning.message}")
        case "decided":
            decided = event.decided
            say(f"{at} decided {decision_text(decided.decision)}: {decided.reason}")
        case "concluded":
            say(f"{at} concluded")
            print_experiment(event.concluded)


def _print_line(at: str, analysis: experiment_pb2.ExperimentAnalysis) -> None:
    say(f"{at} {decision_text(analysis.decision)}: {analysis.reason}")


def _estimate(estimate: experiment_pb2.ArmEstimate) -> str:
    if not estimate.HasField("estimate"):
        return "-"
    if not estimate.HasField("interval"):
        return f"{estimate.estimate:.3f}"
    ends = estimate.interval
    return f"{estimate.estimate:.3f} [{ends.low:.3f}, {ends.high:.3f}]"


def _comparison_row(c: experiment_pb2.MetricComparison) -> tuple[object, ...]:
    status = _Comparison.Status.Name(c.status).removeprefix("STATUS_").lower()
    p = c.adjusted_p if c.HasField("adjusted_p") else c.anytime_p
    return (
        c.metric,
        _Metric.Role.Name(c.role).removeprefix("ROLE_").lower(),
        c.arm,
        c.units,
        c.wins,
        c.losses,
        c.ties,
        f"{c.effect:+.4g}" if c.HasField("effect") else None,
        f"[{c.always_valid_interval.low:+.3f}, {c.always_valid_interval.high:+.3f}]"
        + (" asymptotic" if c.asymptotic else "")
        if c.HasField("always_valid_interval")
        else None,
        f"{c.e_value:.3g}" if c.HasField("e_value") else None,
        f"{p:.2g}" if c.HasField("anytime_p") else None,
        "" if status == "unspecified" else status,
    )


def _print_chart(analysis: experiment_pb2.ExperimentAnalysis) -> None:
    """Print the always-valid interval of the primary metric around no difference."""
    rows = [
        c
        for c in analysis.comparisons
        if c.role == _Metric.ROLE_PRIMARY and c.HasField("always_valid_interval")
    ]
    if not rows:
        return
    reach = max(
        0.01,
        *(
            abs(end)
            for c in rows
            for end in (c.always_valid_interval.low, c.always_valid_interval.high)
        ),
    )
    say(f"{rows[0].metric}, from {-reach:+.2f} to {reach:+.2f}; | is no difference")
    for c in rows:
        ends = c.always_valid_interval
        line = [" "] * _CHART_WIDTH
        for place in range(_place(ends.low, reach), _place(ends.high, reach) + 1):
            line[place] = "-"
        line[_CHART_WIDTH // 2] = "|"
        if c.HasField("effect"):
            line[_place(c.effect, reach)] = "o"
        evidence = min(1.0, math.log(max(1.0, c.e_value)) / math.log(20))
        say(
            f"{''.join(line)}  {c.arm}: evidence {'#' * round(10 * evidence):<10} of 20"
        )


def _place(value: float, reach: float) -> int:
    share = (max(-reach, min(reach, value)) + reach) / (2 * reach)
    return round(share * (_CHART_WIDTH - 1))
