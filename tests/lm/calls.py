"""What the tests of clients share: requests, settings and clients that do not really wait."""

import random

from sidejudge_server.config import LMSettings
from sidejudge_server.lm.http_client import ClientOptions, HttpChatClient
from sidejudge_server.lm.pricing import price_of
from sidejudge_server.lm.providers import resolve
from sidejudge_server.lm.retry import Backoff
from sidejudge_server.lm.types import ChatRequest, Message

SYSTEM = "You judge. Answer with one word first: yes, partly or no."


def chat(text="p(yes)=0.83", *, system=SYSTEM, **options):
    """Return a request for a verdict with logprobs."""
    fields = {"max_tokens": 20, "top_logprobs": 20} | options
    messages = (Message("system", system), Message("user", text))
    return ChatRequest(messages, **fields)


class RecordedSleep:
    """Takes no time and remembers for how long it should have slept."""

    def __init__(self):
        self.delays_s = []

    async def __call__(self, delay_s):
        """Remember a wait."""
        self.delays_s.append(delay_s)


def make_client(base_url, *, model="openai/stand-in", sleep=None, **fields):
    """Return a client of a stand-in with seeded jitter and no real waits."""
    settings = LMSettings(model=model, base_url=base_url, api_key="sk-secret", **fields)
    options = ClientOptions(
        price_of(settings),
        backoff=Backoff(random=random.Random(7)),  # noqa: S311 - jitter
        sleep=sleep or RecordedSleep(),
    )
    return HttpChatClient(settings, resolve(settings, {}), options=options)


async def ask(client, request=None, **options):
    """Ask once and close the client."""
    try:
        return await client.complete(request or chat(), **options)
    finally:
        await client.close()
