"""What goes to a language model and what comes back, whatever the provider's wire looks like."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

__all__ = [
    "ChatClient",
    "ChatRequest",
    "ChatResponse",
    "EmbeddingClient",
    "Embeddings",
    "LMUsage",
    "Message",
    "TokenLogprobs",
]


@dataclass(frozen=True, slots=True)
class Message:
    """One turn; ``role`` is system, user or assistant."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """One completion to ask for.

    Attributes:
        messages: Turns, a system turn first.
        max_tokens: Most tokens to generate, at least 1.
        temperature: 0 for the most likely answer.
        top_logprobs: Alternatives per token to report, 0 for none, at most 20.
        stop: Strings that end the answer; at most 4.
    """

    messages: tuple[Message, ...]
    max_tokens: int
    temperature: float = 0.0
    top_logprobs: int = 0
    stop: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TokenLogprobs:
    """A generated token and its most likely alternatives (itself included) with ln P."""

    token: str
    alternatives: tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True)
class LMUsage:
    """What one or more calls cost. ``cost_usd`` is None when a price is unknown; addable."""

    input_tokens: int = 0
    cached_input_tokens: int = 0
    output_tokens: int = 0
    calls: int = 0
    cost_usd: float | None = 0.0
    latency_s: float = 0.0

    def __add__(self, other: LMUsage) -> LMUsage:
        """Add counts; the sum's cost is unknown if either is."""
        cost = (
            None
            if self.cost_usd is None or other.cost_usd is None
            else self.cost_usd + other.cost_usd
        )
        return LMUsage(
            self.input_tokens + other.input_tokens,
            self.cached_input_tokens + other.cached_input_tokens,
            self.output_tokens + other.output_tokens,
            self.calls + other.calls,
            cost,
            self.latency_s + other.latency_s,
        )


@dataclass(frozen=True, slots=True)
class ChatResponse:
    """An answer. ``logprobs`` is empty when the provider sent none."""

    text: str
    logprobs: tuple[TokenLogprobs, ...]
    usage: LMUsage
    finish_reason: str


class ChatClient(Protocol):
    """A language model that answers chat requests.

    ``complete`` raises LMUnavailableError, LMRateLimitedError, LMCredentialsError or LMRequestError
    (after its own retries) or asyncio.CancelledError; it never answers with a made-up text.
    """

    @property
    def model(self) -> str:
        """The model as configured, such as ``openai/gpt-4o-mini``."""
        ...

    @property
    def supports_logprobs(self) -> bool:
        """Whether answers carry token probabilities."""
        ...

    async def complete(
        self, request: ChatRequest, *, timeout_s: float | None = None
    ) -> ChatResponse:
        """Answer one request within ``timeout_s`` seconds (None: the configured default)."""
        ...

    async def close(self) -> None:
        """Release connections and processes."""
        ...


@dataclass(frozen=True, slots=True)
class Embeddings:
    """One vector per text, in their order, and what they cost."""

    vectors: tuple[tuple[float, ...], ...]
    usage: LMUsage


@runtime_checkable
class EmbeddingClient(Protocol):
    """A client that turns texts into vectors too, if it was configured to.

    ``embed`` raises what `ChatClient.complete` raises.
    """

    @property
    def embedding_model(self) -> str:
        """The model as the endpoint calls it; "" if there is none."""
        ...

    async def embed(
        self, texts: tuple[str, ...], *, timeout_s: float | None = None
    ) -> Embeddings:
        """Return a vector per text within ``timeout_s`` seconds (None: the default)."""
        ...
