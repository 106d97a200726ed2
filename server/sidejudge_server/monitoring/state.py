"""What a monitor is set to and what it knows, and how both are kept as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any

from sidejudge_server.errors import FieldViolation, InvalidRequestError
from sidejudge_server.judges.types import JudgeKind
from sidejudge_server.stats.drift import DriftDetector, DriftState

__all__ = [
    "LEARNING_LABELS",
    "EventKind",
    "MonitorSettings",
    "MonitorState",
    "Phase",
    "checked",
]

LEARNING_LABELS = 50
"""Audit labels of a version from which its normal agreement is learned."""

_EVIDENCE, _EVIDENCE_OF_SAFETY = 20.0, 100.0
_MOST_EVIDENCE = 1e6


class Phase(StrEnum):
    """What a monitor does."""

    LEARNING = "learning"
    WATCHING = "watching"
    ALARM = "alarm"
    INPUT_DRIFT = "input_drift"


class EventKind(StrEnum):
    """What a monitor did."""

    STARTED = "started"
    LEARNED = "learned"
    ALARM = "alarm"
    ROLLED_BACK = "rolled_back"
    PREVIOUS_BETTER = "previous_better"
    INPUT_DRIFT = "input_drift"


@dataclass(frozen=True, slots=True)
class MonitorSettings:
    """How a judge is watched; None stands for what is learned, or what fits the kind of judge."""

    audit_share: float = 0.1
    min_agreement: float | None = None
    tolerance: float = 0.05
    auto_rollback: bool = True
    rollback_evidence: float | None = None

    def evidence(self, kind: JudgeKind) -> float:
        """Return the e-value that a rollback takes."""
        if self.rollback_evidence is not None:
            return self.rollback_evidence
        return _EVIDENCE_OF_SAFETY if kind is JudgeKind.SAFETY else _EVIDENCE

    def to_json(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        return asdict(self)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> MonitorSettings:
        """Return what `to_json` was made of."""
        return cls(**document)


def checked(settings: MonitorSettings) -> MonitorSettings:
    """Return settings that are in range.

    Raises:
        InvalidRequestError: Some are not; all violations at once.
    """
    wrong = []

    def require(field: str, holds: bool, description: str) -> None:
        if not holds:
            wrong.append(FieldViolation(f"monitor.{field}", description))

    require(
        "audit_share", 0 <= settings.audit_share <= 1, "must be a number from 0 to 1"
    )
    low = settings.min_agreement
    require(
        "min_agreement",
        low is None or 0 < low < 1,
        "must be above 0 and below 1",
    )
    require(
        "tolerance",
        0 <= settings.tolerance <= 0.5,  # noqa: PLR2004 - the range of the contract
        "must be a number from 0 to 0.5",
    )
    bar = settings.rollback_evidence
    require(
        "rollback_evidence",
        bar is None or 1 <= bar <= _MOST_EVIDENCE,
        "must be a number from 1 to 1,000,000",
    )
    if wrong:
        raise InvalidRequestError(wrong)
    return settings


@dataclass(frozen=True, slots=True)
class MonitorState:
    """What is known of a version.

    Attributes:
        version: The one that is watched.
        after: Feedback up to this id has been counted.
        labels: Audit labels that were counted.
        agreement_sum: Sum of their agreement.
        p0: Agreement below which to alarm; None while it learns.
        detector: State of the drift detector; None while it learns.
        phase: What the monitor does.
        previous_version: Compared after an alarm; None before, or if there is none.
        wins: Items on which only the previous version was right, or nearer.
        losses: Items on which only the watched version was.
        ties: Items on which both were equally good.
        reason: In words, what happened and what to do.
    """

    version: int
    after: str
    labels: int = 0
    agreement_sum: float = 0.0
    p0: float | None = None
    detector: DriftState | None = None
    phase: Phase = Phase.LEARNING
    previous_version: int | None = None
    wins: int = 0
    losses: int = 0
    ties: int = 0
    reason: str = ""

    def counted(self, feedback_id: str, agreement: float) -> MonitorState:
        """Return the state after one more label."""
        return replace(
            self,
            after=feedback_id,
            labels=self.labels + 1,
            agreement_sum=self.agreement_sum + agreement,
        )

    def watched(self, agreement: float) -> MonitorState:
        """Return the state after the detector has seen a label."""
        if self.p0 is None:
            raise AssertionError("it learns what is normal first")
        detector = DriftDetector(self.p0)
        seen = detector.update(self.detector or detector.start(), agreement)
        return replace(self, detector=seen)

    @property
    def alarms(self) -> bool:
        """Whether the detector alarms."""
        if self.p0 is None or self.detector is None:
            return False
        return DriftDetector(self.p0).alarms(self.detector)

    def to_json(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        return asdict(self)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> MonitorState:
        """Return what `to_json` was made of."""
        detector = document["detector"]
        return cls(
            **{
                **document,
                "phase": Phase(document["phase"]),
                "detector": None
                if detector is None
                else DriftState(detector["labels"], tuple(detector["sums"])),
            }
        )
