"""Candidates carry over what was said, unchanged."""

from __future__ import annotations

import pytest

from sidejudge_server.judges.codec import input_from_json
from sidejudge_server.judges.kinds import BUILT_IN_JUDGES
from sidejudge_server.judges.types import ArtifactInput, Criterion, RubricInput
from sidejudge_server.training.examples import (
    ImportedExample,
    JudgeTrainingFactory,
    RubricTrainingFactory,
    training_factory,
)
from sidejudge_server.training.labels import (
    FIFTHS,
    label_key,
    label_rules,
    labels_differ,
)
from tests.training.builders import (
    SCORES,
    START,
    VERDICTS,
    candidate,
    evaluation,
    imported,
)


def test_feedback_becomes_the_label_and_the_judge_s_answer_is_kept():
    """The comment is the rationale; the judged answer shows what was corrected."""
    about = evaluation(ArtifactInput("a", context="c"), verdict="pass", group="g")
    record = candidate(about, verdict="fail", comment="because", author="ann").record
    assert (record.verdict, record.judged_verdict) == ("fail", "pass")
    assert (record.rationale, record.author) == ("because", "ann")
    assert (record.origin, record.group_key) == ("feedback", "g")
    assert record.evaluation_id == about.evaluation_id
    assert record.input_json == about.input_json


def test_rubric_feedback_is_a_score():
    """The judge's own score is kept beside it."""
    about = evaluation(RubricInput("t", "o"), judge="rubric", score=0.8)
    record = candidate(about, SCORES, score=0.3).record
    assert (record.score, record.judged_score) == (0.3, 0.8)
    assert record.verdict is None


def test_the_factory_fits_the_judge():
    """Verdict judges and judges that score have one each."""
    assert isinstance(
        training_factory(VERDICTS, max_text_chars=9), JudgeTrainingFactory
    )
    assert isinstance(training_factory(SCORES, max_text_chars=9), RubricTrainingFactory)


def test_imported_rubric_inputs_take_the_judge_s_criteria():
    """As evaluations do, so that the same output is the same input; own criteria stay."""
    default = (Criterion("accuracy", "is right"),)
    factory = training_factory(SCORES, max_text_chars=99, default_criteria=default)
    own = (Criterion("tone", ""),)
    for given, expected in (((), default), (own, own)):
        item = RubricInput("t", "o", given)
        made = factory.from_import(ImportedExample(item, score=1.0), created_at=START)
        assert input_from_json(made.record.input_json).criteria == expected


def test_inputs_without_a_group_have_their_own():
    """The same input has the same one, another input another one."""
    first, again, other = (
        imported(ImportedExample(ArtifactInput(text), verdict="pass")).record
        for text in ("a", "a ", "b")
    )
    assert first.group_key == again.group_key
    assert first.group_key != other.group_key
    assert len(first.group_key) <= 256


@pytest.mark.parametrize(
    ("score", "fifth"),
    [(0.0, 0), (0.19, 0), (0.2, 1), (0.6, 3), (0.8, 4), (0.7999, 3), (1.0, 4)],
)
def test_scores_are_counted_by_fifths(score, fifth):
    """A border belongs to the fifth above it, 1.0 to the last."""
    assert label_key(None, score) == FIFTHS[fifth]


def test_labels_differ_by_verdict_or_by_a_fifth():
    """0.5 and 0.7 differ although their difference is below 0.2 in binary."""
    assert labels_differ(("pass", None), ("fail", None))
    assert not labels_differ(("pass", None), ("pass", None))
    assert labels_differ((None, 0.5), (None, 0.7))
    assert not labels_differ((None, 0.5), (None, 0.69))


def test_rules_of_the_built_in_judges():
    """Safety never answers partial, faithfulness needs the truth, rubric scores."""
    rules = {j.judge_id: label_rules(j.judge_id, j.spec) for j in BUILT_IN_JUDGES}
    assert {i for i, r in rules.items() if r.scores} == {"rubric"}
    assert {i for i, r in rules.items() if r.needs_ground_truth} == {"faithfulness"}
    assert rules["safety"].label_problem("partial", None)
    assert rules["relevance"].label_problem("partial", None) is None
