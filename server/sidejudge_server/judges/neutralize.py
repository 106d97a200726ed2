"""Make judged text unable to pose as a part of our prompt.

Judged text is hostile until proven otherwise. It stands between tags, so the one thing it must not
contain is a tag of ours, or a token by which a chat template or DSPy begins another turn or field.
Such markers stay readable: their opening bracket is replaced by a look-alike. Everything else,
HTML and code included, stays as it is, so that the judge sees what was made.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

__all__ = ["INPUT_TAGS", "neutralize"]

INPUT_TAGS = frozenset(
    {
        "context",
        "ground_truth",
        "artifact",
        "task_context",
        "criteria",
        "agent_output",
    }
)

# Tags by which chat templates delimit turns; as HTML, only <s> has a use (strike-through).
_TEMPLATE_TAGS = frozenset(
    {
        "s",
        "bos",
        "eos",
        "unk",
        "pad",
        "start_of_turn",
        "end_of_turn",
        "begin_of_text",
        "end_of_text",
        "start_of_role",
        "end_of_role",
        "sys",
    }
)

# Invisible characters that a marker may be interspersed with and still be read as one.
_INVISIBLE = (
    "\u00ad\u034f\u061c\u180e\u200b-\u200f\u2060-\u2064\u206a-\u206f\ufe00-\ufe0f\ufeff"
)
_INVISIBLE_CHARACTERS = re.compile(f"[{_INVISIBLE}]")
_GAP = rf"[\s{_INVISIBLE}]*+"
_INLINE_GAP = rf"(?:[^\S\n]|[{_INVISIBLE}])*+"
_OPEN = "[<\uff1c\ufe64]"

# Possessive quantifiers keep all of these linear in the length of hostile text.
_UNSAFE_CHARACTERS = re.compile(
    "[\x00-\x08\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]"
)
_LINE_ENDS = re.compile("\r\n?|[\x0b\x0c]")
# Unicode tag characters spell invisible text; only in flag emoji have they a meaning.
_SMUGGLED = re.compile(
    "(\U0001f3f4[\U000e0020-\U000e007e]{1,8}+\U000e007f)|[\U000e0000-\U000e007f]++"
)
_TAG = re.compile(
    rf"{_OPEN}(?=({_GAP})[/\uff0f]?+{_GAP}"
    rf"((?:[{_INVISIBLE}]*+[^\s<>/\uff1c\uff1e\uff0f{_INVISIBLE}]){{1,80}}+)"
    rf"({_GAP}[/\uff0f]?+{_GAP}[>\uff1e])?+)"
)
_DSPY_MARKER = re.compile(
    rf"[\[\uff3b]{_INLINE_GAP}[\[\uff3b](?={_INLINE_GAP}[#\uff03][{_INVISIBLE}]*+[#\uff03])"
)
_PIPE = "[|\uff5c]"
# Spaced out, only names of chat templates are markers: ``x <| f |> g`` is code.
_TEMPLATE_TOKEN = re.compile(
    rf"{_OPEN}(?=[{_INVISIBLE}]*+{_PIPE}(?:[^\s|\uff5c<>]{{1,64}}+{_PIPE}[{_INVISIBLE}]*+[>\uff1e]"
    rf"|{_GAP}(?:im_\w{{1,16}}+|end|endof\w{{1,16}}+|eot\w{{0,8}}+|begin\w{{0,16}}+|\w{{1,16}}_of_\w{{1,16}}"
    rf"|(?:start|end)_header_id|system|user|assistant|tool){_GAP}{_PIPE}{_GAP}[>\uff1e]))",
    re.IGNORECASE,
)
_INSTRUCTION_TOKEN = re.compile(
    rf"[\[\uff3b](?={_GAP}/?+{_GAP}(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS)"
    rf"{_GAP}[\]\uff3d])",
    re.IGNORECASE,
)
_SYSTEM_TOKEN = re.compile(
    rf"{_OPEN}{_GAP}{_OPEN}(?={_GAP}/?+{_GAP}SYS{_GAP}[>\uff1e])", re.IGNORECASE
)
_SUSPICIOUS = re.compile(
    "[<\uff1c\ufe64\\[\uff3b\r\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069"
    "\ud800-\udfff\ufffe\uffff\U000e0000-\U000e007f]"
)
_NAME = re.compile(r"[\w.:]+")


def neutralize(text: str, *, tags: frozenset[str] = INPUT_TAGS) -> str:
    """Return the text with everything replaced that could pose as a part of the prompt.

    Opening brackets of our tags and of chat-template and DSPy markers become look-alikes
    (U+2039 or U+27E6), whatever their case, spacing, width or invisible
    characters; control characters and bidirectional overrides become U+FFFD; line ends become
    line feeds. Linear in the length, deterministic and idempotent.

    Args:
        text: Any text.
        tags: Names of the tags that the prompt uses, lower case.
    """
    if not _SUSPICIOUS.search(text):
        return text
    text = _LINE_ENDS.sub("\n", text)
    text = _UNSAFE_CHARACTERS.sub("\ufffd", text)
    text = _SMUGGLED.sub(lambda match: match.group(1) or "\ufffd", text)
    if "[" in text or "\uff3b" in text:
        text = _DSPY_MARKER.sub("\u27e6", text)
        text = _INSTRUCTION_TOKEN.sub("\u27e6", text)
    text = _SYSTEM_TOKEN.sub("\u2039\u2039", text)
    if "|" in text or "\uff5c" in text:
        text = _TEMPLATE_TOKEN.sub("\u2039", text)
    # ASCII text has no look-alikes to think of, which makes the usual case ten times faster.
    pattern = _ascii_tag(tags) if text.isascii() else _TAG
    return pattern.sub(lambda match: _shut_tag(match, tags), text)


@lru_cache(maxsize=256)
def _ascii_tag(tags: frozenset[str]) -> re.Pattern[str]:
    """Return what `_TAG` finds in ASCII text, for the tags that count only."""
    names = "|".join(
        re.escape(name).replace("_", "[_-]") for name in sorted(tags | _TEMPLATE_TAGS)
    )
    return re.compile(
        rf"<(?=(\s*+)/?+\s*+((?:{names})[.:]*(?![\w.:-])[^\s<>/]*+)(\s*+/?+\s*+>)?+)",
        re.IGNORECASE | re.ASCII,
    )


def _shut_tag(match: re.Match[str], tags: frozenset[str]) -> str:
    """Return the look-alike of an opening bracket, or the bracket if it opens no tag of ours.

    ``a < context`` and ``<Context.Provider>`` are code and stay.
    """
    bracket, spaced, closed = match.group(), match.group(1), match.group(3)
    name = match.group(2)
    if not name.isascii():
        name = unicodedata.normalize("NFKC", _INVISIBLE_CHARACTERS.sub("", name))
    written = _NAME.match(name.casefold().replace("-", "_"))
    name = written.group().rstrip(".:") if written else ""
    spaced = _INVISIBLE_CHARACTERS.sub("", spaced)
    if name in tags and (closed or not spaced):
        return "\u2039"
    if name in _TEMPLATE_TAGS and closed and not spaced:
        return "\u2039"
    return bracket
