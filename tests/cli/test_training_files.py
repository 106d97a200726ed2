"""Import and export: what goes in comes out, and wrong files change nothing."""

from __future__ import annotations

import json
from pathlib import Path

import duckdb

from tests.cli.commands import Command, verdict_rows, write_rows


def test_imported_rows_come_out_as_they_went_in(call: Command, tmp_path: Path) -> None:
    """An export is a valid import with the same inputs, labels, groups and rationales."""
    call("judges", "create", "first", "--kind", "relevance")
    rows = verdict_rows(24)
    path = write_rows(tmp_path / "rows.jsonl", rows)
    shown = call("import", "first", str(path))
    assert shown.code == 0
    assert "24 imported, 0 rejected" in shown.out
    out = tmp_path / "out.jsonl"
    assert call("export", "first", str(out)).code == 0
    exported = [json.loads(line) for line in out.read_text().splitlines()]
    by_group = {row["group"]: row for row in exported}
    for row in rows:
        found = by_group[str(row["group"])]
        assert found["inputs"] == row["inputs"]
        assert found["label"] == row["label"]
        assert found["rationale"] == row["human_rationale"]
        assert found["split"] in {"train", "validation", "test"}
    call("judges", "create", "second", "--kind", "relevance")
    again = call("import", "second", str(out), "--json").json
    assert again["imported_count"] == 24


def test_rejected_examples_are_named_by_their_own_id(
    call: Command, tmp_path: Path
) -> None:
    """The reason stands beside the row that people know."""
    call("judges", "create", "third", "--kind", "safety")
    rows = verdict_rows(3)
    rows[1] = {**rows[0], "id": "copy"}
    rows[2]["label"] = "partial"
    shown = call("import", "third", str(write_rows(tmp_path / "r.jsonl", rows)))
    assert "1 imported, 2 rejected" in shown.out
    assert "copy: DUPLICATE" in shown.out
    assert "item-2: LABEL_MISMATCH" in shown.out


def test_export_to_stdout_holds_nothing_but_rows(call: Command, tmp_path: Path) -> None:
    """A pipe gets JSON lines; the count goes to stderr."""
    call("judges", "create", "fourth", "--kind", "relevance")
    call("import", "fourth", str(write_rows(tmp_path / "r.jsonl", verdict_rows(2))))
    shown = call("export", "fourth", "-")
    assert [json.loads(line)["label"] for line in shown.out.splitlines()] == [
        "fail",
        "pass",
    ]
    assert "2 examples exported" in shown.err


def test_rubric_rows_of_the_data_set_shape_are_imported(
    call: Command, tmp_path: Path
) -> None:
    """Criteria may be a text, scores numbers."""
    call("judges", "create", "fifth", "--kind", "rubric")
    rows = [
        {
            "id": f"rubr-{n}",
            "task": "rubric",
            "inputs": {
                "task_context": "Greet.",
                "agent_output": f"Hello {n}.",
                "criteria": "Fluency (1 to 5): reads well.",
            },
            "label": n / 4,
            "group": f"g{n}",
            "human_rationale": None,
            "annotator_scores": [0.5, 0.5],
        }
        for n in range(5)
    ]
    shown = call(
        "import", "fifth", str(write_rows(tmp_path / "r.jsonl", rows)), "--json"
    )
    assert shown.json["imported_count"] == 5
    counts = shown.json["training_set"]["label_counts"]
    assert sum(counts.values()) == 5


def test_parquet_is_imported_with_structs_or_flat_columns(
    call: Command, tmp_path: Path
) -> None:
    """A table has inputs as a struct or one column each."""
    nested, flat = tmp_path / "nested.parquet", tmp_path / "flat.parquet"
    with duckdb.connect() as connection:
        connection.sql(
            "SELECT {'artifact': 'a' || n, 'context': 'c'} AS inputs,"
            " CASE WHEN n % 2 = 0 THEN 'pass' ELSE 'fail' END AS label,"
            " 'g' || n AS \"group\" FROM range(6) t(n)"
        ).write_parquet(str(nested))
        connection.sql(
            "SELECT 'x' || n AS agent_output, 'task' AS task_context,"
            " n / 4 AS label FROM range(5) t(n)"
        ).write_parquet(str(flat))
    call("judges", "create", "sixth", "--kind", "relevance")
    call("judges", "create", "seventh", "--kind", "rubric")
    assert call("import", "sixth", str(nested), "--json").json["imported_count"] == 6
    assert call("import", "seventh", str(flat), "--json").json["imported_count"] == 5


def test_file_with_a_wrong_row_changes_nothing(call: Command, tmp_path: Path) -> None:
    """Half an import would be hard to repeat."""
    call("judges", "create", "eighth", "--kind", "relevance")
    rows = [*verdict_rows(3), {"inputs": {"artifact": "a"}, "label": "maybe"}]
    shown = call("import", "eighth", str(write_rows(tmp_path / "r.jsonl", rows)))
    assert shown.code == 2
    assert "line 4: label 'maybe'" in shown.err
    assert "example_count" not in call("training", "eighth", "--json").json


def test_unreadable_files_are_usage_errors(call: Command, tmp_path: Path) -> None:
    """The file and what is wrong with it are named."""
    fake = tmp_path / "fake.parquet"
    fake.write_bytes(b"no parquet")
    for path in (fake, tmp_path / "none.jsonl", tmp_path / "none.parquet"):
        shown = call("import", "relevance", str(path))
        assert shown.code == 2
        assert path.name in shown.err
