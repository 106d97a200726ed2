"""Corrections as callers bring them: checks, and the rows they become."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sidejudge_server.errors import (
    FieldViolation,
    InvalidRequestError,
    NotFoundError,
    SidejudgeError,
)
from sidejudge_server.judges.codec import canonical_json
from sidejudge_server.training.labels import LabelRules, score_problem
from sidejudge_storage import EvaluationKey, FeedbackRecord

__all__ = [
    "SOURCES",
    "BatchOutcome",
    "BatchResource",
    "Correction",
    "ItemError",
    "correction_problem",
    "corrections_fingerprint",
    "evaluation_not_found",
    "feedback_record",
]

SOURCES = frozenset({"expert", "user", "downstream"})
MAX_AUTHOR_CHARS = 128
MAX_COMMENT_CHARS = 4_000


@dataclass(frozen=True, slots=True)
class Correction:
    """What the answer of an evaluation should have been.

    Attributes:
        evaluation_id: The evaluation.
        verdict: pass, partial or fail; None for judges that score.
        score: 0..1; None for judges that answer a verdict.
        source: expert, user or downstream.
        author: Who says so, at most 128 characters.
        comment: Why, at most 4,000 characters.
    """

    evaluation_id: str
    verdict: str | None = None
    score: float | None = None
    source: str = "expert"
    author: str = ""
    comment: str = ""


@dataclass(frozen=True, slots=True)
class ItemError:
    """An item of a batch that was refused."""

    index: int
    error: SidejudgeError


@dataclass(frozen=True, slots=True)
class BatchOutcome:
    """What became of a batch.

    Attributes:
        feedback_ids: One for each item, in their order; None for items with errors.
        errors: Items that were not recorded, by index.
    """

    feedback_ids: tuple[str | None, ...]
    errors: tuple[ItemError, ...]


@dataclass(frozen=True, slots=True)
class BatchResource:
    """What a repeated batch is answered from; a list of ids would fill the request log.

    Attributes:
        end: An id after those of the batch.
        count: How many were recorded.
        failed: Indexes of items that were not, ascending.
    """

    end: str
    count: int
    failed: tuple[int, ...]

    def to_text(self) -> str:
        """Write it as one line."""
        return f"{self.end} {self.count} {_ranges(self.failed)}"

    @classmethod
    def from_text(cls, text: str) -> BatchResource:
        """Read `to_text`."""
        end, count, ranges = text.split(" ")
        failed: list[int] = []
        for part in filter(None, ranges.split(",")):
            first, _, last = part.partition("-")
            failed.extend(range(int(first), int(last or first) + 1))
        return cls(end, int(count), tuple(failed))


def correction_problem(
    correction: Correction, *, key: EvaluationKey | None, rules: LabelRules | None
) -> SidejudgeError | None:
    """Return why a correction cannot be recorded, None if it can.

    Args:
        correction: What the caller brings.
        key: The evaluation, None if there is none.
        rules: Of the evaluation's judge, None if there is no evaluation.
    """
    violations = _form_violations(correction)
    if key is not None and rules is not None and not violations:
        problem = rules.label_problem(correction.verdict, correction.score)
        if problem:
            field = "verdict" if correction.verdict is not None else "score"
            violations.append(FieldViolation(f"feedback.{field}", problem))
    if violations:
        return InvalidRequestError(violations)
    if key is None:
        return evaluation_not_found(correction.evaluation_id)
    return None


def evaluation_not_found(evaluation_id: str) -> NotFoundError:
    """Return the error for an evaluation that does not exist."""
    name = f"evaluations/{evaluation_id}"
    return NotFoundError(
        f"there is no {name}",
        reason="EVALUATION_NOT_FOUND",
        resource_type="Evaluation",
        resource_name=name,
    )


def feedback_record(
    correction: Correction, *, feedback_id: str, judge_id: str, created_at: datetime
) -> FeedbackRecord:
    """Return the row of a correction that was checked."""
    return FeedbackRecord(
        feedback_id=feedback_id,
        evaluation_id=correction.evaluation_id,
        judge_id=judge_id,
        created_at=created_at,
        source=correction.source,
        author=correction.author,
        verdict=correction.verdict,
        score=correction.score,
        comment=correction.comment,
    )


def corrections_fingerprint(corrections: Sequence[Correction]) -> str:
    """Return text that is equal for equal corrections in equal order."""
    return canonical_json(
        [
            [
                c.evaluation_id,
                c.verdict,
                repr(c.score),  # also for NaN, which JSON has no word for
                c.source,
                c.author,
                c.comment,
            ]
            for c in corrections
        ]
    )


def _form_violations(correction: Correction) -> list[FieldViolation]:
    """Return what is wrong whatever the evaluation is."""
    found = []
    if not correction.evaluation_id:
        found.append(FieldViolation("feedback.evaluation", "is required"))
    if (correction.verdict is None) == (correction.score is None):
        found.append(
            FieldViolation("feedback.correction", "needs either a verdict or a score")
        )
    if correction.score is not None and (problem := score_problem(correction.score)):
        found.append(FieldViolation("feedback.score", problem))
    if correction.source not in SOURCES:
        found.append(
            FieldViolation("feedback.source", f"must be one of {sorted(SOURCES)}")
        )
    for field, text, limit in (
        ("author", correction.author, MAX_AUTHOR_CHARS),
        ("comment", correction.comment, MAX_COMMENT_CHARS),
    ):
        if len(text) > limit:
            found.append(
                FieldViolation(
                    f"feedback.{field}", f"has {len(text)} characters; at most {limit}"
                )
            )
    return found


def _ranges(indexes: Sequence[int]) -> str:
    """Write ascending indexes as ranges, such as 3,7-9."""
    ranges: list[list[int]] = []
    for index in indexes:
        if ranges and index == ranges[-1][1] + 1:
            ranges[-1][1] = index
        else:
            ranges.append([index, index])
    return ",".join(f"{a}" if a == b else f"{a}-{b}" for a, b in ranges)
