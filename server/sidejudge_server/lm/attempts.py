"""The seam at which every single request to a model can be counted, and forbidden before it is made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from sidejudge_server.lm.pricing import Price
from sidejudge_server.lm.types import ChatRequest, LMUsage
from sidejudge_server.lm.wires import TokenCounts

__all__ = ["AttemptBound", "AttemptMeter", "attempt_bound"]

_TOKENS_PER_REQUEST = 64
_TOKENS_PER_MESSAGE = 16
"""Room for what a chat template adds: roles, separators, a date, a default system message."""


@dataclass(frozen=True, slots=True)
class AttemptBound:
    """The most that one request can take; ``cost_usd`` None when the price is not known."""

    input_tokens: int
    output_tokens: int
    cost_usd: float | None

    @property
    def tokens(self) -> int:
        """Prompt and generated tokens together."""
        return self.input_tokens + self.output_tokens


class AttemptMeter(Protocol):
    """Hears of every request, retries included, before it is made and when it has ended."""

    async def begin(self, bound: AttemptBound) -> object:
        """Reserve what a request can take, waiting for others to end if that may make room.

        Returns:
            A ticket for `end`.

        Raises:
            BaseException: The request must not be made.
        """
        ...

    def end(
        self, ticket: object, usage: LMUsage | None, *, answered: bool = False
    ) -> None:
        """Take note of what a request took.

        Args:
            ticket: From `begin`.
            usage: Empty if it was refused; None if it is not known whether it will be billed, or
                what for.
            answered: True if there was an answer, with or without token counts.
        """
        ...


def attempt_bound(
    request: ChatRequest, *, max_output_tokens: int, price: Price | None
) -> AttemptBound:
    """Return the most that a request can take.

    A tokenizer that works on bytes gives at most one token for each byte of UTF-8, so this is a bound
    and no guess; English text takes about a quarter of it.

    Args:
        request: What is asked.
        max_output_tokens: Most tokens that may be generated, hidden thinking included.
        price: None if it is not known.
    """
    prompt = _TOKENS_PER_REQUEST + sum(
        _TOKENS_PER_MESSAGE + len(m.content.encode(errors="replace"))
        for m in request.messages
    )
    cost = None
    if price is not None:
        dearest = max(price.prompt, price.cache_read, price.cache_write)
        cost = Price(dearest, price.generated, dearest, dearest).cost_usd(
            TokenCounts(prompt=prompt, generated=max_output_tokens)
        )
    return AttemptBound(prompt, max_output_tokens, cost)
