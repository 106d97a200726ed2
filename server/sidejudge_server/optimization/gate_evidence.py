"""What two versions said about the held-out examples, one by one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from sidejudge_server.judges.types import JudgeProgram, JudgeResult, Recalled, Verdict
from sidejudge_server.optimization.gate_decision import (
    ChangedExample,
    ConfusionCell,
    GateDecision,
)
from sidejudge_server.optimization.scoring import LabelledItem, quality, verdicts

__all__ = ["MAX_CHANGED", "with_answers"]

MAX_CHANGED = 200

_Answers = Sequence[JudgeResult | None]


def with_answers(
    decision: GateDecision,
    items: Sequence[LabelledItem],
    *,
    example_ids: Sequence[str],
    baseline: tuple[JudgeProgram, _Answers],
    candidate: tuple[JudgeProgram, _Answers],
    recalled: tuple[Sequence[Recalled], Sequence[Recalled]] | None = None,
) -> GateDecision:
    """Return the decision with its confusion matrices and the examples that changed.

    Args:
        decision: From `gate.decide`.
        items: The held-out examples.
        example_ids: Of the items, in their order.
        baseline: The version that serves with its answers to the items.
        candidate: The candidate with its own.
        recalled: What their memories bring up for the items, for their heads; None for nothing.
    """
    was_recalled, is_recalled = recalled or (None, None)
    old = verdicts(*baseline, recalled=was_recalled)
    new = verdicts(*candidate, recalled=is_recalled)
    scores = baseline[0].scores
    before = quality(baseline[0], items, baseline[1], recalled=was_recalled)
    after = quality(candidate[0], items, candidate[1], recalled=is_recalled)
    changed = [
        ChangedExample(example_id, was, becomes)
        for example_id, was, becomes, said, says in zip(
            example_ids, before, after, old, new, strict=True
        )
        if said is not says or was != becomes
    ]
    changed.sort(key=lambda c: -abs(c.candidate_quality - c.baseline_quality))
    return replace(
        decision,
        baseline_confusion=() if scores else _confusion(items, old),
        candidate_confusion=() if scores else _confusion(items, new),
        changed_examples=tuple(changed[:MAX_CHANGED]),
    )


def _confusion(
    items: Sequence[LabelledItem], said: Sequence[Verdict | None]
) -> tuple[ConfusionCell, ...]:
    cells = Counter(
        (item.verdict.value, verdict.value if verdict else "")
        for item, verdict in zip(items, said, strict=True)
        if item.verdict is not None
    )
    return tuple(
        ConfusionCell(label, verdict, count)
        for (label, verdict), count in sorted(cells.items())
    )
