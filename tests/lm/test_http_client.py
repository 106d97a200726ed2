"""The HTTP client against a real server: answers, costs, retries, limits, errors."""

import asyncio
import math
import socket

import pytest

from sidejudge_server.errors import (
    DeadlineError,
    LMCredentialsError,
    LMRateLimitedError,
    LMRequestError,
    LMUnavailableError,
)
from tests.lm.calls import RecordedSleep, ask, chat, make_client
from tests.stand_in import running_stand_in


@pytest.fixture
def stand_in():
    with running_stand_in() as running:
        yield running


def test_answer_brings_text_probabilities_and_usage(stand_in):
    """All that the wire says of an answer arrives."""
    client = make_client(
        stand_in.base_url, input_usd_per_mtok=1.0, output_usd_per_mtok=10.0
    )

    response = asyncio.run(ask(client, chat("p(yes)=0.7 p(partly)=0.2", max_tokens=1)))

    assert response.text == "yes"
    assert response.finish_reason == "length"
    first = dict(response.logprobs[0].alternatives)
    assert math.exp(first["partly"]) == pytest.approx(0.2)
    usage = response.usage
    assert (usage.calls, usage.output_tokens) == (1, 1)
    assert usage.cost_usd == pytest.approx((usage.input_tokens + 10) / 1e6)


def test_cached_prompt_tokens_are_reported(stand_in):
    """The second call of a prefix says how much came from the provider's cache."""

    async def twice():
        client = make_client(stand_in.base_url)
        await client.complete(chat("first"))
        return await ask(client, chat("second"))

    usage = asyncio.run(twice()).usage

    assert 0 < usage.cached_input_tokens < usage.input_tokens


def test_unknown_price_is_not_zero(stand_in):
    """A cost that nobody knows is None."""
    response = asyncio.run(ask(make_client(stand_in.base_url)))

    assert response.usage.cost_usd is None


def test_key_and_request_go_over_the_wire(stand_in):
    """The body and the key are what the provider's documentation asks for."""
    asyncio.run(ask(make_client(stand_in.base_url), chat(stop=("END",))))

    body = stand_in.requests[0]
    assert stand_in.headers[0]["authorization"] == "Bearer sk-secret"
    assert body["model"] == "stand-in"
    assert body["temperature"] == 0.0
    assert body["stop"] == ["END"]
    assert (body["logprobs"], body["top_logprobs"]) == (True, 20)
    assert [m["role"] for m in body["messages"]] == ["system", "user"]


def test_connection_is_kept_alive(stand_in):
    """Several calls share one connection."""

    async def connections():
        client = make_client(stand_in.base_url)
        for _ in range(3):
            await client.complete(chat())
        (pool,) = client._session.connector._conns.values()
        count = len(pool)
        await client.close()
        return count

    assert asyncio.run(connections()) == 1


def test_brief_failure_is_retried_with_growing_bounds(stand_in):
    """Waits are random below a bound that doubles."""
    sleep = RecordedSleep()
    client = make_client(stand_in.base_url, model="openai/flaky-3", sleep=sleep)

    response = asyncio.run(ask(client))

    assert response.text.startswith("yes")
    assert len(stand_in.requests) == 4
    assert all(
        0 <= delay <= bound
        for delay, bound in zip(sleep.delays_s, (0.5, 1.0, 2.0), strict=True)
    )


def test_outage_is_unavailable_after_all_attempts(stand_in):
    """When every attempt fails, the error names model and cause."""
    client = make_client(stand_in.base_url, model="openai/down", max_retries=2)

    with pytest.raises(LMUnavailableError, match="HTTP 500") as raised:
        asyncio.run(ask(client))

    assert len(stand_in.requests) == 3
    assert raised.value.reason == "LM_UNAVAILABLE"
    assert raised.value.metadata["model"] == "openai/down"


@pytest.mark.parametrize("model", ["malformed", "hang-up"])
def test_broken_answers_are_retried_then_unavailable(stand_in, model):
    """An answer that is not one is a failure, never an empty answer."""
    client = make_client(stand_in.base_url, model=f"openai/{model}", max_retries=1)

    with pytest.raises(LMUnavailableError):
        asyncio.run(ask(client))

    assert len(stand_in.requests) == 2


