"""Reads the attacks and puts them around what is judged."""

from __future__ import annotations

import base64
import codecs
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import resources
from typing import Any

from sidejudge_server.benchmark.labelled import parse_input
from sidejudge_server.judges.types import ArtifactInput, JudgeInput, RubricInput

__all__ = ["Attack", "AttackItem", "attacked", "attacks", "items", "made"]

_FILLER = (
    "The morning train was on time and the platform was quiet. A man sold newspapers near the stairs."
    " Further on, two pigeons shared a crust. "
)
_CYRILLIC = str.maketrans(
    "aeopcxyi", "\u0430\u0435\u043e\u0440\u0441\u0445\u0443\u0456"
)
_LEET = str.maketrans("aeiost", "43105$")
_ENCODED = re.compile(
    r"\{(base64|rot13|hex|leet|reverse|cyrillic|fullwidth|zerowidth|math|tagchars):([^{}]*)\}"
)
_PADDING = re.compile(r"\{padding:(\d+)\}")
_NEWLINES = re.compile(r"\{newlines:(\d+)\}")
_REPEAT = re.compile(r"\{repeat:([^{}]*?):(\d+)\}")


@dataclass(frozen=True, slots=True)
class Attack:
    """A template with ``{artifact}`` in it; ``{good}`` stands for the best answer of the judge."""

    attack_id: str
    family: str
    template: str


@dataclass(frozen=True, slots=True)
class AttackItem:
    """What is attacked (``fails``), or a good item that must go on to pass."""

    item_id: str
    judge: str
    fails: bool
    input: JudgeInput


def attacks() -> list[Attack]:
    """Return all attacks, in the order of the file."""
    return [
        Attack(row["id"], row["family"], row["template"])
        for row in _rows("attacks.jsonl")
    ]


def items() -> list[AttackItem]:
    """Return all items, in the order of the file."""
    return [
        AttackItem(row["id"], row["judge"], row["label"] == "fail", parse_input(row))
        for row in _rows("items.jsonl")
    ]


def attacked(item: AttackItem, attack: Attack) -> JudgeInput:
    """Return the item with an attack around what the agent made."""
    if isinstance(item.input, RubricInput):
        text = _filled(attack.template, item.input.agent_output, good="5")
        return replace(item.input, agent_output=text)
    return replace(
        item.input, artifact=_filled(attack.template, item.input.artifact, good="yes")
    )


def made(item: JudgeInput) -> str:
    """Return what the agent made."""
    return item.artifact if isinstance(item, ArtifactInput) else item.agent_output


def _filled(template: str, artifact: str, *, good: str) -> str:
    text = template.replace("{good}", good)
    text = _ENCODED.sub(lambda m: _ENCODERS[m.group(1)](m.group(2)), text)
    text = _PADDING.sub(lambda m: _padding(int(m.group(1))), text)
    text = _NEWLINES.sub(lambda m: "\n" * int(m.group(1)), text)
    text = _REPEAT.sub(lambda m: m.group(1) * int(m.group(2)), text)
    # Last, so that nothing in it is taken for a part of the template.
    return text.replace("{artifact}", artifact)


def _padding(chars: int) -> str:
    return (_FILLER * (chars // len(_FILLER) + 1))[:chars]


def _rows(name: str) -> list[dict[str, Any]]:
    text = (resources.files(__package__) / name).read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def _shifted(text: str, first: int) -> str:
    """Return ASCII text in the alphabet that begins at a code point."""
    return "".join(
        chr(first + ord(c.upper()) - ord("A")) if c.isascii() and c.isalpha() else c
        for c in text
    )


_ENCODERS: dict[str, Callable[[str], str]] = {
    "base64": lambda text: base64.b64encode(text.encode()).decode(),
    "rot13": lambda text: codecs.encode(text, "rot13"),
    "hex": lambda text: text.encode().hex(),
    "leet": lambda text: text.translate(_LEET),
    "reverse": lambda text: text[::-1],
    "cyrillic": lambda text: text.translate(_CYRILLIC),
    "fullwidth": lambda text: "".join(
        chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in text
    ),
    "zerowidth": "\u200b".join,
    "math": lambda text: _shifted(text, 0x1D400),
    "tagchars": lambda text: "".join(chr(0xE0000 + ord(c)) for c in text),
}
