"""Every reason to reject an example, and how votes on one input play out."""

from __future__ import annotations

import math
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidejudge_server.judges.types import ArtifactInput, RubricInput
from sidejudge_server.training.examples import ImportedExample
from sidejudge_server.training.labels import LabelRules, labels_differ
from sidejudge_server.training.validator import ExampleValidator
from tests.training.builders import (
    BINARY,
    LIMIT,
    SCORES,
    TRUTH,
    VERDICTS,
    candidate,
    evaluation,
    imported,
)


class Store:
    """Runs the validator and keeps what it decides, as the database would."""

    def __init__(self, rules=VERDICTS):
        self.rules = rules
        self.examples = {}
        self.groups = {}

    def add(self, *candidates):
        """Validate candidates in one batch and return their records as they are now."""
        counts = Counter(
            (e.split, e.verdict) for e in self.examples.values() if not e.rejection
        )
        validator = ExampleValidator(self.rules, max_text_chars=LIMIT)
        result = validator.validate(
            candidates,
            existing=list(self.examples.values()),
            group_splits=self.groups,
            split_counts=counts,
        )
        for demotion in result.demotions:
            old = self.examples[demotion.example_id]
            self.examples[demotion.example_id] = type(old)(
                **{
                    **{f: getattr(old, f) for f in old.__dataclass_fields__},
                    "rejection": demotion.rejection.value,
                    "rejection_detail": demotion.detail,
                }
            )
        for record in result.records:
            self.examples[record.example_id] = record
            if record.split:
                self.groups[record.group_key] = record.split
        return result.records

    def rejections(self, *candidates):
        """Return the present rejection of candidates that were added."""
        return [self.examples[c.record.example_id].rejection for c in candidates]


def rejection_of(item, rules=VERDICTS, **label):
    """Return rejection and detail of one imported example."""
    made = imported(ImportedExample(item, **label), rules)
    (record,) = Store(rules).add(made)
    assert (record.split is None) == (record.rejection is not None)
    return record.rejection, record.rejection_detail


def test_a_sound_example_is_accepted_and_split():
    """It gets a side and no rejection."""
    (record,) = Store().add(candidate(evaluation(), verdict="fail"))
    assert record.rejection is None
    assert record.split in {"train", "validation", "test"}


@pytest.mark.parametrize(
    ("item", "rules", "field"),
    [
        (ArtifactInput(" \n"), VERDICTS, "artifact"),
        (ArtifactInput("a"), TRUTH, "ground_truth"),
        (ArtifactInput("a", ground_truth=" "), TRUTH, "ground_truth"),
        (RubricInput("", "b"), SCORES, "task_context"),
        (RubricInput("a", ""), SCORES, "agent_output"),
        (RubricInput("a", "b"), VERDICTS, "artifact_input"),
        (ArtifactInput("a"), SCORES, "rubric_input"),
        (
            ArtifactInput("a", fields={"diff": ""}),
            LabelRules("c", scores=False, input_fields=("diff",)),
            "fields.diff",
        ),
    ],
)
def test_an_empty_required_input_is_rejected_by_name(item, rules, field):
    """The detail names the field that must not be empty."""
    label = {"score": 0.5} if rules.scores else {"verdict": "pass"}
    rejection, detail = rejection_of(item, rules, **label)
    assert rejection == "empty_input"
    assert field in detail


@pytest.mark.parametrize("score", [-0.01, 1.01, math.nan, math.inf])
def test_a_score_out_of_range_is_rejected(score):
    """NaN and infinity are out of range too."""
    rejection, detail = rejection_of(RubricInput("a", "b"), SCORES, score=score)
    assert rejection == "score_out_of_range"
    assert "0..1" in detail


@pytest.mark.parametrize(
    ("rules", "label"),
    [
        (BINARY, {"verdict": "partial"}),
        (VERDICTS, {"score": 0.5}),
        (VERDICTS, {"verdict": "maybe"}),
        (VERDICTS, {}),
        (SCORES, {"verdict": "pass"}),
        (SCORES, {}),
        (SCORES, {"verdict": "pass", "score": 0.5}),
    ],
)
def test_a_label_that_does_not_fit_the_judge_is_rejected(rules, label):
    """Such as partial for a judge without partial, or a score for a verdict judge."""
    item = RubricInput("a", "b") if rules.scores else ArtifactInput("a")
    rejection, detail = rejection_of(item, rules, **label)
    assert rejection == "label_mismatch"
    assert f"judges/{rules.judge_id}" in detail


