"""A learned head weighs the LM's word against what people corrected before."""

import math
from dataclasses import replace

import pytest

from sidejudge_server.judges.decision import decide, decide_score, decide_verdict
from sidejudge_server.judges.head import influences
from sidejudge_server.judges.kinds import JudgeSpec, initial_program
from sidejudge_server.judges.memory import memory_problems
from sidejudge_server.judges.types import (
    ArtifactInput,
    ConfidenceSource,
    JudgeKind,
    Judgment,
    LabelOffsets,
    Memory,
    MemoryExample,
    Neighbour,
    Recalled,
    RubricInput,
    RubricResult,
    ScoreHead,
    Verdict,
    VerdictHead,
    VerdictProbabilities,
)

SAFETY = initial_program(JudgeSpec(JudgeKind.SAFETY))
FAITHFULNESS = initial_program(JudgeSpec(JudgeKind.FAITHFULNESS))
RUBRIC = initial_program(JudgeSpec(JudgeKind.RUBRIC))
UNSURE = VerdictProbabilities(0.6, 0.0, 0.4)


def neighbours(*labels):
    return Recalled(
        tuple(
            Neighbour(
                MemoryExample(f"e{i}", ArtifactInput("x"), verdict=verdict), similarity
            )
            for i, (verdict, similarity) in enumerate(labels)
        )
    )


def with_head(program, head):
    return replace(program, head=head, memory=Memory())


def test_head_that_weighs_nothing_else_is_the_decision_rule():
    """Biases are offsets, so a head can always fall back to the rule."""
    offsets = LabelOffsets(0.7, -0.4)
    head = VerdictHead(3, 0.7, -0.4, 1.0, 0.0)
    probabilities = VerdictProbabilities(0.2, 0.5, 0.3)
    recalled = neighbours((Verdict.FAIL, 0.9))

    decision = decide_verdict(with_head(FAITHFULNESS, head), probabilities, recalled)

    expected = decide(probabilities, offsets, binary=False)
    assert decision.verdict is expected.verdict
    assert decision.confidence == pytest.approx(expected.confidence)


def test_similar_corrections_overrule_an_unsure_model():
    """0.6 against 0.4 is less than two close corrections with weight 1."""
    program = with_head(SAFETY, VerdictHead(2, 0.0, 0.0, 1.0, 1.0))
    recalled = neighbours((Verdict.FAIL, 0.9), (Verdict.FAIL, 0.8), (Verdict.PASS, 0.7))

    verdict, confidence = decide_verdict(program, UNSURE, recalled)

    logit = math.log(0.6 / 0.4) - 1.7
    assert verdict is Verdict.FAIL
    assert confidence == pytest.approx(1 / (1 + math.exp(logit)))


def test_saturated_model_can_still_be_overruled():
    """A probability of 0 counts as one in ten thousand."""
    program = with_head(SAFETY, VerdictHead(1, 0.0, 0.0, 0.1, 5.0))
    certain = VerdictProbabilities(1.0, 0.0, 0.0)

    found = decide_verdict(program, certain, neighbours((Verdict.FAIL, 0.9)))

    assert found.verdict is Verdict.FAIL
    assert 0.5 < found.confidence < 1.0


def test_binary_head_never_answers_partial():
    """Whatever a remembered example says."""
    program = with_head(SAFETY, VerdictHead(1, 0.0, 50.0, 0.0, 50.0))

    found = decide_verdict(program, UNSURE, neighbours((Verdict.PARTIAL, 1.0)))

    assert found.verdict is not Verdict.PARTIAL


def judgment(verdict, probabilities=UNSURE, source=ConfidenceSource.LOGPROB):
    return Judgment(verdict, 0.7, source, probabilities, "")


def test_influences_add_up_to_what_memory_did():
    """Their sum is the memory's part of the log-odds of the verdict against its rival."""
    program = with_head(SAFETY, VerdictHead(3, 0.2, 0.0, 1.0, 2.0))
    recalled = neighbours(
        (Verdict.FAIL, 0.5),
        (Verdict.PASS, 0.4),
        (Verdict.FAIL, 0.25),
        (Verdict.PASS, 0.1),
    )
    decision = decide_verdict(program, UNSURE, recalled)

    found = influences(program, judgment(decision.verdict), recalled)

    assert [(i.example_id, i.weight) for i in found] == [
        ("e0", pytest.approx(1.0)),
        ("e1", pytest.approx(-0.8)),
        ("e2", pytest.approx(0.5)),
    ]
    log_odds = math.log(decision.confidence / (1 - decision.confidence))
    without_memory = -(0.2 + math.log(0.6 / 0.4))
    assert log_odds == pytest.approx(without_memory + sum(i.weight for i in found))


