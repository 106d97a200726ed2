"""Figures of quality over time, from daily sums where there are any and from raw rows elsewhere."""

from __future__ import annotations

import asyncio
import time as clock
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

from sidejudge_storage.database import Database
from sidejudge_storage.quality_days import QualityDay
from sidejudge_storage.quality_schema import (
    CALIBRATION_DAYS_SQL,
    LATENCY_DAYS_SQL,
    LATENCY_STEPS,
    QUALITY_DAYS_SQL,
    QUALITY_SUMS,
    labels_sql,
)
from sidejudge_storage.readers.base import Reader
from sidejudge_storage.records import EvaluationRecord
from sidejudge_storage.tables import EVALUATIONS, naive_utc

__all__ = [
    "QUANTILES",
    "CalibrationBin",
    "QualityKey",
    "QualityQuery",
    "QualityReader",
    "QualitySums",
]

QUANTILES = (0.5, 0.9, 0.95, 0.99)

_BUCKETS = {
    "": "NULL::TIMESTAMP",
    "hour": "date_trunc('hour', {at})",
    "day": "date_trunc('day', {at})",
    "week": "date_trunc('week', {at})",
    "month": "date_trunc('month', {at})",
}
_DIMENSIONS = ("judge_id", "version", "model")


_TIME_CHARS, _TIME_BITS = 8, 16
"""First hexadecimal digits of an id, and the bits of its time in ms that they leave out."""
_ID_LEAD_MS = 5_000
"""How far the time of an id may be off that of its evaluation."""

_LONGEST_REST_S = 0.25
"""Longest pause after a query beside writes, so that a slow one isn't made much slower."""


@dataclass(frozen=True, slots=True)
class QualityQuery:
    """What is wanted. ``group_by`` holds any of judge_id, version, model and label."""

    start: datetime
    end: datetime
    bucket: str = ""
    group_by: tuple[str, ...] = ()
    judge_id: str | None = None
    version: int | None = None
    model: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    label_key: str = ""

    @property
    def needs_rows(self) -> bool:
        """Whether daily sums can't answer it."""
        return bool(self.labels) or "label" in self.group_by or self.bucket == "hour"


@dataclass(frozen=True, slots=True, order=True)
class QualityKey:
    """A slice of a bucket; what does not split is None."""

    bucket: datetime | None
    judge_id: str | None
    version: int | None
    model: str | None
    label: str | None


@dataclass(frozen=True, slots=True)
class CalibrationBin:
    """Labelled answers of about one confidence."""

    n: int
    confidence_sum: float
    right_sum: float
    squares_sum: float


@dataclass(frozen=True, slots=True)
class QualitySums:
    """Sums of a slice: by name as in `QUALITY_SUMS`, latency in ms by quantile, bins of confidence."""

    sums: Mapping[str, float]
    latency_ms: Mapping[float, float]
    bins: tuple[CalibrationBin, ...]


