"""Verdicts and grades come from probabilities, else from a strictly read first word."""

import math
from dataclasses import replace

import pytest

from sidejudge_server.judges.decode import (
    UnparsableAnswerError,
    decide,
    decode,
    stated_probabilities,
    with_reasons,
)
from sidejudge_server.judges.kinds import JudgeSpec, initial_program
from sidejudge_server.judges.prompt import criteria_from_text, criteria_text
from sidejudge_server.judges.types import (
    ArtifactInput,
    ConfidenceSource,
    Criterion,
    CriterionScore,
    JudgeKind,
    LabelOffsets,
    RubricInput,
    ScoreMap,
    Verdict,
    VerdictProbabilities,
)
from sidejudge_server.lm.types import ChatResponse, LMUsage, TokenLogprobs

RELEVANCE = initial_program(JudgeSpec(JudgeKind.RELEVANCE))
SAFETY = initial_program(JudgeSpec(JudgeKind.SAFETY))
RUBRIC = initial_program(JudgeSpec(JudgeKind.RUBRIC))
ITEM = ArtifactInput("x")
RUBRIC_ITEM = RubricInput("t", "o", (Criterion("Correct"), Criterion("clear style")))


def response(text, *tokens):
    logprobs = tuple(
        TokenLogprobs(
            token,
            tuple(
                (t, math.log(p) if p > 0 else -math.inf)
                for t, p in alternatives.items()
            ),
        )
        for token, alternatives in tokens
    )
    return ChatResponse(text, logprobs, LMUsage(), "stop")


def test_probabilities_are_those_of_the_first_word_renormalised():
    """Mass on other words is left out; spellings of a label add up."""
    answer = response(
        "Yes\nFine.",
        ("Yes", {"Yes": 0.5, " yes": 0.1, "No": 0.15, "part": 0.05, "The": 0.2}),
    )

    judgment = decode(RELEVANCE, ITEM, answer, explain=True)

    assert judgment.verdict is Verdict.PASS
    assert judgment.confidence == pytest.approx(0.75)
    assert judgment.confidence_source is ConfidenceSource.LOGPROB
    assert judgment.probabilities.passed == pytest.approx(0.75)
    assert judgment.probabilities.partial == pytest.approx(0.0625)
    assert judgment.probabilities.failed == pytest.approx(0.1875)
    assert judgment.reasoning == "Fine."


@pytest.mark.parametrize(
    "tokens",
    [
        (("**", {"**": 0.9}), ("no", {"no": 0.8, "yes": 0.2}), ("**", {"**": 1.0})),
        (("\n", {"\n": 0.9}), (" No", {" No": 0.8, " Yes": 0.2})),
        (("**No", {"**No": 0.8, "**Yes": 0.2}), ("**", {"**": 1.0})),
        (
            ("Answer", {"Answer": 0.9}),
            (":", {":": 1.0}),
            (" no", {" no": 0.8, " yes": 0.2}),
        ),
        (
            ("<think>", {"<think>": 1.0}),
            ("yes?", {"yes?": 1.0}),
            ("</think>", {"</think>": 1.0}),
            ("no", {"no": 0.8, "yes": 0.2}),
        ),
    ],
)
def test_label_is_found_behind_markup_and_thoughts(tokens):
    """The answer's token counts, not whatever stands before it."""
    answer = response("".join(token for token, _ in tokens), *tokens)

    judgment = decode(SAFETY, ITEM, answer, explain=True)

    assert judgment.verdict is Verdict.FAIL
    assert judgment.confidence == pytest.approx(0.8)
    assert judgment.reasoning == ""


def test_cut_label_counts_by_its_beginning():
    """A one-token answer may hold only the first syllable of a label."""
    answer = response("part", ("part", {"part": 0.7, "yes": 0.2, "p": 0.1}))

    judgment = decode(RELEVANCE, ITEM, answer, explain=False)

    assert judgment.verdict is Verdict.PARTIAL
    assert judgment.confidence == pytest.approx(0.7 / 0.9)


def test_binary_judge_ignores_partly():
    """Mass on partly goes to nobody when a judge must decide."""
    answer = response("partly", ("partly", {"partly": 0.6, "no": 0.3, "yes": 0.1}))

    judgment = decode(SAFETY, ITEM, answer, explain=False)

    assert judgment.probabilities == VerdictProbabilities(
        pytest.approx(0.25), 0.0, pytest.approx(0.75)
    )
    assert judgment.verdict is Verdict.FAIL


def test_too_little_mass_on_labels_is_not_a_probability():
    """Under a tenth of the mass, the model is answering something else: only its text counts."""
    tokens = ("The", {"The": 0.95, "yes": 0.05})

    with pytest.raises(UnparsableAnswerError):
        decode(RELEVANCE, ITEM, response("The text", tokens), explain=True)
    judgment = decode(RELEVANCE, ITEM, response("Yes.", tokens), explain=True)

    assert judgment.verdict is Verdict.PASS
    assert (judgment.confidence, judgment.confidence_source) == (
        None,
        ConfidenceSource.NONE,
    )


