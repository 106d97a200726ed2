"""A run's figures as plain data and as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from sidejudge_server.benchmark.agreement import (
    Answer,
    Figure,
    ScoreAgreement,
    VerdictAgreement,
    by_source,
    score_agreement,
    verdict_agreement,
)
from sidejudge_server.benchmark.bias import Probe
from sidejudge_server.benchmark.runner import RunResult
from sidejudge_server.judges.types import Verdict

__all__ = ["markdown", "plain", "summarise"]

Agreement = VerdictAgreement | ScoreAgreement


def summarise(answers: Sequence[Answer], *, seed: int) -> dict[str, Agreement]:
    """Return the agreement in total, under `all`, and of each source if there are several.

    Args:
        answers: At least one; all verdicts or all scores.
        seed: Decides the resampling of the intervals.

    Raises:
        ValueError: There are no answers.
    """
    compare = (
        verdict_agreement
        if answers and isinstance(answers[0].label, Verdict)
        else score_agreement
    )
    slices = by_source(answers)
    figures: dict[str, Agreement] = {"all": compare(answers, seed=seed)}
    if len(slices) > 1:
        for source, of_source in slices.items():
            figures[source] = compare(of_source, seed=seed)
    return figures


def markdown(
    title: str,
    figures: dict[str, Agreement],
    result: RunResult,
    *,
    facts: dict[str, Any],
    probes: Sequence[Probe] = (),
) -> str:
    """Return a report: what was run, one row of figures a slice, confusion, biases, failures."""
    lines = [f"# {title}", ""]
    lines += [f"- {name}: {value}" for name, value in facts.items()]
    lines += [
        f"- model: {result.model}",
        (
            f"- {result.lm_calls} LM calls, {result.lm_seconds:.1f} s waiting for the LM;"
            f" {result.reused} answers from an earlier run"
        ),
        "",
    ]
    total = figures["all"]
    lines += _verdict_rows(figures) if _is_verdict(total) else _score_rows(figures)
    if isinstance(total, VerdictAgreement):
        lines += ["", *_confusion(total)]
    if probes:
        lines += ["", *_probes(probes)]
    if result.failures:
        lines += ["", f"{len(result.failures)} examples got no answer:", ""]
        lines += [f"- {f.key}: {f.code}: {f.detail}" for f in result.failures]
    return "\n".join(lines) + "\n"


def plain(figures: dict[str, Agreement]) -> dict[str, Any]:
    """Return figures as JSON data."""
    return {name: asdict(agreement) for name, agreement in figures.items()}


def _is_verdict(agreement: Agreement) -> bool:
    return isinstance(agreement, VerdictAgreement)


def _verdict_rows(figures: dict[str, Agreement]) -> list[str]:
    lines = [
        (
            "| slice | n | accuracy (95 %) | balanced accuracy (95 %) | macro F1"
            " | majority: accuracy, balanced |"
        ),
        "|---|---|---|---|---|---|",
    ]
    for name, a in figures.items():
        if isinstance(a, VerdictAgreement):
            lines.append(
                f"| {name} | {a.count} | {_figure(a.accuracy)} |"
                f" {_figure(a.balanced_accuracy)} | {a.macro_f1:.3f} |"
                f" {a.majority_accuracy:.3f}, {a.majority_balanced_accuracy:.3f} |"
            )
    return lines


def _score_rows(figures: dict[str, Agreement]) -> list[str]:
    lines = [
        (
            "| slice | n | mean absolute error (95 %) | bias | Spearman"
            " | best constant's error |"
        ),
        "|---|---|---|---|---|---|",
    ]
    for name, a in figures.items():
        if isinstance(a, ScoreAgreement):
            spearman = "-" if a.spearman is None else f"{a.spearman:.3f}"
            lines.append(
                f"| {name} | {a.count} | {_figure(a.mean_absolute_error)} |"
                f" {a.bias:+.3f} | {spearman} | {a.constant_error:.3f} |"
            )
    return lines


def _confusion(agreement: VerdictAgreement) -> list[str]:
    answers = list(next(iter(agreement.confusion.values())))
    lines = [
        f"| label \\ answer | {' | '.join(answers)} |",
        "|---" * (len(answers) + 1) + "|",
    ]
    for label, row in agreement.confusion.items():
        lines.append(f"| {label} | {' | '.join(str(row[a]) for a in answers)} |")
    return lines


def _probes(probes: Sequence[Probe]) -> list[str]:
    lines = ["| bias | n | value (95 %) | what it is |", "|---|---|---|---|"]
    for probe in probes:
        value = "-" if probe.figure is None else _figure(probe.figure)
        lines.append(f"| {probe.name} | {probe.items} | {value} | {probe.reading} |")
    return lines


def _figure(figure: Figure) -> str:
    if figure.lower is None or figure.upper is None:
        return f"{figure.value:.3f}"
    return f"{figure.value:.3f} ({figure.lower:.3f} to {figure.upper:.3f})"
