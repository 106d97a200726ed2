"""From probabilities to a verdict, from a raw grade to a score: rule, map or learned head.

What serves and what is measured decide by the same functions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

from sidejudge_server.judges.head import head_score, verdict_logits
from sidejudge_server.judges.types import (
    JudgeProgram,
    LabelOffsets,
    Recalled,
    ScoreHead,
    ScoreMap,
    Verdict,
    VerdictHead,
    VerdictProbabilities,
)

__all__ = [
    "Decision",
    "apply_score_map",
    "decide",
    "decide_score",
    "decide_verdict",
    "stated_probabilities",
]


class Decision(NamedTuple):
    """A verdict and its probability after the decision rule."""

    verdict: Verdict
    confidence: float


def decide_verdict(
    program: JudgeProgram, probabilities: VerdictProbabilities, recalled: Recalled
) -> Decision:
    """Return what a program makes of the LM's probabilities, by its head or its rule."""
    if isinstance(program.head, VerdictHead):
        logits = verdict_logits(
            program.head, probabilities, recalled, binary=program.binary
        )
        return _largest(logits)
    return decide(probabilities, program.offsets, program.binary)


def decide_score(program: JudgeProgram, raw_score: float, recalled: Recalled) -> float:
    """Return what a program makes of the LM's raw score, 0..1, by its head or its map."""
    if isinstance(program.head, ScoreHead):
        return head_score(program.head, raw_score, recalled)
    return apply_score_map(program.score_map, raw_score)


def decide(
    probabilities: VerdictProbabilities, offsets: LabelOffsets, binary: bool
) -> Decision:
    """Return the verdict with the largest ln P + offset, and its renormalised probability.

    Ties go to the worse verdict, as ``DecisionRule`` in the contract says ("greater than").

    Args:
        probabilities: At least one that counts is positive.
        offsets: The decision rule; fail has 0.
        binary: True to ignore P(partial).
    """
    logits = {
        Verdict.FAIL: _ln(probabilities.failed),
        Verdict.PARTIAL: -math.inf
        if binary
        else _ln(probabilities.partial) + offsets.partial,
        Verdict.PASS: _ln(probabilities.passed) + offsets.passed,
    }
    return _largest(logits)


def stated_probabilities(
    verdict: Verdict, confidence: float, *, binary: bool
) -> VerdictProbabilities:
    """Return the label probabilities that a verdict with a stated confidence stands for.

    The rest is split evenly over the other labels. A verdict that was chosen is at least as
    likely as the others, whatever number stands beside it, and never certain.
    """
    others = 1 if binary else 2
    confidence = min(0.995, max(confidence, 1.02 / (others + 1)))
    rest = (1.0 - confidence) / others
    values = {Verdict.PASS: rest, Verdict.PARTIAL: rest, Verdict.FAIL: rest}
    if binary:
        values[Verdict.PARTIAL] = 0.0
    values[verdict] = confidence
    return VerdictProbabilities(
        values[Verdict.PASS], values[Verdict.PARTIAL], values[Verdict.FAIL]
    )


def apply_score_map(score_map: ScoreMap, raw_score: float) -> float:
    """Return clip(intercept + slope * raw, 0, 1)."""
    return min(1.0, max(0.0, score_map.intercept + score_map.slope * raw_score))


def _largest(logits: Mapping[Verdict, float]) -> Decision:
    """Return the first of the largest, with its softmax."""
    verdict = max(logits, key=lambda label: logits[label])
    top = logits[verdict]
    total = sum(math.exp(logit - top) for logit in logits.values())
    return Decision(verdict, 1.0 / total)


def _ln(probability: float) -> float:
    return math.log(probability) if probability > 0.0 else -math.inf