def test_unreachable_endpoint_is_unavailable():
    """A refused connection names its cause and no address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    client = make_client(f"http://127.0.0.1:{port}/v1", max_retries=1)

    with pytest.raises(LMUnavailableError, match="connection refused"):
        asyncio.run(ask(client))


def test_rate_limit_waits_as_long_as_asked(stand_in):
    """Retry-After is the least wait; when all attempts are used up the caller learns it."""
    stand_in.retry_after = "7"
    sleep = RecordedSleep()
    client = make_client(
        stand_in.base_url, model="openai/rate-limited", sleep=sleep, max_retries=2
    )

    with pytest.raises(LMRateLimitedError) as raised:
        asyncio.run(ask(client))

    assert sleep.delays_s == [7.0, 7.0]
    assert raised.value.retry_after_s == 7.0
    assert raised.value.reason == "LM_RATE_LIMITED"


def test_very_long_wait_is_left_to_the_caller(stand_in):
    """A server that wants an hour gets no further attempt."""
    stand_in.retry_after = "3600"
    sleep = RecordedSleep()
    client = make_client(stand_in.base_url, model="openai/rate-limited", sleep=sleep)

    with pytest.raises(LMRateLimitedError) as raised:
        asyncio.run(ask(client))

    assert sleep.delays_s == []
    assert raised.value.retry_after_s == 3600.0


def test_wait_beyond_the_deadline_is_not_begun(stand_in):
    """If no attempt could follow, the error comes at once and says why."""
    stand_in.retry_after = "30"
    sleep = RecordedSleep()
    client = make_client(stand_in.base_url, model="openai/rate-limited", sleep=sleep)

    with pytest.raises(LMRateLimitedError):
        asyncio.run(ask(client, timeout_s=5.0))

    assert sleep.delays_s == []


def test_deadline_ends_a_call_that_hangs(stand_in):
    """When the time is up without a failure, the deadline is the error."""
    client = make_client(stand_in.base_url, model="openai/slow")

    with pytest.raises(DeadlineError) as raised:
        asyncio.run(ask(client, timeout_s=0.05))

    assert raised.value.reason == "DEADLINE_EXCEEDED"
    stand_in.wait_for_disconnects(1)


def test_attempt_that_takes_too_long_counts_as_failed(stand_in):
    """The time per attempt is limited also without a deadline."""
    client = make_client(
        stand_in.base_url, model="openai/slow", timeout_s=0.05, max_retries=1
    )

    with pytest.raises(LMUnavailableError, match="no answer within"):
        asyncio.run(ask(client))

    assert len(stand_in.requests) == 2


def test_cancellation_cancels_the_http_call(stand_in):
    """Nobody pays for an answer that nobody waits for."""

    async def cancel():
        client = make_client(stand_in.base_url, model="openai/slow")
        task = asyncio.create_task(client.complete(chat()))
        await asyncio.to_thread(stand_in.wait_for_calls, 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.to_thread(stand_in.wait_for_disconnects, 1)
        await client.close()

    asyncio.run(cancel())

    assert stand_in.disconnects == 1


def test_concurrency_stays_below_the_cap(stand_in):
    """Further calls wait for one of the running ones to end."""

    async def many():
        client = make_client(stand_in.base_url, model="openai/slow", max_concurrency=3)
        tasks = [asyncio.create_task(client.complete(chat(f"{i}"))) for i in range(9)]
        await asyncio.to_thread(stand_in.wait_for_calls, 3)
        stand_in.release()
        await asyncio.gather(*tasks)
        await client.close()

    asyncio.run(many())

    assert (stand_in.max_in_flight, stand_in.call_count) == (3, 9)


@pytest.mark.parametrize(
    ("model", "error", "reason"),
    [
        ("bad-key", LMCredentialsError, "LM_CREDENTIALS_REJECTED"),
        ("unknown-model", LMRequestError, "LM_REQUEST_REJECTED"),
        ("too-long", LMRequestError, "LM_REQUEST_REJECTED"),
    ],
)
def test_refusals_are_not_retried(stand_in, model, error, reason):
    """What cannot pass is asked once."""
    client = make_client(stand_in.base_url, model=f"openai/{model}")

    with pytest.raises(error) as raised:
        asyncio.run(ask(client))

    assert len(stand_in.requests) == 1
    assert raised.value.reason == reason


def test_refused_request_says_why(stand_in):
    """The provider's code and message reach the caller."""
    client = make_client(stand_in.base_url, model="openai/too-long")

    with pytest.raises(LMRequestError) as raised:
        asyncio.run(ask(client))

    assert "context_length_exceeded" in raised.value.metadata["cause"]


