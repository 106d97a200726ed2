"""Output: hostile text cannot drive the terminal, numbers read the same everywhere."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest

from sidejudge.v1 import judge_pb2
from sidejudge_server.cli.printing import (
    clean,
    duration,
    key_values,
    money,
    number,
    print_message,
    print_table,
)

HOSTILE = "a\x1b[2Jb\x9bc\u202ed\re"


def test_control_characters_are_replaced_and_lines_kept() -> None:
    """Escape sequences and marks that reorder text do not reach the terminal."""
    assert clean(HOSTILE) == "a\ufffd[2Jb\ufffdc\ufffdd\ufffde"
    assert clean("two\n\tlines ✓ é") == "two\n\tlines ✓ é"


def test_tables_show_hostile_text_and_markup_as_it_is(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Rich's markup in judged text is text."""
    print_table(["what", ">n"], [["[red]x[/red]", None], [HOSTILE, 2]])
    key_values([("k", "[bold]v"), ("left out", None)])
    out = capsys.readouterr().out
    assert "[red]x[/red]" in out
    assert "[bold]v" in out
    assert "left out" not in out
    assert "\x1b" not in out


def test_json_keeps_field_names_and_is_ascii(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Programs get proto JSON with the names of the .proto files; controls are escaped."""
    print_message(judge_pb2.Judge(name="judges/x", display_name=HOSTILE))
    out = capsys.readouterr().out
    assert out.isascii()
    assert "\x1b" not in out
    assert json.loads(out) == {"name": "judges/x", "display_name": HOSTILE}


def test_unknown_numbers_durations_and_prices_are_not_zero() -> None:
    """Unknown is not 0."""
    assert (number(0.12345), number(None)) == ("0.123", "-")
    assert (money(0.5), money(None)) == ("$0.5000", "price not known")
    assert duration(timedelta(seconds=65)) == "1:05"
    assert duration(timedelta(seconds=3605.9)) == "1:00:05"
    assert duration(None) == "-"
