"""Read a verdict or a grade out of an LM's answer.

The first word is the answer; its token's alternatives give the probabilities of all answers
(mass on the label words, renormalised). Without usable probabilities the word itself is read,
strictly: an answer that does not begin with a label is no verdict at all, never a "fail".
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from sidejudge_server.judges.decision import (
    Decision,
    apply_score_map,
    decide,
    decide_score,
    decide_verdict,
    stated_probabilities,
)
from sidejudge_server.judges.prompt import VERDICT_WORDS, criterion_names
from sidejudge_server.judges.types import (
    ConfidenceSource,
    CriterionScore,
    JudgeInput,
    JudgeProgram,
    JudgeResult,
    Judgment,
    Recalled,
    RubricInput,
    RubricResult,
    Verdict,
    VerdictProbabilities,
)
from sidejudge_server.lm.types import ChatResponse, TokenLogprobs

__all__ = [
    "MIN_LABEL_MASS",
    "Decision",
    "UnparsableAnswerError",
    "apply_score_map",
    "decide",
    "decode",
    "stated_probabilities",
    "with_reasons",
]

MIN_LABEL_MASS = 0.1
"""Less probability than this on all label words together says that the LM answers something else."""


class UnparsableAnswerError(Exception):
    """An answer holds no verdict or grade. The text is not in the message: it may be hostile."""


_WORDS: Mapping[str, Verdict] = {
    **{word: verdict for verdict, word in VERDICT_WORDS.items()},
    "partial": Verdict.PARTIAL,
    "partially": Verdict.PARTIAL,
    "pass": Verdict.PASS,
    "fail": Verdict.FAIL,
}
_LEAD = (
    r"[^\w<]*(?:(?:final[ _])?(?:answer|verdict|judge?ment|label|result|grade|score|rating)"
    r"(?:\W+is)?[^\w<]+)?"
)
_LABEL = re.compile(
    rf"{_LEAD}(?P<label>yes|partly|partially|partial|no|pass|fail)(?:ed|es)?(?!\w)",
    re.IGNORECASE,
)
_GRADE = re.compile(
    rf"{_LEAD}(?P<label>[1-5](?:\.\d+)?)(?!\w|\.\d)(?:\s*(?:/|out of)\s*5(?!\d))?",
    re.IGNORECASE,
)
# "No issues found" begins with "no" and means yes; "No, ..." and "No, it ..." mean no.
_AMBIGUOUS_NO = re.compile(
    r"[ \t]+(?!(?:the|it|its|this|that|there|because|as|since|they|he|she)\b)\w",
    re.IGNORECASE,
)
_CONFIDENCE = re.compile(
    r"^[^\w\n]*+(?:confidence|probability|certainty)[^\w\n.]*+(?:is[^\w\n.]++)?"
    r"(?P<number>\d*\.?\d+)[ \t]*(?P<percent>%|percent)?.*$",
    re.IGNORECASE | re.MULTILINE,
)
_REASON_LEAD = re.compile(
    r"^[\s*_`\"'.,:;!)\]}>\u2013\u2014-]+"
    r"(?:(?:reason(?:ing)?|explanation|because)\s*[:*]+\s*)?",
    re.IGNORECASE,
)
_BULLET = re.compile(r"^\s*(?:[-*\u2022]|\d{1,2}[.)])\s+(?P<text>.*\S)\s*$")
_HEADING = re.compile(
    r"^\W*(?:suggestions?|improvements?|grades?|criteria|criterion (?:grades|scores))\W*$",
    re.IGNORECASE,
)
_DECORATION = " \t\r\n\"'`*_#.,:;!()[]{}\u2581\u0120\u010a\u201c\u201d\u2018\u2019"
_THOUGHT_END = "</think>"
_MAX_SUGGESTIONS = 10


def decode(
    program: JudgeProgram,
    item: JudgeInput,
    response: ChatResponse,
    *,
    explain: bool,
    recalled: Recalled = Recalled(),  # noqa: B008 - immutable
) -> JudgeResult:
    """Return the result that an answer stands for.

    Args:
        program: The judge version that asked.
        item: What was judged; its criteria say which criterion grades to look for.
        response: The LM's answer.
        explain: False to leave reasoning and suggestions out.
        recalled: What the version's memory brought up for the item.

    Raises:
        UnparsableAnswerError: There is no verdict or grade in it.
    """
    if program.scores:
        return _decode_score(
            program, item, response, explain=explain, recalled=recalled
        )
    return _decode_verdict(program, response, explain=explain, recalled=recalled)


def with_reasons(item: JudgeInput, result: JudgeResult, text: str) -> JudgeResult:
    """Return the result with the reasons (and suggestions) that a further answer gives."""
    if isinstance(result, Judgment):
        return replace(result, reasoning=_tidy(_CONFIDENCE.sub("", text)))
    parts = _split_rubric_text(item, text)
    return replace(
        result,
        reasoning=parts.reasoning,
        suggestions=result.suggestions or parts.suggestions,
        criterion_scores=result.criterion_scores or parts.criterion_scores,
    )


class _Answer(NamedTuple):
    """The text after any thinking aloud, its label if it has one, and the tokens of the text."""

    text: str
    label: re.Match[str] | None
    tokens: Sequence[TokenLogprobs]


def _decode_verdict(
    program: JudgeProgram,
    response: ChatResponse,
    *,
    explain: bool,
    recalled: Recalled,
) -> Judgment:
    answer = _read(response, _LABEL)
    label = answer.label
    probabilities = _verdict_probabilities(answer, binary=program.binary)
    source = ConfidenceSource.LOGPROB
    if probabilities is not None:
        decision = decide_verdict(program, probabilities, recalled)
        verdict, confidence = decision.verdict, decision.confidence
    else:
        verdict = _stated_verdict(answer, binary=program.binary)
        confidence, source = None, ConfidenceSource.NONE
        stated = _stated_confidence(answer.text)
        if stated is not None:
            source = ConfidenceSource.STATED
            verdict, confidence = decide_verdict(
                program,
                stated_probabilities(verdict, stated, binary=program.binary),
                recalled,
            )
    reasoning = ""
    if explain and (label is None or _WORDS[label["label"].casefold()] is verdict):
        # Where the decision rule overrules the word, its reasons argue for the wrong verdict.
        reasoning = _CONFIDENCE.sub("", answer.text[label.end() if label else 0 :])
        reasoning = _tidy(reasoning)
    return Judgment(verdict, confidence, source, probabilities, reasoning)


def _decode_score(
    program: JudgeProgram,
    item: JudgeInput,
    response: ChatResponse,
    *,
    explain: bool,
    recalled: Recalled,
) -> RubricResult:
    answer = _read(response, _GRADE)
    masses = _grade_masses(answer)
    stddev: float | None = None
    if masses is not None:
        total = sum(masses.values())
        mean = sum(grade * mass for grade, mass in masses.items()) / total
        variance = (
            sum((grade - mean) ** 2 * mass for grade, mass in masses.items()) / total
        )
        stddev = math.sqrt(max(0.0, variance)) / 4.0
        source = ConfidenceSource.LOGPROB
    elif answer.label is not None:
        mean = min(5.0, float(answer.label["label"]))
        source = ConfidenceSource.STATED
    else:
        raise UnparsableAnswerError("the answer does not begin with a grade")
    raw = min(1.0, max(0.0, (mean - 1.0) / 4.0))
    rest = answer.text[answer.label.end() if answer.label else 0 :]
    reasons = _split_rubric_text(item, rest if explain else "")
    return RubricResult(
        score=decide_score(program, raw, recalled),
        raw_score=raw,
        stddev=stddev,
        source=source,
        reasoning=reasons.reasoning,
        suggestions=reasons.suggestions,
        criterion_scores=reasons.criterion_scores,
    )


class _RubricText(NamedTuple):
    reasoning: str
    suggestions: tuple[str, ...]
    criterion_scores: tuple[CriterionScore, ...]


def _split_rubric_text(item: JudgeInput, text: str) -> _RubricText:
    names: dict[str, str] = {}
    if isinstance(item, RubricInput):
        for name, criterion in criterion_names(item.criteria).items():
            names.setdefault(_fold(name), criterion)
    reasons: list[str] = []
    suggestions: list[str] = []
    grades: dict[str, float] = {}
    for line in text.splitlines():
        named = _criterion_grade(line, names)
        bullet = _BULLET.match(line)
        if named is not None:
            grades.setdefault(named.criterion, named.score)
        elif bullet is not None:
            suggestions.append(bullet["text"].strip("* "))
        elif not _HEADING.match(line):
            (suggestions if suggestions and line.startswith("  ") else reasons).append(
                line
            )
    return _RubricText(
        _tidy("\n".join(reasons)),
        tuple(s for s in (" ".join(s.split()) for s in suggestions) if s)[
            :_MAX_SUGGESTIONS
        ],
        tuple(
            CriterionScore(name, grades[name])
            for name in dict.fromkeys(names.values())
            if name in grades
        ),
    )


_CRITERION_LINE = re.compile(
    r"^[\s*\u2022-]*(?:\d{1,2}[.)]\s+)?(?P<name>.{1,80}?)[\s*_]*[:=\u2013\u2014][\s*_]*"
    r"(?P<grade>[1-5](?:\.\d+)?)(?:\s*/\s*5)?[\s*_.]*$"
)


def _criterion_grade(line: str, names: Mapping[str, str]) -> CriterionScore | None:
    match = _CRITERION_LINE.match(line)
    if match is None or _fold(match["name"]) not in names:
        return None
    grade = min(5.0, float(match["grade"]))
    return CriterionScore(names[_fold(match["name"])], (grade - 1.0) / 4.0)


def _fold(name: str) -> str:
    return " ".join(name.strip("*_`\"' ").casefold().split())


def _read(response: ChatResponse, pattern: re.Pattern[str]) -> _Answer:
    """Drop thinking aloud, then look for a leading label in the text."""
    _, thought, after = response.text.rpartition(_THOUGHT_END)
    text = (after if thought else response.text).lstrip()
    tokens: Sequence[TokenLogprobs] = response.logprobs
    joined = ""
    for index, token in enumerate(tokens):
        joined += token.token
        if joined.rstrip().endswith(_THOUGHT_END):
            tokens = response.logprobs[index + 1 :]
    return _Answer(text, pattern.match(text), tokens)


def _answer_token(answer: _Answer) -> TokenLogprobs | None:
    """Return the token that begins the label, else the first one with a letter or digit."""
    if answer.label is not None:
        joined = "".join(token.token for token in answer.tokens)
        start = joined.find(answer.label.group())
        if start >= 0 and not joined[:start].strip():
            start += answer.label.start("label") - answer.label.start()
            position = 0
            for token in answer.tokens:
                position += len(token.token)
                if position > start:
                    return token
    for token in answer.tokens:
        if any(character.isalnum() for character in token.token):
            return token
    return None


def _verdict_probabilities(
    answer: _Answer, *, binary: bool
) -> VerdictProbabilities | None:
    token = _answer_token(answer)
    if token is None:
        return None
    masses = {Verdict.PASS: 0.0, Verdict.PARTIAL: 0.0, Verdict.FAIL: 0.0}
    for text, logprob in token.alternatives:
        verdict = _token_verdict(text)
        if verdict is not None:
            masses[verdict] += _probability(logprob)
    if binary:
        masses[Verdict.PARTIAL] = 0.0
    total = sum(masses.values())
    if total < MIN_LABEL_MASS:
        return None
    return VerdictProbabilities(
        masses[Verdict.PASS] / total,
        masses[Verdict.PARTIAL] / total,
        masses[Verdict.FAIL] / total,
    )


def _token_verdict(token: str) -> Verdict | None:
    text = token.strip(_DECORATION).casefold()
    if text in _WORDS:
        return _WORDS[text]
    if len(text) < 2:  # noqa: PLR2004 - a single letter begins too many words
        return None
    for verdict, word in VERDICT_WORDS.items():
        if word.startswith(text):
            return verdict
    return None


def _grade_masses(answer: _Answer) -> dict[int, float] | None:
    token = _answer_token(answer)
    if token is None:
        return None
    masses = dict.fromkeys(range(1, 6), 0.0)
    for text, logprob in token.alternatives:
        digit = text.strip(_DECORATION)
        if len(digit) == 1 and digit in "12345":
            masses[int(digit)] += _probability(logprob)
    return masses if sum(masses.values()) >= MIN_LABEL_MASS else None


def _probability(logprob: float) -> float:
    """Return exp(logprob), 0 for what is no number: some providers send null, NaN or -9999."""
    if math.isnan(logprob):
        return 0.0
    return math.exp(min(0.0, logprob))


def _stated_verdict(answer: _Answer, *, binary: bool) -> Verdict:
    label = answer.label
    if label is None:
        raise UnparsableAnswerError("the answer does not begin with a verdict")
    word = label["label"].casefold()
    if word == "no" and _AMBIGUOUS_NO.match(answer.text, label.end()):
        raise UnparsableAnswerError("the answer begins with an ambiguous 'no'")
    verdict = _WORDS[word]
    if binary and verdict is Verdict.PARTIAL:
        raise UnparsableAnswerError("a judge that must decide answered 'partly'")
    return verdict


def _stated_confidence(text: str) -> float | None:
    match = _CONFIDENCE.search(text)
    if match is None:
        return None
    number = float(match["number"])
    value = number / 100.0 if match["percent"] or number > 1.0 else number
    return value if 0.0 <= value <= 1.0 else None


def _tidy(text: str) -> str:
    return _REASON_LEAD.sub("", text, count=1).strip()
