"""What is known of a version's confidence, and what is said of an answer. Cheap to use: no scipy."""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass
from enum import StrEnum

__all__ = [
    "Calibration",
    "Certificate",
    "ConfidenceMap",
    "Decision",
    "Figure",
    "MapKind",
    "Reliability",
    "Risk",
    "Target",
    "VennAbersTable",
]

_EDGE = 1e-12


class MapKind(StrEnum):
    """How a confidence is mapped; all of them are special cases of the beta map."""

    TEMPERATURE = "temperature"
    PLATT = "platt"
    BETA = "beta"


class Decision(StrEnum):
    """Whether an answer meets the target."""

    ACCEPTED = "accepted"
    NEEDS_REVIEW = "needs_review"


@dataclass(frozen=True, slots=True)
class ConfidenceMap:
    """sigmoid(a ln p - b ln(1 - p) + c): temperature has a = b and c = 0, Platt's a = b."""

    kind: MapKind
    a: float
    b: float
    c: float

    def __call__(self, p: float) -> float:
        """Return the mapped probability."""
        q = min(1 - _EDGE, max(_EDGE, p))
        z = self.a * math.log(q) - self.b * math.log1p(-q) + self.c
        # Either form overflows on one side.
        return 1 / (1 + math.exp(-z)) if z >= 0 else math.exp(z) / (1 + math.exp(z))


@dataclass(frozen=True, slots=True)
class VennAbersTable:
    """Venn-Abers probabilities at rising confidences; between two of them the wider ends hold."""

    confidences: tuple[float, ...]
    lows: tuple[float, ...]
    highs: tuple[float, ...]

    def __call__(self, p: float) -> tuple[float, float]:
        """Return the low and the high probability of a confidence."""
        last = len(self.confidences) - 1
        above = min(last, bisect_right(self.confidences, p))
        below = max(0, above - 1) if self.confidences[above] != p else above
        return self.lows[below], self.highs[above]


@dataclass(frozen=True, slots=True)
class Figure:
    """An estimate with its 95 % interval; ``value`` is None where the labels cannot say."""

    value: float | None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class Calibration:
    """A fitted map and how good it is on labels that it was not fitted to (cross-validation).

    ``improvement`` is by how much the Brier score is smaller than that of the raw confidence.
    """

    map: ConfidenceMap
    brier_score: Figure
    raw_brier_score: Figure
    improvement: Figure
    calibration_error: Figure
    auroc: Figure


@dataclass(frozen=True, slots=True)
class Risk:
    """Labelled items of at least a confidence, how many of them were wrong, and the share of all."""

    threshold: float
    accepted: int
    errors: int
    coverage: float


@dataclass(frozen=True, slots=True)
class Reliability:
    """What the audit labels of a version with one model say.

    Attributes:
        labels: How many there are.
        agreed: How many of them agree with the judge.
        calibration: The map; None below 30 labels, or if it cannot be fitted.
        reason: Why there is no calibration, "" if there is one.
        interval: Venn-Abers probabilities; None without labels.
        risks: At thresholds that were fixed without the labels, highest first.
    """

    labels: int
    agreed: int
    calibration: Calibration | None
    reason: str
    interval: VennAbersTable | None
    risks: tuple[Risk, ...]


@dataclass(frozen=True, slots=True)
class Target:
    """Agreement with people that accepted answers are to have, and the assurance of that."""

    agreement: float
    assurance: float


@dataclass(frozen=True, slots=True)
class Certificate:
    """Above which confidence answers meet a target, or why there is no such confidence.

    Attributes:
        target: What was asked for.
        threshold: The least confidence to accept; None if none can be certified.
        coverage: Share of the answers that are accepted, 0 without a threshold.
        labels: Audit labels that it is made of.
        accepted: Of these, accepted ones.
        errors: Of these, wrong ones.
        labels_missing: About how many more audit labels it takes, for 4 chances in 5 of a
            certificate if the judge goes on as it did; None if there is one, or if no number of
            labels would do.
        reason: The same in words.
    """

    target: Target
    threshold: float | None
    coverage: float
    labels: int
    accepted: int
    errors: int
    labels_missing: int | None
    reason: str
