"""What the stand-in says: a pure function of the messages.

The text of the last user message decides:

- ``p(yes)=0.83`` and ``p(partly)=0.1`` set the probabilities of the verdicts, the rest is no;
- ``p(yes|WORD)=0.9`` holds instead when WORD is in the system message, so that one prompt can
  be made better than another; the same goes for ``p(partly|WORD)`` and ``grade|WORD``;
- ``write=<...>`` is what every field is that DSPy asks to be written;
- ``p(yes|quoted)=0.1`` and ``grade|quoted=2`` hold instead when the material is quoted line by line;
- ``p(yes|@2)=0.9`` holds instead after at least two answered turns, as demonstrations are;
- ``mute|WORD`` makes the answer unusable when WORD is in the system message;
- ``grade=4.2`` sets the mean of the grades;
- ``unreadable`` in the material of a request for new examples makes the answer one without them;
- else a SHA-256 of the message decides.

A request for guidelines is answered with a list that names the steering words of the material.

Which of verdict, grade, DSPy fields or plain sentence is asked for is read off the prompt.
"""

from __future__ import annotations

import hashlib
import math
import re
from dataclasses import dataclass
from functools import lru_cache

__all__ = ["Answer", "answer"]

_NEW_EXAMPLES = "=== variation\n"
"""Begins the form in which new training examples are asked for."""

_PROBABILITY = re.compile(r"p\((yes|partly)(?:\|(@?\w+))?\)\s*=\s*([01]?\.?\d+)")
_GRADE = re.compile(r"\bgrade(?:\|(\w+))?\s*=\s*([1-5](?:\.\d+)?)")
_MUTE = re.compile(r"mute\|(\w+)")
_WRITE = re.compile(r"write=<([^<>]+)>")
_YES = re.compile(r"\byes\b", re.IGNORECASE)
_NO = re.compile(r"\bno\b", re.IGNORECASE)
_PARTLY = re.compile(r"\bpartly\b", re.IGNORECASE)
_DIGITS = re.compile(r"\b1\s*(?:to|and|through|-|\u2013|\.\.)\s*5\b|\b1, 2, 3, 4")
_DSPY_FIELD = re.compile(r"`\[\[ ## (\w+) ## \]\]`")
_DSPY_REQUEST = "Respond with the corresponding output fields"
_GUIDELINES_REQUEST = "Write guidelines for the judge"
_TAIL = 400
_SHORT = 400

_SENTENCES = (
    "Judge carefully whether every part of the task is met; answer yes only if it is.",
    "Answer yes only if each statement is supported, partly if some are, and no if none is.",
    "Be strict: look for what is wrong before you answer yes or no.",
    "Compare the artifact with the task step by step, then answer yes or no.",
    "Read the task first, list what it needs, and answer no if one need is unmet.",
    "Weigh what a domain expert would object to, then answer yes or no.",
    "Ignore style and length; answer yes only if the substance is right.",
    "Decide literally by the wording of the question and answer yes or no.",
)
_REASONS = (
    "The statement follows from what was given.",
    "One part of the task is not covered.",
    "Nothing in the input contradicts it.",
    "The main point is addressed and the details agree.",
)


@dataclass(frozen=True, slots=True)
class Answer:
    """A text whose first token had alternatives with these probabilities (none: certain)."""

    text: str
    alternatives: tuple[tuple[str, float], ...] = ()


def answer(messages: list[dict[str, str]]) -> Answer:
    """Answer a chat."""
    last = messages[-1]["content"]
    system = messages[0]["content"] if messages[0]["role"] == "system" else ""
    seed = hashlib.sha256(last.encode()).digest()
    for request, write in _WRITTEN.items():
        if request in last:
            return Answer(write(last, seed))
    if any(word in system for word in _MUTE.findall(last)):
        return Answer("It is hard to tell.")
    if _is_follow_up(messages):
        return Answer(_reason(seed))
    asked = _asked(system) | _asked(last[-_TAIL:])
    # A prompt that says nothing of its labels but steers them still gets what it steers.
    if "grade" in asked or (_GRADE.search(last) and "verdict" not in asked):
        return _grade(last, system, asked, seed)
    if "verdict" in asked or _PROBABILITY.search(last):
        turns = sum(message["role"] == "assistant" for message in messages)
        return _verdict(last, system, asked, seed, turns=turns)
    return Answer(_sentence(seed))


@lru_cache(maxsize=256)  # a judge's system message comes again and again
def _asked(text: str) -> frozenset[str]:
    """Return what a text asks for: verdict, partly, grade, confidence, suggestions, criteria."""
    asked = {
        "verdict": _YES.search(text) and _NO.search(text),
        "partly": _PARTLY.search(text),
        "grade": _DIGITS.search(text),
        "confidence": "Confidence" in text or "confidence:" in text,
        "suggestions": "suggestions" in text,
        "criteria": "criterion" in text,
    }
    return frozenset(name for name, found in asked.items() if found)


