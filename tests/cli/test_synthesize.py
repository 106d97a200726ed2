"""`sidejudge synthesize`, and what export and import make of synthetic examples."""

from __future__ import annotations

import json
from pathlib import Path

from tests.cli.commands import Command


def test_examples_are_written_shown_and_kept_out_of_imports(
    call: Command, tmp_path: Path
) -> None:
    """Marked in the training set and in files; an import leaves them out and says so."""
    rows = [
        {
            "inputs": {"artifact": f"reply {n}", "context": "a question"},
            "label": "pass" if n % 2 else "fail",
        }
        for n in range(40)
    ]
    real = tmp_path / "real.jsonl"
    real.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    for judge in ("imagined", "reimported"):
        call("judges", "create", judge, "--kind", "relevance")
    call("import", "imagined", str(real))
    shown = call("synthesize", "imagined", "--count", "4")
    assert shown.code == 0
    assert "4 synthetic examples written in 2 LM calls" in shown.out
    assert call("training", "imagined", "--json").json["synthetic_count"] == 4
    assert "synthetic" in call("training", "imagined", "--examples").out
    exported = tmp_path / "all.jsonl"
    call("export", "imagined", str(exported))
    lines = exported.read_text(encoding="utf-8").splitlines()
    origins = [json.loads(line)["origin"] for line in lines]
    assert origins.count("synthetic") == 4
    imported = call("import", "reimported", str(exported))
    assert "40 imported" in imported.out
    assert "4 synthetic examples are left out" in imported.err


def test_refusals_are_explained(call: Command) -> None:
    """With reason and way out, as for all commands."""
    call("judges", "create", "untaught", "--kind", "relevance")
    shown = call("synthesize", "untaught")
    assert shown.code == 1
    assert "[SYNTHETIC_LIMIT_REACHED]" in shown.err
    assert "record feedback or import more" in shown.err
