"""Performance of a judge over time, estimated from the items that were chosen by chance."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import datetime, timedelta

from sidejudge_server.errors import FieldViolation, InvalidRequestError
from sidejudge_storage import PerformanceRow, Storage

__all__ = ["PerformancePoint", "performance"]

_DEFAULT_SPAN = timedelta(days=30)
_MOST_HOURS = timedelta(days=31)

Ends = tuple[float, float]


@dataclass(frozen=True, slots=True)
class PerformancePoint:
    """A version in a bucket of time.

    Attributes:
        row: What was counted.
        interval: 95 % interval of the bucket's agreement (Wilson), for one look; None without labels.
        cumulative_agreement: Of the version's labels up to the bucket's end; None without.
        cumulative_interval: Its 95 % interval for all looks together; None for scores.
    """

    row: PerformanceRow
    interval: Ends | None
    cumulative_agreement: float | None
    cumulative_interval: Ends | None


async def performance(
    storage: Storage,
    judge_id: str,
    *,
    version: int | None,
    start: datetime | None,
    end: datetime,
    bucket: str,
) -> list[PerformancePoint]:
    """Return the points of a judge by time, then by version.

    Args:
        storage: Where everything is kept.
        judge_id: The judge.
        version: None for all.
        start: None for 30 days before the end.
        end: Exclusive.
        bucket: hour, day or week.

    Raises:
        InvalidRequestError: The time is empty, or too long for hours.
    """
    begin = start or end - _DEFAULT_SPAN
    if begin >= end:
        raise InvalidRequestError(
            [FieldViolation("end_time", "must be after start_time")]
        )
    if bucket == "hour" and end - begin > _MOST_HOURS:
        raise InvalidRequestError(
            [FieldViolation("bucket", "hours can be had of at most 31 days at once")]
        )
    rows = await storage.monitors.performance(
        judge_id, version=version, start=begin, end=end, bucket=bucket
    )
    return await asyncio.to_thread(_points, rows)


def _points(rows: list[PerformanceRow]) -> list[PerformancePoint]:
    # scipy takes a second and tens of megabytes: only where somebody asks.
    from sidejudge_server.stats.confidence_sequences import bernoulli_sequence
    from sidejudge_server.stats.outcome import CannotSay
    from sidejudge_server.stats.proportions import wilson

    totals: dict[int, tuple[float, int]] = {}
    points = []
    for row in rows:
        right, labels = totals.get(row.version, (0.0, 0))
        right, labels = right + row.agreement_sum, labels + row.labelled
        totals[row.version] = right, labels
        interval = wilson(round(row.agreement_sum), row.labelled)
        always = bernoulli_sequence(round(right), labels) if row.verdicts else None
        points.append(
            PerformancePoint(
                row,
                None
                if isinstance(interval, CannotSay)
                else (interval.low, interval.high),
                right / labels if labels else None,
                None
                if always is None or isinstance(always, CannotSay)
                else (always.low, always.high),
            )
        )
    return points
