"""Decides which candidates count as training examples, and what they do to older ones.

Pure: everything it looks at is passed in, everything it decides is returned.

Whoever labels an input casts a vote. Votes on one input agree or they do not:

- the first vote is accepted; further ones that agree are duplicates of it;
- a vote that disagrees takes everybody down: all votes on the input become conflicting, because
  the server cannot know who is right;
- an author's later vote on the same evaluation replaces the earlier one, and that is how a
  conflict ends: as soon as the remaining votes agree, the newest counts.

Unnamed authors of the same source count as one author: what has no author is mostly one person
who corrects himself, or a downstream signal that changes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from sidejudge_server.judges.types import ArtifactInput, JudgeInput, RubricInput
from sidejudge_server.training.examples import Candidate, texts_of
from sidejudge_server.training.labels import (
    LabelRules,
    label_key,
    labels_differ,
    score_problem,
)
from sidejudge_server.training.splits import SplitAssigner
from sidejudge_storage.records import ExampleRecord

__all__ = [
    "MAX_GROUP_CHARS",
    "MAX_RATIONALE_CHARS",
    "Demotion",
    "ExampleValidator",
    "Rejection",
    "Validation",
]

MAX_RATIONALE_CHARS = 4_000
MAX_GROUP_CHARS = 256


class Rejection(StrEnum):
    """Why an example does not count; names of `TrainingExample.Rejection`."""

    EMPTY_INPUT = "empty_input"
    DUPLICATE = "duplicate"
    CONFLICTING_LABEL = "conflicting_label"
    GROUP_LEAKAGE = "group_leakage"
    SCORE_OUT_OF_RANGE = "score_out_of_range"
    LABEL_MISMATCH = "label_mismatch"
    SUPERSEDED = "superseded"
    TOO_LARGE = "too_large"


@dataclass(frozen=True, slots=True)
class Demotion:
    """A stored example that does not count any more, or for another reason than before."""

    example_id: str
    rejection: Rejection
    detail: str


@dataclass(frozen=True, slots=True)
class Validation:
    """What became of the candidates.

    Attributes:
        records: One for each candidate, in their order, with a split or a rejection.
        demotions: Changes to examples that were stored before.
    """

    records: tuple[ExampleRecord, ...]
    demotions: tuple[Demotion, ...]


_LIVE = frozenset({None, Rejection.DUPLICATE, Rejection.CONFLICTING_LABEL})


@dataclass(slots=True)
class _Vote:
    """A live example of one input; ``record`` changes as decisions fall."""

    record: ExampleRecord
    stored: bool

    @property
    def name(self) -> str:
        return f"trainingExamples/{self.record.example_id}"

    @property
    def label(self) -> tuple[str | None, float | None]:
        return self.record.verdict, self.record.score

    def same_author_as(self, other: _Vote) -> bool:
        mine, theirs = self.record, other.record
        return (
            mine.evaluation_id is not None
            and mine.evaluation_id == theirs.evaluation_id
            and mine.author == theirs.author
            and (bool(mine.author) or mine.source == theirs.source)
        )

    def later_than(self, other: _Vote) -> bool:
        return (self.record.feedback_id or "") > (other.record.feedback_id or "")


class ExampleValidator:
    """Validates candidates of one judge."""

    def __init__(self, rules: LabelRules, *, max_text_chars: int) -> None:
        """Make a validator.

        Args:
            rules: What labels and inputs of the judge look like.
            max_text_chars: Largest text field, in characters.
        """
        self._rules = rules
        self._max_text_chars = max_text_chars

    def validate(
        self,
        candidates: Sequence[Candidate],
        *,
        existing: Iterable[ExampleRecord],
        group_splits: Mapping[str, str],
        split_counts: Mapping[tuple[str, str], int],
    ) -> Validation:
        """Decide about candidates in their order, oldest first.

        Args:
            candidates: New examples.
            existing: Stored examples of the same inputs or evaluations; others do no harm.
            group_splits: Side of each candidate's group that has one.
            split_counts: Accepted examples of the judge by (side, label key).
        """
        run = _Run(
            existing,
            SplitAssigner(
                self._rules.judge_id, groups=group_splits, counts=split_counts
            ),
        )
        for candidate in candidates:
            if problem := self._problem(candidate):
                run.refuse(candidate.record, *problem)
            else:
                run.cast(candidate.record)
        return run.result()

    def _problem(self, candidate: Candidate) -> tuple[Rejection, str] | None:
        """Return what is wrong with a candidate by itself."""
        record = candidate.record
        if detail := self._size_problem(candidate):
            return Rejection.TOO_LARGE, detail
        if detail := self._input_problem(candidate.input):
            return Rejection.EMPTY_INPUT, detail
        if detail := self._rules.label_problem(record.verdict, record.score):
            return Rejection.LABEL_MISMATCH, detail
        if record.score is not None and (detail := score_problem(record.score)):
            return Rejection.SCORE_OUT_OF_RANGE, detail
        return None

    def _size_problem(self, candidate: Candidate) -> str | None:
        limit = self._max_text_chars
        for path, text in texts_of(candidate.input).items():
            if len(text) > limit:
                return f"{path} has {len(text)} characters; at most {limit}"
        record = candidate.record
        if len(record.rationale) > MAX_RATIONALE_CHARS:
            return (
                f"rationale has {len(record.rationale)} characters; "
                f"at most {MAX_RATIONALE_CHARS}"
            )
        if len(record.group_key) > MAX_GROUP_CHARS:
            return (
                f"group has {len(record.group_key)} characters; "
                f"at most {MAX_GROUP_CHARS}"
            )
        return None

    def _input_problem(self, item: JudgeInput) -> str | None:
        if self._rules.scores:
            if not isinstance(item, RubricInput):
                return "a judge that answers a score needs a rubric_input"
            required = ["task_context", "agent_output"]
        else:
            if not isinstance(item, ArtifactInput):
                return "a judge that answers a verdict needs an artifact_input"
            required = ["artifact"]
            if self._rules.needs_ground_truth:
                required.append("ground_truth")
            required += [f"fields.{name}" for name in self._rules.input_fields]
        texts = texts_of(item)
        empty = [path for path in required if not texts.get(path, "").strip()]
        return f"{', '.join(empty)} must not be empty" if empty else None


class _Run:
    """Votes by input during one validation."""

    def __init__(
        self, existing: Iterable[ExampleRecord], assigner: SplitAssigner
    ) -> None:
        self._assigner = assigner
        self._new: list[_Vote] = []
        self._demotions: dict[str, Demotion] = {}
        self._votes: defaultdict[str, list[_Vote]] = defaultdict(list)
        for record in {e.example_id: e for e in existing}.values():
            if record.rejection in _LIVE:
                self._votes[record.content_digest].append(_Vote(record, stored=True))

    def result(self) -> Validation:
        return Validation(
            tuple(vote.record for vote in self._new), tuple(self._demotions.values())
        )

    def refuse(self, record: ExampleRecord, rejection: Rejection, detail: str) -> None:
        """Take a candidate down that is wrong by itself and casts no vote."""
        self._new.append(
            _Vote(
                replace(
                    record,
                    # What was refused for its size must not fill the database.
                    rationale=record.rationale[:MAX_RATIONALE_CHARS],
                    group_key=record.group_key[:MAX_GROUP_CHARS],
                    rejection=rejection,
                    rejection_detail=detail,
                ),
                stored=False,
            )
        )

    def cast(self, record: ExampleRecord) -> None:
        """Decide about a candidate that is fine by itself."""
        vote = _Vote(record, stored=False)
        self._new.append(vote)
        votes = self._votes[record.content_digest]
        for other in [v for v in votes if v.same_author_as(vote)]:
            if other.later_than(vote):
                self._demote(vote, Rejection.SUPERSEDED, _superseded_by(other))
                return
            votes.remove(other)
            self._demote(other, Rejection.SUPERSEDED, _superseded_by(vote))
        clash = next((v for v in votes if labels_differ(v.label, vote.label)), None)
        accepted = next((v for v in votes if v.record.rejection is None), None)
        if clash is not None:
            self._conflict(vote, votes, clash)
        elif accepted is not None:
            self._repeat(vote, accepted)
        else:
            self._accept(vote)
            for other in votes:
                self._demote(other, Rejection.DUPLICATE, _repeats(vote))
        votes.append(vote)

    def _accept(self, vote: _Vote) -> None:
        record = vote.record
        split = self._assigner.assign(
            record.group_key, label_key(record.verdict, record.score)
        )
        vote.record = replace(record, split=split.value)

    def _repeat(self, vote: _Vote, accepted: _Vote) -> None:
        if vote.record.group_key == accepted.record.group_key:
            self._demote(vote, Rejection.DUPLICATE, _repeats(accepted))
            return
        self._demote(
            vote,
            Rejection.GROUP_LEAKAGE,
            f"same input as {accepted.name}, which is in group "
            f"{accepted.record.group_key[:64]!r}: the split would leak",
        )

    def _conflict(self, vote: _Vote, votes: list[_Vote], clash: _Vote) -> None:
        self._demote(vote, Rejection.CONFLICTING_LABEL, _contradicts(vote, clash))
        for other in votes:
            if other.record.rejection != Rejection.CONFLICTING_LABEL:
                opposite = vote if labels_differ(other.label, vote.label) else clash
                self._demote(
                    other, Rejection.CONFLICTING_LABEL, _contradicts(other, opposite)
                )

    def _demote(self, vote: _Vote, rejection: Rejection, detail: str) -> None:
        record = vote.record
        if record.rejection is None and record.split is not None:
            self._assigner.remove(record.split, label_key(record.verdict, record.score))
        vote.record = replace(
            record, split=None, rejection=rejection, rejection_detail=detail
        )
        if vote.stored:
            self._demotions[record.example_id] = Demotion(
                record.example_id, rejection, detail
            )


def _superseded_by(vote: _Vote) -> str:
    return f"replaced by the same author's later correction, {vote.name}"


def _repeats(vote: _Vote) -> str:
    return f"same input and label as {vote.name}"


def _contradicts(vote: _Vote, clash: _Vote) -> str:
    text = (
        f"labelled {_shown(vote)} here and {_shown(clash)} in {clash.name}; "
        "both are left out"
    )
    if vote.record.evaluation_id is None and clash.record.evaluation_id is None:
        return f"{text}: which of two imported labels is right cannot be told"
    return f"{text} until one of the authors corrects the evaluation again"


def _shown(vote: _Vote) -> str:
    verdict, score = vote.label
    return str(verdict) if verdict is not None else f"{score:g}"