def test_texts_over_the_limit_are_rejected_and_stored_cut():
    """The record does not keep what was refused for its size."""
    made = imported(ImportedExample(ArtifactInput("x" * (LIMIT + 1)), verdict="pass"))
    (record,) = Store().add(made)
    assert record.rejection == "too_large"
    assert f"artifact has {LIMIT + 1}" in record.rejection_detail
    assert len(record.input_json) < LIMIT + 200


@pytest.mark.parametrize(
    ("extra", "limit"),
    [({"rationale": "r" * 4001}, "4000"), ({"group": "g" * 257}, "256")],
)
def test_rationale_and_group_have_limits(extra, limit):
    """4,000 and 256 characters; what is kept is cut to that."""
    made = imported(ImportedExample(ArtifactInput("a"), verdict="pass", **extra))
    (record,) = Store().add(made)
    assert record.rejection == "too_large"
    assert f"at most {limit}" in record.rejection_detail
    assert len(record.rationale) <= 4000
    assert len(record.group_key) <= 256


def test_the_same_input_and_label_is_a_duplicate_of_the_first():
    """White space does not make another input; the detail names the first."""
    store = Store()
    first = imported(ImportedExample(ArtifactInput("a  b"), verdict="pass"))
    again = imported(ImportedExample(ArtifactInput("a b\n"), verdict="pass"))
    store.add(first)
    (record,) = store.add(again)
    assert record.rejection == "duplicate"
    assert f"trainingExamples/{first.record.example_id}" in record.rejection_detail
    assert store.rejections(first) == [None]


@pytest.mark.parametrize("batches", [1, 2])
def test_another_label_for_the_same_input_takes_both_down(batches):
    """In one batch or in two; each detail names the other."""
    store = Store()
    pair = [
        imported(ImportedExample(ArtifactInput("a"), verdict=v))
        for v in ("pass", "fail")
    ]
    if batches == 1:
        store.add(*pair)
    else:
        store.add(pair[0])
        store.add(pair[1])
    assert store.rejections(*pair) == ["conflicting_label"] * 2
    for one, other in (pair, pair[::-1]):
        detail = store.examples[one.record.example_id].rejection_detail
        assert f"trainingExamples/{other.record.example_id}" in detail
        assert "corrects the evaluation" not in detail  # there is none


def test_a_conflict_stays_until_somebody_decides():
    """A third vote does not count either, whichever label it has."""
    store = Store()
    trio = [
        imported(ImportedExample(ArtifactInput("a"), verdict=v))
        for v in ("pass", "fail", "pass")
    ]
    for one in trio:
        store.add(one)
    assert store.rejections(*trio) == ["conflicting_label"] * 3


def test_a_later_correction_by_the_same_author_replaces_the_earlier():
    """Other authors' votes are not touched by it, and the side of the split stays."""
    store, about = Store(), evaluation()
    first = candidate(about, verdict="pass", author="ann")
    (accepted,) = store.add(first)
    later = candidate(about, verdict="fail", author="ann")
    (record,) = store.add(later)
    assert record.rejection is None
    assert record.split == accepted.split
    assert store.rejections(first) == ["superseded"]
    detail = store.examples[first.record.example_id].rejection_detail
    assert f"trainingExamples/{later.record.example_id}" in detail


def test_corrections_that_arrive_out_of_order_end_the_same():
    """The earlier one is superseded although it comes later."""
    store, about = Store(), evaluation()
    earlier, later = (candidate(about, verdict=v) for v in ("pass", "fail"))
    store.add(later)
    store.add(earlier)
    assert store.rejections(earlier, later) == ["superseded", None]


def test_a_correction_ends_a_conflict():
    """When the remaining votes agree the newest counts, the others repeat it."""
    store, about = Store(), evaluation()
    ann = candidate(about, verdict="pass", author="ann")
    bob = candidate(about, verdict="fail", author="bob")
    store.add(ann, bob)
    again = candidate(about, verdict="pass", author="bob")
    store.add(again)
    assert store.rejections(ann, bob, again) == ["duplicate", "superseded", None]


def test_a_correction_against_a_second_opinion_is_a_conflict():
    """The duplicate was a vote; it speaks up when its author is contradicted."""
    store, about = Store(), evaluation()
    ann = candidate(about, verdict="pass", author="ann")
    bob = candidate(about, verdict="pass", author="bob")
    store.add(ann, bob)
    changed = candidate(about, verdict="fail", author="ann")
    store.add(changed)
    assert store.rejections(ann, bob, changed) == [
        "superseded",
        "conflicting_label",
        "conflicting_label",
    ]


