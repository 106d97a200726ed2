"""A chat client that says what a test tells it to: the fake at the LM seam."""

import asyncio
import math

from sidejudge_server.lm.types import ChatResponse, LMUsage, TokenLogprobs


def says(text, **probabilities):
    """Return an answer; with probabilities, those of its first token by word."""
    logprobs = ()
    if probabilities:
        alternatives = tuple(
            (word.lstrip("_"), math.log(p)) for word, p in probabilities.items()
        )
        logprobs = (TokenLogprobs(text.split("\n")[0], alternatives),)
    usage = LMUsage(10, 4, 2, 1, 0.5, 0.25)
    return ChatResponse(text, logprobs, usage, "stop")


class ScriptedClient:
    """Gives the answers in order and keeps the requests; exceptions are raised.

    Attributes:
        gate: If set, every answer waits for it.
    """

    model = "scripted"

    def __init__(self, *answers, supports_logprobs=True, repeat=False):
        self.answers = list(answers)
        self.supports_logprobs = supports_logprobs
        self.repeat = repeat
        self.requests = []
        self.gate = None
        self.asked = asyncio.Event()
        self.closed = False

    async def complete(self, request, *, timeout_s=None):
        """Answer with the next of the script."""
        del timeout_s
        self.requests.append(request)
        self.asked.set()
        if self.gate is not None:
            await self.gate.wait()
        answer = self.answers[0] if self.repeat else self.answers.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        return answer

    async def close(self):
        """Note that it was closed."""
        self.closed = True
