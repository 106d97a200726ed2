"""What the database aggregates for an analysis, and how it is asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sidejudge_server.experiments.types import (
    AGREEMENT,
    BUILT_IN_METRICS,
    FALSE_POSITIVE_RATE,
    QUALITY,
    Experiment,
    Metric,
    MetricKind,
    Mode,
    Role,
)
from sidejudge_storage import (
    FALSE_POSITIVE_VALUE,
    QUALITY_VALUE,
    ArmCalls,
    ExperimentStatisticsReader,
    JudgedSums,
    MetricStatistics,
    StageCounts,
)

__all__ = ["Statistics", "gather", "is_paired", "primary_of"]

_OF_LABELS = {
    AGREEMENT: QUALITY_VALUE,
    QUALITY: QUALITY_VALUE,
    FALSE_POSITIVE_RATE: FALSE_POSITIVE_VALUE,
}


@dataclass(frozen=True, slots=True)
class Statistics:
    """Sufficient statistics of an experiment.

    Attributes:
        calls: By arm.
        metrics: Metrics that are made of labels or outcomes, by name.
        judged: Labels beside judgments, by arm.
        units: Number of units by stage and arm; empty in shadow mode.
        stages: Labelled units and failures of a rollout.
    """

    calls: Mapping[str, ArmCalls]
    metrics: Mapping[str, MetricStatistics]
    judged: Mapping[str, JudgedSums]
    units: Sequence[tuple[int, str, int]] = ()
    stages: Sequence[StageCounts] = ()


def primary_of(experiment: Experiment) -> Metric:
    """Return the metric that decides."""
    return next(m for m in experiment.metrics if m.role is Role.PRIMARY)


def is_paired(experiment: Experiment) -> bool:
    """Return whether labelled units are seen by all arms."""
    if experiment.judge_id is None:
        return experiment.mode is Mode.SHADOW
    return experiment.mode is not Mode.SPLIT


async def gather(
    experiment: Experiment, reader: ExperimentStatisticsReader
) -> Statistics:
    """Return the statistics of an experiment that was started, as they are now."""
    since = experiment.started_at
    if since is None:
        raise AssertionError("nothing to gather of a draft")
    experiment_id = experiment.experiment_id
    own_arms = experiment.judge_id is None
    metrics = {}
    for metric in experiment.metrics:
        found = await _metric(experiment, metric, reader)
        if found is not None:
            metrics[metric.metric_id] = found
    units: Sequence[tuple[int, str, int]] = ()
    if experiment.mode is not Mode.SHADOW:
        units = await reader.units(experiment_id, since=since, own_arms=own_arms)
    stages: Sequence[StageCounts] = ()
    if experiment.mode is Mode.ROLLOUT:
        stages = await reader.stages(experiment_id, _failing_outcome(experiment))
    calls = await reader.calls(experiment_id, since=since)
    judged = await reader.judged(experiment_id, since=since, own_arms=own_arms)
    return Statistics(
        calls={c.arm_id: c for c in calls},
        metrics=metrics,
        judged={j.arm_id: j for j in judged},
        units=units,
        stages=stages,
    )


async def _metric(
    experiment: Experiment, metric: Metric, reader: ExperimentStatisticsReader
) -> MetricStatistics | None:
    """Return a metric's statistics, None for one that is made of calls."""
    base, paired = experiment.baseline.arm_id, is_paired(experiment)
    value = _OF_LABELS.get(metric.metric_id)
    if value is not None:
        return await reader.label_metric(
            experiment.experiment_id, value, baseline=base, paired=paired
        )
    if metric.metric_id in BUILT_IN_METRICS:
        return None
    return await reader.outcome_metric(
        experiment.experiment_id,
        metric.metric_id,
        baseline=base,
        paired=paired,
        positive=metric.kind is MetricKind.POSITIVE,
    )


def _failing_outcome(experiment: Experiment) -> str | None:
    """Return the outcome that tells failures of a rollout, None for labels."""
    primary = primary_of(experiment)
    return None if primary.metric_id in BUILT_IN_METRICS else primary.metric_id
