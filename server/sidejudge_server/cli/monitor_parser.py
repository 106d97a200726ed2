"""The options of `sidejudge monitor`."""

from __future__ import annotations

import argparse
from typing import Any

from sidejudge_server.cli.options import add_client, declare, group

__all__ = ["add_monitor"]


def add_monitor(commands: Any) -> None:  # noqa: ANN401 - argparse's own type is private
    """Add `sidejudge monitor` with its actions."""
    monitor = group(
        commands, "monitor", "Whether a deployed judge stays as good as it was."
    )
    _add_judge(declare(monitor, "show", "monitor:show", "Show what is known."))
    change = declare(monitor, "set", "monitor:change", "Change what is named.")
    change.add_argument(
        "--audit-share", type=float, metavar="SHARE", help="chosen by chance, 0 to 1"
    )
    change.add_argument("--min-agreement", type=float, metavar="RATE")
    change.add_argument("--tolerance", type=float, metavar="SIZE")
    change.add_argument("--auto-rollback", action=argparse.BooleanOptionalAction)
    change.add_argument("--rollback-evidence", type=float, metavar="E")
    _add_judge(change)
    _add_judge(
        declare(
            monitor,
            "restart",
            "monitor:restart",
            "Acknowledge an alarm and learn anew.",
        )
    )
    items = declare(
        monitor, "audit-items", "monitor:audit_items", "List what people should label."
    )
    items.add_argument("--all", action="store_true", help="labelled ones too")
    items.add_argument("--limit", type=int, default=20, metavar="N")
    _add_judge(items)
    _add_judge(
        declare(monitor, "events", "monitor:events", "List what the monitor did.")
    )
    performance = declare(
        monitor, "performance", "monitor:performance", "Agreement over time."
    )
    performance.add_argument("--bucket", choices=["hour", "day", "week"], default="day")
    performance.add_argument("--days", type=float, default=30.0)
    _add_judge(performance)


def _add_judge(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("judge", metavar="JUDGE")
    add_client(parser)
