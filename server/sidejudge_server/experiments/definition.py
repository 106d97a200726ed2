"""From what a caller asks for to an experiment: defaults, and everything that is wrong at once."""

from __future__ import annotations

import math
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Final

from sidejudge_server.errors import FieldViolation, InvalidRequestError
from sidejudge_server.experiments.types import (
    AGREEMENT,
    BUILT_IN_METRICS,
    COST,
    DEFAULT_STAGES,
    ERROR_RATE,
    FALSE_POSITIVE_RATE,
    LATENCY,
    QUALITY,
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
from sidejudge_server.judges.registry import JudgeRegistry

__all__ = ["ArmDraft", "Draft", "MetricDraft", "define", "redefine"]

BASELINE_ARM: Final = "baseline"
_MIN_ARMS, _MAX_ARMS = 2, 8
_MAX_METRICS = 16
_MAX_STAGES = 16
_SUM_TOLERANCE = 1e-9
_DEFAULT_MARGIN, _DEFAULT_POSITIVE_MARGIN = 0.05, 0.5
_ARM_ID = re.compile(r"[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)
_METRIC_ID = re.compile(r"[a-z][a-z0-9_]{0,62}", re.ASCII)
_NAMESPACE = re.compile(r"[A-Za-z0-9._/-]{1,128}", re.ASCII)

_BUILT_IN: Final[Mapping[str, tuple[MetricKind, Direction]]] = {
    AGREEMENT: (MetricKind.SCORE, Direction.HIGHER),
    QUALITY: (MetricKind.SCORE, Direction.HIGHER),
    FALSE_POSITIVE_RATE: (MetricKind.BINARY, Direction.LOWER),
    ERROR_RATE: (MetricKind.BINARY, Direction.LOWER),
    LATENCY: (MetricKind.POSITIVE, Direction.LOWER),
    COST: (MetricKind.POSITIVE, Direction.LOWER),
}
_OF_JUDGES: Final = (LATENCY, COST, ERROR_RATE, FALSE_POSITIVE_RATE)


@dataclass(frozen=True, slots=True)
class ArmDraft:
    """An arm as it was asked for; None is unset."""

    arm_id: str
    version: int | None = None
    weight: float | None = None
    description: str = ""


@dataclass(frozen=True, slots=True)
class MetricDraft:
    """A metric as it was asked for; None is unset."""

    metric_id: str
    role: Role = Role.EXPLORATORY
    kind: MetricKind | None = None
    direction: Direction | None = None
    margin: float | None = None


@dataclass(frozen=True, slots=True)
class Draft:
    """An experiment as it was asked for; None is unset."""

    judge_id: str | None = None
    mode: Mode | None = None
    arms: Sequence[ArmDraft] = ()
    metrics: Sequence[MetricDraft] = ()
    namespace: str = ""
    salt: str = ""
    display_name: str = ""
    description: str = ""
    traffic_share: float | None = None
    shadow_share: float | None = None
    rule: StoppingRule = field(default_factory=StoppingRule)
    stages: Sequence[Stage] = ()
    max_failure_ratio: float = 1.0
    circuit_breaker: CircuitBreaker | None = None
    rollout_given: bool = False
    act_on_decision: bool = False
    labels: Mapping[str, str] = field(default_factory=dict)


def define(experiment_id: str, draft: Draft, judges: JudgeRegistry) -> Experiment:
    """Return the experiment that a draft asks for, with its defaults.

    Raises:
        InvalidRequestError: With all violations.
        NotFoundError: There is no such judge or version.
    """
    now = datetime.now(UTC)
    return _Definition(draft, judges).experiment(
        Experiment(
            experiment_id=experiment_id,
            judge_id=draft.judge_id,
            mode=Mode.SPLIT,
            arms=(),
            metrics=(),
            namespace=draft.namespace,
            salt=draft.salt or secrets.token_hex(8),
            state=State.DRAFT,
            created_at=now,
            updated_at=now,
        )
    )


def redefine(before: Experiment, draft: Draft, judges: JudgeRegistry) -> Experiment:
    """Return a draft experiment with everything that may change taken from a draft; see `define`."""
    kept = replace(before, salt=draft.salt or before.salt)
    return _Definition(replace(draft, judge_id=before.judge_id), judges).experiment(
        kept
    )


class _Definition:
    """Checks one draft."""

    def __init__(self, draft: Draft, judges: JudgeRegistry) -> None:
        self._draft = draft
        self._judges = judges
        self._violations: list[FieldViolation] = []
        default = Mode.SPLIT if draft.judge_id is None else Mode.SHADOW
        self._mode = draft.mode or default

    def experiment(self, bare: Experiment) -> Experiment:
        draft = self._draft
        self._check_rule(draft.rule)
        complete = replace(
            bare,
            mode=self._mode,
            arms=self._arms(),
            metrics=self._metrics(),
            namespace=self._namespace(bare.experiment_id),
            display_name=draft.display_name,
            description=draft.description,
            traffic_share=self._share(
                "traffic_share", draft.traffic_share, positive=True
            ),
            shadow_share=self._shadow_share(),
            rule=draft.rule,
            rollout=self._rollout(),
            act_on_decision=draft.act_on_decision or self._mode is Mode.ROLLOUT,
            labels=dict(draft.labels),
        )
        if self._violations:
            raise InvalidRequestError(self._violations)
        return complete

    def _wrong(self, path: str, description: str) -> None:
        self._violations.append(FieldViolation(f"experiment.{path}", description))

    def _arms(self) -> tuple[Arm, ...]:
        drafts = list(self._draft.arms)
        judge_id = self._draft.judge_id
        if judge_id is not None:
            judge = self._judges.get(judge_id)
            deployed = judge.deployed_version
            if all(arm.version != deployed for arm in drafts):
                drafts.insert(0, ArmDraft(BASELINE_ARM, deployed))
        if not _MIN_ARMS <= len(drafts) <= _MAX_ARMS:
            self._wrong(
                "arms", f"must be {_MIN_ARMS} to {_MAX_ARMS}, not {len(drafts)}"
            )
        if self._mode is Mode.ROLLOUT and len(drafts) != _MIN_ARMS:
            self._wrong("arms", "a rollout has exactly two: baseline and candidate")
        weights = self._weights(drafts)
        arms: list[Arm] = []
        for index, (arm, weight) in enumerate(zip(drafts, weights, strict=True)):
            self._check_arm(f"arms[{index}]", arm, arms)
            arms.append(Arm(arm.arm_id, arm.version, weight, arm.description))
        return tuple(arms)

    def _check_arm(self, path: str, arm: ArmDraft, before: Sequence[Arm]) -> None:
        if not _ARM_ID.fullmatch(arm.arm_id):
            self._wrong(
                f"{path}.arm",
                "must be 1 to 63 lowercase letters, digits or hyphens and start with a letter",
            )
        if any(other.arm_id == arm.arm_id for other in before):
            self._wrong(f"{path}.arm", f"{arm.arm_id!r} is there twice")
        judge_id = self._draft.judge_id
        if judge_id is None:
            if arm.version is not None:
                self._wrong(
                    f"{path}.judge_version", "needs the judge of the experiment"
                )
            return
        if arm.version is None:
            self._wrong(f"{path}.judge_version", "is required: the arms are versions")
            return
        self._judges.get_version(judge_id, arm.version)
        if any(other.version == arm.version for other in before):
            self._wrong(
                f"{path}.judge_version", f"version {arm.version} is there twice"
            )

    def _weights(self, arms: Sequence[ArmDraft]) -> list[float]:
        given = [arm.weight for arm in arms]
        if all(weight is None for weight in given):
            return [1.0 / max(1, len(arms))] * len(arms)
        if self._mode is not Mode.SPLIT:
            self._wrong(
                "arms", f"a weight means nothing in mode {self._mode.value}: leave it"
            )
            return [0.0] * len(arms)
        weights = [math.nan if weight is None else weight for weight in given]
        if not all(math.isfinite(w) and 0 < w < 1 for w in weights):
            self._wrong("arms", "each weight must be above 0 and below 1, or none set")
        elif abs(math.fsum(weights) - 1) > _SUM_TOLERANCE:
            self._wrong(
                "arms", f"the weights add up to {math.fsum(weights):.6g}, not to 1"
            )
        return weights

    def _metrics(self) -> tuple[Metric, ...]:
        drafts = self._draft.metrics or self._default_metrics()
        if len(drafts) > _MAX_METRICS:
            self._wrong("metrics", f"are {len(drafts)}; at most {_MAX_METRICS}")
        primaries = sum(metric.role is Role.PRIMARY for metric in drafts)
        if primaries != 1:
            self._wrong("metrics", f"need exactly one primary, not {primaries}")
        metrics: list[Metric] = []
        for index, draft in enumerate(drafts):
            metric = self._metric(f"metrics[{index}]", draft)
            if any(other.metric_id == metric.metric_id for other in metrics):
                self._wrong(
                    f"metrics[{index}].metric", f"{metric.metric_id!r} is there twice"
                )
            metrics.append(metric)
        return tuple(metrics)

    def _default_metrics(self) -> list[MetricDraft]:
        if self._draft.judge_id is None:
            return [MetricDraft(QUALITY, Role.PRIMARY)]
        return [
            MetricDraft(AGREEMENT, Role.PRIMARY),
            *(MetricDraft(metric, Role.GUARDRAIL) for metric in _OF_JUDGES),
        ]

    def _metric(self, path: str, draft: MetricDraft) -> Metric:
        if not _METRIC_ID.fullmatch(draft.metric_id):
            self._wrong(
                f"{path}.metric",
                "must be 1 to 63 lowercase letters, digits or underscores and start with a letter",
            )
        kind, direction = draft.kind, draft.direction
        if draft.metric_id in BUILT_IN_METRICS:
            kind, direction = self._built_in(path, draft)
        elif kind is None:
            self._wrong(f"{path}.kind", "is required for a metric of your own")
        if draft.role is Role.PRIMARY and draft.metric_id in _OF_JUDGES:
            self._wrong(
                f"{path}.role", f"{draft.metric_id} can't be the primary metric"
            )
        kind = kind or MetricKind.SCORE
        return Metric(
            draft.metric_id,
            draft.role,
            kind,
            direction or Direction.HIGHER,
            self._margin(path, draft, kind),
        )

    def _built_in(self, path: str, draft: MetricDraft) -> tuple[MetricKind, Direction]:
        kind, direction = _BUILT_IN[draft.metric_id]
        if draft.kind not in (None, kind):
            self._wrong(f"{path}.kind", f"of {draft.metric_id} is {kind.value}")
        if draft.direction not in (None, direction):
            self._wrong(
                f"{path}.direction", f"of {draft.metric_id} is {direction.value}"
            )
        with_judge = self._draft.judge_id is not None
        if with_judge == (draft.metric_id == QUALITY):
            needs = "no judge" if with_judge else "a judge"
            self._wrong(
                f"{path}.metric",
                f"{draft.metric_id} is a metric of experiments with {needs}",
            )
        return kind, direction

    def _margin(self, path: str, draft: MetricDraft, kind: MetricKind) -> float:
        positive = kind is MetricKind.POSITIVE
        if draft.margin is None:
            return _DEFAULT_POSITIVE_MARGIN if positive else _DEFAULT_MARGIN
        high = math.inf if positive else 1.0
        if not (math.isfinite(draft.margin) and 0 <= draft.margin < high):
            limit = "" if positive else " and below 1"
            self._wrong(f"{path}.margin", f"must be a number of at least 0{limit}")
        return draft.margin

    def _namespace(self, experiment_id: str) -> str:
        given = self._draft.namespace
        if given and not _NAMESPACE.fullmatch(given):
            self._wrong(
                "namespace",
                "must be 1 to 128 letters, digits, dots, underscores, slashes or hyphens",
            )
        if given:
            return given
        judge_id = self._draft.judge_id
        return (
            f"experiments/{experiment_id}" if judge_id is None else f"judges/{judge_id}"
        )

    def _share(self, path: str, value: float | None, *, positive: bool) -> float:
        if value is None:
            return 1.0
        if not (0 <= value <= 1) or (positive and value == 0):
            low = "above 0" if positive else "at least 0"
            self._wrong(path, f"must be a number {low} and at most 1, not {value}")
        return value

    def _shadow_share(self) -> float:
        value = self._draft.shadow_share
        if value is not None and self._mode is not Mode.SHADOW:
            self._wrong("shadow_share", "means something only in MODE_SHADOW")
        return self._share("shadow_share", value, positive=False)

    def _check_rule(self, rule: StoppingRule) -> None:
        low, high = 0.0, 0.2
        if not low < rule.alpha <= high:
            self._wrong(
                "stopping_rule.alpha",
                f"must be above 0 and at most {high}, not {rule.alpha}",
            )
        if not 0 <= rule.min_improvement <= 1:
            self._wrong("stopping_rule.min_improvement", "must be a number from 0 to 1")
        if rule.min_units < 1:
            self._wrong("stopping_rule.min_units", "must be at least 1")
        if rule.max_units is not None and rule.max_units < rule.min_units:
            self._wrong(
                "stopping_rule.max_units",
                f"must be at least min_units ({rule.min_units})",
            )
        if rule.max_duration_s is not None and not rule.max_duration_s > 0:
            self._wrong("stopping_rule.max_duration", "must be above 0")

    def _rollout(self) -> RolloutPlan:
        draft = self._draft
        if draft.rollout_given and self._mode is not Mode.ROLLOUT:
            self._wrong("rollout", "means something only in MODE_ROLLOUT")
        if not 1 <= draft.max_failure_ratio <= 2:  # noqa: PLR2004 - the range of the contract
            self._wrong("rollout.max_failure_ratio", "must be a number from 1 to 2")
        breaker = draft.circuit_breaker or CircuitBreaker()
        if not 1 <= breaker.failures <= breaker.window <= 10_000:  # noqa: PLR2004 - the range of the contract
            self._wrong(
                "rollout.circuit_breaker",
                "needs 1 <= failures <= window <= 10,000",
            )
        return RolloutPlan(self._stages(), draft.max_failure_ratio, breaker)

    def _stages(self) -> tuple[Stage, ...]:
        if not self._draft.stages:
            return self._default_stages()
        stages = tuple(self._draft.stages)
        if len(stages) > _MAX_STAGES:
            self._wrong("rollout.stages", f"are {len(stages)}; at most {_MAX_STAGES}")
        before = 0.0
        for index, stage in enumerate(stages):
            path = f"rollout.stages[{index}]"
            if not before < stage.share < 1:
                self._wrong(
                    f"{path}.share",
                    f"must be above that of the stage before ({before:g}) and below 1,"
                    f" not {stage.share:g}",
                )
            if stage.min_units < 1:
                self._wrong(f"{path}.min_units", "must be at least 1")
            if stage.margin is not None and not 0 <= stage.margin <= 1:
                self._wrong(f"{path}.margin", "must be a number from 0 to 1")
            before = max(before, stage.share)
        return stages

    def _default_stages(self) -> tuple[Stage, ...]:
        if self._draft.judge_id is not None:
            return DEFAULT_STAGES
        # Without pairs, small early stages have wide intervals: the harm test guards them.
        *early, last = DEFAULT_STAGES
        return (*(replace(stage, margin=None) for stage in early), last)
