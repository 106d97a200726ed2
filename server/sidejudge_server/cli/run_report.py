"""`--report` and `sidejudge optimizations report`: a run as one static HTML file.

The file asks the network for nothing and runs no script. Judged texts are other people's words: the
template escapes every value.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2

from sidejudge.v1 import (
    feedback_pb2,
    feedback_service_pb2,
    judge_pb2,
    judge_service_pb2,
    optimization_pb2,
    optimization_service_pb2,
)
from sidejudge_server.benchmark.wire import verdict_word
from sidejudge_server.cli.connection import Session, connect
from sidejudge_server.cli.failures import EXIT_USAGE, CommandError
from sidejudge_server.cli.names import optimization_name, short
from sidejudge_server.cli.paging import collect_pages
from sidejudge_server.cli.printing import clean, duration, money, number, say

__all__ = ["Curve", "ReportData", "curve", "render", "report", "write_report"]

_WIDTH, _HEIGHT, _PAD = 720, 240, 36
_MARGIN = 0.02
_VERDICTS = (judge_pb2.VERDICT_PASS, judge_pb2.VERDICT_PARTIAL, judge_pb2.VERDICT_FAIL)
_UNUSABLE = judge_pb2.VERDICT_UNSPECIFIED


@dataclass(frozen=True, slots=True)
class ReportData:
    """All that a report shows.

    Attributes:
        run: The run, ended or not.
        trials: In order.
        baseline: The version that it started from.
        candidate: What it made, if anything.
        examples: The held-out examples on which the two differ, by name.
    """

    run: optimization_pb2.Optimization
    trials: Sequence[optimization_pb2.Trial]
    baseline: judge_pb2.JudgeVersion
    candidate: judge_pb2.JudgeVersion | None
    examples: dict[str, feedback_pb2.TrainingExample]


@dataclass(frozen=True, slots=True)
class Curve:
    """A chart in user units of its SVG: dots of trials, a line of the best so far, two axis labels."""

    dots: tuple[tuple[float, float, str], ...]
    line: str
    low: str
    high: str
    width: int = _WIDTH
    height: int = _HEIGHT
    pad: int = _PAD


def report(args: argparse.Namespace) -> int:
    """Write the report of a run."""
    with connect(args) as session:
        write_report(session, optimization_name(args.optimization), Path(args.file))
    say(f"The report is in {args.file}.")
    return 0


def write_report(session: Session, name: str, path: Path) -> None:
    """Collect what a report shows and write it.

    Raises:
        CommandError: The file cannot be written.
    """
    text = render(_collect(session, name))
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise CommandError(f"{path}: {error}", exit_code=EXIT_USAGE) from error


def render(data: ReportData) -> str:
    """Return the report as HTML."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("sidejudge_server.cli", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    decision = data.run.decision
    return environment.get_template("run_report.html").render(
        run=data.run,
        outcome=_outcome(data.run),
        spend=_spend(data.run),
        estimates=[
            (what, f"{e.value:.1%}", f"{e.lower:.1%} to {e.upper:.1%}")
            for what, e in (
                ("baseline", decision.baseline),
                ("candidate", decision.candidate),
                ("difference", decision.difference),
            )
        ]
        if decision.pair_count
        else [],
        curve=curve(data.trials),
        trials=[_trial_row(trial) for trial in data.trials],
        matrices=[
            (title, _matrix(cells))
            for title, cells in (
                (
                    f"before: {short(data.run.baseline_version)}",
                    decision.baseline_confusion,
                ),
                ("after: the candidate", decision.candidate_confusion),
            )
            if cells
        ],
        versions=[
            (short(version.name), version)
            for version in (data.baseline, data.candidate)
            if version is not None
        ],
        changes=[
            _change(data.examples.get(changed.training_example), changed)
            for changed in decision.changed_examples
        ],
        clean=clean,
    )


def curve(trials: Sequence[optimization_pb2.Trial]) -> Curve | None:
    """Return the chart of trials; None for fewer than two."""
    if len(trials) < 2:  # noqa: PLR2004 - a curve needs two points
        return None
    scores = [trial.score for trial in trials]
    low = max(0.0, min(scores) - _MARGIN)
    high = min(1.0, max(scores) + _MARGIN)
    span = max(high - low, _MARGIN)

    def at(index: int, score: float) -> tuple[float, float]:
        x = _PAD + (_WIDTH - 2 * _PAD) * index / (len(trials) - 1)
        y = _HEIGHT - _PAD - (_HEIGHT - 2 * _PAD) * (score - low) / span
        return round(x, 1), round(y, 1)

    best = scores[0]
    points = []
    for index, trial in enumerate(trials):
        if trial.best:
            best = max(best, trial.score)
        points.append("{},{}".format(*at(index, best)))
    return Curve(
        dots=tuple(
            (*at(index, t.score), f"trial {index}: {number(t.score)}")
            for index, t in enumerate(trials)
        ),
        line=" ".join(points),
        low=number(low, digits=2),
        high=number(low + span, digits=2),
    )


