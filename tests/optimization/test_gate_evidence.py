"""What two versions said about held-out examples, one by one."""

from __future__ import annotations

from sidejudge_server.judges.kinds import JudgeSpec, initial_program
from sidejudge_server.judges.types import (
    ArtifactInput,
    ConfidenceSource,
    JudgeKind,
    Judgment,
    Verdict,
    VerdictProbabilities,
)
from sidejudge_server.optimization.gate import decide
from sidejudge_server.optimization.gate_evidence import MAX_CHANGED, with_answers
from sidejudge_server.optimization.scoring import LabelledItem, quality

PROGRAM = initial_program(JudgeSpec(JudgeKind.RELEVANCE))


def says(verdict):
    """An answer that is certain."""
    chances = [
        float(verdict is v) for v in (Verdict.PASS, Verdict.PARTIAL, Verdict.FAIL)
    ]
    return Judgment(
        verdict=verdict,
        confidence=1.0,
        confidence_source=ConfidenceSource.LOGPROB,
        probabilities=VerdictProbabilities(*chances),
        reasoning="",
    )


def compared(labels, old, new):
    """The decision on answers that are verdicts, or None where they are unusable."""
    items = [
        LabelledItem(ArtifactInput(f"{i}"), v, None, "") for i, v in enumerate(labels)
    ]
    answers = [[says(v) if v else None for v in said] for said in (old, new)]
    decision = decide(
        quality(PROGRAM, items, answers[0]),
        quality(PROGRAM, items, answers[1]),
        train=[],
        validation=[],
        scores=False,
    )
    return with_answers(
        decision,
        items,
        example_ids=[f"e{i}" for i in range(len(items))],
        baseline=(PROGRAM, answers[0]),
        candidate=(PROGRAM, answers[1]),
    )


def test_unusable_answers_have_a_column_of_their_own():
    """They are no verdict, and wrong."""
    decision = compared(
        [Verdict.PASS] * 3, [None, None, Verdict.PASS], [Verdict.PASS] * 3
    )
    cells = [(c.label, c.verdict, c.count) for c in decision.baseline_confusion]
    assert cells == [("pass", "", 2), ("pass", "pass", 1)]
    assert [c.example_id for c in decision.changed_examples] == ["e0", "e1"]


def test_another_wrong_verdict_is_a_change_and_comes_last():
    """It is worth the same but not the same answer."""
    decision = compared(
        [Verdict.PARTIAL, Verdict.PASS],
        [Verdict.FAIL, Verdict.PASS],
        [Verdict.PASS, Verdict.FAIL],
    )
    assert [
        (c.example_id, c.baseline_quality, c.candidate_quality)
        for c in decision.changed_examples
    ] == [("e1", 1.0, 0.0), ("e0", 0.0, 0.0)]


def test_changed_examples_are_bounded():
    """A decision stays a small document."""
    many = MAX_CHANGED + 5
    decision = compared(
        [Verdict.PASS] * many, [Verdict.FAIL] * many, [Verdict.PASS] * many
    )
    assert len(decision.changed_examples) == MAX_CHANGED
