"""Writing the sums of closed days."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any

from sidejudge_storage.quality_schema import QUALITY_SUMS

if TYPE_CHECKING:
    import duckdb

__all__ = ["DAY_TABLES", "QualityDay", "ReplaceQualityDays", "replace_quality_days"]

_KEY = {"judge_id": "VARCHAR", "version": "BIGINT", "model": "VARCHAR"}
_DOUBLES = {"score_sum", "cost_sum", "agreement_sum"}

DAY_TABLES: dict[str, dict[str, str]] = {
    "quality_days": {
        **_KEY,
        **{n: "DOUBLE" if n in _DOUBLES else "BIGINT" for n in QUALITY_SUMS},
    },
    "latency_days": {**_KEY, "step": "BIGINT", "n": "BIGINT"},
    "calibration_days": {
        **_KEY,
        "bin": "BIGINT",
        "n": "BIGINT",
        "confidence_sum": "DOUBLE",
        "right_sum": "DOUBLE",
        "squares_sum": "DOUBLE",
    },
}
"""Tables of sums, with their columns but the day."""

Rows = Sequence[Sequence[Any]]


@dataclass(frozen=True, slots=True)
class QualityDay:
    """The sums of a day: rows by table of `DAY_TABLES`, in the order of its columns."""

    day: date
    rows: dict[str, Rows]


@dataclass(frozen=True, slots=True)
class ReplaceQualityDays:
    """Put the sums of days in the place of what is there, as one unit.

    ``watermark`` is the last feedback that all days know of once this is written; None leaves it.
    """

    days: tuple[QualityDay, ...]
    watermark: str | None = None


def replace_quality_days(
    connection: duckdb.DuckDBPyConnection, command: ReplaceQualityDays
) -> None:
    """Write a `ReplaceQualityDays` within the transaction that is open."""
    for day in command.days:
        for table, columns in DAY_TABLES.items():
            # Names are ours, values are bound.
            connection.execute(
                f"DELETE FROM {table} WHERE day = ?",  # noqa: S608 - see above
                [day.day],
            ).fetchall()
            rows = day.rows[table]
            if not rows:
                continue
            shape = json.dumps([columns])
            document = json.dumps([dict(zip(columns, r, strict=True)) for r in rows])
            connection.execute(
                f"INSERT INTO {table} (day, {', '.join(columns)})"  # noqa: S608 - see above
                f" SELECT ?, {', '.join(f'r.{c}' for c in columns)}"
                f" FROM (SELECT unnest(from_json(?, '{shape}')) AS r)",
                [day.day, document],
            ).fetchall()
        connection.execute(
            "INSERT INTO quality_progress SELECT ? WHERE NOT EXISTS"
            " (SELECT 1 FROM quality_progress WHERE day = ?)",
            [day.day, day.day],
        ).fetchall()
    if command.watermark is not None:
        connection.execute(
            "UPDATE quality_watermark SET feedback_id = ?", [command.watermark]
        ).fetchall()
