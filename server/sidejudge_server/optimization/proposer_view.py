"""What a model that writes instructions sees of examples: short, and unable to pose as a part of the prompt.

What was judged, answered or given as a reason is hostile until proven otherwise. Here it would do more
harm than in one evaluation: what is written from it serves all that follow.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sidejudge_server.judges.neutralize import INPUT_TAGS, neutralize

__all__ = ["FIELD_CHARS", "prompt_tags", "shown"]

FIELD_CHARS = 1_500
"""What is seen of each text: a handful of examples fit in any context."""


def prompt_tags(input_fields: Iterable[str]) -> frozenset[str]:
    """Return the tags that a judge's prompt uses, built-in ones and its own input fields."""
    return INPUT_TAGS | frozenset(input_fields)


def shown(value: Any, *, tags: frozenset[str]) -> Any:  # noqa: ANN401 - whatever a DSPy example holds
    """Return a value with its texts clipped to `FIELD_CHARS` and neutralised, those in lists too.

    Args:
        value: A text, a list or tuple (which becomes a list), or anything else, which stays as it is.
        tags: See `prompt_tags`.
    """
    if isinstance(value, str):
        return neutralize(value[:FIELD_CHARS], tags=tags)
    if isinstance(value, list | tuple):
        return [shown(part, tags=tags) for part in value]
    return value
