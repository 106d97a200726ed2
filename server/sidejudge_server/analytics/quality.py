"""Figures of quality from sums, with intervals where they are estimates."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

from sidejudge_server.errors import FieldViolation, InvalidRequestError
from sidejudge_storage import QualityKey, QualityQuery, QualitySums, Storage

__all__ = ["DEFAULT_SPAN", "QualityEstimate", "QualityFigures", "query_quality"]

DEFAULT_SPAN = timedelta(days=30)
_MOST_HOURS = timedelta(days=31)
_LONGEST = timedelta(days=3660)
_MIN_CALIBRATION_LABELS = 50
"""Labels below which a calibration error is mostly noise."""
_Z = 1.959963984540054
"""Of a 95 % interval."""


@dataclass(frozen=True, slots=True)
class QualityEstimate:
    """A mean in 0..1 with its 95 % interval, and the labels that it rests on."""

    estimate: float
    low: float
    high: float
    labels: int


@dataclass(frozen=True, slots=True)
class QualityFigures:
    """Figures of a slice; None where there is nothing to take them from."""

    key: QualityKey
    sums: Mapping[str, float]
    mean_score: float | None
    agreement: QualityEstimate | None
    true_positive_rate: QualityEstimate | None
    true_negative_rate: QualityEstimate | None
    brier_score: float | None
    calibration_error: float | None
    latency_ms: Mapping[float, float]
    cost_usd: float | None


async def query_quality(storage: Storage, query: QualityQuery) -> list[QualityFigures]:
    """Return the figures of each slice that has evaluations, by time and slice.

    Raises:
        InvalidRequestError: The time is empty, or too long for its buckets.
    """
    _check(query)
    found = await storage.quality.query(query)
    return [_figures(key, sums) for key, sums in found.items()]


def _check(query: QualityQuery) -> None:
    span = query.end - query.start
    violations = []
    if span <= timedelta():
        violations.append(FieldViolation("end_time", "must be after start_time"))
    if span > _LONGEST:
        violations.append(FieldViolation("start_time", "at most ten years at once"))
    if query.bucket == "hour" and span > _MOST_HOURS:
        violations.append(
            FieldViolation("bucket", "hours can be had of at most 31 days at once")
        )
    if ("label" in query.group_by) != bool(query.label_key):
        violations.append(
            FieldViolation("label_key", "goes with DIMENSION_LABEL, and only with it")
        )
    if violations:
        raise InvalidRequestError(violations)


def _figures(key: QualityKey, found: QualitySums) -> QualityFigures:
    sums = found.sums
    binned = sum(b.n for b in found.bins)
    return QualityFigures(
        key=key,
        sums=sums,
        mean_score=sums["score_sum"] / sums["scored"] if sums["scored"] else None,
        agreement=_estimate(sums["agreement_sum"], sums["labelled"]),
        true_positive_rate=_estimate(sums["true_positives"], sums["positives"]),
        true_negative_rate=_estimate(sums["true_negatives"], sums["negatives"]),
        brier_score=sum(b.squares_sum for b in found.bins) / binned if binned else None,
        calibration_error=_calibration_error(found),
        latency_ms=found.latency_ms,
        cost_usd=sums["cost_sum"] if sums["priced"] else None,
    )


def _estimate(total: float, n: float) -> QualityEstimate | None:
    """Return Wilson's interval, which for means of values in 0..1 is on the safe side."""
    if not n:
        return None
    rate = min(1.0, max(0.0, total / n))
    centre = (rate + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
    half = _Z * math.sqrt(rate * (1 - rate) / n + _Z**2 / (4 * n * n)) / (1 + _Z**2 / n)
    return QualityEstimate(
        rate, max(0.0, centre - half), min(1.0, centre + half), int(n)
    )


def _calibration_error(found: QualitySums) -> float | None:
    """Return the debiased squared error over bins that have at least two labels."""
    labels = sum(b.n for b in found.bins)
    if labels < _MIN_CALIBRATION_LABELS:
        return None
    total = 0.0
    for part in found.bins:
        if part.n < 2:  # noqa: PLR2004 - a variance needs two
            continue
        right = part.right_sum / part.n
        gap = right - part.confidence_sum / part.n
        total += part.n / labels * (gap**2 - right * (1 - right) / (part.n - 1))
    return total
