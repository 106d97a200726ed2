"""What an experiment is: plain values, as the rest of sidejudge sees them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Final

from sidejudge_server.experiments.status import Decision, Status

__all__ = [
    "AGREEMENT",
    "BUILT_IN_METRICS",
    "COST",
    "DEFAULT_STAGES",
    "ERROR_RATE",
    "FALSE_POSITIVE_RATE",
    "LATENCY",
    "QUALITY",
    "Arm",
    "CircuitBreaker",
    "Decision",
    "Direction",
    "Experiment",
    "Metric",
    "MetricKind",
    "Mode",
    "Role",
    "RolloutPlan",
    "Stage",
    "State",
    "StoppingRule",
]

AGREEMENT: Final = "agreement"
QUALITY: Final = "quality"
FALSE_POSITIVE_RATE: Final = "false_positive_rate"
LATENCY: Final = "latency"
COST: Final = "cost"
ERROR_RATE: Final = "error_rate"
BUILT_IN_METRICS: Final = frozenset(
    {AGREEMENT, QUALITY, FALSE_POSITIVE_RATE, LATENCY, COST, ERROR_RATE}
)
"""Metrics that are computed from evaluations and feedback instead of outcomes."""


class State(StrEnum):
    """Where an experiment is."""

    DRAFT = "draft"
    RUNNING = "running"
    CONCLUDED = "concluded"


class Mode(StrEnum):
    """Who answers; see `Experiment.Mode` of the contract."""

    SHADOW = "shadow"
    SPLIT = "split"
    ROLLOUT = "rollout"


class Role(StrEnum):
    """What a metric is for."""

    PRIMARY = "primary"
    GUARDRAIL = "guardrail"
    EXPLORATORY = "exploratory"


class MetricKind(StrEnum):
    """What kind of number a metric is: 0 or 1, 0..1, or above 0."""

    BINARY = "binary"
    SCORE = "score"
    POSITIVE = "positive"


class Direction(StrEnum):
    """Which way a metric is better."""

    HIGHER = "higher"
    LOWER = "lower"


@dataclass(frozen=True, slots=True)
class Arm:
    """One of the things compared. ``version`` is None if the caller names the arms."""

    arm_id: str
    version: int | None = None
    weight: float = 0.0
    description: str = ""


@dataclass(frozen=True, slots=True)
class Metric:
    """Something measured for each unit; ``margin`` is how much worse a guardrail may get."""

    metric_id: str
    role: Role
    kind: MetricKind
    direction: Direction
    margin: float = 0.05


@dataclass(frozen=True, slots=True)
class StoppingRule:
    """When a decision is made; see the contract for units and ranges."""

    alpha: float = 0.05
    min_improvement: float = 0.05
    max_units: int | None = None
    max_duration_s: float | None = None
    min_units: int = 10


@dataclass(frozen=True, slots=True)
class Stage:
    """A stage of a rollout; ``margin`` None sets no condition on the interval."""

    share: float
    min_units: int
    margin: float | None = 0.05


DEFAULT_STAGES: Final = (
    Stage(0.05, 500),
    Stage(0.10, 1000),
    Stage(0.25, 1500),
    Stage(0.50, 2000),
)


@dataclass(frozen=True, slots=True)
class CircuitBreaker:
    """Opens when ``failures`` of the candidate's last ``window`` calls failed."""

    failures: int = 20
    window: int = 50


@dataclass(frozen=True, slots=True)
class RolloutPlan:
    """How a rollout goes."""

    stages: tuple[Stage, ...] = DEFAULT_STAGES
    max_failure_ratio: float = 1.0
    circuit_breaker: CircuitBreaker = field(default_factory=CircuitBreaker)


@dataclass(frozen=True, slots=True)
class Experiment:
    """An experiment as it is stored, decoded.

    ``arms[0]`` is the baseline; weights add up to 1. ``slice_low`` and ``slice_high`` are its part of
    the namespace's subjects, as far as it runs. ``conclusion`` is a JSON object, None before the end.
    """

    experiment_id: str
    judge_id: str | None
    mode: Mode
    arms: tuple[Arm, ...]
    metrics: tuple[Metric, ...]
    namespace: str
    salt: str
    state: State
    created_at: datetime
    updated_at: datetime
    revision: int = 1
    display_name: str = ""
    description: str = ""
    traffic_share: float = 1.0
    shadow_share: float = 1.0
    rule: StoppingRule = field(default_factory=StoppingRule)
    rollout: RolloutPlan = field(default_factory=RolloutPlan)
    act_on_decision: bool = False
    labels: Mapping[str, str] = field(default_factory=dict)
    slice_low: float = 0.0
    slice_high: float = 0.0
    status: Status = field(default_factory=Status)
    conclusion: Mapping[str, object] | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None

    @property
    def name(self) -> str:
        """Resource name."""
        return f"experiments/{self.experiment_id}"

    @property
    def etag(self) -> str:
        """Opaque text that changes with every change."""
        digest = hashlib.sha256(self.experiment_id.encode()).hexdigest()[:8]
        return f"{self.revision:08x}{digest}"

    @property
    def baseline(self) -> Arm:
        """The arm that the others are compared with."""
        return self.arms[0]

    @property
    def candidates(self) -> tuple[Arm, ...]:
        """All arms but the baseline."""
        return self.arms[1:]

    def arm(self, arm_id: str) -> Arm | None:
        """Return an arm by its id, None if there is none."""
        return next((arm for arm in self.arms if arm.arm_id == arm_id), None)