def _is_follow_up(messages: list[dict[str, str]]) -> bool:
    """Tell whether a short question without tagged input follows an answer of the model."""
    last = messages[-1]["content"]
    return (
        len(messages) > 2
        and messages[-2]["role"] == "assistant"
        and len(last) < _SHORT
        and "</" not in last
        and not _asked(last) & {"verdict", "grade"}
        and not _PROBABILITY.search(last)
        and not _GRADE.search(last)
    )


def _verdict(
    last: str, system: str, asked: frozenset[str], seed: bytes, *, turns: int
) -> Answer:
    found = _PROBABILITY.findall(last)[::-1]
    given = {label: value for label, word, value in found if not word}
    given |= {
        label: value
        for label, word, value in found
        if word and _holds(word, last, system, turns)
    }
    if given:
        passed, partly = float(given.get("yes", 0.0)), float(given.get("partly", 0.0))
    else:
        passed = seed[0] / 255
        partly = (1 - passed) * seed[1] / 255 if "partly" in asked else 0.0
    probabilities = [("yes", passed), ("no", max(0.0, 1.0 - passed - partly))]
    if "partly" in asked or partly:
        probabilities.insert(1, ("partly", partly))
    return _labelled(probabilities, asked, seed)


def _holds(word: str, last: str, system: str, turns: int) -> bool:
    if word == "quoted":
        return "\n> " in last
    return turns >= int(word[1:]) if word[0] == "@" else word in system


def _grade(last: str, system: str, asked: frozenset[str], seed: bytes) -> Answer:
    found = _GRADE.findall(last)
    steered = [value for word, value in found if word and _holds(word, last, system, 0)]
    plain = [value for word, value in found if not word]
    mean = float((steered + plain)[0]) if steered or plain else 1 + 4 * seed[0] / 255
    low = min(4, math.floor(mean))
    share = mean - low
    grades = [(str(low), 1 - share), (str(low + 1), share)]
    graded = _labelled(grades, asked, seed)
    lines = [graded.text]
    if "suggestions" in asked:
        lines.append("- Say what is missing.")
    criteria = _criteria(last) if "criteria" in asked else []
    if len(criteria) > 1:
        lines += [f"{name}: {graded.text[0]}" for name in criteria]
    return Answer("\n".join(lines), graded.alternatives)


def _criteria(last: str) -> list[str]:
    """Return the names in a ``<criteria>`` block of lines ``- name: description``."""
    block = last.partition("<criteria>")[2].partition("</criteria>")[0]
    lines = [line for line in block.splitlines() if line.startswith("- ")]
    if any(line.count(": ") > 1 for line in lines):
        return []  # where the name ends cannot be told
    return [line.removeprefix("- ").partition(": ")[0] for line in lines]


def _labelled(
    probabilities: list[tuple[str, float]], asked: frozenset[str], seed: bytes
) -> Answer:
    ranked = tuple(sorted(probabilities, key=lambda p: -p[1]))
    label, probability = ranked[0]
    lines = [label]
    if "confidence" in asked:
        lines.append(f"Confidence: {round(100 * probability)}%")
    lines.append(_reason(seed))
    return Answer("\n".join(lines), ranked)


def _dspy_fields(last: str, seed: bytes) -> str:
    tail = last[last.rindex(_DSPY_REQUEST) :]
    names = [name for name in _DSPY_FIELD.findall(tail) if name != "completed"]
    told = _WRITE.search(last)
    text = told[1] if told else _sentence(seed)
    sections = [f"[[ ## {name} ## ]]\n{text}" for name in names]
    return "\n\n".join([*sections, "[[ ## completed ## ]]"])


def _new_examples(last: str, seed: bytes) -> str:
    """Fill the form at the end of a request for a variation and a counter-example."""
    if "unreadable" in last:
        return "Here are two fine examples for you."
    form = last[last.index(_NEW_EXAMPLES) :]
    number = int.from_bytes(seed[:4], "big")
    return re.sub(
        r"because: .*?\ntext:\n.*?\n=== end",
        lambda m: (
            f"because: {_reason(seed)}\ntext:\nA new text {number}-{m.start()}.\n=== end"
        ),
        form,
        flags=re.DOTALL,
    )


def _guidelines(last: str, seed: bytes) -> str:
    """Return guidelines with the words that the material's probabilities hang on."""
    words = dict.fromkeys(
        word for _, word, _ in _PROBABILITY.findall(last) if word.isalpha()
    )
    told = [f"- Read every item {word} before you answer." for word in words]
    return "\n".join([*told, f"- {_sentence(seed)}", "- {placeholder}"])


_WRITTEN = {
    _NEW_EXAMPLES: _new_examples,
    _DSPY_REQUEST: _dspy_fields,
    _GUIDELINES_REQUEST: _guidelines,
}
"""What is written on request, by a phrase of the request."""


def _sentence(seed: bytes) -> str:
    return _SENTENCES[seed[2] % len(_SENTENCES)]


def _reason(seed: bytes) -> str:
    return _REASONS[seed[3] % len(_REASONS)]
