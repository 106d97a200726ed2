"""Labels of training examples: what may be one, how they are counted and when they differ."""

from __future__ import annotations

import math
from dataclasses import dataclass

from sidejudge_server.judges.kinds import KINDS, JudgeSpec
from sidejudge_server.judges.types import Verdict

__all__ = [
    "FIFTHS",
    "SCORE_DIFFERENCE",
    "LabelRules",
    "label_key",
    "label_rules",
    "labels_differ",
    "score_problem",
]

SCORE_DIFFERENCE = 0.2
"""Scores this far apart or farther count as different labels."""

_ROUNDING = 1e-9  # 0.7 - 0.5 is a little less than 0.2 in binary

FIFTHS = ("0.0-0.2", "0.2-0.4", "0.4-0.6", "0.6-0.8", "0.8-1.0")
"""Label keys of scores: a score on a border belongs to the fifth above it, 1.0 to the last."""


@dataclass(frozen=True, slots=True)
class LabelRules:
    """What a judge's labels and inputs look like; `label_rules` makes it.

    Attributes:
        judge_id: The judge.
        scores: True if it answers a score, from a rubric input; else a verdict, from an artifact.
        binary: True if it never answers partial.
        needs_ground_truth: True if its inputs must bring a ground truth.
        input_fields: Further inputs that must not be empty.
    """

    judge_id: str
    scores: bool
    binary: bool = False
    needs_ground_truth: bool = False
    input_fields: tuple[str, ...] = ()

    def label_problem(self, verdict: str | None, score: float | None) -> str | None:
        """Return why a label does not fit this judge, None if it does.

        Whether a score is within 0..1 is another question; see `score_problem`.
        """
        if self.scores:
            if score is None or verdict is not None:
                return f"judges/{self.judge_id} answers a score 0..1, not a verdict"
            return None
        if verdict is None or score is not None:
            return f"judges/{self.judge_id} answers {self._verdicts()}, not a score"
        if verdict not in self._allowed():
            return (
                f"judges/{self.judge_id} answers {self._verdicts()}, not {verdict[:32]}"
            )
        return None

    def _allowed(self) -> tuple[str, ...]:
        if self.binary:
            return (Verdict.PASS, Verdict.FAIL)
        return (Verdict.PASS, Verdict.PARTIAL, Verdict.FAIL)

    def _verdicts(self) -> str:
        return "pass or fail" if self.binary else "pass, partial or fail"


def label_rules(judge_id: str, spec: JudgeSpec) -> LabelRules:
    """Return the rules of a judge."""
    return LabelRules(
        judge_id=judge_id,
        scores=spec.answers_score,
        binary=spec.never_partial,
        needs_ground_truth=KINDS[spec.kind].needs_ground_truth,
        input_fields=spec.input_fields,
    )


def score_problem(score: float) -> str | None:
    """Return why a score is not a number in 0..1, None if it is."""
    if math.isfinite(score) and 0 <= score <= 1:
        return None
    return f"the score must be a number in 0..1, not {score:g}"


def label_key(verdict: str | None, score: float | None) -> str:
    """Return the name under which a label is counted: the verdict or the fifth of the score.

    Raises:
        ValueError: There is no label, or the score is not in 0..1.
    """
    if verdict is not None:
        return str(verdict)
    if score is None or score_problem(score):
        raise ValueError(f"no usable label: verdict {verdict}, score {score}")
    return FIFTHS[min(int(score * len(FIFTHS) + _ROUNDING), len(FIFTHS) - 1)]


def labels_differ(
    first: tuple[str | None, float | None], second: tuple[str | None, float | None]
) -> bool:
    """Return whether two labels, each a verdict or a score, say different things.

    Verdicts differ if they are not equal; scores if they are 0.2 or more apart.
    """
    if first[1] is not None and second[1] is not None:
        return not abs(first[1] - second[1]) < SCORE_DIFFERENCE - _ROUNDING
    return first != second