def test_unnamed_authors_of_one_source_are_one_author():
    """A downstream signal that changes replaces itself, but not a user's vote."""
    store, about = Store(), evaluation()
    signals = [
        candidate(about, verdict=v, author="", source="downstream")
        for v in ("pass", "fail")
    ]
    user = candidate(about, verdict="fail", author="", source="user")
    for one in (*signals, user):
        store.add(one)
    assert store.rejections(*signals, user) == ["superseded", None, "duplicate"]


def test_the_same_author_on_another_evaluation_does_not_replace():
    """Two evaluations of one input with different labels are a conflict."""
    store, item = Store(), ArtifactInput("same")
    pair = [candidate(evaluation(item), verdict=v) for v in ("pass", "fail")]
    store.add(*pair)
    assert store.rejections(*pair) == ["conflicting_label"] * 2


def test_the_same_input_in_another_group_would_leak():
    """The first stays, the second is named a leak, not a duplicate."""
    store = Store()
    pair = [
        imported(ImportedExample(ArtifactInput("a"), verdict="pass", group=g))
        for g in ("g1", "g2")
    ]
    store.add(*pair)
    assert store.rejections(*pair) == [None, "group_leakage"]
    detail = store.examples[pair[1].record.example_id].rejection_detail
    assert "g1" in detail
    assert f"trainingExamples/{pair[0].record.example_id}" in detail


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ((0.5, 0.65), [None, "duplicate"]),
        ((0.5, 0.7), ["conflicting_label"] * 2),
        ((0.9, 0.7), ["conflicting_label"] * 2),
    ],
)
def test_scores_differ_from_a_fifth_on(scores, expected):
    """Smaller differences are the same opinion."""
    store = Store(SCORES)
    pair = [
        imported(ImportedExample(RubricInput("a", "b"), score=s), SCORES)
        for s in scores
    ]
    store.add(*pair)
    assert store.rejections(*pair) == expected


def test_repeating_an_import_changes_nothing():
    """Every example is a duplicate of itself."""
    store = Store()
    items = [
        ImportedExample(ArtifactInput(f"a{i}"), verdict=v)
        for i, v in enumerate(["pass", "fail", "partial"] * 4)
    ]
    first = [imported(item) for item in items]
    store.add(*first)
    again = [imported(item) for item in items]
    store.add(*again)
    assert store.rejections(*first) == [None] * 12
    assert store.rejections(*again) == ["duplicate"] * 12


VOTES = st.lists(
    st.tuples(
        st.integers(0, 2),  # evaluation of the same or another input
        st.sampled_from(["ann", "bob", "", "cat"]),
        st.sampled_from(["pass", "fail"]),
    ),
    max_size=14,
)


@given(VOTES, st.integers(1, 5))
@settings(max_examples=60, deadline=None)
def test_whatever_the_votes_at_most_one_example_of_an_input_counts(votes, size):
    """And if one counts, nobody's latest vote on its evaluation contradicts it."""
    items = [ArtifactInput("x"), ArtifactInput("x"), ArtifactInput("y")]
    abouts = [evaluation(item) for item in items]
    store = Store()
    made = [candidate(abouts[e], author=a, verdict=v) for e, a, v in votes]
    for at in range(0, len(made), size):
        store.add(*made[at : at + size])
    latest = {(e, a): v for e, a, v in votes}
    for digest in {c.record.content_digest for c in made}:
        counting = [
            e
            for e in store.examples.values()
            if e.content_digest == digest and e.rejection is None
        ]
        opinions = {
            v
            for (e, _), v in latest.items()
            if any(
                c.record.content_digest == digest
                and c.record.evaluation_id == abouts[e].evaluation_id
                for c in made
            )
        }
        assert len(counting) == (1 if len(opinions) == 1 else 0)
        for example in counting:
            assert not labels_differ((example.verdict, None), (opinions.pop(), None))


@given(VOTES)
@settings(max_examples=25, deadline=None)
def test_one_batch_or_many_reject_alike(votes):
    """Batching is an optimisation, not a rule."""
    abouts = [evaluation(ArtifactInput(t)) for t in ("x", "x", "y")]
    made = [candidate(abouts[e], author=a, verdict=v) for e, a, v in votes]
    at_once, one_by_one = Store(), Store()
    at_once.add(*made)
    for one in made:
        one_by_one.add(one)
    assert at_once.rejections(*made) == one_by_one.rejections(*made)
