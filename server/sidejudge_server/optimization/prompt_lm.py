"""The model that writes instructions, as DSPy wants it: an engine over our own client.

So its calls are counted, cached and cancelled like all others, and nothing of DSPy's own HTTP client,
retries, cache or price list is involved.
"""

from __future__ import annotations

from typing import Any

import dspy
from dspy.lm15 import Message, Response, TextPart, Usage

from sidejudge_server.judges.blocking import BlockingClient
from sidejudge_server.lm.types import ChatRequest
from sidejudge_server.lm.types import Message as ChatMessage

__all__ = ["make_prompt_lm"]

_MAX_TOKENS = 1_200
"""Room for an instruction of 4,000 characters and DSPy's field markers."""


class _Engine:
    """DSPy's engine contract: one canonical request in, one response out."""

    def __init__(self, client: BlockingClient) -> None:
        self._client = client

    def __deepcopy__(self, memo: dict[int, object]) -> _Engine:
        """Return itself: a connection cannot be copied."""
        return self

    def complete(self, request: Any) -> Any:  # noqa: ANN401 - dspy is untyped
        """Answer one request; errors are those of the client."""
        turns = []
        if request.system is not None:
            system = request.system
            text = (
                system if isinstance(system, str) else "".join(p.text for p in system)
            )
            turns.append(ChatMessage("system", text))
        turns += [ChatMessage(m.role, m.text or "") for m in request.messages]
        config = request.config
        answer = self._client.complete(
            ChatRequest(
                messages=tuple(turns),
                max_tokens=config.max_tokens or _MAX_TOKENS,
                temperature=config.temperature or 0.0,
            )
        )
        usage = answer.usage
        return Response(
            id=None,
            model=self._client.model,
            message=Message.assistant([TextPart(answer.text)]),
            finish_reason="stop",
            usage=Usage(
                input_tokens=usage.input_tokens,
                output_tokens=usage.output_tokens,
                total_tokens=usage.input_tokens + usage.output_tokens,
            ),
        )

    def close(self) -> None:
        """Do nothing: the client is closed by the run."""


def make_prompt_lm(client: BlockingClient) -> Any:  # noqa: ANN401 - dspy is untyped
    """Return a dspy LM that asks a client."""
    return dspy.LM(
        model=client.model,
        engine=_Engine(client),
        cache=False,
        num_retries=0,
        temperature=1.0,
        max_tokens=_MAX_TOKENS,
    )
