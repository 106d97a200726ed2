"""`sidejudge analytics`: figures and SQL."""

from __future__ import annotations

import argparse
import io
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from rich.bar import Bar
from rich.console import Console
from rich.table import Table

from sidejudge.v1 import analytics_service_pb2 as pb
from sidejudge_server.cli.connection import Session, connect
from sidejudge_server.cli.names import judge_name, short
from sidejudge_server.cli.printing import (
    number,
    print_json,
    print_message,
    print_table,
    say,
    warn,
)

__all__ = ["quality", "query", "result_bytes"]

_Query = pb.QueryQualityRequest
_DIMENSIONS = {
    "judge": _Query.DIMENSION_JUDGE,
    "version": _Query.DIMENSION_JUDGE_VERSION,
    "model": _Query.DIMENSION_MODEL,
    "label": _Query.DIMENSION_LABEL,
}
_BAR_WIDTH = 30


def quality(args: argparse.Namespace) -> int:
    """Print figures of quality, with a chart of agreement over time."""
    request = _Query(
        judge=judge_name(args.judge) if args.judge else "",
        model=args.model,
        labels=dict(args.label),
        group_by=[_DIMENSIONS[name] for name in args.by or ["judge"]],
        label_key=args.label_key,
    )
    if args.bucket != "none":
        request.bucket = _Query.Bucket.Value(f"BUCKET_{args.bucket.upper()}")
    request.start_time.FromDatetime(datetime.now(UTC) - timedelta(days=args.days))
    with connect(args) as session:
        found = session.client.analytics.QueryQuality(
            request, timeout=session.timeout_s
        )
    if args.json:
        print_message(found)
        return 0
    if not found.rows:
        say("no evaluations in this time")
        return 0
    print_table(
        ["when", "slice", ">evaluations", ">labelled", "agreement", "TPR", "TNR", ">Brier", ">p50 ms", ">p95 ms", ">tokens", ">cost"],
        [_row(row) for row in found.rows],
    )  # fmt: skip
    _chart(found.rows)
    return 0


def query(args: argparse.Namespace) -> int:
    """Run a SELECT and show its rows."""
    with connect(args) as session:
        data, summary = result_bytes(
            session, args.sql, max_rows=args.max_rows, seconds=args.seconds
        )
    if args.output is not None:
        args.output.write_bytes(data)
        say(f"{summary.rows} rows written to {args.output}")
    else:
        rows = list(_rows(data))
        if args.json:
            print_json([{k: _jsonable(v) for k, v in row.items()} for row in rows])
        elif rows:
            print_table(list(rows[0]), [list(row.values()) for row in rows])
        else:
            say("no rows")
    if summary.truncated:
        warn(f"cut off after {summary.rows} rows; raise --max-rows for more")
    return 0


def result_bytes(
    session: Session, sql: str, *, max_rows: int, seconds: float
) -> tuple[bytes, pb.QuerySummary]:
    """Return the Arrow IPC stream of a query's result, and how it ended."""
    request = pb.ExecuteQueryRequest(sql=sql, max_rows=max_rows)
    request.timeout.FromTimedelta(timedelta(seconds=seconds))
    data, summary = bytearray(), pb.QuerySummary()
    for response in session.client.analytics.ExecuteQuery(
        request, timeout=session.timeout_s
    ):
        if response.WhichOneof("content") == "arrow_ipc":
            data += response.arrow_ipc
        else:
            summary = response.summary
    return bytes(data), summary


def _rows(data: bytes) -> Iterator[dict[str, Any]]:
    from nanoarrow import ArrayStream, ipc

    stream = ArrayStream(ipc.InputStream.from_readable(io.BytesIO(data)))
    yield from stream.read_all().iter_py()


def _jsonable(value: object) -> object:
    if value is None or isinstance(value, str | int | float | bool):
        return value
    if isinstance(value, dict):
        return {str(k): _jsonable(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_jsonable(v) for v in value]
    return str(value)


def _row(row: pb.QualityRow) -> tuple[object, ...]:
    return (
        f"{row.bucket_time.ToDatetime():%Y-%m-%d %H:%M}"
        if row.HasField("bucket_time")
        else None,
        _slice(row) or "all",
        row.evaluations,
        row.labelled,
        _estimate(row, "agreement"),
        _estimate(row, "true_positive_rate"),
        _estimate(row, "true_negative_rate"),
        number(row.brier_score) if row.HasField("brier_score") else None,
        number(row.latency_ms_p50, digits=0)
        if row.HasField("latency_ms_p50")
        else None,
        number(row.latency_ms_p95, digits=0)
        if row.HasField("latency_ms_p95")
        else None,
        row.input_tokens + row.output_tokens,
        f"${row.cost_usd:.2f}" if row.HasField("cost_usd") else None,
    )


def _slice(row: pb.QualityRow) -> str:
    version = row.judge_version.removeprefix("judges/").replace("/versions/", " v")
    parts = (
        "" if version else (short(row.judge) if row.judge else ""),
        version,
        row.model,
        row.label_value,
    )
    return " ".join(part for part in parts if part)


def _estimate(row: pb.QualityRow, field: str) -> str | None:
    if not row.HasField(field):  # type: ignore[arg-type] # one of three names
        return None
    found: pb.QualityEstimate = getattr(row, field)
    return f"{found.estimate:.2f} [{found.low:.2f}, {found.high:.2f}]"


def _chart(rows: Any) -> None:  # noqa: ANN401 - a repeated field
    """Print a bar of agreement for each bucket that has labels."""
    labelled = [
        r for r in rows if r.HasField("agreement") and r.HasField("bucket_time")
    ]
    if not labelled:
        return
    table = Table(box=None, header_style="bold", pad_edge=False)
    for heading in ("when", "slice", "agreement", ""):
        table.add_column(heading)
    for row in labelled:
        share = row.agreement.estimate
        table.add_row(
            f"{row.bucket_time.ToDatetime():%m-%d %H:%M}",
            _slice(row),
            Bar(1.0, 0.0, share, width=_BAR_WIDTH),
            f"{share:.2f} of {row.agreement.labels}",
        )
    Console(width=100, highlight=False).print(table)
