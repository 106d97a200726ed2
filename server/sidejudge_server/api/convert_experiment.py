"""Experiments between protobuf and domain."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any, Final, TypeVar

from google.protobuf.field_mask_pb2 import FieldMask

from sidejudge.v1 import experiment_pb2 as pb
from sidejudge_server.api.convert_analysis import (
    analysis_message,
    decision_value,
    rollout_status_message,
)
from sidejudge_server.api.convert_common import timestamp
from sidejudge_server.api.names import (
    experiment_name,
    judge_name,
    parse_judge,
    version_name,
)
from sidejudge_server.api.validate import Checker
from sidejudge_server.experiments.definition import ArmDraft, Draft, MetricDraft
from sidejudge_server.experiments.types import (
    CircuitBreaker,
    Direction,
    Experiment,
    MetricKind,
    Mode,
    Role,
    Stage,
    State,
    StoppingRule,
)

__all__ = [
    "STATES",
    "draft_from",
    "experiment_change",
    "experiment_message",
]

MAX_DISPLAY_NAME_CHARS: Final = 128
MAX_DESCRIPTION_CHARS: Final = 2_000
MAX_SALT_CHARS: Final = 64
_MAX_LISTED: Final = 64

K = TypeVar("K")

STATES: Final[Mapping[int, State]] = {
    pb.Experiment.STATE_DRAFT: State.DRAFT,
    pb.Experiment.STATE_RUNNING: State.RUNNING,
    pb.Experiment.STATE_CONCLUDED: State.CONCLUDED,
}
_MODES: Final[Mapping[int, Mode]] = {
    pb.Experiment.MODE_SHADOW: Mode.SHADOW,
    pb.Experiment.MODE_SPLIT: Mode.SPLIT,
    pb.Experiment.MODE_ROLLOUT: Mode.ROLLOUT,
}
_ROLES: Final[Mapping[int, Role]] = {
    pb.ExperimentMetric.ROLE_PRIMARY: Role.PRIMARY,
    pb.ExperimentMetric.ROLE_GUARDRAIL: Role.GUARDRAIL,
    pb.ExperimentMetric.ROLE_EXPLORATORY: Role.EXPLORATORY,
}
_KINDS: Final[Mapping[int, MetricKind]] = {
    pb.ExperimentMetric.KIND_BINARY: MetricKind.BINARY,
    pb.ExperimentMetric.KIND_SCORE: MetricKind.SCORE,
    pb.ExperimentMetric.KIND_POSITIVE: MetricKind.POSITIVE,
}
_DIRECTIONS: Final[Mapping[int, Direction]] = {
    pb.ExperimentMetric.DIRECTION_HIGHER: Direction.HIGHER,
    pb.ExperimentMetric.DIRECTION_LOWER: Direction.LOWER,
}
_DISPLAY: Final = ("display_name", "description", "labels")
_DEFINING: Final = (
    "mode",
    "arms",
    "namespace",
    "traffic_share",
    "metrics",
    "stopping_rule",
    "rollout",
    "shadow_share",
    "act_on_decision",
    "salt",
)


def draft_from(checker: Checker, message: pb.Experiment) -> Draft:
    """Read an experiment as it is asked for; what its fields mean together is the domain's to check."""
    judge_id = checker.judge("judge", message.judge, required=False)
    checker.count("arms", len(message.arms), low=0, high=_MAX_LISTED)
    checker.count("metrics", len(message.metrics), low=0, high=_MAX_LISTED)
    mode = checker.enum("mode", message.mode, pb.Experiment.Mode.DESCRIPTOR)
    rollout = message.rollout
    breaker = None
    if rollout.HasField("circuit_breaker"):
        given, default = rollout.circuit_breaker, CircuitBreaker()
        breaker = CircuitBreaker(
            _set(given, "failures", default.failures),
            _set(given, "window", default.window),
        )
    return Draft(
        judge_id=judge_id,
        mode=_MODES.get(mode),
        arms=[
            _arm(checker.within(f"arms[{index}]."), arm, judge_id)
            for index, arm in enumerate(message.arms[:_MAX_LISTED])
        ],
        metrics=[
            _metric(checker.within(f"metrics[{index}]."), metric)
            for index, metric in enumerate(message.metrics[:_MAX_LISTED])
        ],
        namespace=message.namespace,
        salt=checker.text("salt", message.salt, limit=MAX_SALT_CHARS),
        display_name=checker.text(
            "display_name", message.display_name, limit=MAX_DISPLAY_NAME_CHARS
        ),
        description=checker.text(
            "description", message.description, limit=MAX_DESCRIPTION_CHARS
        ),
        traffic_share=_set(message, "traffic_share", None),
        shadow_share=_set(message, "shadow_share", None),
        rule=_rule(message.stopping_rule),
        stages=[
            Stage(
                stage.share,
                stage.min_units,
                _set(stage, "margin", _default_margin(message, index)),
            )
            for index, stage in enumerate(rollout.stages[:_MAX_LISTED])
        ],
        max_failure_ratio=_set(rollout, "max_failure_ratio", 1.0),
        circuit_breaker=breaker,
        rollout_given=message.HasField("rollout"),
        act_on_decision=message.act_on_decision,
        labels=checker.labels("labels", message.labels),
    )