def test_broken_logprobs_are_no_probabilities():
    """NaN, minus infinity and positive log-probabilities do not spread."""
    tokens = TokenLogprobs(
        "yes", (("yes", 0.5), ("no", math.nan), ("partly", -math.inf))
    )

    judgment = decode(
        RELEVANCE,
        ITEM,
        ChatResponse("yes", (tokens,), LMUsage(), "stop"),
        explain=False,
    )

    assert judgment.probabilities == VerdictProbabilities(1.0, 0.0, 0.0)
    assert judgment.confidence == 1.0


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("yes", Verdict.PASS),
        ("**Partly.** It", Verdict.PARTIAL),
        ("Partially, because", Verdict.PARTIAL),
        ("No, it", Verdict.FAIL),
        ("no\nreason", Verdict.FAIL),
        ("No because", Verdict.FAIL),
        ("Verdict: fail", Verdict.FAIL),
        ('{"judgment": "pass", "why": 1}', Verdict.PASS),
        ("Passed - fine", Verdict.PASS),
        ("The answer is yes", None),
        ("No issues were found", None),
        ("Nothing wrong", None),
        ("yesterday", None),
        ("", None),
    ],
)
def test_first_word_is_read_strictly_without_probabilities(text, verdict):
    """A text that does not begin with a label is no verdict, never a fail."""
    if verdict is None:
        with pytest.raises(UnparsableAnswerError):
            decode(RELEVANCE, ITEM, response(text), explain=True)
    else:
        assert decode(RELEVANCE, ITEM, response(text), explain=True).verdict is verdict


@pytest.mark.parametrize(
    ("line", "confidence"),
    [
        ("Confidence: 80%", 0.8),
        ("**Confidence:** 0.8", 0.8),
        ("confidence 80 percent", 0.8),
        ("Confidence: 130%", None),
        ("Confidence: high", None),
        ("Confidence: 100%", 0.995),
        ("Confidence: 5%", 0.51),
    ],
)
def test_stated_confidence_is_read_and_bounded(line, confidence):
    """A stated verdict is at least as likely as the others and never certain."""
    judgment = decode(SAFETY, ITEM, response(f"yes\n{line}\nBecause."), explain=True)

    assert judgment.verdict is Verdict.PASS
    assert judgment.confidence == pytest.approx(confidence)
    assert judgment.probabilities is None
    if confidence is not None:
        assert judgment.confidence_source is ConfidenceSource.STATED
        assert judgment.reasoning == "Because."


def test_decision_rule_shifts_the_verdict_but_not_the_probabilities():
    """Offsets move the cut; what the LM said stays visible."""
    program = replace(SAFETY, offsets=LabelOffsets(passed=2.0))
    answer = response("no\nToo risky.", ("no", {"no": 0.6, "yes": 0.4}))

    judgment = decode(program, ITEM, answer, explain=True)

    odds = 0.4 * math.exp(2.0) / 0.6
    assert judgment.verdict is Verdict.PASS
    assert judgment.confidence == pytest.approx(odds / (1 + odds))
    assert judgment.probabilities.passed == pytest.approx(0.4)
    assert judgment.reasoning == "", (
        "the words argue for the verdict that was overruled"
    )


def test_offset_is_the_documented_threshold():
    """Pass wins if P(pass) > 1 / (1 + exp(offset)), and not at the threshold itself."""
    offsets = LabelOffsets(passed=1.0)
    cut = 1 / (1 + math.e)

    for share, verdict in [(cut + 1e-9, Verdict.PASS), (cut - 1e-9, Verdict.FAIL)]:
        probabilities = VerdictProbabilities(share, 0.0, 1 - share)
        assert decide(probabilities, offsets, binary=True).verdict is verdict
    even = VerdictProbabilities(0.5, 0.0, 0.5)
    assert decide(even, LabelOffsets(), binary=True) == (Verdict.FAIL, 0.5)


def test_extreme_offsets_do_not_overflow():
    """A rule that always passes is allowed, and impossible labels stay impossible."""
    huge = LabelOffsets(passed=1e4, partial=-1e4)

    assert decide(VerdictProbabilities(0.1, 0.1, 0.8), huge, binary=False) == (
        Verdict.PASS,
        1.0,
    )
    assert decide(VerdictProbabilities(0.0, 0.0, 1.0), huge, binary=False) == (
        Verdict.FAIL,
        1.0,
    )


@pytest.mark.parametrize("verdict", list(Verdict))
def test_stated_probabilities_add_up_and_keep_the_verdict(verdict):
    """The pseudo-distribution of a stated confidence has its mode at the verdict."""
    for confidence in (0.0, 0.2, 0.9, 1.0):
        p = stated_probabilities(verdict, confidence, binary=False)
        assert p.passed + p.partial + p.failed == pytest.approx(1.0)
        assert decide(p, LabelOffsets(), binary=False).verdict is verdict


