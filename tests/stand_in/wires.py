"""The two wires of the stand-in: OpenAI chat completions and Anthropic messages."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from tests.stand_in.answers import Answer

__all__ = [
    "Generated",
    "anthropic_body",
    "anthropic_messages",
    "embeddings_body",
    "generate",
    "openai_body",
]

_TOKEN = re.compile(r"\n|[ ]?[^\s]+|[ ]")
# What OpenAI reports for a token that is as good as impossible.
_IMPOSSIBLE = -9999.0
_CHARS_PER_TOKEN = 4


@dataclass(frozen=True, slots=True)
class Generated:
    """The tokens that fit, the text they make and why it ended (stop or length)."""

    tokens: list[str]
    text: str
    finish_reason: str


def generate(answer: Answer, *, max_tokens: int | None, stop: list[str]) -> Generated:
    """Cut an answer at ``max_tokens`` tokens and before the first stop string."""
    text, finish = answer.text, "stop"
    cuts = [at for s in stop if (at := text.find(s)) >= 0]
    if cuts:
        text = text[: min(cuts)]
    tokens = _TOKEN.findall(text)
    if max_tokens is not None and len(tokens) > max_tokens:
        tokens, finish = tokens[:max_tokens], "length"
        text = "".join(tokens)
    return Generated(tokens, text, finish)


def embeddings_body(request: dict[str, Any]) -> dict[str, Any]:
    """Return vectors that count the letters of each text, so that like texts are alike."""
    texts = request["input"]
    data = [
        {
            "index": i,
            "embedding": [float(text.lower().count(c)) for c in "abcdefghijklmnop"],
        }
        for i, text in enumerate(texts)
    ]
    tokens = sum(len(text) for text in texts) // _CHARS_PER_TOKEN
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    # In any order: the index says which is which.
    return {"object": "list", "data": data[::-1], "usage": usage}


def openai_body(
    request: dict[str, Any], answer: Answer, *, prompt_tokens: int, cached_tokens: int
) -> bytes:
    """Return the JSON of a chat completion."""
    stop = request.get("stop") or []
    max_tokens = request.get("max_completion_tokens", request.get("max_tokens"))
    generated = generate(
        answer, max_tokens=max_tokens, stop=[stop] if isinstance(stop, str) else stop
    )
    output_tokens = len(generated.tokens)
    body = {
        "id": "chatcmpl-stand-in",
        "object": "chat.completion",
        "created": 0,
        "model": request["model"],
        "usage": {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": output_tokens,
            "total_tokens": prompt_tokens + output_tokens,
            "prompt_tokens_details": {"cached_tokens": cached_tokens},
        },
    }
    logprobs = "null"
    if request.get("logprobs"):
        logprobs = _logprobs(generated.tokens, answer, request.get("top_logprobs", 0))
    # Joined by hand: encoding a dictionary for each token would be most of the work.
    choice = (
        f'{{"index":0,"message":{{"role":"assistant","content":{json.dumps(generated.text)}}},'
        f'"finish_reason":"{generated.finish_reason}","logprobs":{logprobs}}}'
    )
    return f'{json.dumps(body)[:-1]},"choices":[{choice}]}}'.encode()


def _logprobs(tokens: list[str], answer: Answer, top: int) -> str:
    content = [_certain(token, top > 0) for token in tokens]
    if content and answer.alternatives:
        ranked = [
            {"token": token, "logprob": math.log(p) if p > 0 else _IMPOSSIBLE}
            for token, p in answer.alternatives
        ]
        content[0] = json.dumps({**ranked[0], "top_logprobs": ranked[:top]})
    return f'{{"content":[{",".join(content)}]}}'


@lru_cache(maxsize=4096)
def _certain(token: str, alternatives: bool) -> str:
    entry = {"token": token, "logprob": 0.0}
    return json.dumps({**entry, "top_logprobs": [entry] if alternatives else []})


def anthropic_messages(request: dict[str, Any]) -> list[dict[str, str]]:
    """Return the chat of a messages request in the shape of chat completions."""
    turns = [
        {"role": m["role"], "content": _flat(m["content"])} for m in request["messages"]
    ]
    system = _flat(request.get("system", ""))
    return [{"role": "system", "content": system}, *turns] if system else turns


def _flat(content: str | list[dict[str, Any]]) -> str:
    if isinstance(content, str):
        return content
    return "".join(block.get("text", "") for block in content)


def anthropic_body(
    request: dict[str, Any], answer: Answer, *, prompt_tokens: int, cached_tokens: int
) -> bytes:
    """Return the JSON of a message."""
    generated = generate(
        answer,
        max_tokens=request["max_tokens"],
        stop=request.get("stop_sequences") or [],
    )
    reasons = {"stop": "end_turn", "length": "max_tokens"}
    return json.dumps(
        {
            "id": "msg_stand_in",
            "type": "message",
            "role": "assistant",
            "model": request["model"],
            "content": [{"type": "text", "text": generated.text}],
            "stop_reason": reasons[generated.finish_reason],
            "stop_sequence": None,
            "usage": {
                # Anthropic counts what came from the cache apart from input_tokens.
                "input_tokens": prompt_tokens - cached_tokens,
                "cache_read_input_tokens": cached_tokens,
                "cache_creation_input_tokens": 0,
                "output_tokens": len(generated.tokens),
            },
        }
    ).encode()


def token_count(messages: list[dict[str, str]]) -> int:
    """Return a rough number of tokens, at least 1."""
    return max(1, sum(len(m["content"]) for m in messages) // _CHARS_PER_TOKEN)
