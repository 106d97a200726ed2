"""`sidejudge analytics export`: everything that was recorded as Parquet files, written here and not by the server."""

from __future__ import annotations

import argparse
import io
from pathlib import Path

from sidejudge_server.cli.analytics import result_bytes
from sidejudge_server.cli.connection import Session, connect
from sidejudge_server.cli.failures import EXIT_USAGE, CommandError
from sidejudge_server.cli.printing import print_json, say

__all__ = ["VIEWS", "export"]

VIEWS = {
    "evaluations": "evaluation_id",
    "feedback": "feedback_id",
    "judges": "",
    "judge_versions": "",
    "deployments": "",
    "training_examples": "example_id",
    "optimizations": "optimization_id",
    "experiments": "",
    "experiment_labels": "feedback_id || ' ' || evaluation_id || ' ' || arm_id",
    "experiment_outcomes": "",
    "shadow_judgments": "evaluation_id || ' ' || experiment_id || ' ' || arm_id",
    "audit_items": "evaluation_id",
    "monitor_events": "",
}
"""The views, with what names a row of those that are read page by page."""

_PAGE = 100_000
_LARGEST = 1_000_000
_SECONDS = 60.0


def export(args: argparse.Namespace) -> int:
    """Write each view to `DIRECTORY/VIEW.parquet`; a file that is whole replaces the one before."""
    unknown = [view for view in args.view if view not in VIEWS]
    if unknown:
        raise CommandError(
            f"there is no view {unknown[0]!r}; there are {', '.join(VIEWS)}",
            exit_code=EXIT_USAGE,
        )
    args.output.mkdir(parents=True, exist_ok=True)
    written: dict[str, int] = {}
    with connect(args) as session:
        for view in args.view or VIEWS:
            path = args.output / f"{view}.parquet"
            written[view] = _write(session, view, path)
            if not args.json:
                say(f"{written[view]:>10} rows  {path}")
    if args.json:
        print_json(written)
    return 0


def _write(session: Session, view: str, path: Path) -> int:
    """Write one view and return the number of its rows."""
    import duckdb
    from nanoarrow import ArrayStream, ipc

    part = path.with_suffix(".parquet.part")
    connection = duckdb.connect()
    key, after, rows = VIEWS[view], "", 0
    try:
        while True:
            data, summary = result_bytes(
                session,
                _page_sql(view, key=key, after=after),
                max_rows=_PAGE if key else _LARGEST,
                seconds=_SECONDS,
            )
            stream = ArrayStream(ipc.InputStream.from_readable(io.BytesIO(data)))
            page = connection.from_arrow(stream)
            if rows == 0:
                page.create("exported")
            else:
                page.insert_into("exported")
            rows += summary.rows
            if not summary.truncated:
                break
            if not key:
                raise CommandError(f"{view} has more than {_LARGEST} rows")
            ((after,),) = connection.execute(
                f"SELECT max({key}) FROM exported"  # noqa: S608 - one of the keys above
            ).fetchall()
        connection.execute(
            "COPY exported TO $path (FORMAT parquet, COMPRESSION zstd)",
            {"path": str(part)},
        ).fetchall()
    finally:
        connection.close()
    part.replace(path)
    return rows


def _page_sql(view: str, *, key: str, after: str) -> str:
    if not key:
        return f"SELECT * FROM {view}"  # noqa: S608 - one of the views above
    bound = after.replace("'", "''")
    return f"SELECT * FROM {view} WHERE {key} > '{bound}' ORDER BY {key}"  # noqa: S608 - names of ours, and what they gave, quoted
