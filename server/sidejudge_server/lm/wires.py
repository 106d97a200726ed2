"""The two wires: a chat request to JSON, and JSON to text, probabilities and token counts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from sidejudge_server.lm.providers import Endpoint, Wire
from sidejudge_server.lm.types import ChatRequest, TokenLogprobs

__all__ = [
    "Dialect",
    "MalformedAnswerError",
    "ParsedAnswer",
    "TokenCounts",
    "initial_dialect",
    "max_output_tokens",
    "parse_answer",
    "request_body",
]

# Room for hidden thinking, which counts against the limit but is only paid for when used.
_THINKING_TOKENS = 4096
# What the strictest servers with log probabilities still accept.
_FEW_TOP_LOGPROBS = 5


class MalformedAnswerError(Exception):
    """The answer is not what the wire promises; asking again may help."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """What an endpoint accepts; narrowed when it refuses a parameter.

    Attributes:
        max_top_logprobs: Most alternatives per token; 0 if log probabilities are not to be asked for.
        max_tokens_name: ``max_tokens`` or ``max_completion_tokens``.
        temperature: Whether a temperature is accepted.
        stop: Whether stop strings are accepted.
    """

    max_top_logprobs: int = 20
    max_tokens_name: str = "max_tokens"
    temperature: bool = True
    stop: bool = True

    def without(self, complaint: str) -> Dialect | None:
        """Return the dialect that avoids what a 400 complains of; None if that is nothing known.

        Args:
            complaint: The parameter and message of the error. Never shown to anybody.
        """
        if "logprobs" in complaint and self.max_top_logprobs:
            fewer = (
                _FEW_TOP_LOGPROBS
                if "top_logprobs" in complaint
                and self.max_top_logprobs > _FEW_TOP_LOGPROBS
                else 0
            )
            return replace(self, max_top_logprobs=fewer)
        if (
            "max_completion_tokens" in complaint
            and self.max_tokens_name == "max_tokens"
        ):
            return replace(self, max_tokens_name="max_completion_tokens")
        if "temperature" in complaint and self.temperature:
            return replace(self, temperature=False)
        if "stop" in complaint and self.stop:
            return replace(self, stop=False)
        return None


def initial_dialect(endpoint: Endpoint, *, logprobs: bool | None) -> Dialect:
    """Return what is known of an endpoint before the first call.

    Args:
        endpoint: Where the calls go.
        logprobs: What the user says of log probabilities; None for what is known.
    """
    top = endpoint.max_top_logprobs
    if logprobs is not None:
        top = (top or 20) if logprobs and endpoint.wire is Wire.OPENAI else 0
    if endpoint.reasoning:
        return Dialect(top, "max_completion_tokens", temperature=False, stop=False)
    return Dialect(top)


@dataclass(frozen=True, slots=True)
class TokenCounts:
    """Tokens of a call. ``prompt`` includes those read from and written to a cache."""

    prompt: int = 0
    cache_read: int = 0
    cache_write: int = 0
    generated: int = 0


@dataclass(frozen=True, slots=True)
class ParsedAnswer:
    """What an answer says, without what it costs."""

    text: str
    logprobs: tuple[TokenLogprobs, ...]
    tokens: TokenCounts
    finish_reason: str


def request_body(
    endpoint: Endpoint,
    request: ChatRequest,
    dialect: Dialect,
    extra: Mapping[str, Any],
) -> bytes:
    """Return the JSON of a call.

    Args:
        endpoint: Where it goes.
        request: What to ask.
        dialect: What the endpoint accepts.
        extra: Further members of the body.
    """
    build = _anthropic_body if endpoint.wire is Wire.ANTHROPIC else _openai_body
    body = {**build(endpoint, request, dialect), **extra}
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode(
        # Text cut out of UTF-16 may hold half a character, which is not UTF-8.
        errors="replace"
    )


def _openai_body(
    endpoint: Endpoint, request: ChatRequest, dialect: Dialect
) -> dict[str, Any]:
    body: dict[str, Any] = {
        "model": endpoint.sent_model,
        "messages": [{"role": m.role, "content": m.content} for m in request.messages],
        dialect.max_tokens_name: max_output_tokens(endpoint, request),
    }
    if dialect.temperature:
        body["temperature"] = request.temperature
    if dialect.stop and request.stop:
        body["stop"] = list(request.stop)
    if top := min(request.top_logprobs, dialect.max_top_logprobs):
        body |= {"logprobs": True, "top_logprobs": top}
    return body


def max_output_tokens(endpoint: Endpoint, request: ChatRequest) -> int:
    """Return the most tokens that a call may generate, hidden thinking included."""
    return request.max_tokens + (_THINKING_TOKENS if endpoint.thinking else 0)


def _anthropic_body(
    endpoint: Endpoint, request: ChatRequest, dialect: Dialect
) -> dict[str, Any]:
    system = "\n\n".join(m.content for m in request.messages if m.role == "system")
    turns = [
        {"role": m.role, "content": [{"type": "text", "text": m.content}]}
        for m in request.messages
        if m.role != "system"
    ]
    body: dict[str, Any] = {
        "model": endpoint.sent_model,
        "messages": turns,
        "max_tokens": max_output_tokens(endpoint, request),
    }
    # Instructions and worked examples are the same in every call of a judge version: cache
    # up to the last turn before the input.
    if system:
        body["system"] = [{"type": "text", "text": system, "cache_control": _CACHE}]
    if len(turns) > 1:
        block: Any = turns[-2]["content"][0]
        block["cache_control"] = _CACHE
    if dialect.temperature:
        body["temperature"] = request.temperature
    # Anthropic refuses stop strings of white space; parse_answer cuts at those.
    if dialect.stop and (stop := [s for s in request.stop if s.strip()]):
        body["stop_sequences"] = stop
    return body


_CACHE = {"type": "ephemeral"}


def parse_answer(wire: Wire, data: bytes, request: ChatRequest) -> ParsedAnswer:
    """Read an answer.

    Raises:
        MalformedAnswerError: It is not JSON or lacks what the wire promises.
    """
    parse = _parse_anthropic if wire is Wire.ANTHROPIC else _parse_openai
    try:
        answer = parse(json.loads(data))
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        # The error itself may quote the answer, so only its class is kept.
        raise MalformedAnswerError(type(error).__name__) from None
    return _cut(answer, request)


def _cut(answer: ParsedAnswer, request: ChatRequest) -> ParsedAnswer:
    """End a text before the first stop string, for endpoints that do not."""
    cuts = [at for s in request.stop if (at := answer.text.find(s)) >= 0]
    if not cuts:
        return answer
    return replace(answer, text=answer.text[: min(cuts)], finish_reason="stop")


def _parse_openai(body: Any) -> ParsedAnswer:  # noqa: ANN401 - JSON of a stranger
    choice = body["choices"][0]
    usage = body.get("usage") or {}
    details = usage.get("prompt_tokens_details") or {}
    cached = details.get("cached_tokens") or usage.get("prompt_cache_hit_tokens") or 0
    written = details.get("cache_write_tokens") or 0
    content = (choice.get("logprobs") or {}).get("content") or ()
    return ParsedAnswer(
        text=str(choice["message"].get("content") or ""),
        logprobs=tuple(_token(entry) for entry in content),
        tokens=TokenCounts(
            prompt=int(usage.get("prompt_tokens") or 0),
            cache_read=int(cached),
            cache_write=int(written),
            generated=int(usage.get("completion_tokens") or 0),
        ),
        finish_reason=str(choice.get("finish_reason") or "stop"),
    )


def _token(entry: Any) -> TokenLogprobs:  # noqa: ANN401 - JSON of a stranger
    alternatives = [
        (str(t["token"]), float(t["logprob"])) for t in entry.get("top_logprobs") or ()
    ]
    token = str(entry["token"])
    # The chosen token is left out by some when it is not among the most likely ones.
    if all(t != token for t, _ in alternatives):
        alternatives.append((token, float(entry["logprob"])))
    return TokenLogprobs(token, tuple(alternatives))


_ANTHROPIC_REASONS = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "refusal": "content_filter",
}


def _parse_anthropic(body: Any) -> ParsedAnswer:  # noqa: ANN401 - JSON of a stranger
    usage = body.get("usage") or {}
    read = int(usage.get("cache_read_input_tokens") or 0)
    written = int(usage.get("cache_creation_input_tokens") or 0)
    reason = str(body.get("stop_reason") or "end_turn")
    return ParsedAnswer(
        text="".join(b["text"] for b in body["content"] if b["type"] == "text"),
        logprobs=(),
        tokens=TokenCounts(
            # Anthropic counts the cached part apart from input_tokens.
            prompt=int(usage.get("input_tokens") or 0) + read + written,
            cache_read=read,
            cache_write=written,
            generated=int(usage.get("output_tokens") or 0),
        ),
        finish_reason=_ANTHROPIC_REASONS.get(reason, reason),
    )
