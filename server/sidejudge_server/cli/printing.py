"""What commands print: tables for people, proto JSON for programs.

Judged text, reasoning and error messages are other people's words: control characters, which could
drive the terminal, are replaced, and rich's markup is never interpreted.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Any

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from rich.console import Console
from rich.table import Table
from rich.text import Text

__all__ = [
    "clean",
    "duration",
    "key_values",
    "money",
    "number",
    "print_json",
    "print_message",
    "print_table",
    "say",
    "warn",
]

# C0 controls but tab and newline, DEL, C1 controls, and marks that reorder what is shown.
_CONTROL = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]"
)
_PIPE_WIDTH = 200


def clean(text: str) -> str:
    """Return text with characters that could drive a terminal replaced."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)


def say(text: str = "") -> None:
    """Print a line for people."""
    print(clean(text))


def warn(text: str) -> None:
    """Print a line for people on stderr, so that output for programs stays clean."""
    print(clean(text), file=sys.stderr)


def print_json(value: object) -> None:
    """Print plain data as JSON."""
    print(json.dumps(value, indent=2))


def print_message(message: Message) -> None:
    """Print a message as proto JSON with the field names of the .proto files."""
    value: dict[str, Any] = MessageToDict(message, preserving_proto_field_name=True)
    print_json(value)


def print_table(
    columns: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    title: str | None = None,
) -> None:
    """Print a table; cells are shown as they are, None as a dash.

    Args:
        columns: Headings; one that starts with `>` is right-aligned.
        rows: Cells, as many as columns.
        title: Line above the table.
    """
    table = Table(title=title, title_justify="left", header_style="bold")
    for column in columns:
        right = column.startswith(">")
        table.add_column(
            column.removeprefix(">"),
            justify="right" if right else "left",
            overflow="fold",
        )
    for row in rows:
        table.add_row(*(Text("-" if c is None else clean(str(c))) for c in row))
    _console().print(table)


def key_values(pairs: Iterable[tuple[str, object]]) -> None:
    """Print names and values below each other; pairs without a value are left out."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    for key, value in pairs:
        if value is not None and value != "":
            grid.add_row(Text(key), Text(clean(str(value))))
    _console().print(grid)


def number(value: float | None, *, digits: int = 3) -> str:
    """Return a number with so many decimals, or a dash."""
    return "-" if value is None else f"{value:.{digits}f}"


def money(value: float | None) -> str:
    """Return an amount in US dollars."""
    return "price not known" if value is None else f"${value:.4f}"


def duration(value: timedelta | None) -> str:
    """Return hours, minutes and seconds such as 1:02:03 or 2:03, or a dash."""
    if value is None:
        return "-"
    minutes, seconds = divmod(int(value.total_seconds()), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def _console() -> Console:
    # A pipe has no width; take one at which nothing useful wraps.
    return Console(width=None if sys.stdout.isatty() else _PIPE_WIDTH, highlight=False)
