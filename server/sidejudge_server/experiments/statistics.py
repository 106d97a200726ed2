"""What the database aggregates for an analysis, and how it is asked for."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

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

__all__ = ["Statistics", "StatisticsSource", "is_paired", "primary_of"]

T = TypeVar("T")

_LARGE = 20_000
"""Calls, or labels, from which an experiment has many of them."""
_GROWTH = 1.01
_MOST_KEPT = 64

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


@dataclass(frozen=True, slots=True)
class _Size:
    """How much an experiment has: calls and assignments, and labels and outcomes."""

    traffic: int
    labels: int


@dataclass(frozen=True, slots=True)
class _OfTraffic:
    """What is made of all evaluations, and of how many it was made."""

    size: _Size
    calls: Mapping[str, ArmCalls]
    judged: Mapping[str, JudgedSums]
    units: Sequence[tuple[int, str, int]]

    def still_good(self, size: _Size) -> bool:
        """Return whether so little has come since that it need not be made anew."""
        return _little_new(self.size.traffic, size.traffic) and _little_new(
            self.size.labels, size.labels
        )


@dataclass(frozen=True, slots=True)
class _OfLabels:
    """What is made of labels and outcomes alone."""

    size: _Size
    metrics: Mapping[str, MetricStatistics]
    stages: Sequence[StageCounts]


def _little_new(before: int, now: int) -> bool:
    return now == before or (before >= _LARGE and now <= before * _GROWTH)


class StatisticsSource:
    """Gathers statistics.

    What a large experiment has is aggregated anew when there is 1 % more of it: always-valid figures
    hold at whatever looks are taken.
    """

    def __init__(self, reader: ExperimentStatisticsReader) -> None:
        self._reader = reader
        self._traffic: OrderedDict[str, _OfTraffic] = OrderedDict()
        self._labels: OrderedDict[str, _OfLabels] = OrderedDict()

    async def gather(self, experiment: Experiment) -> Statistics:
        """Return the statistics of an experiment that was started."""
        since = experiment.started_at
        if since is None:
            raise AssertionError("nothing to gather of a draft")
        size = _Size(*await self._reader.size(experiment.experiment_id, since=since))
        labels = await self._of_labels(experiment, size)
        traffic = await self._of_traffic(experiment, size, since)
        return Statistics(
            calls=traffic.calls,
            metrics=labels.metrics,
            judged=traffic.judged,
            units=traffic.units,
            stages=labels.stages,
        )

    async def _of_labels(self, experiment: Experiment, size: _Size) -> _OfLabels:
        kept = self._labels.get(experiment.experiment_id)
        if kept is not None and _little_new(kept.size.labels, size.labels):
            return kept
        metrics = {}
        for metric in experiment.metrics:
            found = await _metric(experiment, metric, self._reader)
            if found is not None:
                metrics[metric.metric_id] = found
        stages: Sequence[StageCounts] = ()
        if experiment.mode is Mode.ROLLOUT:
            stages = await self._reader.stages(
                experiment.experiment_id, _failing_outcome(experiment)
            )
        made = _OfLabels(size, metrics, stages)
        _keep(self._labels, experiment.experiment_id, made)
        return made

    async def _of_traffic(
        self, experiment: Experiment, size: _Size, since: datetime
    ) -> _OfTraffic:
        reader, experiment_id = self._reader, experiment.experiment_id
        kept = self._traffic.get(experiment_id)
        if kept is not None and kept.still_good(size):
            return kept
        own_arms = experiment.judge_id is None
        units: Sequence[tuple[int, str, int]] = ()
        if experiment.mode is not Mode.SHADOW:
            units = await reader.units(experiment_id, since=since, own_arms=own_arms)
        calls = await reader.calls(experiment_id, since=since)
        judged = await reader.judged(experiment_id, since=since, own_arms=own_arms)
        made = _OfTraffic(
            size,
            {c.arm_id: c for c in calls},
            {j.arm_id: j for j in judged},
            units,
        )
        _keep(self._traffic, experiment_id, made)
        return made


def _keep(kept: OrderedDict[str, T], experiment_id: str, made: T) -> None:
    kept[experiment_id] = made
    while len(kept) > _MOST_KEPT:
        kept.popitem(last=False)


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
