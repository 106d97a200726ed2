"""Figures of the comparison: accuracy with Wilson's interval, paired differences, as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sidejudge_server.optimization.paired_interval import paired_score_interval
from sidejudge_server.stats.outcome import CannotSay
from sidejudge_server.stats.paired import mcnemar
from sidejudge_server.stats.proportions import wilson

__all__ = ["figures", "table"]

BASELINE = "version 1"


def figures(
    results: Mapping[str, Mapping[str, Any]], labels: Mapping[str, str]
) -> list[dict[str, Any]]:
    """Return one row of figures for each result, in their order; none without version 1.

    An unusable answer counts as wrong. Of a run only the answers that differ from version 1's are kept;
    one without a candidate leaves version 1 in place. The paired interval is Tango's, p is that of the
    two-sided exact McNemar test, None if the two never differ in being right.

    Args:
        results: What was stored of each row, by its name.
        labels: Label by key of the held-out examples.
    """
    if BASELINE not in results:
        return []
    before = _right(results[BASELINE]["items"], labels)
    rows = []
    for name, result in results.items():
        right = _right(result["items"], labels)
        if not result["items"]:
            right = before | result["changed"]
        total = sum(right.values())
        rows.append(
            {
                "name": name,
                "accuracy": total / len(labels),
                "interval": wilson(total, len(labels)),
                **({} if name == BASELINE else _paired(before, right)),
                **{k: result[k] for k in ("calls", "seconds", "outcome", "load")},
            }
        )
    return rows


def _paired(before: Mapping[str, bool], after: Mapping[str, bool]) -> dict[str, Any]:
    wins = sum(after[key] and not before[key] for key in before)
    losses = sum(before[key] and not after[key] for key in before)
    test = mcnemar(wins, losses)
    return {
        "wins": wins,
        "losses": losses,
        "difference": (wins - losses) / len(before),
        "difference_interval": paired_score_interval(wins, losses, pairs=len(before)),
        "p": None if isinstance(test, CannotSay) else test.p_two_sided,
    }


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return rows of figures as a Markdown table."""
    lines = [
        "| judge | held-out accuracy | against version 1 | won, lost | p | LM calls | seconds | load | outcome |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        pair = ["-", "-", "-"]
        if "wins" in row:
            low, high = (
                row["difference_interval"].low,
                row["difference_interval"].high,
            )
            pair = [
                f"{row['difference']:+.3f} ({low:+.3f} to {high:+.3f})",
                f"{row['wins']}, {row['losses']}",
                "-" if row["p"] is None else f"{row['p']:.3f}",
            ]
        cells = [
            row["name"],
            f"{row['accuracy']:.3f} ({row['interval'].low:.3f} to {row['interval'].high:.3f})",
            *pair,
            f"{row['calls']:,.0f}",
            f"{row['seconds']:,.0f}",
            f"{row['load'][0]:.1f} to {row['load'][1]:.1f}",
            row["outcome"],
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _right(
    items: Sequence[Mapping[str, str]], labels: Mapping[str, str]
) -> dict[str, bool]:
    answers = {i["key"]: i["answer"] for i in items}
    return {key: answers.get(key) == label for key, label in labels.items()}