def experiment_change(
    checker: Checker, message: pb.Experiment, mask: FieldMask
) -> Callable[[Experiment], Experiment | Draft]:
    """Read what is to change in an experiment.

    Raises:
        InvalidRequestError: Fields are wrong; all violations at once.
    """
    paths = list(mask.paths)
    if not paths:
        checker.add("update_mask", "is required; it says what changes")
    known = (*_DISPLAY, *_DEFINING)
    for path in paths:
        if path not in known:
            checker.add(
                "update_mask", f"{path!r} cannot change; any of {', '.join(known)} can"
            )
    at = checker.within("experiment.")
    wanted = draft_from(at, message)
    checker.raise_if_any()

    def change(experiment: Experiment) -> Experiment | Draft:
        if not set(paths) - set(_DISPLAY):
            return replace(
                experiment,
                **{path: getattr(wanted, path) for path in paths},
            )
        now = experiment_message(experiment)
        merged = pb.Experiment()
        merged.CopyFrom(now)
        for path in paths:
            merged.ClearField(path)  # type: ignore[arg-type] # one of the names above
        partial = pb.Experiment()
        mask.MergeMessage(message, partial)
        merged.MergeFrom(partial)
        if "mode" in paths:
            _drop_what_mode_forbids(merged, paths)
        inner = Checker(checker.max_text_chars, prefix="experiment.")
        draft = draft_from(inner, merged)
        inner.raise_if_any()
        return draft

    return change


def _drop_what_mode_forbids(merged: pb.Experiment, paths: list[str]) -> None:
    """Forget defaults of the mode before that the new one does not know, unless they are given."""
    if merged.mode != pb.Experiment.MODE_ROLLOUT and "rollout" not in paths:
        merged.ClearField("rollout")
    if merged.mode != pb.Experiment.MODE_SHADOW and "shadow_share" not in paths:
        merged.ClearField("shadow_share")
    if merged.mode != pb.Experiment.MODE_SPLIT and "arms" not in paths:
        for arm in merged.arms:
            arm.ClearField("weight")


def experiment_message(experiment: Experiment) -> pb.Experiment:
    """Return an experiment as message."""
    judge_id = experiment.judge_id
    rule = experiment.rule
    message = pb.Experiment(
        name=experiment_name(experiment.experiment_id),
        display_name=experiment.display_name,
        description=experiment.description,
        judge=judge_name(judge_id) if judge_id else "",
        mode=_number(_MODES, experiment.mode),
        namespace=experiment.namespace,
        traffic_share=experiment.traffic_share,
        metrics=[
            pb.ExperimentMetric(
                metric=metric.metric_id,
                role=_number(_ROLES, metric.role),
                kind=_number(_KINDS, metric.kind),
                direction=_number(_DIRECTIONS, metric.direction),
                margin=metric.margin if metric.role is Role.GUARDRAIL else None,
            )
            for metric in experiment.metrics
        ],
        stopping_rule=pb.StoppingRule(
            alpha=rule.alpha,
            min_improvement=rule.min_improvement,
            max_units=rule.max_units,
            min_units=rule.min_units,
        ),
        act_on_decision=experiment.act_on_decision,
        labels=experiment.labels,
        salt=experiment.salt,
        state=_number(STATES, experiment.state),
        etag=experiment.etag,
        create_time=timestamp(experiment.created_at),
        update_time=timestamp(experiment.updated_at),
        start_time=timestamp(experiment.started_at),
        end_time=timestamp(experiment.ended_at),
    )
    if rule.max_duration_s is not None:
        message.stopping_rule.max_duration.FromTimedelta(
            timedelta(seconds=rule.max_duration_s)
        )
    for arm in experiment.arms:
        message.arms.add(
            arm=arm.arm_id,
            judge_version=version_name(judge_id, arm.version)
            if judge_id and arm.version
            else "",
            weight=arm.weight if experiment.mode is Mode.SPLIT else None,
            description=arm.description,
        )
    if experiment.mode is Mode.SHADOW:
        message.shadow_share = experiment.shadow_share
    if experiment.mode is Mode.ROLLOUT:
        _add_rollout(message, experiment)
    if experiment.conclusion is not None:
        _add_conclusion(message, experiment.conclusion)
    return message