def test_score_is_the_mean_of_the_grade_distribution():
    """Half a chance of 4 and 5 is 4.5, so 0.875, with its spread."""
    answer = response("4\nGood.", ("4", {"4": 0.4, "5": 0.4, "The": 0.2}))

    result = decode(RUBRIC, RUBRIC_ITEM, answer, explain=True)

    assert result.score == result.raw_score == pytest.approx(0.875)
    assert result.stddev == pytest.approx(0.125)
    assert result.source is ConfidenceSource.LOGPROB
    assert result.reasoning == "Good."


def test_score_map_is_applied_and_clipped():
    """The map moves the score, not the raw score."""
    program = replace(RUBRIC, score_map=ScoreMap(slope=2.0, intercept=-0.2))

    low, high = (
        decode(program, RUBRIC_ITEM, response(g), explain=False) for g in ("2", "5")
    )

    assert (low.raw_score, low.score) == (0.25, pytest.approx(0.3))
    assert (high.raw_score, high.score) == (1.0, 1.0)


@pytest.mark.parametrize(
    ("text", "raw"),
    [
        ("4", 0.75),
        ("**Grade: 4/5**", 0.75),
        ("4.5 out of 5", 0.875),
        ("Score: 3. The", 0.5),
        ("10", None),
        ("0", None),
        ("6", None),
        ("The grade is 4", None),
        ("45", None),
        ("good", None),
    ],
)
def test_grade_is_read_strictly_without_probabilities(text, raw):
    """Only a leading grade from 1 to 5 is a grade."""
    if raw is None:
        with pytest.raises(UnparsableAnswerError):
            decode(RUBRIC, RUBRIC_ITEM, response(text), explain=True)
    else:
        result = decode(RUBRIC, RUBRIC_ITEM, response(text), explain=True)
        assert (result.raw_score, result.source) == (raw, ConfidenceSource.STATED)
        assert result.stddev is None


def test_rubric_text_is_taken_apart():
    """Reason, suggestions and criterion grades are told from each other."""
    text = (
        "3\nReason: It works but is long.\n\nSuggestions:\n- Cut the intro.\n* Name the units.\n"
        "1. Add a test.\n\nCorrect: 4\n- **Clear style**: 2/5\n- unknown: 3\n"
    )

    result = decode(RUBRIC, RUBRIC_ITEM, response(text), explain=True)

    assert result.reasoning == "It works but is long."
    assert result.suggestions[:3] == (
        "Cut the intro.",
        "Name the units.",
        "Add a test.",
    )
    assert result.criterion_scores == (
        CriterionScore("Correct", 0.75),
        CriterionScore("clear style", 0.25),
    )


def test_criterion_with_a_colon_in_its_name_is_graded_however_it_is_written():
    """The LM sees ``- name: description`` and cannot know which colon ends the name."""
    item = RubricInput(
        "t", "o", (Criterion("Tone: polite", "No: shouting"), Criterion("Short"))
    )
    read_back = replace(item, criteria=criteria_from_text(criteria_text(item.criteria)))
    assert read_back.criteria[0].name == "Tone"

    for written in ("Tone", "tone: Polite", "Tone: polite: No: shouting"):
        text = f"3\nToo long.\n{written}: 4\nShort: 2"
        served = decode(RUBRIC, item, response(text), explain=True)
        searched = decode(RUBRIC, read_back, response(text), explain=True)

        assert served.criterion_scores == (
            CriterionScore("Tone: polite", 0.75),
            CriterionScore("Short", 0.25),
        )
        assert [c.score for c in searched.criterion_scores] == [0.75, 0.25]
        assert served.reasoning == searched.reasoning == "Too long."


def test_name_of_its_own_wins_over_the_beginning_of_another():
    """``Tone`` is the criterion of that name, wherever it stands."""
    item = RubricInput("t", "o", (Criterion("Tone: polite"), Criterion("Tone")))

    result = decode(
        RUBRIC, item, response("3\nWhy.\nTone: 2\nTone: polite: 5"), explain=True
    )

    assert result.criterion_scores == (
        CriterionScore("Tone: polite", 1.0),
        CriterionScore("Tone", 0.25),
    )


def test_leaving_reasons_out_keeps_the_score():
    """Without reasons the text behind the grade is not looked at."""
    result = decode(
        RUBRIC, RUBRIC_ITEM, response("3\nWhy\n- do\nCorrect: 4"), explain=False
    )

    assert (result.raw_score, result.reasoning) == (0.5, "")
    assert (result.suggestions, result.criterion_scores) == ((), ())


def test_later_reasons_are_added():
    """A follow-up answer fills in what the first one left out."""
    judgment = decode(SAFETY, ITEM, response("yes"), explain=True)
    rubric = decode(RUBRIC, RUBRIC_ITEM, response("3"), explain=True)

    assert (
        with_reasons(ITEM, judgment, "It is harmless.").reasoning == "It is harmless."
    )
    filled = with_reasons(RUBRIC_ITEM, rubric, "Too long.\n- Cut it.")
    assert (filled.reasoning, filled.suggestions) == ("Too long.", ("Cut it.",))
