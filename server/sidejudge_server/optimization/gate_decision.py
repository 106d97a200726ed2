"""What the gate says, as plain data."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

__all__ = [
    "ChangedExample",
    "ConfusionCell",
    "Estimate",
    "GateCheck",
    "GateDecision",
    "Outcome",
    "Stage",
]


class Outcome(StrEnum):
    """What the gate says."""

    IMPROVED = "improved"
    NO_IMPROVEMENT = "no_improvement"
    NOT_ENOUGH_EVIDENCE = "not_enough_evidence"
    OVERFIT = "overfit"


class Stage(StrEnum):
    """How far an improved candidate may go."""

    NONE = ""
    SHADOW = "shadow"
    FULL = "full"


@dataclass(frozen=True, slots=True)
class ConfusionCell:
    """How often a label got a verdict; ``verdict`` is "" for unusable answers."""

    label: str
    verdict: str
    count: int


@dataclass(frozen=True, slots=True)
class ChangedExample:
    """A held-out example that two versions answered differently; qualities 0..1."""

    example_id: str
    baseline_quality: float
    candidate_quality: float


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number with its 95 % interval."""

    value: float
    lower: float
    upper: float


@dataclass(frozen=True, slots=True)
class GateCheck:
    """One condition; ``observed`` None if it could not be computed.

    That counts as not passed, but for the gap: it blocks only when it is beyond doubt.
    """

    name: str
    observed: float | None
    threshold: float
    passed: bool
    detail: str


@dataclass(frozen=True, slots=True)
class GateDecision:
    """The decision and all that it rests on.

    Attributes:
        outcome: What came out.
        summary: One sentence for people, two if the examples are used up.
        deployed: True once the candidate serves because of it.
        checks: The conditions.
        metric: ``accuracy`` or ``score_accuracy``.
        pair_count: Held-out examples that both versions judged.
        baseline: Quality of the version that serves.
        candidate: Quality of the candidate.
        difference: Candidate minus baseline.
        p_value: One-sided; None if it cannot be told, such as without discordant pairs.
        wins: Pairs on which only the candidate was right, or it was nearer.
        losses: The reverse.
        additional_examples_needed: Held-out examples that would settle it; 0 if settled.
        use_count: How often these examples have been used, this time included if it counts.
        alpha: The bar of the p-value.
        fresh_labels_needed: New labels without which the next use could not pass; 0 if none.
        stage: How far an improved candidate may go.
        e_value: Evidence that the candidate is better; None without pairs.
        bet_sums: For scores what the evidence is made of, for the candidate and against it.
        baseline_confusion: Of a judge that answers verdicts.
        candidate_confusion: The same of the candidate.
        changed_examples: What the two versions answered differently, the largest changes first.
    """

    outcome: Outcome
    summary: str
    deployed: bool
    checks: tuple[GateCheck, ...]
    metric: str
    pair_count: int
    baseline: Estimate
    candidate: Estimate
    difference: Estimate
    p_value: float | None
    wins: int
    losses: int
    additional_examples_needed: int
    use_count: int
    alpha: float
    fresh_labels_needed: int
    stage: Stage
    e_value: float | None
    bet_sums: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    baseline_confusion: tuple[ConfusionCell, ...] = ()
    candidate_confusion: tuple[ConfusionCell, ...] = ()
    changed_examples: tuple[ChangedExample, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the fields as a JSON object."""
        return asdict(self)