class QualityReader(Reader[EvaluationRecord]):
    """Reads figures of quality, giving way to writes: figures can wait, agents don't.

    A query that had commits beside it is followed by a pause as long as it took. Otherwise one
    caller that asks again and again takes a quarter of their throughput from writers on two cores.
    """

    def __init__(self, database: Database, executor: Executor) -> None:
        super().__init__(database, executor, EVALUATIONS)

    async def _rows(self, sql: str, params: list[object]) -> list[tuple[Any, ...]]:
        commit, began = self._database.last_commit, clock.monotonic()
        rows = await super()._rows(sql, params)
        if self._database.last_commit != commit:
            took = clock.monotonic() - began
            await asyncio.sleep(min(took, _LONGEST_REST_S))
        return rows

    async def query(self, wanted: QualityQuery) -> dict[QualityKey, QualitySums]:
        """Return the sums of each slice that has evaluations, by time."""
        days = set() if wanted.needs_rows else await self._usable_days(wanted)
        parts = _Parts(wanted, days)
        sums = await self._rows(*parts.sums())
        latency = await self._rows(*parts.latency())
        bins = await self._rows(*parts.calibration())
        names = list(QUALITY_SUMS)
        by_key: dict[QualityKey, dict[float, float]] = {}
        binned: dict[QualityKey, list[CalibrationBin]] = {}
        for *key, step, quantile in latency:
            middle = 2.718281828459045 ** ((step + 0.5) / LATENCY_STEPS)
            by_key.setdefault(_key(key), {})[float(quantile)] = middle
        for *key, _, n, confidence, right, squares in bins:
            binned.setdefault(_key(key), []).append(
                CalibrationBin(int(n), confidence, right, squares)
            )
        found = {}
        for row in sums:
            if row[5] is None:
                continue  # the sum of no rows at all
            of = _key(row[:5])
            found[of] = QualitySums(
                dict(zip(names, row[5:], strict=True)),
                by_key.get(of, {}),
                tuple(binned.get(of, ())),
            )
        return found

    async def open_days(self, *, before: date) -> tuple[list[date], str]:
        """Return the days that have to be summed up, oldest first, and the last feedback there is.

        Those are closed days that never were, and days whose evaluations got feedback since.
        """
        rows = await self._rows(
            "SELECT coalesce(max(feedback_id), '') FROM feedback", []
        )
        last = str(rows[0][0])
        found = await self._rows(
            """SELECT DISTINCT CAST(created_at AS DATE) AS day FROM evaluations
            WHERE created_at < ? AND created_at >= (
                -- Days are summed up in order, so that there is nothing to do before the last one.
                SELECT coalesce(max(day), DATE '1970-01-01') FROM quality_progress
            ) AND CAST(created_at AS DATE) NOT IN (SELECT day FROM quality_progress)""",
            [datetime.combine(before, time())],
        )
        summed = await self._rows("SELECT day FROM quality_progress", [])
        days = {row[0] for row in found}
        days |= {row[0] for row in summed} & await self._dirty_days()
        return sorted(days), last

    async def _dirty_days(self) -> set[date]:
        """Return the days whose evaluations may have got feedback that their sums do not know.

        An evaluation's id begins with its time, so that it need not be looked up.
        """
        rows = await self._rows(
            f"SELECT DISTINCT substr(evaluation_id, 1, {_TIME_CHARS}) FROM feedback"  # noqa: S608 - a number of ours
            " WHERE feedback_id > (SELECT feedback_id FROM quality_watermark)",
            [],
        )
        days = set()
        for (digits,) in rows:
            begin = int(digits, 16) << _TIME_BITS
            end = begin + (1 << _TIME_BITS)
            for millis in (begin - _ID_LEAD_MS, end + _ID_LEAD_MS):
                days.add(datetime.fromtimestamp(millis / 1000, UTC).date())
        return days

    async def day(self, day: date) -> QualityDay:
        """Return the sums of a day, from its rows."""
        start = datetime.combine(day, time(), UTC)
        condition, params = _between(start, start + timedelta(days=1))
        labels, label_params = _labels(start)
        found: dict[str, Sequence[Sequence[Any]]] = {}
        for table, sql in (
            ("quality_days", QUALITY_DAYS_SQL),
            ("latency_days", LATENCY_DAYS_SQL),
            ("calibration_days", CALIBRATION_DAYS_SQL),
        ):
            rows = await self._rows(
                f"WITH labels AS ({labels}) {sql.format(key='1', condition=condition)}",
                [*label_params, *params],
            )
            found[table] = [row[1:] for row in rows]
        return QualityDay(day, found)

    async def _usable_days(self, wanted: QualityQuery) -> set[date]:
        """Return the days of a query that are summed up and know all feedback."""
        rows = await self._rows(
            "SELECT day FROM quality_progress WHERE day >= ? AND day < ?",
            [_ceiling(wanted.start), wanted.end.astimezone(UTC).date()],
        )
        return {row[0] for row in rows} - await self._dirty_days()


