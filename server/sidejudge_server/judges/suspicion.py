"""Notice text that speaks to its judge instead of to its reader.

Cheap and without a model: it decides who gets a second look, not who fails. Patterns look for orders,
forged turns and verdicts, pleas, and for what hides them: encodings, look-alike letters, invisible
characters, repetition. Ordinary text, code, logs and markup rarely match; a false alarm costs one call.
"""

from __future__ import annotations

import base64
import binascii
import zlib
from collections.abc import Callable

from sidejudge_server.judges import suspicion_patterns as p
from sidejudge_server.judges.neutralize import neutralize
from sidejudge_server.judges.types import JudgeInput, RubricInput

__all__ = ["Suspicion", "made_by_agent", "suspicions"]

Suspicion = str
"""Stable short name of what was seen, such as ``order``."""


def made_by_agent(item: JudgeInput) -> str:
    """Return what may speak to the judge: what the agent made, and a custom judge's further inputs."""
    if isinstance(item, RubricInput):
        return item.agent_output
    return "\n".join((item.artifact, *item.fields.values()))


def suspicions(text: str) -> tuple[Suspicion, ...]:
    """Return the names of what was seen, sorted; empty for a text that speaks to its reader.

    ``order``, ``forged_turn``, ``forged_marker``, ``fake_verdict``, ``plea``, ``other_language``,
    ``encoded``, ``hidden_characters``, ``look_alikes``, ``repetition``.
    """
    lower = text.lower()
    words = set(lower.translate(p.PUNCTUATION).split())
    found = {name for name, search in _SEARCHES.items() if search(text, words)}
    if neutralize(text) != text.replace("\r\n", "\n"):
        found.add("forged_marker")
    if not text.isascii():
        if len(p.HIDDEN.findall(text)) >= p.FEWEST_HIDDEN:
            found.add("hidden_characters")
        if p.MIXED.search(text):
            found.add("look_alikes")
    if _is_encoded(text, words):
        found.add("encoded")
    if len(text) >= p.LONG:
        packed = len(zlib.compress(text.encode("utf-8", "replace"), 1))
        if packed < p.REPETITIVE * len(text):
            found.add("repetition")
    return tuple(sorted(found))


def _orders(text: str, words: set[str]) -> bool:
    return bool(
        (not words.isdisjoint(p.DISMISSING) and p.DISMISS.search(text))
        or (
            not words.isdisjoint(p.DICTATING)
            and not words.isdisjoint(p.PRAISING)
            and p.DICTATE.search(text)
        )
        or (not words.isdisjoint(p.JUDGING) and p.ADDRESS.search(text))
        or (
            _mentions(text, words, p.REASSIGNING, p.REASSIGNING_PHRASES)
            and p.REASSIGN.search(text)
        )
    )


def _mentions(
    text: str, words: set[str], single: frozenset[str], phrases: tuple[str, ...]
) -> bool:
    if not words.isdisjoint(single):
        return True
    lower = text.lower()
    return any(phrase in lower for phrase in phrases)


def _claims(text: str, words: set[str]) -> bool:
    return bool(
        not words.isdisjoint(p.CLAIMING)
        and not words.isdisjoint(p.PRAISING)
        and p.VERDICT.search(text)
    )


def _speaks_elsewhere(text: str, words: set[str]) -> bool:
    likely = not text.isascii() or any(w.startswith(p.FOREIGN) for w in words)
    return bool(likely and p.ELSEWHERE.search(text))


_SEARCHES: dict[str, Callable[[str, set[str]], bool]] = {
    "order": _orders,
    "fake_verdict": _claims,
    "forged_turn": lambda text, words: bool(
        not words.isdisjoint(p.SPEAKING) and p.TURN.search(text)
    ),
    "plea": lambda text, words: bool(
        _mentions(text, words, p.PLEADING, p.PLEADING_PHRASES) and p.PLEA.search(text)
    ),
    "other_language": _speaks_elsewhere,
}


def _is_encoded(text: str, words: set[str]) -> bool:
    """Return whether it holds an order once it is decoded."""
    if any(len(word) >= p.LONG_WORD for word in text.split()) and _decodes(text):
        return True
    # Shifted, turned round or in digits: a few words that are none as they stand.
    plain = " ".join(words)
    return any(
        p.GIVEAWAYS & (set(undo(plain).split()) - words) and _speaks(undo(text))
        for undo in (_shifted, _turned_round, _in_letters)
    )


def _shifted(text: str) -> str:
    return text.lower().translate(p.ROT13)


def _turned_round(text: str) -> str:
    return text[::-1]


def _in_letters(text: str) -> str:
    return text.translate(p.LEET)


def _decodes(text: str) -> bool:
    for candidate in p.BASE64.findall(text):
        if _speaks(_decoded(candidate)):
            return True
    for candidate in p.HEX.findall(text):
        try:
            plain = bytes.fromhex(candidate).decode()
        except ValueError:
            continue
        if _speaks(plain):
            return True
    return False


def _decoded(candidate: str) -> str:
    padded = candidate.rstrip("=")
    padded += "=" * (-len(padded) % 4)
    try:
        return base64.b64decode(
            padded.replace("-", "+").replace("_", "/"), validate=True
        ).decode()
    except (binascii.Error, ValueError):
        return ""


def _speaks(plain: str) -> bool:
    words = set(plain.lower().translate(p.PUNCTUATION).split())
    return any(
        _SEARCHES[name](plain, words) for name in ("order", "fake_verdict", "plea")
    )
