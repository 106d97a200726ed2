"""Candidates for training examples, made from feedback or from imported data.

A factory only gathers and names what was said; `validator` decides whether it counts.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import ClassVar

from sidejudge_server.judges.codec import (
    content_digest,
    input_from_json,
    input_to_json,
)
from sidejudge_server.judges.types import (
    ArtifactInput,
    Criterion,
    JudgeInput,
    RubricInput,
)
from sidejudge_server.training.labels import LabelRules
from sidejudge_server.training.origins import FEEDBACK, IMPORT
from sidejudge_storage.ids import new_id
from sidejudge_storage.records import EvaluationRecord, ExampleRecord, FeedbackRecord

__all__ = [
    "Candidate",
    "ImportedExample",
    "JudgeTrainingFactory",
    "RubricTrainingFactory",
    "TrainingFactory",
    "own_group",
    "texts_of",
    "training_factory",
]


@dataclass(frozen=True, slots=True)
class ImportedExample:
    """Labelled data that somebody brings. ``verdict`` xor ``score`` should be set.

    Attributes:
        input: What is judged.
        verdict: The right verdict.
        score: The right score.
        rationale: Why.
        group: Items of one group stay on one side of the split; empty for a group of its own.
        source: expert, user or downstream.
        author: Who labelled it, if known.
    """

    input: JudgeInput
    verdict: str | None = None
    score: float | None = None
    rationale: str = ""
    group: str = ""
    source: str = "expert"
    author: str = ""


@dataclass(frozen=True, slots=True)
class Candidate:
    """An example that nobody has looked at yet, with its decoded input."""

    record: ExampleRecord
    input: JudgeInput


def own_group(digest: str) -> str:
    """Return the group of an input that was given none.

    It is the input's own, not the example's: the same input stays on its side of the split when
    it comes again, and two copies without a group are duplicates, not a leak between groups.
    """
    return f"input:{digest}"


def texts_of(item: JudgeInput) -> Mapping[str, str]:
    """Return every text of an input by the path of its field."""
    if isinstance(item, RubricInput):
        texts = {"task_context": item.task_context, "agent_output": item.agent_output}
        for i, criterion in enumerate(item.criteria):
            texts[f"criteria[{i}].name"] = criterion.name
            texts[f"criteria[{i}].description"] = criterion.description
        return texts
    texts = {"artifact": item.artifact, "context": item.context}
    if item.ground_truth is not None:
        texts["ground_truth"] = item.ground_truth
    texts.update({f"fields.{name}": text for name, text in item.fields.items()})
    return texts


class TrainingFactory(ABC):
    """Makes candidates for one judge."""

    input_type: ClassVar[type[ArtifactInput] | type[RubricInput]]

    def __init__(self, rules: LabelRules, *, max_text_chars: int) -> None:
        """Make a factory.

        Args:
            rules: The judge's.
            max_text_chars: Longer texts are stored cut; the validator refuses the candidate.
        """
        self._rules = rules
        self._max_text_chars = max_text_chars

    @abstractmethod
    def completed(self, item: JudgeInput) -> JudgeInput:
        """Return an imported input with what an evaluation would have added to it."""

    def from_feedback(
        self, evaluation: EvaluationRecord, feedback: FeedbackRecord
    ) -> Candidate:
        """Make a candidate of an evaluation and what somebody said about it.

        Raises:
            ValueError: The stored input cannot be read.
        """
        item = input_from_json(evaluation.input_json)
        digest = content_digest(item)
        record = ExampleRecord(
            example_id=new_id(),
            judge_id=self._rules.judge_id,
            created_at=feedback.created_at,
            origin=FEEDBACK,
            source=feedback.source,
            author=feedback.author,
            evaluation_id=evaluation.evaluation_id,
            feedback_id=feedback.feedback_id,
            group_key=evaluation.group_key or own_group(digest),
            content_digest=digest,
            split=None,
            input_json=evaluation.input_json,
            verdict=feedback.verdict,
            score=feedback.score,
            rationale=feedback.comment,
            judged_verdict=evaluation.verdict,
            judged_score=evaluation.score,
            rejection=None,
            rejection_detail="",
        )
        return Candidate(record, item)

    def from_import(
        self, imported: ImportedExample, *, created_at: datetime
    ) -> Candidate:
        """Make a candidate of imported data."""
        item = self.completed(imported.input)
        digest = content_digest(item)
        record = ExampleRecord(
            example_id=new_id(),
            judge_id=self._rules.judge_id,
            created_at=created_at,
            origin=IMPORT,
            source=imported.source,
            author=imported.author,
            evaluation_id=None,
            feedback_id=None,
            group_key=imported.group or own_group(digest),
            content_digest=digest,
            split=None,
            input_json=input_to_json(self._cut(item)),
            verdict=imported.verdict,
            score=imported.score,
            rationale=imported.rationale,
            judged_verdict=None,
            judged_score=None,
            rejection=None,
            rejection_detail="",
        )
        return Candidate(record, item)

    def _cut(self, item: JudgeInput) -> JudgeInput:
        """Shorten texts over the limit, so that refused data cannot fill the database."""
        limit = self._max_text_chars
        if all(len(text) <= limit for text in texts_of(item).values()):
            return item
        if isinstance(item, RubricInput):
            return replace(
                item,
                task_context=item.task_context[:limit],
                agent_output=item.agent_output[:limit],
                criteria=tuple(
                    Criterion(c.name[:limit], c.description[:limit])
                    for c in item.criteria
                ),
            )
        truth = item.ground_truth
        return replace(
            item,
            artifact=item.artifact[:limit],
            context=item.context[:limit],
            ground_truth=None if truth is None else truth[:limit],
            fields={name: text[:limit] for name, text in item.fields.items()},
        )


class JudgeTrainingFactory(TrainingFactory):
    """Makes candidates for a judge that answers a verdict."""

    input_type = ArtifactInput

    def completed(self, item: JudgeInput) -> JudgeInput:
        """Return the input as it is."""
        return item


class RubricTrainingFactory(TrainingFactory):
    """Makes candidates for a judge that answers a score."""

    input_type = RubricInput

    def __init__(
        self,
        rules: LabelRules,
        *,
        max_text_chars: int,
        default_criteria: tuple[Criterion, ...] = (),
    ) -> None:
        """Make a factory.

        Args:
            rules: The judge's.
            max_text_chars: Longer texts are stored cut; the validator refuses the candidate.
            default_criteria: Taken by imported inputs that bring none, as evaluations do.
        """
        super().__init__(rules, max_text_chars=max_text_chars)
        self._default_criteria = default_criteria

    def completed(self, item: JudgeInput) -> JudgeInput:
        """Return the input with the judge's criteria if it brings none."""
        if isinstance(item, RubricInput) and not item.criteria:
            return replace(item, criteria=self._default_criteria)
        return item


def training_factory(
    rules: LabelRules,
    *,
    max_text_chars: int,
    default_criteria: tuple[Criterion, ...] = (),
) -> TrainingFactory:
    """Return the factory that fits a judge."""
    if rules.scores:
        return RubricTrainingFactory(
            rules, max_text_chars=max_text_chars, default_criteria=default_criteria
        )
    return JudgeTrainingFactory(rules, max_text_chars=max_text_chars)
