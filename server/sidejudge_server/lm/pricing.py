"""What calls cost: a short list of common models, which the settings override."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from sidejudge_server.config import LMSettings
from sidejudge_server.lm.wires import TokenCounts

__all__ = ["FREE", "Price", "price_of"]

_MILLION = 1_000_000


@dataclass(frozen=True, slots=True)
class Price:
    """US dollars per million tokens.

    Attributes:
        prompt: Prompt tokens.
        generated: Generated tokens.
        cache_read: Prompt tokens that came from the provider's cache.
        cache_write: Prompt tokens written to it.
    """

    prompt: float
    generated: float
    cache_read: float
    cache_write: float

    def cost_usd(self, tokens: TokenCounts) -> float:
        """Return the cost of a call, at least 0."""
        plain = max(0, tokens.prompt - tokens.cache_read - tokens.cache_write)
        return (
            plain * self.prompt
            + tokens.cache_read * self.cache_read
            + tokens.cache_write * self.cache_write
            + tokens.generated * self.generated
        ) / _MILLION


FREE = Price(0.0, 0.0, 0.0, 0.0)


def _price(
    prompt: float,
    cache_read: float,
    generated: float,
    *,
    cache_write: float | None = None,
) -> Price:
    return Price(
        prompt, generated, cache_read, prompt if cache_write is None else cache_write
    )


# List prices of the standard tier and the shortest context tier, November 2026, from the price
# list that LiteLLM 1.106.2 carries: prompt, cached prompt, generated. They change without
# notice; the settings input_usd_per_mtok and output_usd_per_mtok override them.
_PRICES: Mapping[str, Price] = MappingProxyType(
    {
        "openai/gpt-4o": _price(2.5, 1.25, 10.0),
        "openai/gpt-4o-mini": _price(0.15, 0.075, 0.6),
        "openai/gpt-4.1": _price(2.0, 0.5, 8.0),
        "openai/gpt-4.1-mini": _price(0.4, 0.1, 1.6),
        "openai/gpt-4.1-nano": _price(0.1, 0.025, 0.4),
        "openai/gpt-5": _price(1.25, 0.125, 10.0),
        "openai/gpt-5-mini": _price(0.25, 0.025, 2.0),
        "openai/gpt-5-nano": _price(0.05, 0.005, 0.4),
        "openai/gpt-5.4": _price(2.5, 0.25, 15.0),
        "openai/gpt-5.4-mini": _price(0.75, 0.075, 4.5),
        "openai/gpt-5.4-nano": _price(0.2, 0.02, 1.25),
        "openai/gpt-6-sol": _price(2.0, 0.2, 10.0, cache_write=2.5),
        "openai/gpt-6-luna": _price(0.1, 0.01, 0.5, cache_write=0.125),
        "openai/o3": _price(2.0, 0.5, 8.0),
        "openai/o3-mini": _price(1.1, 0.55, 4.4),
        "openai/o4-mini": _price(1.1, 0.275, 4.4),
        "anthropic/claude-haiku-4-5": _price(1.0, 0.1, 5.0, cache_write=1.25),
        "anthropic/claude-haiku-5-5": _price(0.1, 0.01, 0.5, cache_write=0.125),
        "anthropic/claude-sonnet-4-5": _price(3.0, 0.3, 15.0, cache_write=3.75),
        "anthropic/claude-sonnet-4-6": _price(3.0, 0.3, 15.0, cache_write=3.75),
        "anthropic/claude-sonnet-5": _price(2.0, 0.2, 10.0, cache_write=2.5),
        "anthropic/claude-sonnet-5-5": _price(2.0, 0.1, 10.0, cache_write=2.5),
        "anthropic/claude-opus-4-5": _price(5.0, 0.5, 25.0, cache_write=6.25),
        "anthropic/claude-opus-5": _price(5.0, 0.5, 25.0, cache_write=6.25),
        "anthropic/claude-opus-5-5": _price(4.0, 0.2, 20.0, cache_write=5.0),
        "gemini/gemini-2.5-flash": _price(0.3, 0.03, 2.5),
        "gemini/gemini-2.5-flash-lite": _price(0.1, 0.01, 0.4),
        "gemini/gemini-2.5-pro": _price(1.25, 0.125, 10.0),
        "gemini/gemini-3.5-flash": _price(1.5, 0.15, 9.0),
        "gemini/gemini-3.5-flash-lite": _price(0.3, 0.03, 2.5),
        "deepseek/deepseek-chat": _price(0.28, 0.028, 0.42),
        "deepseek/deepseek-reasoner": _price(0.28, 0.028, 0.42),
        "groq/openai/gpt-oss-20b": _price(0.075, 0.0375, 0.3),
        "groq/openai/gpt-oss-120b": _price(0.15, 0.075, 0.6),
        "mistral/mistral-small-latest": _price(0.15, 0.015, 0.6),
        "mistral/mistral-medium-latest": _price(1.5, 0.15, 7.5),
        "mistral/mistral-large-latest": _price(0.5, 0.05, 1.5),
        "xai/grok-4.3": _price(1.25, 0.2, 2.5),
        "xai/grok-4.5": _price(2.0, 0.3, 6.0),
    }
)
_SNAPSHOT = re.compile(r"-(\d{8}|\d{4}-\d{2}-\d{2})$")
# Providers that run on the user's own machines.
_OWN = frozenset(
    {"local", "ollama", "ollama_chat", "hosted_vllm", "vllm", "lm_studio", "llamafile"}
)


def price_of(settings: LMSettings) -> Price | None:
    """Return the price of a model, or None if it is unknown.

    Configured prices win; with a configured prompt price, cached tokens cost the same as others. An
    endpoint of one's own (``base_url``) has no list price unless its provider runs locally anyway.
    """
    prefix = settings.model.partition("/")[0]
    known: Price | None = None
    if prefix in _OWN:
        known = FREE
    elif settings.base_url is None:
        known = _PRICES.get(settings.model) or _PRICES.get(
            _SNAPSHOT.sub("", settings.model)
        )
    prompt, generated = settings.input_usd_per_mtok, settings.output_usd_per_mtok
    if prompt is None and generated is None:
        return known
    if generated is None:
        generated = known.generated if known else None
    if prompt is not None and generated is not None:
        return Price(prompt, generated, cache_read=prompt, cache_write=prompt)
    if known is None or generated is None:
        return None
    return Price(known.prompt, generated, known.cache_read, known.cache_write)
