"""Several judgments make one answer, which says how far they agree."""

import pytest

from sidejudge_server.judges.evaluator import Answer
from sidejudge_server.judges.kinds import BUILT_IN_JUDGES, initial_program
from sidejudge_server.judges.prompt import build_request
from sidejudge_server.judges.samples import combine, flip_rate
from sidejudge_server.judges.types import (
    ArtifactInput,
    ConfidenceSource,
    Criterion,
    Judgment,
    RubricInput,
    RubricResult,
    Verdict,
)
from sidejudge_server.lm.types import LMUsage

PASS, PARTIAL, FAIL = Verdict.PASS, Verdict.PARTIAL, Verdict.FAIL


def judged(verdict, confidence, reasoning=""):
    source = ConfidenceSource.NONE if confidence is None else ConfidenceSource.LOGPROB
    return Answer(Judgment(verdict, confidence, source, None, reasoning), LMUsage())


def scored(score):
    result = RubricResult(
        score, score / 2, None, ConfidenceSource.LOGPROB, "why", (), ()
    )
    return Answer(result, LMUsage())


def program(kind):
    return initial_program(next(j.spec for j in BUILT_IN_JUDGES if j.judge_id == kind))


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        ([PASS, PASS, PASS], 0.0),
        ([PASS, FAIL], 1.0),
        ([PASS, PASS, FAIL], 2 / 3),
        ([PASS, PARTIAL, FAIL], 1.0),
        ([PASS, PASS, FAIL, FAIL], 2 / 3),
    ],
)
def test_flip_rate_is_that_of_pairs_without_replacement(verdicts, expected):
    """mean(1 - sum p^2) k / (k - 1)."""
    assert flip_rate(verdicts) == pytest.approx(expected)


def test_probabilities_are_averaged_and_the_larger_one_decides():
    """Two weak votes do not outweigh a strong one."""
    answers = [judged(PASS, 0.99, "fine"), judged(FAIL, 0.6), judged(FAIL, 0.55)]
    found = combine(answers, binary=True)
    assert found.result.verdict is PASS
    assert found.result.confidence == pytest.approx((0.99 + 0.4 + 0.45) / 3)
    assert found.result.confidence_source is ConfidenceSource.SAMPLED
    assert found.result.reasoning == "fine"
    assert found.samples.verdicts == (PASS, FAIL, FAIL)
    assert found.samples.values == pytest.approx((0.99, 0.4, 0.45))
    assert found.samples.flip_rate == pytest.approx(2 / 3)


def test_reasons_for_another_verdict_are_left_out():
    answers = [judged(PASS, 0.6, "fine"), judged(FAIL, 0.9), judged(FAIL, 0.9)]
    found = combine(answers, binary=True)
    assert found.result.verdict is FAIL
    assert found.result.reasoning == ""


def test_bare_verdicts_are_votes_and_ties_go_to_the_worse_one():
    found = combine([judged(PASS, None), judged(FAIL, None)], binary=True)
    assert found.result.verdict is FAIL
    assert found.result.confidence == 0.5
    assert found.samples.values == (1.0, 0.0)
    three = combine(
        [judged(PARTIAL, None), judged(PARTIAL, None), judged(PASS, None)], binary=False
    )
    assert three.result.verdict is PARTIAL
    assert three.result.confidence == pytest.approx(2 / 3)
    assert three.samples.mean == pytest.approx(2 / 3)


def test_scores_are_averaged_with_their_spread():
    found = combine([scored(0.2), scored(0.4), scored(0.9)], binary=False)
    assert found.result.score == pytest.approx(0.5)
    assert found.result.raw_score == pytest.approx(0.25)
    assert found.result.stddev == pytest.approx(0.36055512754639896)
    assert found.samples.flip_rate is None
    assert found.result.reasoning == "why"


def test_variations_turn_the_order_and_nothing_else():
    item = ArtifactInput("ART", ground_truth="GRO", context="CON")
    faithful = program("faithfulness")

    def text(variation):
        request = build_request(
            faithful, item, explain=False, supports_logprobs=True, variation=variation
        )
        return request.messages[-1].content, request.temperature

    first, temperature = text(0)
    assert temperature == 0.0
    assert first.index("CON") < first.index("GRO") < first.index("ART")
    second, temperature = text(1)
    assert temperature > 0
    assert second.index("GRO") < second.index("ART") < second.index("CON")
    assert sorted(first.split("\n\n")) == sorted(second.split("\n\n"))
    assert first.split("\n\n")[-1] == second.split("\n\n")[-1], (
        "the question stays last"
    )
    assert text(3)[0] == first
    rubric = RubricInput("T", "O", (Criterion("one", "1"), Criterion("two", "2")))
    turned = build_request(
        program("rubric"), rubric, explain=False, supports_logprobs=True, variation=1
    )
    content = turned.messages[-1].content
    assert content.index("two") < content.index("one")
