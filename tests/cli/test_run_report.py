"""Reports, charts and logs of runs."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest

from sidejudge.v1 import evaluation_pb2, feedback_pb2, judge_pb2, optimization_pb2
from sidejudge_server.cli.run_report import ReportData, curve, render
from sidejudge_server.cli.trial_chart import print_trial_chart
from tests.cli.commands import Command
from tests.cli.test_optimize import SEARCH, teach

HOSTILE = "<script>alert(1)</script> \x1b[31m </pre> {{ 7 * 7 }}"


def trial(number: int, score: float, **fields: object) -> optimization_pb2.Trial:
    return optimization_pb2.Trial(
        name=f"optimizations/x/trials/{number}",
        score=score,
        example_count=30,
        **{"full_evaluation": True, **fields},  # type: ignore[arg-type] # a test's shorthand
    )


TRIALS = [
    trial(0, 0.5, best=True),
    trial(1, 0.4, stopped_early=True, full_evaluation=False),
    trial(2, 0.7, best=True, instructions=HOSTILE),
]


class _Tags(HTMLParser):
    """Collects the tags and addresses that a document has."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.addresses += [v or "" for k, v in attrs if k in {"src", "href", "action"}]


def decided_run() -> optimization_pb2.Optimization:
    cell = optimization_pb2.ConfusionCell
    passed, failed = judge_pb2.VERDICT_PASS, judge_pb2.VERDICT_FAIL
    return optimization_pb2.Optimization(
        name="optimizations/x",
        judge="judges/safety",
        baseline_version="judges/safety/versions/1",
        summary=f"Improved: {HOSTILE}",
        outcome=optimization_pb2.Optimization.OUTCOME_IMPROVED,
        decision=optimization_pb2.GateDecision(
            metric="accuracy",
            pair_count=60,
            baseline=optimization_pb2.Estimate(value=0.5, lower=0.4, upper=0.6),
            baseline_confusion=[
                cell(label=passed, verdict=passed, count=20),
                cell(label=passed, verdict=failed, count=10),
                cell(label=failed, verdict=judge_pb2.VERDICT_UNSPECIFIED, count=3),
            ],
            candidate_confusion=[cell(label=passed, verdict=passed, count=30)],
            changed_examples=[
                optimization_pb2.ChangedExample(
                    training_example="trainingExamples/one", candidate_quality=1.0
                ),
                optimization_pb2.ChangedExample(
                    training_example="trainingExamples/gone", baseline_quality=1.0
                ),
            ],
        ),
    )


def report_data() -> ReportData:
    example = feedback_pb2.TrainingExample(
        name="trainingExamples/one",
        artifact_input=evaluation_pb2.ArtifactInput(artifact=HOSTILE),
        verdict=judge_pb2.VERDICT_PASS,
    )
    version = judge_pb2.JudgeVersion(instructions=HOSTILE)
    return ReportData(
        decided_run(), TRIALS, version, version, {"trainingExamples/one": example}
    )


def test_a_report_runs_nothing_and_fetches_nothing() -> None:
    """Judged text stays text, and the file has no address of anything."""
    text = render(report_data())
    found = _Tags()
    found.feed(text)
    assert "script" not in found.tags
    assert found.addresses == []
    assert "\x1b" not in text
    assert "&lt;script&gt;alert(1)" in text
    assert "{{ 7 * 7 }}" in text


def test_a_report_shows_the_confusion_before_and_after_and_what_changed() -> None:
    """Labels down, verdicts across, unusable answers among them; changes in both directions."""
    text = render(report_data())
    assert "before: safety v1" in text
    assert "unusable" in text
    assert ">20<" in text
    assert "trainingExamples/one" in text
    assert "trainingExamples/gone" in text
    assert "dropped early" in text


def test_the_curve_is_well_formed_and_follows_the_best() -> None:
    """One dot a trial; the line never falls; fewer than two trials have no curve."""
    drawn = curve(TRIALS)
    assert drawn is not None
    heights = [float(point.split(",")[1]) for point in drawn.line.split()]
    assert len(drawn.dots) == 3
    assert heights == sorted(heights, reverse=True)
    text = render(report_data())
    svg = text[text.index("<svg") : text.index("</svg>") + len("</svg>")]
    drawing = ElementTree.fromstring(svg)  # noqa: S314 - made by the code under test
    assert len(drawing.findall("circle")) == 3
    assert curve(TRIALS[:1]) is None


def test_the_chart_marks_baseline_best_and_dropped_trials(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """One row a trial; of many, those that were best and the last ones."""
    print_trial_chart(TRIALS)
    shown = capsys.readouterr().out
    assert "baseline" in shown
    assert "best so far" in shown
    assert "dropped after 30 examples" in shown
    print_trial_chart([*TRIALS, *(trial(n, 0.3) for n in range(3, 200))])
    rows = capsys.readouterr().out.splitlines()
    assert len(rows) == 61
    assert any("best so far" in row for row in rows)


@pytest.mark.slow
def test_a_run_leaves_a_report_a_chart_and_a_log(call: Command, tmp_path: Path) -> None:
    """One command watches, charts and reports; the log can be read at any time after."""
    teach(call, "reported", tmp_path)
    file = tmp_path / "run.html"
    shown = call("optimize", "reported", "--report", str(file), *SEARCH)
    assert shown.code == 0, shown.err
    assert "baseline" in shown.out
    text = file.read_text(encoding="utf-8")
    assert "judges/reported" in text
    assert "<svg" in text
    run = call("optimizations", "list", "--judge", "reported", "--json").json
    name = run["optimizations"][0]["name"]
    again = tmp_path / "again.html"
    assert call("optimizations", "report", name, str(again)).code == 0
    assert again.read_text(encoding="utf-8") == text
    lines = call("optimizations", "logs", name).out.splitlines()
    assert "phase" in lines[0]
    assert "finished" in lines[-1]
    events = call("optimizations", "logs", name, "--json").json
    assert [int(e["sequence"]) for e in events] == list(range(1, len(events) + 1))
