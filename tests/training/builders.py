"""Evaluations, feedback and candidates for tests, with everything that does not matter filled in."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import count

from sidejudge_server.judges.codec import input_to_json
from sidejudge_server.judges.types import ArtifactInput, RubricInput
from sidejudge_server.training.examples import training_factory
from sidejudge_server.training.labels import LabelRules
from sidejudge_storage.ids import new_id
from sidejudge_storage.records import EvaluationRecord, FeedbackRecord

VERDICTS = LabelRules("relevance", scores=False)
BINARY = LabelRules("safety", scores=False, binary=True)
TRUTH = LabelRules("faithfulness", scores=False, needs_ground_truth=True)
SCORES = LabelRules("rubric", scores=True)

START = datetime(2026, 1, 1, tzinfo=UTC)
LIMIT = 1000
_seconds = count()


def evaluation(item=None, *, judge="relevance", group="", **answer):
    """An evaluation; ``answer`` is verdict or score, pass if neither."""
    item = item or ArtifactInput(f"artifact {next(_seconds)}", context="task")
    scores = isinstance(item, RubricInput)
    return EvaluationRecord(
        evaluation_id=new_id(),
        judge_id=judge,
        version=1,
        created_at=START,
        input_json=input_to_json(item),
        verdict=None if scores else answer.get("verdict", "pass"),
        score=answer.get("score", 0.5) if scores else None,
        confidence=0.9,
        confidence_source="logprob",
        p_pass=None,
        p_partial=None,
        p_fail=None,
        score_stddev=None,
        reasoning="",
        suggestions_json="[]",
        criterion_scores_json="[]",
        model="stand-in",
        input_tokens=1,
        cached_input_tokens=0,
        output_tokens=1,
        lm_calls=1,
        cost_usd=None,
        lm_latency_ms=1.0,
        subject="",
        group_key=group,
        labels_json="{}",
    )


def feedback(about, *, author="ann", source="expert", comment="", **label):
    """Feedback on an evaluation; ``label`` is verdict or score."""
    return FeedbackRecord(
        feedback_id=new_id(),
        evaluation_id=about.evaluation_id,
        judge_id=about.judge_id,
        created_at=START + timedelta(seconds=next(_seconds)),
        source=source,
        author=author,
        verdict=label.get("verdict"),
        score=label.get("score"),
        comment=comment,
    )


def candidate(about, rules=VERDICTS, **given):
    """A candidate from feedback on an evaluation."""
    factory = training_factory(rules, max_text_chars=LIMIT)
    return factory.from_feedback(about, feedback(about, **given))


def imported(item, rules=VERDICTS):
    """A candidate from imported data."""
    return training_factory(rules, max_text_chars=LIMIT).from_import(
        item, created_at=START
    )