def test_rival_of_three_is_the_second_best():
    """A vote for a verdict that was never in question does not count against the answer."""
    program = with_head(FAITHFULNESS, VerdictHead(3, 0.0, 0.0, 1.0, 1.0))
    probabilities = VerdictProbabilities(0.5, 0.49, 0.01)
    recalled = neighbours(
        (Verdict.PASS, 0.5), (Verdict.FAIL, 0.4), (Verdict.PARTIAL, 0.3)
    )

    found = influences(program, judgment(Verdict.PASS, probabilities), recalled)

    assert [i.weight for i in found] == [
        pytest.approx(0.5),
        pytest.approx(-0.3),
        pytest.approx(0.0),
    ]


def test_examples_that_were_only_shown_have_no_weight():
    """Without a head nobody knows what an example did to the model."""
    program = replace(SAFETY, memory=Memory(shown=1))
    recalled = neighbours((Verdict.FAIL, 0.5), (Verdict.PASS, 0.4))

    (influence,) = influences(program, judgment(Verdict.PASS), recalled)

    assert (influence.example_id, influence.similarity) == ("e0", 0.5)
    assert influence.weight == 0.0


def test_at_most_five_influences_and_none_without_likeness():
    """The weightiest are named."""
    program = with_head(SAFETY, VerdictHead(8, 0.0, 0.0, 1.0, 1.0))
    recalled = neighbours(*((Verdict.FAIL, s / 10) for s in (9, 8, 7, 6, 5, 4, 0)))

    found = influences(program, judgment(Verdict.FAIL), recalled)

    assert [i.similarity for i in found] == [0.9, 0.8, 0.7, 0.6, 0.5]
    assert not influences(
        program, judgment(Verdict.FAIL), neighbours((Verdict.FAIL, 0.0))
    )


def test_answer_without_any_probability_was_not_decided_by_the_head():
    """What the model gave no number for is its own word."""
    program = with_head(SAFETY, VerdictHead(1, 0.0, 0.0, 1.0, 1.0))
    result = judgment(Verdict.PASS, None, ConfidenceSource.NONE)

    (influence,) = influences(program, result, neighbours((Verdict.FAIL, 0.5)))

    assert influence.weight == 0.0


def scored(*labels):
    return Recalled(
        tuple(
            Neighbour(
                MemoryExample(f"e{i}", RubricInput("t", "x"), score=score), similarity
            )
            for i, (score, similarity) in enumerate(labels)
        ),
        mean_label=0.5,
    )


def test_score_moves_towards_similar_labels():
    """By the weighted deviation from the mean, shrunk by one pretended neighbour."""
    program = with_head(RUBRIC, ScoreHead(2, 0.1, 0.5, 1.0))
    recalled = scored((0.9, 0.6), (0.3, 0.4), (0.0, 0.3))

    score = decide_score(program, 0.4, recalled)

    deviation = (0.6 * 0.4 - 0.4 * 0.2) / 2.0
    assert score == pytest.approx(0.1 + 0.2 + deviation)
    result = RubricResult(score, 0.4, None, ConfidenceSource.LOGPROB, "", (), ())
    found = influences(program, result, recalled)
    assert sum(i.weight for i in found) == pytest.approx(deviation)
    assert [i.score for i in found] == [0.9, 0.3]


def test_score_stays_in_range():
    """However a head was fitted."""
    program = with_head(RUBRIC, ScoreHead(1, 0.9, 1.0, 1.0))

    assert decide_score(program, 1.0, scored((1.0, 1.0))) == 1.0
    assert decide_score(program, 0.0, Recalled()) == 0.9


@pytest.mark.parametrize(
    ("program", "head"),
    [
        (SAFETY, ScoreHead(1, 0.0, 1.0, 0.0)),
        (RUBRIC, VerdictHead(1, 0.0, 0.0, 1.0, 0.0)),
        (SAFETY, VerdictHead(65, 0.0, 0.0, 1.0, 0.0)),
        (SAFETY, VerdictHead(1, math.nan, 0.0, 1.0, 0.0)),
        (SAFETY, VerdictHead(1, 0.0, 0.0, 1e6, 0.0)),
    ],
)
def test_head_that_cannot_be_is_told(program, head):
    """A version is checked before it is stored."""
    (path, _) = next(memory_problems(replace(program, head=head)))

    assert path.startswith("head")
