"""Experiments as rows."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from sidejudge_server.experiments.status import Status
from sidejudge_server.experiments.types import (
    Arm,
    CircuitBreaker,
    Direction,
    Experiment,
    Metric,
    MetricKind,
    Mode,
    Role,
    RolloutPlan,
    Stage,
    State,
    StoppingRule,
)
from sidejudge_server.judges.codec import canonical_json
from sidejudge_storage import ExperimentRecord

__all__ = ["experiment_from_record", "experiment_to_record"]


def experiment_to_record(experiment: Experiment) -> ExperimentRecord:
    """Return the row of an experiment."""
    conclusion = experiment.conclusion
    return ExperimentRecord(
        experiment_id=experiment.experiment_id,
        judge_id=experiment.judge_id,
        state=experiment.state.value,
        mode=experiment.mode.value,
        namespace=experiment.namespace,
        slice_low=experiment.slice_low,
        slice_high=experiment.slice_high,
        spec_json=canonical_json(_spec(experiment)),
        labels_json=canonical_json(dict(experiment.labels)),
        status_json=canonical_json(experiment.status.to_json()),
        conclusion_json=None if conclusion is None else canonical_json(conclusion),
        revision=experiment.revision,
        created_at=experiment.created_at,
        updated_at=experiment.updated_at,
        started_at=experiment.started_at,
        ended_at=experiment.ended_at,
    )


def experiment_from_record(record: ExperimentRecord) -> Experiment:
    """Return the experiment of a row."""
    spec = json.loads(record.spec_json)
    return Experiment(
        experiment_id=record.experiment_id,
        judge_id=record.judge_id,
        mode=Mode(record.mode),
        arms=tuple(Arm(**arm) for arm in spec["arms"]),
        metrics=tuple(_metric(metric) for metric in spec["metrics"]),
        namespace=record.namespace,
        salt=spec["salt"],
        state=State(record.state),
        created_at=record.created_at,
        updated_at=record.updated_at,
        revision=record.revision,
        display_name=spec["display_name"],
        description=spec["description"],
        traffic_share=spec["traffic_share"],
        shadow_share=spec["shadow_share"],
        rule=StoppingRule(**spec["rule"]),
        rollout=_rollout(spec["rollout"]),
        act_on_decision=spec["act_on_decision"],
        labels=json.loads(record.labels_json),
        slice_low=record.slice_low,
        slice_high=record.slice_high,
        status=Status.from_json(json.loads(record.status_json)),
        conclusion=json.loads(record.conclusion_json)
        if record.conclusion_json is not None
        else None,
        started_at=record.started_at,
        ended_at=record.ended_at,
    )


def _spec(experiment: Experiment) -> dict[str, Any]:
    return {
        "display_name": experiment.display_name,
        "description": experiment.description,
        "arms": [asdict(arm) for arm in experiment.arms],
        "metrics": [asdict(metric) for metric in experiment.metrics],
        "salt": experiment.salt,
        "traffic_share": experiment.traffic_share,
        "shadow_share": experiment.shadow_share,
        "rule": asdict(experiment.rule),
        "rollout": asdict(experiment.rollout),
        "act_on_decision": experiment.act_on_decision,
    }


def _metric(document: Mapping[str, Any]) -> Metric:
    return Metric(
        metric_id=document["metric_id"],
        role=Role(document["role"]),
        kind=MetricKind(document["kind"]),
        direction=Direction(document["direction"]),
        margin=document["margin"],
    )


def _rollout(document: Mapping[str, Any]) -> RolloutPlan:
    return RolloutPlan(
        stages=tuple(Stage(**stage) for stage in document["stages"]),
        max_failure_ratio=document["max_failure_ratio"],
        circuit_breaker=CircuitBreaker(**document["circuit_breaker"]),
    )
