"""Vectors over real HTTP: batches, order, refusals, and the cache of a run."""

import asyncio
import json

import pytest

from sidejudge_server.config import LMSettings
from sidejudge_server.errors import LMRequestError, LMUnavailableError
from sidejudge_server.lm.caching_client import CachingClient
from sidejudge_server.lm.call_cache import CallCache
from sidejudge_server.lm.embedding import MAX_TEXTS, parse_embeddings
from sidejudge_server.lm.http_client import HttpChatClient
from sidejudge_server.lm.providers import resolve
from sidejudge_server.lm.types import EmbeddingClient
from sidejudge_server.lm.wires import MalformedAnswerError
from tests.stand_in import running_stand_in


@pytest.fixture
def stand_in():
    with running_stand_in() as running:
        yield running


def make_client(stand_in, embedding_model="embedder", model="openai/stand-in"):
    settings = LMSettings(
        model=model,
        base_url=stand_in.base_url,
        api_key="sk-secret",
        max_retries=0,
        embedding_model=embedding_model,
        input_usd_per_mtok=1.0,
        output_usd_per_mtok=2.0,
    )
    return HttpChatClient(settings, resolve(settings, {}))


def embed(client, *texts):
    async def ask():
        try:
            return await client.embed(texts, timeout_s=10)
        finally:
            await client.close()

    return asyncio.run(ask())


def test_vectors_come_in_the_order_of_the_texts(stand_in):
    """Whatever order the endpoint sends them in; the call is counted and priced."""
    found = embed(make_client(stand_in), "aaa", "bb", "")

    assert [v[:2] for v in found.vectors] == [(3.0, 0.0), (0.0, 2.0), (0.0, 0.0)]
    assert stand_in.requests == [
        {"model": "embedder", "input": ["aaa", "bb", ""], "encoding_format": "float"}
    ]
    assert found.usage.calls == 1
    assert found.usage.cost_usd == pytest.approx(found.usage.input_tokens / 1e6)


def test_many_texts_are_sent_in_batches(stand_in):
    """A call stays small however large a memory is."""
    texts = [f"text {i}" for i in range(MAX_TEXTS + 1)]

    found = embed(make_client(stand_in), *texts)

    assert len(found.vectors) == MAX_TEXTS + 1
    assert [len(r["input"]) for r in stand_in.requests] == [MAX_TEXTS, 1]


def test_client_without_embedding_model_says_so(stand_in):
    """Nothing is sent to a model that nobody chose."""
    client = make_client(stand_in, embedding_model=None)

    assert isinstance(client, EmbeddingClient)
    assert client.embedding_model == ""
    with pytest.raises(LMRequestError, match="SIDEJUDGE_LM_EMBEDDING_MODEL"):
        embed(client, "a")
    assert not stand_in.requests


@pytest.mark.parametrize(
    ("model", "error"),
    [
        ("unknown-model", LMRequestError),
        ("down", LMUnavailableError),
        ("malformed", LMUnavailableError),
    ],
)
def test_failures_are_those_of_any_call(stand_in, model, error):
    """The embedding model is a model like the other."""
    with pytest.raises(error) as raised:
        embed(make_client(stand_in, embedding_model=model), "some secret text")

    assert "some secret text" not in str(raised.value)


def test_anthropic_wire_has_no_embeddings(stand_in):
    """There is no such call to make."""
    client = make_client(stand_in, model="anthropic/stand-in")

    assert client.embedding_model == ""


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"data": []},
        {"data": [{"embedding": []}, {"embedding": [1.0]}]},
        {"data": [{"embedding": [1.0]}, {"embedding": [1.0, 2.0]}]},
        {"data": [{"embedding": [1.0]}, {"embedding": ["x"]}]},
        {"data": [{"embedding": [1.0]}, {"embedding": [float("nan")]}]},
        {"data": [{"embedding": [1.0]}]},
        {"data": "no"},
        [],
    ],
)
def test_answers_that_hold_no_vectors_are_malformed(body):
    """One finite vector of one length for each text, or nothing."""
    with pytest.raises(MalformedAnswerError):
        parse_embeddings(json.dumps(body).encode(), count=2)


def test_cache_asks_for_each_text_once_and_survives(stand_in, tmp_path):
    """A resumed run does not pay for vectors again."""

    def cached(*texts):
        cache = CallCache(tmp_path / "calls.jsonl")
        return embed(CachingClient(make_client(stand_in), cache), *texts)

    first = cached("aaa", "bb")
    second = cached("bb", "c", "aaa", "bb")

    assert [r["input"] for r in stand_in.requests] == [["aaa", "bb"], ["c"]]
    assert second.vectors[0] == second.vectors[3] == first.vectors[1]
    assert second.vectors[2] == first.vectors[0]
    assert second.usage.calls == 1