class _Parts:
    """Makes the three queries of a `QualityQuery`: sums of days and of raw ranges, added up."""

    def __init__(self, wanted: QualityQuery, days: set[date]) -> None:
        self._wanted = wanted
        self._runs = _runs(days)
        self._ranges = _gaps(wanted, self._runs)

    def sums(self) -> tuple[str, list[object]]:
        names = list(QUALITY_SUMS)
        added = ", ".join(f"sum({name}) AS {name}" for name in names)
        return self._query("quality_days", QUALITY_DAYS_SQL, names, added)

    def calibration(self) -> tuple[str, list[object]]:
        names = ["bin", "n", "confidence_sum", "right_sum", "squares_sum"]
        added = ", ".join(f"sum({name}) AS {name}" for name in names[1:])
        return self._query(
            "calibration_days", CALIBRATION_DAYS_SQL, names, f"bin, {added}"
        )

    def latency(self) -> tuple[str, list[object]]:
        inner, params = self._query(
            "latency_days", LATENCY_DAYS_SQL, ["step", "n"], "step, sum(n) AS n"
        )
        keys = "bucket, judge_id, version, model, label"
        quantiles = ", ".join(str(q) for q in QUANTILES)
        return (
            # Names are ours, values are bound.
            f"""WITH steps AS ({inner}), reached AS (
                SELECT *, sum(n) OVER (PARTITION BY {keys} ORDER BY step) AS below,
                    sum(n) OVER (PARTITION BY {keys}) AS total FROM steps
            )
            SELECT {keys}, min(step) AS step, q
            FROM reached, (SELECT unnest([{quantiles}]) AS q)
            WHERE below >= q * total GROUP BY {keys}, q""",  # noqa: S608 - see above
            params,
        )

    def _query(
        self, table: str, raw_sql: str, names: Sequence[str], added: str
    ) -> tuple[str, list[object]]:
        wanted = self._wanted
        pieces, params = [], []
        for first, after in self._runs:
            where, bound = self._filter("")
            bucket = _BUCKETS[wanted.bucket].format(at="CAST(day AS TIMESTAMP)")
            pieces.append(
                f"SELECT {bucket} AS bucket, judge_id, version, model, NULL::VARCHAR AS label,"  # noqa: S608 - names are ours, values are bound
                f" {', '.join(names)} FROM {table} WHERE day >= ? AND day < ?{where}"
            )
            params += [first, after, *bound]
        for start, end in self._ranges:
            condition, bounds = _between(start, end)
            where, bound = self._filter("e.")
            labels, label_params = _labels(start)
            bucket = _BUCKETS[wanted.bucket].format(at="e.created_at")
            raw = raw_sql.format(
                key=f"{bucket} AS bucket, {self._label()} AS label",
                condition=condition + where,
            )
            pieces.append(
                f"SELECT bucket, judge_id, version, model, label, {', '.join(names)}"  # noqa: S608 - names are ours, values are bound
                f" FROM (WITH labels AS ({labels}) {raw})"
            )
            # The label's key is selected after the labels and before the condition.
            key_params = [_pointer(wanted.label_key)] if self._by_label else []
            params += [*label_params, *key_params, *bounds, *bound]
        keys = [
            *(["bucket"] if wanted.bucket else ["NULL::TIMESTAMP AS bucket"]),
            *(d if d in wanted.group_by else f"NULL AS {d}" for d in _DIMENSIONS),
            "label" if self._by_label else "NULL AS label",
        ]
        sql = (
            f"SELECT {', '.join(keys)}, {added} FROM ({' UNION ALL '.join(pieces)})"  # noqa: S608 - names are ours, values are bound
            " GROUP BY ALL ORDER BY ALL"
        )
        return sql, params

    @property
    def _by_label(self) -> bool:
        return "label" in self._wanted.group_by

    def _label(self) -> str:
        if not self._by_label:
            return "NULL::VARCHAR"
        return "coalesce(json_extract_string(e.labels_json, ?), '')"

    def _filter(self, table: str) -> tuple[str, list[object]]:
        wanted = self._wanted
        text, params = "", []
        for column in _DIMENSIONS:
            value = getattr(wanted, column)
            if value is not None:
                text += f" AND {table}{column} = ?"
                params.append(value)
        for name, value in wanted.labels.items():
            text += " AND json_extract_string(e.labels_json, ?) = ?"
            params += [_pointer(name), value]
        return text, params


def _runs(days: set[date]) -> list[tuple[date, date]]:
    """Return days as half-open runs of neighbours."""
    runs: list[tuple[date, date]] = []
    for day in sorted(days):
        if runs and runs[-1][1] == day:
            runs[-1] = runs[-1][0], day + timedelta(days=1)
        else:
            runs.append((day, day + timedelta(days=1)))
    return runs


def _gaps(
    wanted: QualityQuery, runs: Sequence[tuple[date, date]]
) -> list[tuple[datetime, datetime]]:
    """Return what runs leave of the time of a query."""
    gaps, at = [], wanted.start
    for first, after in runs:
        start = datetime.combine(first, time(), UTC)
        if at < start:
            gaps.append((at, start))
        at = datetime.combine(after, time(), UTC)
    if at < wanted.end or not (gaps or runs):
        gaps.append((at, wanted.end))
    return gaps


def _between(start: datetime, end: datetime) -> tuple[str, list[object]]:
    return "e.created_at >= ? AND e.created_at < ?", [naive_utc(start), naive_utc(end)]


def _labels(start: datetime) -> tuple[str, list[object]]:
    """Return the query for labels of evaluations since a time: feedback is younger than those."""
    millis = max(0, int(start.timestamp() * 1000) - 1)
    digits = f"{millis:012x}"
    return labels_sql("f.feedback_id >= ?"), [f"{digits[:8]}-{digits[8:]}"]


def _ceiling(moment: datetime) -> date:
    utc = moment.astimezone(UTC)
    midnight = datetime.combine(utc.date(), time(), UTC)
    return utc.date() if utc == midnight else utc.date() + timedelta(days=1)


def _key(values: Sequence[Any]) -> QualityKey:
    bucket, judge_id, version, model, label = values
    at = None if bucket is None else bucket.replace(tzinfo=UTC)
    return QualityKey(at, judge_id, version, model, label)


def _pointer(name: str) -> str:
    """Return the JSON pointer (RFC 6901) of a label."""
    return "/" + name.replace("~", "~0").replace("/", "~1")
