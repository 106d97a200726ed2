"""Figures of the comparison: accuracy with Wilson's interval, paired differences, as Markdown."""

from __future__ import annotations

from collections import Counter
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
    """Return one row of figures for each result, in their order.

    An unusable answer counts as wrong. A run without a candidate leaves version 1 in place, so it has
    its answers. The paired interval is Tango's, p is that of the two-sided exact McNemar test;
    both are None without version 1, p also if the two never differ.

    Args:
        results: What was stored of each row, by its name.
        labels: Label by key of the held-out examples.
    """
    rows = []
    base = results.get(BASELINE)
    for name, result in results.items():
        given = result["items"] or (base or {}).get("items", [])
        right = _right(given, labels)
        row: dict[str, Any] = {
            "name": name,
            "count": len(labels),
            "accuracy": sum(right.values()) / len(labels),
            "interval": wilson(sum(right.values()), len(labels)),
            "answers": Counter(i["answer"] or "unusable" for i in given),
            "candidate": bool(result["items"]),
            **{k: result[k] for k in ("calls", "cached", "seconds", "outcome", "load")},
        }
        if base is not None and name != BASELINE:
            before = _right(base["items"], labels)
            wins = sum(right[k] and not before[k] for k in labels)
            losses = sum(before[k] and not right[k] for k in labels)
            test = mcnemar(wins, losses)
            row |= {
                "wins": wins,
                "losses": losses,
                "difference": (wins - losses) / len(labels),
                "difference_interval": paired_score_interval(
                    wins, losses, pairs=len(labels)
                ),
                "p": None if isinstance(test, CannotSay) else test.p_two_sided,
            }
        rows.append(row)
    return rows


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
