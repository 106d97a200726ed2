"""Lexical proxies for the quality of reasons and suggestions.

They look for signs that can be counted: does a reason name what it is about, give a cause, and
keep to a readable length; does a suggestion start with a verb and point at something. They do not
understand text: a fluent wrong reason gets full marks. That is why they weigh little beside the
label, and why they are here in the open instead of in another model's opinion.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

__all__ = [
    "clarity",
    "completeness",
    "content_words",
    "gives_cause",
    "length_fit",
    "relevance",
    "sentence_fit",
    "suggestion_quality",
]

MIN_WORDS = 8
MAX_WORDS = 120
MAX_SENTENCE_WORDS = 30
RELEVANT_WORDS = 4
MIN_SUGGESTION_WORDS = 4
_SHORTEST_WORD = 3

# Judged text may be long and hostile; what matters for a reason is found in this much.
_SCANNED_CHARS = 20_000

_WORD = re.compile(r"[^\W_]+(?:[_'][^\W_]+)*")
_SENTENCE_END = re.compile(r"[.!?;\n]+")
_REFERENCE = re.compile(r"[`\"'][^`\"']+[`\"']|\d|\w\.\w|\w\(\)|\w/\w|\w_\w")


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_CAUSES = re.compile(
    r"\b(?:because|since|therefore|thus|hence|so that|due to|as a result|which means"
    r"|leads? to|caus(?:es?|ed|ing)|lacks?|lacking|miss(?:es|ing)|omits?|omitted"
    r"|fails? to|without|contradicts?|contradicted|unsupported|supported by|instead of"
    r"|does not|do not|is not|are not|did not|doesn't|isn't|not mentioned)\b"
)

_IMPERATIVES = _words(
    "add adjust answer apply avoid break call change check cite clarify combine compare compute "
    "confirm convert correct cover cut define delete describe document drop ensure exclude expand "
    "explain extract fix focus follow format give group handle include increase inline insert keep "
    "limit link list log lower make mention merge move name narrow note order prefer print provide "
    "quote raise read reduce refer reference remove rename reorder repeat rephrase replace report "
    "respond restore restrict return rewrite round run save separate set shorten show simplify sort "
    "specify split state stick stop store strip structure summarize support test tighten translate "
    "trim turn unify update use validate verify wrap write"
)
_PRESCRIPTIVE = frozenset({"should", "must", "needs", "need", "could", "consider"})
_GENERIC = (
    "be more specific", "be more clear", "be clearer", "be more detailed", "be more concise",
    "be better", "do better", "improve quality", "improve the quality", "improve the output",
    "improve the answer", "improve the response", "make it better", "add more detail",
    "add more details", "provide more detail", "provide more details", "try again",
    "pay more attention", "needs improvement", "needs work",
)  # fmt: skip

_STOP_WORDS = _words(
    "about after all also and any are been being but can did does for from had has have her his how "
    "into its more most not now one only other our out over same she should some such than that the "
    "their them then there these they this those through too very was were what when where which "
    "while who why will with would you your"
)


def content_words(text: str) -> frozenset[str]:
    """Return the distinct words of three letters or more that carry meaning, lower case.

    A plural s is dropped, so "tests" and "test" are one word. Only the first 20,000 characters
    are read.
    """
    found = (m.group().lower() for m in _WORD.finditer(text[:_SCANNED_CHARS]))
    return frozenset(
        _singular(word)
        for word in found
        if len(word) >= _SHORTEST_WORD and word not in _STOP_WORDS
    )


def gives_cause(reasoning: str) -> float:
    """Return 1 if a reason names a cause or a lack ("because", "lacks", "fails to"), else 0."""
    return float(_CAUSES.search(reasoning[:_SCANNED_CHARS].lower()) is not None)


def length_fit(reasoning: str) -> float:
    """Return 1 for 8 to 120 words, n/8 below, 120/n above."""
    words = len(_WORD.findall(reasoning))
    if words < MIN_WORDS:
        return words / MIN_WORDS
    return min(1.0, MAX_WORDS / words)


def sentence_fit(reasoning: str) -> float:
    """Return 1 if sentences have at most 30 words on average, 30/mean above, 0 without words."""
    lengths = [len(_WORD.findall(part)) for part in _SENTENCE_END.split(reasoning)]
    lengths = [length for length in lengths if length]
    if not lengths:
        return 0.0
    return min(1.0, MAX_SENTENCE_WORDS * len(lengths) / sum(lengths))


def relevance(reasoning: str, *, subject: str) -> float:
    """Return how much a reason speaks of its subject: distinct shared content words / 4, at most 1."""
    shared = content_words(reasoning) & content_words(subject)
    return min(1.0, len(shared) / RELEVANT_WORDS)


def completeness(reasoning: str, *, criteria: Sequence[str]) -> float:
    """Return the mean of criteria coverage, `gives_cause` and `length_fit`.

    Coverage is the share of criteria of which the reason uses a content word of the name;
    without criteria the mean is over the other two.
    """
    parts = [gives_cause(reasoning), length_fit(reasoning)]
    named = [words for words in map(content_words, criteria) if words]
    if named:
        used = content_words(reasoning)
        parts.append(sum(bool(words & used) for words in named) / len(named))
    return sum(parts) / len(parts)


def clarity(reasoning: str, *, subject: str) -> float:
    """Return the mean of `gives_cause`, `length_fit`, `sentence_fit` and `relevance`."""
    parts = (
        gives_cause(reasoning),
        length_fit(reasoning),
        sentence_fit(reasoning),
        relevance(reasoning, subject=subject),
    )
    return sum(parts) / len(parts)


def suggestion_quality(suggestion: str, *, subject: str) -> float:
    """Return the mean of three signs that somebody could act on a suggestion, each 0 or 1.

    It tells what to do: starts with an imperative verb, or has should, must, need, could or
    consider. It points at something: shares a content word with the subject, or has a quotation,
    a number or something that looks like code. It is not generic: at least four words, and not
    a phrase such as "be more specific" and little more.
    """
    text = suggestion[:_SCANNED_CHARS]
    words = [m.group().lower() for m in _WORD.finditer(text)]
    if not words:
        return 0.0
    tells = words[0] in _IMPERATIVES or not _PRESCRIPTIVE.isdisjoint(words)
    points = bool(content_words(text) & content_words(subject)) or bool(
        _REFERENCE.search(text)
    )
    return (tells + points + (not _is_generic(words))) / 3


def _is_generic(words: Sequence[str]) -> bool:
    if len(words) < MIN_SUGGESTION_WORDS:
        return True
    joined = " ".join(words)
    return any(
        phrase in joined and len(words) <= len(phrase.split()) + 3
        for phrase in _GENERIC
    )


def _singular(word: str) -> str:
    if len(word) > _SHORTEST_WORD and word.endswith("s") and not word.endswith("ss"):
        return word[:-1]
    return word
