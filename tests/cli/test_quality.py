"""`sidejudge bench quality` against a real sidecar."""

from __future__ import annotations

import json
from pathlib import Path

from tests.cli.commands import Command, verdict_rows, write_rows
from tests.stand_in import StandIn


def test_report_and_figures_agree_and_a_second_run_asks_nothing_again(
    call: Command, stand_in: StandIn, tmp_path: Path
) -> None:
    """Answers of the same version and model to the same inputs are taken from the file."""
    rows = verdict_rows(12, prefix="quality")
    rows[0]["label"], rows[1]["label"] = "pass", "partial"
    data = write_rows(tmp_path / "data.jsonl", rows)
    out = tmp_path / "result.json"
    argv = ("bench", "quality", "--judge", "relevance", "--data", str(data))
    shown = call(*argv, "--out", str(out))
    assert shown.code == 0
    assert "| all | 12 | 0.833" in shown.out
    document = json.loads(out.read_text())
    assert document["agreement"]["all"]["accuracy"]["value"] == 10 / 12
    assert document["agreement"]["all"]["count"] == 12
    assert document["model"] == "openai/stand-in"
    assert document["failure_count"] == 0
    answers = (tmp_path / "result.rows.jsonl").read_text()
    assert len(answers.splitlines()) == 12
    assert "Question" not in answers

    calls = stand_in.call_count
    torn = answers.splitlines(keepends=True)
    (tmp_path / "result.rows.jsonl").write_text("".join(torn[:-2]) + torn[-2][:20])
    again = call(*argv, "--out", str(out), "--concurrency", "2", "--json")
    assert again.json["agreement"] == document["agreement"]
    assert stand_in.call_count == calls + 2
    assert call(*argv, "--out", str(out)).code == 0
    assert stand_in.call_count == calls + 2

    answers = (tmp_path / "result.rows.jsonl").read_text()
    (tmp_path / "result.rows.jsonl").write_text(
        answers.replace("openai/stand-in", "openai/another")
    )
    fresh = call(*argv, "--out", str(out), "--json")
    assert fresh.json["model"] == "openai/stand-in"
    assert stand_in.call_count == calls + 14


def test_labels_that_do_not_fit_the_judge_are_refused(
    call: Command, tmp_path: Path
) -> None:
    """Scores cannot be compared with verdicts."""
    rows = [{"inputs": {"artifact": "a"}, "label": 0.5}]
    data = write_rows(tmp_path / "data.jsonl", rows)
    shown = call("bench", "quality", "--judge", "relevance", "--data", str(data))
    assert shown.code == 1
    assert "does not fit" in shown.err


def test_no_answer_at_all_is_a_failure(call: Command, tmp_path: Path) -> None:
    """Inputs that the judge cannot take give no figures."""
    rows = [{"inputs": {"agent_output": "a", "task_context": "b"}, "label": "pass"}]
    data = write_rows(tmp_path / "data.jsonl", rows)
    shown = call("bench", "quality", "--judge", "relevance", "--data", str(data))
    assert shown.code == 1
    assert "INPUT_KIND_MISMATCH" in shown.err
