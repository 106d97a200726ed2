"""Readiness says what stands in the way, with numbers."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sidejudge_server.judges.types import ArtifactInput, RubricInput
from sidejudge_server.training.examples import ImportedExample
from sidejudge_server.training.readiness import TrainingSetSummary
from tests.training.builders import SCORES, candidate, evaluation, imported

SPLITS = ("train", "validation", "test")


def summary(examples, *, scores=False, rejections=None):
    taken = TrainingSetSummary(
        "j", scores=scores, min_examples=20, recommended_examples=50
    )
    for example in examples:
        taken.add(example)
    return taken.finish(rejections or {})


def judged(labels, *, judge_said="pass", groups=None):
    """Examples from feedback with the given labels, on the sides in turn."""
    made = []
    for i, label in enumerate(labels):
        group = f"g{i % groups}" if groups else ""
        about = evaluation(verdict=judge_said, group=group)
        record = candidate(about, verdict=label).record
        made.append(replace(record, split=SPLITS[i % 3]))
    return made


def brought(labels):
    """Imported examples: nobody knows what the judge would have said."""
    return [
        replace(
            imported(ImportedExample(ArtifactInput(f"{i}"), verdict=label)).record,
            split=SPLITS[i % 3],
        )
        for i, label in enumerate(labels)
    ]


def rated(scores):
    return [
        replace(
            candidate(
                evaluation(RubricInput(f"t{i}", "o"), score=1 - score),
                SCORES,
                score=score,
            ).record,
            split=SPLITS[i % 3],
        )
        for i, score in enumerate(scores)
    ]


def test_enough_balanced_corrected_data_is_ready():
    """No problem, no warning."""
    got = summary(judged(["pass"] * 40 + ["fail"] * 20), rejections={"duplicate": 2})
    assert (got.readiness, got.problems, got.warnings) == ("ready", (), ())
    assert got.example_count == 60
    assert got.train_count + got.validation_count + got.test_count == 60
    assert got.label_counts == {"pass": 40, "fail": 20}
    assert (got.disagreement_count, got.judged_count) == (20, 60)
    assert got.rejections == {"duplicate": 2}


def test_an_empty_set_is_not_ready_and_says_how_many_are_needed():
    """All that is missing is named at once."""
    got = summary([])
    assert got.readiness == "not_ready"
    assert any("20 more" in problem for problem in got.problems)
    for split in SPLITS:
        assert any(f"the {split} side" in problem for problem in got.problems)


@pytest.mark.parametrize(
    ("count", "readiness"),
    [(19, "not_ready"), (20, "marginal"), (49, "marginal"), (50, "ready")],
)
def test_twenty_are_needed_and_fifty_recommended(count, readiness):
    """19 are refused, 49 warned about."""
    labels = ["fail" if i % 2 else "pass" for i in range(count)]
    got = summary(judged(labels))
    assert got.readiness == readiness
    if count == 49:
        assert any("1 more are recommended" in warning for warning in got.warnings)


@pytest.mark.parametrize("label", ["pass", "fail"])
def test_one_class_alone_is_not_ready(label):
    """Whichever it is; the other one is named with how many are needed."""
    other = {"pass": "fail", "fail": "pass or partial"}[label]
    got = summary(judged([label] * 60, judge_said="partial"))
    assert got.readiness == "not_ready"
    assert any(
        f"0 examples are labelled {other}" in problem and "3 more" in problem
        for problem in got.problems
    )


def test_partial_counts_with_pass():
    """Partial and fail are two classes, partial and pass are one."""
    assert summary(judged(["partial", "fail"] * 30)).readiness == "ready"
    assert summary(judged(["partial", "pass"] * 30)).readiness == "not_ready"


def test_a_class_must_be_on_the_sides_that_decide():
    """Failures on the train side alone cannot be measured."""
    examples = judged(["pass"] * 45 + ["fail"] * 9)
    moved = [replace(e, split="train") if e.verdict == "fail" else e for e in examples]
    problems = summary(moved).problems
    assert [("validation" in p, "test side" in p) for p in problems] == [
        (True, False),
        (False, True),
    ]


def test_a_judge_that_is_never_wrong_has_nothing_to_learn():
    """Four disagreements of sixty are refused; the numbers are in the text."""
    examples = judged(["pass"] * 56 + ["fail"] * 4)
    got = summary(examples)
    assert got.readiness == "not_ready"
    assert any("wrong on 4 of the 60" in problem for problem in got.problems)


def test_imported_examples_make_missing_disagreements_a_warning():
    """The judge may well be wrong on them, nobody knows yet."""
    got = summary(judged(["pass"] * 30) + brought(["fail"] * 30))
    assert got.readiness == "marginal"
    assert got.problems == ()
    assert any("30 imported examples" in warning for warning in got.warnings)


def test_scores_in_one_fifth_are_not_ready():
    """All alike tells nothing apart; the fifth is named."""
    got = summary(rated([0.85 + i / 600 for i in range(60)]), scores=True)
    assert got.readiness == "not_ready"
    assert any("0.8-1.0" in problem for problem in got.problems)


def test_scores_with_little_spread_are_marginal():
    """Two fifths are enough to start; a small deviation is a warning with the figure."""
    wide = summary(rated([0.1, 0.9] * 30), scores=True)
    assert wide.readiness == "ready"
    narrow = summary(rated([0.15, 0.25] * 30), scores=True)
    assert narrow.readiness == "marginal"
    assert any("0.05" in warning for warning in narrow.warnings)


def test_few_groups_are_marginal():
    """Sixty examples of four sources are a warning."""
    got = summary(judged(["pass", "fail"] * 30, groups=4))
    assert got.group_count == 4
    assert got.readiness == "marginal"
    assert any("4 groups" in warning for warning in got.warnings)


def test_the_digest_is_of_the_data_not_of_ids_or_order():
    """Equal data has an equal digest; another label, side or rationale another one."""
    first, again = brought(["pass", "fail"] * 5), brought(["pass", "fail"] * 5)
    digest = summary(first).digest
    assert len(digest) == 64
    assert summary(again[::-1]).digest == digest
    for change in ({"verdict": "partial"}, {"split": "test"}, {"rationale": "so"}):
        changed = [replace(first[0], **change), *first[1:]]
        assert summary(changed).digest != digest


def test_rejected_examples_are_not_counted():
    """Adding one is a programming error."""
    example = replace(brought(["pass"])[0], rejection="duplicate")
    with pytest.raises(ValueError, match="does not count"):
        summary([example])
