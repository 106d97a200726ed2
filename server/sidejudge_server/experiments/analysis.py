"""The analysis of an experiment: a pure function of sufficient statistics."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from sidejudge_server.experiments.comparison import (
    compare_bounded,
    compare_positive,
    compare_rates,
)
from sidejudge_server.experiments.decision import (
    SAMPLE_RATIO_BAR,
    adjusted,
    expected_units,
    rule,
)
from sidejudge_server.experiments.estimates import judge_corrected, labels_only
from sidejudge_server.experiments.ramp import ramp_complete, waiting_for
from sidejudge_server.experiments.report import (
    ArmReport,
    Comparison,
    Report,
    RolloutReport,
    SampleRatio,
)
from sidejudge_server.experiments.splitting import rollout_share
from sidejudge_server.experiments.statistics import (
    Statistics,
    is_paired,
    primary_of,
)
from sidejudge_server.experiments.status import Decision
from sidejudge_server.experiments.types import (
    AGREEMENT,
    COST,
    ERROR_RATE,
    LATENCY,
    QUALITY,
    Arm,
    Experiment,
    Metric,
    MetricKind,
    Mode,
    Role,
)
from sidejudge_server.stats.harm import StageFailures, harm_log_e
from sidejudge_server.stats.moments import Moments
from sidejudge_server.stats.sample_ratio import sample_ratio_log_e
from sidejudge_storage import (
    ArmCalls,
    UnitMoments,
)

__all__ = ["HARM", "analyse"]

HARM = "harm"
"""Key of the harm test among the largest e-values."""

_SAMPLE_RATIO = "sample_ratio"
_FEW_LABELS = 50
_ROLE_ORDER = (Role.PRIMARY, Role.GUARDRAIL, Role.EXPLORATORY)


def analyse(experiment: Experiment, statistics: Statistics, now: datetime) -> Report:
    """Return what is known of an experiment that was started.

    The largest e-values so far, which the experiment's status carries from look to look, make
    decisions and anytime p-values; the report has them with those of now included.

    Args:
        experiment: The experiment.
        statistics: Aggregated over all that counts now.
        now: When.
    """
    comparisons = _comparisons(experiment, statistics)
    largest = dict(experiment.status.largest)
    for comparison in comparisons:
        _raise_largest(largest, comparison)
    comparisons = adjusted(
        [_with_anytime_p(c, largest) for c in comparisons], alpha=experiment.rule.alpha
    )
    ratio = _sample_ratio(experiment, statistics, largest)
    rollout = _rollout(experiment, statistics, largest)
    ruling = rule(
        experiment,
        comparisons,
        largest=largest,
        sample_ratio=ratio,
        harm_log_e=largest.get(HARM),
        ramp_complete=rollout is None or ramp_complete(experiment, rollout),
        now=now,
    )
    status = experiment.status
    decision, reason, winner = ruling.decision, ruling.reason, ruling.winner
    if status.decided:
        decision, reason, winner = status.decision, status.reason, status.winner
    return Report(
        experiment=experiment.name,
        create_time=now,
        decision=decision,
        reason=reason,
        winner=winner,
        decision_time=status.decided_at
        or (now if decision is not Decision.RUNNING else None),
        arms=tuple(_arm_report(experiment, arm, statistics) for arm in experiment.arms),
        comparisons=comparisons,
        sample_ratio=ratio,
        expected_units_to_decision=expected_units(experiment, comparisons)
        if decision is Decision.RUNNING
        else None,
        rollout=None
        if rollout is None
        else replace(
            rollout, waiting_for=waiting_for(experiment, rollout, comparisons)
        ),
        warnings=tuple(_warnings(experiment, statistics, comparisons)),
        largest=largest,
    )


def _comparisons(
    experiment: Experiment, statistics: Statistics
) -> tuple[Comparison, ...]:
    metrics = sorted(experiment.metrics, key=lambda m: _ROLE_ORDER.index(m.role))
    return tuple(
        _compare(experiment, metric, arm, statistics)
        for metric in metrics
        for arm in experiment.candidates
    )


def _compare(
    experiment: Experiment, metric: Metric, arm: Arm, statistics: Statistics
) -> Comparison:
    base, alpha = experiment.baseline.arm_id, experiment.rule.alpha
    paired = is_paired(experiment)
    if metric.metric_id in (LATENCY, COST, ERROR_RATE):
        return _compare_calls(metric, arm.arm_id, base, statistics, alpha=alpha)
    found = statistics.metrics[metric.metric_id]
    if metric.kind is MetricKind.POSITIVE:
        return compare_positive(
            metric,
            arm.arm_id,
            logs=(
                _moments(found.moments.get(base)),
                _moments(found.moments.get(arm.arm_id)),
            ),
            signs=found.differences.get(arm.arm_id, ()),
            paired=paired,
            alpha=alpha,
        )
    return compare_bounded(metric, arm.arm_id, base, found, paired=paired, alpha=alpha)


def _compare_calls(
    metric: Metric, arm: str, base: str, statistics: Statistics, *, alpha: float
) -> Comparison:
    old, new = statistics.calls.get(base), statistics.calls.get(arm)
    if metric.metric_id == ERROR_RATE:
        failures = _failures(old), _failures(new)
        calls = tuple(
            f + (c.evaluations if c else 0)
            for f, c in zip(failures, (old, new), strict=True)
        )
        return compare_rates(
            metric, arm, hits=failures, units=(calls[0], calls[1]), alpha=alpha
        )
    logs = _call_logs(metric, old), _call_logs(metric, new)
    compared = compare_positive(metric, arm, logs=logs, alpha=alpha)
    if metric.metric_id == COST and not (logs[0].n and logs[1].n):
        return replace(
            compared,
            cannot_say="the cost of calls is not known: set the model's prices",
        )
    return compared


def _call_logs(metric: Metric, calls: ArmCalls | None) -> Moments:
    if calls is None:
        return Moments(0, 0.0, 0.0)
    if metric.metric_id == LATENCY:
        return Moments.of_sums(
            calls.latency_n, calls.latency_log_sum, calls.latency_log_squares
        )
    return Moments.of_sums(calls.cost_n, calls.cost_log_sum, calls.cost_log_squares)


def _failures(calls: ArmCalls | None) -> int:
    return calls.failures if calls else 0


def _moments(found: UnitMoments | None) -> Moments:
    if found is None:
        return Moments(0, 0.0, 0.0)
    return Moments(found.n, found.mean, found.variance)


def _raise_largest(largest: dict[str, float], comparison: Comparison) -> None:
    about = f"{comparison.metric}/{comparison.arm}"
    for log_e, direction in (
        (comparison.log_e, "better" if comparison.role is Role.PRIMARY else "shown"),
        (comparison.log_e_worse, "worse"),
    ):
        if log_e is not None:
            key = f"{about}/{direction}"
            largest[key] = max(largest.get(key, 0.0), log_e)


def _with_anytime_p(comparison: Comparison, largest: Mapping[str, float]) -> Comparison:
    if comparison.log_e is None:
        return comparison
    direction = "better" if comparison.role is Role.PRIMARY else "shown"
    highest = largest[f"{comparison.metric}/{comparison.arm}/{direction}"]
    return replace(comparison, anytime_p=math.exp(-max(0.0, highest)))


def _sample_ratio(
    experiment: Experiment, statistics: Statistics, largest: dict[str, float]
) -> SampleRatio | None:
    if experiment.mode is Mode.SHADOW:
        return None
    observed = dict.fromkeys((arm.arm_id for arm in experiment.arms), 0)
    expected = dict.fromkeys(observed, 0.0)
    log_e = 0.0
    for stage in sorted({stage for stage, _, _ in statistics.units}):
        weights = _weights(experiment, stage)
        if weights is None:
            continue
        counts = dict.fromkeys(observed, 0)
        counts.update({a: n for s, a, n in statistics.units if s == stage})
        total = sum(counts.values())
        for arm, weight in weights.items():
            observed[arm] += counts[arm]
            expected[arm] += total * weight
        # Splits of different stages are independent: their evidence multiplies.
        arms = list(weights)
        log_e += sample_ratio_log_e(
            [counts[a] for a in arms], [weights[a] for a in arms]
        )
    largest[_SAMPLE_RATIO] = max(largest.get(_SAMPLE_RATIO, 0.0), log_e)
    alarm = largest[_SAMPLE_RATIO] >= math.log(SAMPLE_RATIO_BAR)
    return SampleRatio(observed, expected, log_e, alarm)


def _weights(experiment: Experiment, stage: int) -> dict[str, float] | None:
    """Return the split that held in a stage, None after the last one."""
    if experiment.mode is not Mode.ROLLOUT:
        return {arm.arm_id: arm.weight for arm in experiment.arms}
    stages = experiment.rollout.stages
    if stage >= len(stages):
        return None
    share = stages[stage].share
    return {
        experiment.baseline.arm_id: 1 - share,
        experiment.candidates[0].arm_id: share,
    }


def _rollout(
    experiment: Experiment, statistics: Statistics, largest: dict[str, float]
) -> RolloutReport | None:
    if experiment.mode is not Mode.ROLLOUT:
        return None
    stages = experiment.rollout.stages
    base, candidate = experiment.baseline.arm_id, experiment.candidates[0].arm_id
    counts = {(c.stage, c.arm_id): c for c in statistics.stages}

    def failures(stage: int, arm: str) -> int:
        found = counts.get((stage, arm))
        return found.failures if found else 0

    log_e = harm_log_e(
        [
            StageFailures(failures(i, base), failures(i, candidate), stage.share)
            for i, stage in enumerate(stages)
        ],
        max_ratio=experiment.rollout.max_failure_ratio,
    )
    largest[HARM] = max(largest.get(HARM, 0.0), log_e)
    now = experiment.status.stage
    return RolloutReport(
        stage=now,
        share=rollout_share(experiment),
        stage_units=sum(c.units for c in statistics.stages if c.stage == now),
        stage_start_time=experiment.status.stage_started_at,
        harm_log_e=log_e,
    )


def _arm_report(experiment: Experiment, arm: Arm, statistics: Statistics) -> ArmReport:
    primary = primary_of(experiment)
    found = statistics.metrics.get(primary.metric_id)
    moments = found.moments.get(arm.arm_id) if found else None
    calls = statistics.calls.get(arm.arm_id)
    own_arms = experiment.judge_id is None
    return ArmReport(
        arm=arm.arm_id,
        judge_version=""
        if own_arms
        else f"judges/{experiment.judge_id}/versions/{arm.version}",
        units=sum(n for _, a, n in statistics.units if a == arm.arm_id)
        or (moments.n if moments else 0),
        evaluations=calls.evaluations if calls else 0,
        labelled_units=moments.n if moments else 0,
        failures=_failures(calls),
        labels_only=labels_only(
            found.values.get(arm.arm_id, ()) if found else (),
            moments,
            logs=primary.kind is MetricKind.POSITIVE,
        ),
        judge_corrected=judge_corrected(
            statistics.judged.get(arm.arm_id), own_arms=own_arms
        )
        if primary.metric_id in (AGREEMENT, QUALITY)
        else None,
        latency_ms_p50=calls.latency_ms_p50 if calls else None,
        mean_cost_usd=calls.cost_sum / calls.priced if calls and calls.priced else None,
    )


def _warnings(
    experiment: Experiment, statistics: Statistics, comparisons: Sequence[Comparison]
) -> list[str]:
    warnings = []
    units = max((c.units for c in comparisons if c.role is Role.PRIMARY), default=0)
    if units < _FEW_LABELS:
        warnings.append(
            f"{units} labelled units: with fewer than {_FEW_LABELS} all intervals are wide; label more"
        )
    if statistics.judged:
        warnings.append(
            "estimates corrected with judgments hold if the labelled items are a random sample of"
            " all; label items by chance, not those that look wrong"
        )
    unguarded = [
        metric.metric_id
        for metric in experiment.metrics
        if metric.role is Role.GUARDRAIL
        and all(c.log_e is None for c in comparisons if c.metric == metric.metric_id)
    ]
    if unguarded:
        warnings.append(f"too few values yet to guard {', '.join(unguarded)}")
    return warnings
