"""The options of `sidejudge analytics`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sidejudge_server.cli.options import add_client, declare, group, key_value

__all__ = ["add_analytics"]


def add_analytics(commands: Any) -> None:  # noqa: ANN401 - argparse's own type is private
    """Add `sidejudge analytics` with its actions."""
    analytics = group(commands, "analytics", "Figures and SQL over what was recorded.")
    quality = declare(
        analytics,
        "quality",
        "analytics:quality",
        "Volume, agreement with people, calibration, latency and cost.",
    )
    quality.add_argument("--judge", metavar="JUDGE")
    quality.add_argument("--model", default="", metavar="MODEL")
    quality.add_argument(
        "--label",
        action="append",
        default=[],
        type=key_value,
        metavar="KEY=VALUE",
        help="only evaluations with this label; may be repeated",
    )
    quality.add_argument(
        "--days", type=float, default=30.0, help="how far back (default: 30)"
    )
    quality.add_argument(
        "--bucket", choices=["none", "hour", "day", "week", "month"], default="none"
    )
    quality.add_argument(
        "--by",
        action="append",
        default=[],
        choices=["judge", "version", "model", "label"],
        help="what splits the figures; may be repeated (default: judge)",
    )
    quality.add_argument("--label-key", default="", metavar="KEY")
    add_client(quality)

    query = declare(
        analytics, "query", "analytics:query", "Run a SELECT over the views."
    )
    query.add_argument("sql", metavar="SQL")
    query.add_argument("--max-rows", type=int, default=1000, metavar="N")
    query.add_argument("--seconds", type=float, default=10.0, help="at most so long")
    query.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="FILE",
        help="write the Arrow IPC stream here instead of showing it",
    )
    add_client(query)

    export = declare(
        analytics,
        "export",
        "export:export",
        "Write every view to a Parquet file; texts that were judged are in them.",
    )
    export.add_argument("--output", type=Path, required=True, metavar="DIRECTORY")
    export.add_argument(
        "--view", action="append", default=[], help="only this one; may be repeated"
    )
    add_client(export, timeout_s=600.0)
