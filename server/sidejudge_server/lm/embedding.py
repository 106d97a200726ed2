"""The wire of embeddings, as all OpenAI-compatible endpoints speak it: texts to JSON, JSON to vectors."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sidejudge_server.lm.types import ChatRequest, Message
from sidejudge_server.lm.wires import MalformedAnswerError, TokenCounts

__all__ = [
    "MAX_TEXTS",
    "ParsedEmbeddings",
    "embedding_body",
    "embedding_request",
    "parse_embeddings",
]

MAX_TEXTS = 64
"""In one call; endpoints allow more, but a call's size and time should stay small."""


@dataclass(frozen=True, slots=True)
class ParsedEmbeddings:
    """Vectors in the order of the texts, and what they took."""

    vectors: tuple[tuple[float, ...], ...]
    tokens: TokenCounts


def embedding_body(model: str, texts: Sequence[str]) -> bytes:
    """Return the JSON of a call."""
    body = {"model": model, "input": list(texts), "encoding_format": "float"}
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode(
        errors="replace"
    )


def embedding_request(texts: Sequence[str]) -> ChatRequest:
    """Return the chat request with the same texts: what bounds and refusals are told by."""
    return ChatRequest(tuple(Message("user", text) for text in texts), max_tokens=1)


def parse_embeddings(data: bytes, *, count: int) -> ParsedEmbeddings:
    """Read an answer.

    Args:
        data: Its body.
        count: How many texts were sent.

    Raises:
        MalformedAnswerError: It is not JSON, or has not one finite vector of one length for each.
    """
    try:
        body = json.loads(data)
        placed = [
            (int(entry.get("index", place)), _vector(entry["embedding"]))
            for place, entry in enumerate(body["data"])
        ]
        placed.sort(key=lambda entry: entry[0])
        vectors = tuple(vector for _, vector in placed)
        used = (body.get("usage") or {}).get("prompt_tokens")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        # The error itself may quote the answer, so only its class is kept.
        raise MalformedAnswerError(type(error).__name__) from None
    if len(vectors) != count or len({len(vector) for vector in vectors}) != 1:
        raise MalformedAnswerError("not one vector for each text")
    return ParsedEmbeddings(vectors, TokenCounts(prompt=int(used or 0)))


def _vector(values: Any) -> tuple[float, ...]:  # noqa: ANN401 - JSON of a stranger
    vector = tuple(float(value) for value in values)
    if not vector or not all(math.isfinite(value) for value in vector):
        raise ValueError("no finite vector")
    return vector
