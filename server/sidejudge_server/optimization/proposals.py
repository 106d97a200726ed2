"""Which proposed instructions may compete.

A small model asked for an instruction may answer with the template's own placeholder, a field marker
or a summary of the data; a search over demonstrations then deploys it, because the demonstrations
carry the score (seen with a model of 1.5 billion parameters: the winner was the literal text
``{proposed_instruction}``). So every proposal is checked before it enters the search.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Proposal", "check_instruction", "select_instructions"]

MIN_CHARS = 20
MAX_CHARS = 4_000
_MIN_WORDS = 4

_PLACEHOLDER = re.compile(
    r"\{\{?\s*[A-Za-z_][\w .-]*\s*\}?\}|<(?:insert|your|placeholder)\b[^>]*>"
    r"|\[(?:insert|your|placeholder)\b[^\]]*\]",
    re.IGNORECASE,
)
_FIELD_MARKER = re.compile(
    r"\[\[\s*##|##\s*\]\]|<\|[^|>]{1,40}\|>|</?s>|\[/?INST\]|```", re.IGNORECASE
)
_TEMPLATE_LEFTOVER = re.compile(
    r"(?:proposed[_ ]instruction|basic[_ ]instruction|dataset[_ ]description|task[_ ]demos"
    r"|program[_ ]description|no task demos provided)",
    re.IGNORECASE,
)
_REFUSAL = re.compile(
    r"^(?:i'?m sorry|sorry,|i can(?:no|')t |as an ai\b|i am unable)", re.IGNORECASE
)
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class Proposal:
    """An instruction with why it was refused; ``refusal`` is empty if it competes as ``index``."""

    instructions: str
    index: int
    refusal: str = ""


def check_instruction(text: str, *, taken: Sequence[str]) -> str:
    """Say why an instruction may not compete; empty if it may.

    Args:
        text: The proposal.
        taken: Instructions that compete already; the same again (spaces and case aside) is refused.
    """
    stripped = text.strip()
    problems = (
        (not stripped, "empty"),
        (0 < len(stripped) < MIN_CHARS, f"shorter than {MIN_CHARS} characters"),
        (len(stripped) > MAX_CHARS, f"longer than {MAX_CHARS} characters"),
        (bool(_PLACEHOLDER.search(stripped)), "holds a template placeholder"),
        (bool(_FIELD_MARKER.search(stripped)), "holds a field or chat marker"),
        (bool(_TEMPLATE_LEFTOVER.search(stripped)), "repeats the proposer's template"),
        (bool(_REFUSAL.search(stripped)), "the model declined to write one"),
        (stripped[:1] in {"{", "["}, "is data instead of a sentence"),
        (bool(_CONTROL.search(stripped)), "holds control characters"),
        (len(stripped.split()) < _MIN_WORDS, f"fewer than {_MIN_WORDS} words"),
        (_mostly_repeats(stripped), "repeats itself"),
        (
            _canonical(stripped) in {_canonical(t) for t in taken},
            "the same as another candidate",
        ),
    )
    return next((reason for found, reason in problems if found), "")


def select_instructions(
    current: str,
    *,
    proposed: Sequence[str],
    curated: Sequence[str],
    count: int,
) -> tuple[Proposal, ...]:
    """Choose the instructions that compete, refused ones in between with their reason.

    The current instructions are candidate 0 whatever they look like. Proposals follow in their
    order; curated ones fill the places that are left. Accepted ones carry consecutive indices,
    refused ones -1.

    Args:
        current: Instructions of the version that the run starts from.
        proposed: From a proposer; may be empty.
        curated: Shipped for the judge's kind.
        count: How many may compete, the current one included, at least 1.
    """
    taken = [current]
    result = [Proposal(current, 0)]
    for text in proposed:
        if len(taken) >= count:
            break
        refusal = check_instruction(text, taken=taken)
        if refusal:
            result.append(Proposal(text[:MAX_CHARS], -1, refusal))
            continue
        result.append(Proposal(text.strip(), len(taken)))
        taken.append(text.strip())
    for text in curated:
        if len(taken) >= count:
            break
        # A curated instruction equal to the current one is no news to anybody: skip it silently.
        if not check_instruction(text, taken=taken):
            result.append(Proposal(text.strip(), len(taken)))
            taken.append(text.strip())
    return tuple(result)


def _canonical(text: str) -> str:
    return " ".join(text.lower().split())


def _mostly_repeats(text: str) -> bool:
    """Return True for loops: many words of which under a fifth are different."""
    words = text.lower().split()
    return len(words) >= 30 and len(set(words)) < len(words) / 5  # noqa: PLR2004 - shorter texts repeat by nature
