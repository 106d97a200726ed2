"""Figures of the comparison: accuracy with Wilson's interval, paired differences, as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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

    A run is paired with version 1 as its own gate asked it: a model server need not repeat an answer
    that is a close call. Other rows are paired with version 1 as it was served. An unusable answer
    counts as wrong. The paired interval is Tango's, p is that of the two-sided exact McNemar
    test, None if the two never differ in being right.

    Args:
        results: What was stored of each row, by its name.
        labels: Label by key of the held-out examples.
    """
    if BASELINE not in results:
        return []
    served = _right(results[BASELINE]["items"], labels)
    rows = []
    for name, result in results.items():
        if result.get("run"):
            pairs = _of_gate(result["run"]["decision"])
        else:
            pairs = _of_answers(served, _right(result["items"], labels))
        rows.append(
            {
                "name": name,
                "accuracy": pairs.after / pairs.count,
                "interval": wilson(pairs.after, pairs.count),
                **({} if name == BASELINE else _paired(pairs)),
                **{k: result[k] for k in ("calls", "seconds", "outcome", "load")},
            }
        )
    return rows


@dataclass(frozen=True, slots=True)
class _Pairs:
    """Held-out examples that version 1 and a row answered: how many were right."""

    count: int
    before: int
    after: int
    wins: int
    losses: int


def _of_gate(decision: Mapping[str, Any]) -> _Pairs:
    """Read what a gate saw; JSON leaves zeros out."""
    count = decision["pair_count"]
    before, after = (
        round(decision[side].get("value", 0.0) * count)
        for side in ("baseline", "candidate")
    )
    return _Pairs(
        count, before, after, decision.get("wins", 0), decision.get("losses", 0)
    )


def _of_answers(before: Mapping[str, bool], after: Mapping[str, bool]) -> _Pairs:
    return _Pairs(
        len(before),
        sum(before.values()),
        sum(after.values()),
        sum(after[key] and not before[key] for key in before),
        sum(before[key] and not after[key] for key in before),
    )


def _paired(pairs: _Pairs) -> dict[str, Any]:
    test = mcnemar(pairs.wins, pairs.losses)
    return {
        "baseline": pairs.before / pairs.count,
        "wins": pairs.wins,
        "losses": pairs.losses,
        "difference": (pairs.wins - pairs.losses) / pairs.count,
        "difference_interval": paired_score_interval(
            pairs.wins, pairs.losses, pairs=pairs.count
        ),
        "p": None if isinstance(test, CannotSay) else test.p_two_sided,
    }


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return rows of figures as a Markdown table."""
    lines = [
        "| judge | held-out accuracy | version 1 beside it | difference | won, lost | p | LM calls | seconds | load | outcome |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        pair = ["-"] * 4
        if "wins" in row:
            low, high = (
                row["difference_interval"].low,
                row["difference_interval"].high,
            )
            pair = [
                f"{row['baseline']:.3f}",
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