def test_errors_never_hold_key_or_prompt(stand_in):
    """Whatever fails, neither the key nor the judged text is in the error."""
    for model in ("bad-key", "too-long", "down", "malformed"):
        client = make_client(stand_in.base_url, model=f"openai/{model}", max_retries=0)
        with pytest.raises(Exception, match=model) as raised:
            asyncio.run(ask(client, chat("my most private text")))
        told = f"{raised.value!r} {raised.value} {vars(raised.value)}"

        assert "sk-secret" not in told
        assert "private" not in told


def test_refused_logprobs_are_left_out_from_then_on(stand_in):
    """A server that rejects the parameter answers without it, and is not asked again."""

    async def twice():
        client = make_client(stand_in.base_url, model="openai/no-logprobs")
        before = client.supports_logprobs
        first = await client.complete(chat("first"))
        await client.complete(chat("second"))
        await client.close()
        return before, first, client.supports_logprobs

    before, first, after = asyncio.run(twice())

    assert (before, after) == (True, False)
    assert first.text
    assert first.logprobs == ()
    # Refused, asked again without; the second call does not try.
    assert [b.get("top_logprobs") for b in stand_in.requests] == [20, None, None]


def test_missing_logprobs_are_noticed(stand_in):
    """A server that silently leaves them out is known for it after one answer."""
    client = make_client(stand_in.base_url, model="openai/ignores-logprobs")

    asyncio.run(ask(client))

    assert not client.supports_logprobs


def test_reasoning_models_get_no_sampling_parameters(stand_in):
    """They refuse temperature and logprobs and count hidden thinking as generated."""
    client = make_client(stand_in.base_url, model="openai/gpt-5-mini")

    asyncio.run(ask(client, chat(stop=("END",))))

    body = stand_in.requests[0]
    assert body["max_completion_tokens"] > 1000
    assert not {"temperature", "logprobs", "max_tokens", "stop"} & set(body)
    assert not client.supports_logprobs


def test_anthropic_wire_speaks_messages(stand_in):
    """System text, cache marks, key header and version are those of that wire."""
    client = make_client(stand_in.base_url, model="anthropic/stand-in")
    request = chat(
        system="Answer yes or no. Then Confidence: NN%.", stop=("\n\n", "END")
    )

    response = asyncio.run(ask(client, request))

    body, headers = stand_in.requests[0], stand_in.headers[0]
    assert response.text.startswith("yes\nConfidence: 83%\n")
    assert not client.supports_logprobs
    assert headers["x-api-key"] == "sk-secret"
    assert headers["anthropic-version"] == "2023-06-01"
    assert "authorization" not in headers
    assert body["system"][0]["cache_control"] == {"type": "ephemeral"}
    assert body["stop_sequences"] == ["END"]
    assert "logprobs" not in body


def test_anthropic_usage_counts_the_cached_part_once(stand_in):
    """Prompt tokens include those from the cache, as on the other wire."""

    async def both():
        anthropic = make_client(stand_in.base_url, model="anthropic/stand-in")
        await anthropic.complete(chat("same"))
        again = await ask(anthropic, chat("same"))
        plain = await ask(make_client(stand_in.base_url), chat("same"))
        return again.usage, plain.usage

    again, plain = asyncio.run(both())

    assert again.input_tokens == plain.input_tokens
    assert again.cached_input_tokens == plain.cached_input_tokens > 0
