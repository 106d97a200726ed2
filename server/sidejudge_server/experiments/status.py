"""What changes while an experiment runs, and how it is kept as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

__all__ = ["Decision", "Status"]


class Decision(StrEnum):
    """What an experiment says."""

    RUNNING = "running"
    SHIP = "ship"
    REJECT = "reject"
    FUTILE = "futile"
    GUARDRAIL = "guardrail"
    INVALID = "invalid"


@dataclass(frozen=True, slots=True)
class Status:
    """Where a running experiment is.

    Attributes:
        stage: Of a rollout, from 0; the number of stages once the candidate serves all.
        stage_started_at: When it began.
        largest: ln of the largest e-value seen, by what it is about; decisions and anytime p-values
            are made of these, so that what was shown once stays shown.
        decision: RUNNING until a final one was made, which then stays.
        winner: The arm that is shipped, else "".
        reason: Why, for people.
        decided_at: When.
        circuit_open: A rollout's candidate gets no calls because they failed.
    """

    stage: int = 0
    stage_started_at: datetime | None = None
    largest: Mapping[str, float] = field(default_factory=dict)
    decision: Decision = Decision.RUNNING
    winner: str = ""
    reason: str = ""
    decided_at: datetime | None = None
    circuit_open: bool = False

    @property
    def decided(self) -> bool:
        """Whether a final decision was made."""
        return self.decision is not Decision.RUNNING

    def to_json(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        return {
            "stage": self.stage,
            "stage_started_at": _text(self.stage_started_at),
            "largest": dict(self.largest),
            "decision": self.decision.value,
            "winner": self.winner,
            "reason": self.reason,
            "decided_at": _text(self.decided_at),
            "circuit_open": self.circuit_open,
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Status:
        """Return what `to_json` was made of; an empty object is the status before the start."""
        if not document:
            return cls()
        return cls(
            stage=document["stage"],
            stage_started_at=_moment(document["stage_started_at"]),
            largest=dict(document["largest"]),
            decision=Decision(document["decision"]),
            winner=document["winner"],
            reason=document["reason"],
            decided_at=_moment(document["decided_at"]),
            circuit_open=document["circuit_open"],
        )


def _text(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()


def _moment(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
