"""Apply a learned head: a small model over the LM's answer and the labels of similar corrections.

Pure arithmetic, no numerical library: it runs in every evaluation of a version that has one. How a
head is fitted, and when one is accepted, is `optimization.head`'s affair.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from sidejudge_server.judges.types import (
    ConfidenceSource,
    Influence,
    JudgeProgram,
    JudgeResult,
    Judgment,
    Neighbour,
    Recalled,
    ScoreHead,
    Verdict,
    VerdictHead,
    VerdictProbabilities,
)

__all__ = [
    "MAX_INFLUENCES",
    "PROBABILITY_FLOOR",
    "head_score",
    "influences",
    "label_deviation",
    "verdict_logits",
    "votes",
]

MAX_INFLUENCES = 5
"""As many as an answer names."""

PROBABILITY_FLOOR = 1e-4
"""Smaller probabilities count as this: how sure a saturated LM is says nothing more beyond it."""


def verdict_logits(
    head: VerdictHead,
    probabilities: VerdictProbabilities,
    recalled: Recalled,
    *,
    binary: bool,
) -> Mapping[Verdict, float]:
    """Return the logit of each verdict, fail first so that ties go to the worse one.

    Args:
        head: Of the version.
        probabilities: The LM's.
        recalled: What the version's memory brought up.
        binary: True to leave partial out.
    """
    found = votes(recalled.neighbours[: head.neighbours])
    logits = {Verdict.FAIL: _evidence(head, probabilities.failed, found[Verdict.FAIL])}
    if not binary:
        logits[Verdict.PARTIAL] = head.partial_bias + _evidence(
            head, probabilities.partial, found[Verdict.PARTIAL]
        )
    logits[Verdict.PASS] = head.pass_bias + _evidence(
        head, probabilities.passed, found[Verdict.PASS]
    )
    return logits


def head_score(head: ScoreHead, raw_score: float, recalled: Recalled) -> float:
    """Return the score, 0..1."""
    deviation = label_deviation(
        recalled.neighbours[: head.neighbours], recalled.mean_label
    )
    score = head.intercept + head.raw_weight * raw_score + head.label_weight * deviation
    return min(1.0, max(0.0, score))


def votes(neighbours: tuple[Neighbour, ...]) -> Mapping[Verdict, float]:
    """Return the sum of similarities by label."""
    found = dict.fromkeys(Verdict, 0.0)
    for neighbour in neighbours:
        if neighbour.example.verdict is not None:
            found[neighbour.example.verdict] += neighbour.similarity
    return found


def label_deviation(
    neighbours: tuple[Neighbour, ...], mean_label: float | None
) -> float:
    """Return how far the labels of neighbours are from the mean, weighted by similarity.

    One neighbour with the mean label and similarity 1 is always thought to be there, so that
    examples that are hardly similar hardly count.
    """
    weight = 1.0 + sum(neighbour.similarity for neighbour in neighbours)
    return sum(_deviation(n, mean_label) * n.similarity for n in neighbours) / weight


def influences(
    program: JudgeProgram, result: JudgeResult, recalled: Recalled
) -> tuple[Influence, ...]:
    """Return which remembered examples had to do with an answer, the weightiest first, at most 5.

    Args:
        program: The version that answered.
        result: What it answered.
        recalled: What its memory brought up.
    """
    shown = program.memory.shown if program.memory is not None else 0
    counted = program.head.neighbours if program.head is not None else 0
    weigh = _Weights(program, result, recalled)
    found = [
        Influence(
            neighbour.example.example_id,
            neighbour.example.verdict,
            neighbour.example.score,
            neighbour.similarity,
            weigh(neighbour) if index < counted else 0.0,
        )
        for index, neighbour in enumerate(recalled.neighbours[: max(shown, counted)])
        if neighbour.similarity > 0.0
    ]
    found.sort(key=lambda influence: (-abs(influence.weight), -influence.similarity))
    return tuple(found[:MAX_INFLUENCES])


class _Weights:
    """What a neighbour adds to an answer; 0 if no head had a say."""

    def __init__(
        self, program: JudgeProgram, result: JudgeResult, recalled: Recalled
    ) -> None:
        self._program = program
        self._verdicts: tuple[Verdict, Verdict] | None = None
        self._factor = 0.0
        self._mean_label = recalled.mean_label
        head = program.head
        if isinstance(head, VerdictHead) and isinstance(result, Judgment):
            if result.confidence_source is not ConfidenceSource.NONE:
                self._factor = head.vote_weight
                rival = _rival(head, result, recalled, binary=program.binary)
                self._verdicts = (result.verdict, rival)
        elif isinstance(head, ScoreHead):
            counted = recalled.neighbours[: head.neighbours]
            total = 1.0 + sum(neighbour.similarity for neighbour in counted)
            self._factor = head.label_weight / total

    def __call__(self, neighbour: Neighbour) -> float:
        """Return the weight of one neighbour."""
        if self._verdicts is None:
            deviation = _deviation(neighbour, self._mean_label)
            return self._factor * neighbour.similarity * deviation
        answered, rival = self._verdicts
        label = neighbour.example.verdict
        side = float(label is answered) - float(label is rival)
        return self._factor * neighbour.similarity * side


def _rival(
    head: VerdictHead, judgment: Judgment, recalled: Recalled, *, binary: bool
) -> Verdict:
    """Return the verdict that came second.

    A stated probability is split evenly over the labels that were not named, so it does not tell
    them apart and is left out.
    """
    probabilities = judgment.probabilities or VerdictProbabilities(1.0, 1.0, 1.0)
    logits = verdict_logits(head, probabilities, recalled, binary=binary)
    others = [verdict for verdict in logits if verdict is not judgment.verdict]
    return max(others, key=lambda verdict: logits[verdict])


def _evidence(head: VerdictHead, probability: float, vote: float) -> float:
    log_probability = math.log(max(probability, PROBABILITY_FLOOR))
    return head.lm_weight * log_probability + head.vote_weight * vote


def _deviation(neighbour: Neighbour, mean_label: float | None) -> float:
    if neighbour.example.score is None or mean_label is None:
        return 0.0
    return neighbour.example.score - mean_label
