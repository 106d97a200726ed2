"""When a rollout goes to its next stage: pure functions of its plan and its analysis."""

from __future__ import annotations

from collections.abc import Sequence

from sidejudge_server.experiments.report import Comparison, RolloutReport
from sidejudge_server.experiments.types import (
    Direction,
    Experiment,
    Metric,
    MetricKind,
    Role,
)

__all__ = ["ramp_complete", "waiting_for"]


def ramp_complete(experiment: Experiment, rollout: RolloutReport) -> bool:
    """Return whether the last stage has the units that it needs."""
    stages = experiment.rollout.stages
    last = len(stages) - 1
    return rollout.stage >= last and rollout.stage_units >= stages[last].min_units


def waiting_for(
    experiment: Experiment,
    rollout: RolloutReport,
    comparisons: Sequence[Comparison],
) -> str:
    """Return what the next stage waits for, "" if for nothing.

    A stage ends when it has its units and the always-valid interval of the primary metric does not
    reach below minus its margin; the last one ends with a decision.
    """
    stages = experiment.rollout.stages
    if rollout.stage >= len(stages):
        return ""
    stage = stages[rollout.stage]
    missing = stage.min_units - rollout.stage_units
    if missing > 0:
        return f"{missing} more labelled units in this stage"
    if rollout.stage == len(stages) - 1:
        wanted = experiment.rule.min_improvement
        return f"evidence of an improvement of at least {wanted:g}"
    if stage.margin is None:
        return ""
    metric = next(m for m in experiment.metrics if m.role is Role.PRIMARY)
    comparison = next(c for c in comparisons if c.role is Role.PRIMARY)
    worst = _worst_case(metric, comparison)
    if worst is None or worst <= -stage.margin:
        reach = "is not known" if worst is None else f"reaches down to {worst:+.3f}"
        return (
            f"an always-valid interval of {metric.metric_id} above {-stage.margin:+.3f};"
            f" it {reach}"
        )
    return ""


def _worst_case(metric: Metric, comparison: Comparison) -> float | None:
    """Return the end of the always-valid interval at which the candidate is worst."""
    interval = comparison.always_valid_interval
    if interval is None:
        return None
    if metric.direction is Direction.HIGHER:
        return interval.low
    if metric.kind is MetricKind.POSITIVE:
        return 1 / (1 + interval.high) - 1
    return -interval.high