def _add_rollout(message: pb.Experiment, experiment: Experiment) -> None:
    plan = experiment.rollout
    message.rollout.CopyFrom(
        pb.RolloutPlan(
            stages=[
                pb.RolloutStage(
                    share=stage.share, min_units=stage.min_units, margin=stage.margin
                )
                for stage in plan.stages
            ],
            max_failure_ratio=plan.max_failure_ratio,
            circuit_breaker=pb.CircuitBreaker(
                failures=plan.circuit_breaker.failures,
                window=plan.circuit_breaker.window,
            ),
        )
    )
    if experiment.state is not State.DRAFT:
        message.rollout_status.CopyFrom(rollout_status_message(experiment))


def _add_conclusion(message: pb.Experiment, document: Mapping[str, Any]) -> None:
    message.conclusion.CopyFrom(
        pb.ExperimentConclusion(
            decision=decision_value(document["decision"]),
            winner=document["winner"],
            deployed=document["deployed"],
            author=document["author"],
            reason=document["reason"],
        )
    )
    if document["analysis"] is not None:
        message.conclusion.analysis.CopyFrom(analysis_message(document["analysis"]))


def _arm(checker: Checker, message: pb.ExperimentArm, judge_id: str | None) -> ArmDraft:
    version = checker.version("judge_version", message.judge_version, required=False)
    if version is not None and version.judge_id != judge_id:
        of = (
            judge_name(judge_id) if judge_id else "the experiment's judge (none is set)"
        )
        checker.add("judge_version", f"is not a version of {of}")
        version = None
    return ArmDraft(
        message.arm,
        version.version if version else None,
        _set(message, "weight", None),
        checker.text("description", message.description, limit=MAX_DESCRIPTION_CHARS),
    )


def _metric(checker: Checker, message: pb.ExperimentMetric) -> MetricDraft:
    enums = pb.ExperimentMetric
    role = checker.enum("role", message.role, enums.Role.DESCRIPTOR)
    kind = checker.enum("kind", message.kind, enums.Kind.DESCRIPTOR)
    direction = checker.enum("direction", message.direction, enums.Direction.DESCRIPTOR)
    return MetricDraft(
        message.metric,
        _ROLES.get(role, Role.EXPLORATORY),
        _KINDS.get(kind),
        _DIRECTIONS.get(direction),
        _set(message, "margin", None),
    )


def _rule(message: pb.StoppingRule) -> StoppingRule:
    default = StoppingRule()
    duration = None
    if message.HasField("max_duration"):
        duration = message.max_duration.seconds + message.max_duration.nanos / 1e9
    return StoppingRule(
        alpha=_set(message, "alpha", default.alpha),
        min_improvement=_set(message, "min_improvement", default.min_improvement),
        max_units=_set(message, "max_units", None),
        max_duration_s=duration,
        min_units=_set(message, "min_units", default.min_units),
    )


def _default_margin(message: pb.Experiment, index: int) -> float | None:
    """Return the margin of a stage that has none: early stages of the caller's arms have none."""
    last = index == len(message.rollout.stages) - 1
    named = not parse_judge(message.judge)
    return None if named and not last else Stage(0.5, 1).margin


def _set(message: Any, field: str, default: Any) -> Any:  # noqa: ANN401 - any optional field
    return getattr(message, field) if message.HasField(field) else default


def _number(values: Mapping[int, K], wanted: K) -> Any:  # noqa: ANN401 - the enum type of the field
    return next(number for number, value in values.items() if value == wanted)