def _collect(session: Session, name: str) -> ReportData:
    client, limit = session.client, session.timeout_s
    run = client.optimization.GetOptimization(
        optimization_service_pb2.GetOptimizationRequest(name=name), timeout=limit
    ).optimization
    trials = collect_pages(
        client.optimization.ListTrials,
        optimization_service_pb2.ListTrialsRequest(parent=name),
        "trials",
        timeout_s=limit,
    ).trials

    def version(of: str) -> judge_pb2.JudgeVersion | None:
        if not of:
            return None
        found: judge_pb2.JudgeVersion = client.judges.GetJudgeVersion(
            judge_service_pb2.GetJudgeVersionRequest(name=of), timeout=limit
        ).judge_version
        return found

    baseline = version(run.baseline_version) or judge_pb2.JudgeVersion()
    return ReportData(
        run, trials, baseline, version(run.candidate_version), _examples(session, run)
    )


def _examples(
    session: Session, run: optimization_pb2.Optimization
) -> dict[str, feedback_pb2.TrainingExample]:
    wanted = {changed.training_example for changed in run.decision.changed_examples}
    found: dict[str, feedback_pb2.TrainingExample] = {}
    if not wanted:
        return found
    stream = session.client.feedback.ExportTrainingExamples(
        feedback_service_pb2.ExportTrainingExamplesRequest(judge=run.judge),
        timeout=session.timeout_s,
    )
    for answer in stream:
        found |= {e.name: e for e in answer.training_examples if e.name in wanted}
        if len(found) == len(wanted):
            stream.cancel()
            break
    return found


def _outcome(run: optimization_pb2.Optimization) -> str:
    name = optimization_pb2.Optimization.Outcome.Name(run.outcome)
    return name.removeprefix("OUTCOME_").replace("_", " ").lower()


def _spend(run: optimization_pb2.Optimization) -> list[tuple[str, str, str]]:
    """Return what the run took beside what it was expected to take."""
    progress, estimate = run.progress, run.estimate
    expected = run.HasField("estimate")

    def beside(text: str) -> str:
        return text if expected else "-"

    return [
        ("LM calls", f"{progress.lm_calls:,}", beside(f"{estimate.lm_calls:,}")),
        ("answers from its cache", f"{progress.cached_calls:,}", "-"),
        (
            "prompt tokens",
            f"{progress.input_tokens:,}",
            beside(f"{estimate.input_tokens:,}"),
        ),
        (
            "generated tokens",
            f"{progress.output_tokens:,}",
            beside(f"{estimate.output_tokens:,}"),
        ),
        (
            "money",
            money(progress.cost_usd if progress.HasField("cost_usd") else None),
            beside(money(estimate.cost_usd if estimate.HasField("cost_usd") else None)),
        ),
        (
            "time",
            duration(progress.elapsed.ToTimedelta()),
            beside(duration(estimate.duration.ToTimedelta())),
        ),
        ("trials", str(progress.trials_completed), beside(str(estimate.trials))),
    ]


def _trial_row(trial: optimization_pb2.Trial) -> dict[str, Any]:
    looked = f"{trial.example_count}{', dropped early' if trial.stopped_early else ''}"
    return {
        "number": trial.name.rpartition("/")[2],
        "score": number(trial.score),
        "best": trial.best,
        "examples": looked,
        "demonstrations": trial.demonstration_count,
        "instructions": clean(trial.instructions),
    }


def _matrix(
    cells: Sequence[optimization_pb2.ConfusionCell],
) -> dict[str, Any]:
    """Return headings and rows of a confusion matrix, labels down, verdicts across."""
    counts = {(cell.label, cell.verdict): cell.count for cell in cells}
    labels = [v for v in _VERDICTS if any(label == v for label, _ in counts)]
    answers = [v for v in (*_VERDICTS, _UNUSABLE) if any(a == v for _, a in counts)]
    return {
        "columns": [_word(answer) for answer in answers],
        "rows": [
            (
                _word(label),
                [(counts.get((label, a), 0), label == a) for a in answers],
            )
            for label in labels
        ],
    }


def _word(verdict: judge_pb2.Verdict.ValueType) -> str:
    return "unusable" if verdict == _UNUSABLE else verdict_word(verdict)


def _change(
    example: feedback_pb2.TrainingExample | None,
    changed: optimization_pb2.ChangedExample,
) -> dict[str, Any]:
    fields: list[tuple[str, str]] = []
    label = "-"
    if example is not None:
        given = getattr(example, example.WhichOneof("input") or "artifact_input")
        fields = [
            (field.name, clean(str(value)))
            for field, value in given.ListFields()
            if isinstance(value, str)
        ]
        label = (
            verdict_word(example.verdict)
            if example.WhichOneof("label") == "verdict"
            else number(example.score, digits=2)
        )
    return {
        "name": changed.training_example,
        "label": label,
        "before": number(changed.baseline_quality, digits=2),
        "after": number(changed.candidate_quality, digits=2),
        "better": changed.candidate_quality > changed.baseline_quality,
        "fields": fields,
    }
