"""What an analysis says: the message of the contract as plain values."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from sidejudge_server.experiments.status import Decision
from sidejudge_server.experiments.types import Role
from sidejudge_server.stats.outcome import Interval

__all__ = [
    "ArmReport",
    "Comparison",
    "Estimate",
    "GuardrailStatus",
    "Report",
    "RolloutReport",
    "SampleRatio",
]


class GuardrailStatus(StrEnum):
    """Whether a guardrail holds."""

    UNSPECIFIED = "unspecified"
    OK = "ok"
    VIOLATED = "violated"


@dataclass(frozen=True, slots=True)
class Estimate:
    """An estimated mean, or why there is none."""

    labels: int
    method: str
    judgments: int = 0
    estimate: float | None = None
    interval: Interval | None = None
    cannot_say: str = ""


@dataclass(frozen=True, slots=True)
class ArmReport:
    """What is known of one arm."""

    arm: str
    judge_version: str
    units: int
    evaluations: int
    labelled_units: int
    failures: int
    labels_only: Estimate
    judge_corrected: Estimate | None = None
    latency_ms_p50: float | None = None
    mean_cost_usd: float | None = None


@dataclass(frozen=True, slots=True)
class Comparison:
    """A candidate against the baseline in one metric; see `MetricComparison` of the contract.

    Attributes:
        log_e: ln of the e-value that is shown: better (primary), worse than the margin (guardrail)
            or different (exploratory); None if there is none.
        log_e_worse: Of the primary: that the candidate is worse.
    """

    metric: str
    role: Role
    arm: str
    method: str
    units: int = 0
    baseline_units: int = 0
    paired: bool = False
    wins: int = 0
    losses: int = 0
    ties: int = 0
    baseline_mean: float | None = None
    candidate_mean: float | None = None
    effect: float | None = None
    fixed_interval: Interval | None = None
    always_valid_interval: Interval | None = None
    log_e: float | None = None
    log_e_worse: float | None = None
    anytime_p: float | None = None
    adjusted_p: float | None = None
    asymptotic: bool = False
    status: GuardrailStatus = GuardrailStatus.UNSPECIFIED
    cannot_say: str = ""


@dataclass(frozen=True, slots=True)
class SampleRatio:
    """Whether the arms got the units that they should have got."""

    observed: Mapping[str, int]
    expected: Mapping[str, float]
    log_e: float
    alarm: bool


@dataclass(frozen=True, slots=True)
class RolloutReport:
    """Where a rollout is."""

    stage: int
    share: float
    stage_units: int
    stage_start_time: datetime | None
    harm_log_e: float
    waiting_for: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """What is known of an experiment."""

    experiment: str
    create_time: datetime
    decision: Decision
    reason: str
    arms: tuple[ArmReport, ...]
    comparisons: tuple[Comparison, ...]
    decision_time: datetime | None = None
    winner: str = ""
    sample_ratio: SampleRatio | None = None
    expected_units_to_decision: int | None = None
    rollout: RolloutReport | None = None
    warnings: tuple[str, ...] = ()
    largest: Mapping[str, float] = field(default_factory=dict)
    """ln of the largest e-values so far, by what they are about; not part of the message."""

    @property
    def labelled_units(self) -> int:
        """Units of the primary metric over all arms, pairs counting once."""
        return max(
            (c.units for c in self.comparisons if c.role is Role.PRIMARY), default=0
        )

    def to_json(self) -> dict[str, Any]:
        """Return the message's fields by name, without those that are not set."""
        document: dict[str, Any] = _without_none(asdict(self))
        del document["largest"]
        for comparison in document["comparisons"]:
            _show_e_value(comparison, "log_e", "e_value")
            comparison.pop("log_e_worse", None)
        if self.sample_ratio is not None:
            _show_e_value(document["sample_ratio"], "log_e", "e_value")
        if self.rollout is not None:
            _show_e_value(document["rollout"], "harm_log_e", "harm_e_value")
        return document


_LARGEST_LOG = 690.0
"""A float ends at e^709; larger e-values are shown as this one."""


def _show_e_value(document: dict[str, Any], log_name: str, name: str) -> None:
    log_e = document.pop(log_name, None)
    if log_e is not None:
        document[name] = math.exp(min(log_e, _LARGEST_LOG))


def _without_none(value: Any) -> Any:  # noqa: ANN401 - any part of the report
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, Mapping):
        return {k: _without_none(v) for k, v in value.items() if v is not None}
    if isinstance(value, list | tuple):
        return [_without_none(v) for v in value]
    return value
