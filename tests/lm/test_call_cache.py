"""Answers are kept, found again after a crash, and never bought twice at once."""

import asyncio

import pytest

from sidejudge_server.errors import LMRequestError, LMUnavailableError
from sidejudge_server.lm.caching_client import CachingClient
from sidejudge_server.lm.call_cache import CallCache, call_key
from sidejudge_server.lm.types import LMUsage
from tests.lm.calls import chat, make_client
from tests.stand_in import running_stand_in


@pytest.fixture
def stand_in():
    with running_stand_in() as running:
        yield running


async def _ask_all(base_url, path, requests, *, model="openai/stand-in"):
    cache = CallCache(path)
    client = CachingClient(make_client(base_url, model=model, max_retries=0), cache)
    try:
        return [await client.complete(request) for request in requests], cache
    finally:
        await client.close()


def test_answers_survive_the_process(stand_in, tmp_path):
    """A second run with the same file asks nothing and gets the same answers."""
    path = tmp_path / "run" / "calls.jsonl"
    requests = [chat("one"), chat("two")]
    first, _ = asyncio.run(_ask_all(stand_in.base_url, path, requests))
    second, cache = asyncio.run(_ask_all(stand_in.base_url, path, requests))

    assert stand_in.call_count == 2
    assert (cache.hits, cache.replayed, cache.misses) == (0, 2, 0)
    assert [(a.text, a.logprobs) for a in first] == [
        (a.text, a.logprobs) for a in second
    ]


def test_cached_answer_costs_nothing_now(stand_in, tmp_path):
    """Usage of a hit is empty; the file still knows what was paid."""
    path = tmp_path / "calls.jsonl"
    (paid, hit), cache = asyncio.run(
        _ask_all(stand_in.base_url, path, [chat("same"), chat("same")])
    )

    assert hit.usage == LMUsage()
    assert cache.stored_usage == paid.usage


def test_torn_last_line_is_cut_off(stand_in, tmp_path):
    """What a killed process left half-written does not spoil what comes after."""
    path = tmp_path / "calls.jsonl"
    asyncio.run(_ask_all(stand_in.base_url, path, [chat("one"), chat("two")]))
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    asyncio.run(_ask_all(stand_in.base_url, path, [chat("one"), chat("two")]))

    assert stand_in.call_count == 3
    assert len(path.read_bytes().splitlines()) == 2
    cache = CallCache(path)
    cache.close()
    assert len(cache) == 2


def test_unreadable_lines_are_skipped(stand_in, tmp_path):
    """One bad line costs one call, not all."""
    path = tmp_path / "calls.jsonl"
    asyncio.run(_ask_all(stand_in.base_url, path, [chat("one")]))
    good = path.read_bytes()
    path.write_bytes(b'not JSON\n{"key": "k"}\n[1]\n' + good)
    cache = CallCache(path)

    assert len(cache) == 1
    cache.close()


def test_identical_concurrent_requests_are_one_call(stand_in):
    """All of them get the answer of the first."""

    async def together():
        inner = make_client(stand_in.base_url, model="openai/slow")
        client = CachingClient(inner, CallCache())
        tasks = [asyncio.create_task(client.complete(chat("same"))) for _ in range(5)]
        await asyncio.to_thread(stand_in.wait_for_calls, 1)
        stand_in.release()
        answers = await asyncio.gather(*tasks)
        await client.close()
        return answers, client.cache

    answers, cache = asyncio.run(together())

    assert stand_in.call_count == 1
    assert sum(a.usage.calls for a in answers) == 1
    assert (cache.hits, cache.misses) == (4, 1)


def test_one_cancelled_caller_does_not_cancel_the_others(stand_in):
    """The call goes on as long as somebody waits for it."""

    async def together():
        inner = make_client(stand_in.base_url, model="openai/slow")
        client = CachingClient(inner, CallCache())
        first, second = (
            asyncio.create_task(client.complete(chat("same"))) for _ in range(2)
        )
        await asyncio.to_thread(stand_in.wait_for_calls, 1)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        stand_in.release()
        answer = await second
        await client.close()
        return answer

    assert asyncio.run(together()).text
    assert (stand_in.call_count, stand_in.disconnects) == (1, 0)


def test_last_cancelled_caller_cancels_the_call(stand_in):
    """A call that nobody waits for is ended, and can be made anew."""

    async def alone():
        inner = make_client(stand_in.base_url, model="openai/slow")
        client = CachingClient(inner, CallCache())
        task = asyncio.create_task(client.complete(chat("same")))
        await asyncio.to_thread(stand_in.wait_for_calls, 1)
        task.cancel()
        again = asyncio.create_task(client.complete(chat("same")))
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.to_thread(stand_in.wait_for_disconnects, 1)
        stand_in.release()
        answer = await again
        await client.close()
        return answer

    assert asyncio.run(alone()).text
    assert stand_in.call_count == 2


def test_failures_are_not_kept(stand_in, tmp_path):
    """An outage is over for the cache when it is over."""
    path = tmp_path / "calls.jsonl"
    stand_in.fail_after(0)
    with pytest.raises(LMUnavailableError):
        asyncio.run(_ask_all(stand_in.base_url, path, [chat("one")]))
    stand_in.fail_after(None)
    answers, _ = asyncio.run(_ask_all(stand_in.base_url, path, [chat("one")]))

    assert answers[0].usage.calls == 1


def test_key_depends_on_all_that_changes_the_answer():
    """Model, address, text, limits and temperature are part of it."""
    keys = {
        call_key("a", chat("x")),
        call_key("b", chat("x")),
        call_key("a", chat("y")),
        call_key("a", chat("x", max_tokens=1)),
        call_key("a", chat("x", temperature=1.0)),
        call_key("a", chat("x", top_logprobs=0)),
    }

    assert len(keys) == 6
    assert call_key("a", chat("x")) in keys


def test_same_model_at_another_address_is_another_model(stand_in):
    """Answers of one server are not given for another's."""
    with running_stand_in() as other:
        clients = [
            CachingClient(make_client(s.base_url), CallCache())
            for s in (stand_in, other)
        ]

        assert clients[0].identity != clients[1].identity


def test_answers_of_an_earlier_process_are_replayed_once_and_then_cached(
    stand_in, tmp_path
):
    """The first time they have the usage that they had then; afterwards they cost nothing."""
    path = tmp_path / "calls.jsonl"
    (paid,), _ = asyncio.run(_ask_all(stand_in.base_url, path, [chat("one")]))
    (again, hit), cache = asyncio.run(
        _ask_all(stand_in.base_url, path, [chat("one"), chat("one")])
    )

    assert stand_in.call_count == 1
    assert again.usage == paid.usage
    assert hit.usage == LMUsage()
    assert (cache.replayed, cache.hits, cache.misses) == (1, 1, 0)


def test_file_is_its_owners_alone(stand_in, tmp_path):
    """It holds what was judged."""
    path = tmp_path / "calls.jsonl"
    asyncio.run(_ask_all(stand_in.base_url, path, [chat("one")]))

    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("ending", ["settle", "cancel"])
def test_answer_in_flight_is_kept_in_the_last_moments(stand_in, tmp_path, ending):
    """Whether its caller waits or was cancelled; a further call is not made."""
    path = tmp_path / "calls.jsonl"

    async def last_moments():
        inner = make_client(stand_in.base_url, model="openai/slow")
        client = CachingClient(inner, CallCache(path))
        asked = asyncio.create_task(client.complete(chat("asked")))
        await asyncio.to_thread(stand_in.wait_for_calls, 1)
        client.keep_what_comes()
        if ending == "cancel":
            asked.cancel()
        late = asyncio.create_task(client.complete(chat("late")))
        settling = asyncio.create_task(asyncio.to_thread(client.settle, 10.0))
        await asyncio.sleep(0)
        assert not settling.done()
        stand_in.release()
        await settling
        assert not late.done()
        late.cancel()
        await asyncio.gather(asked, late, return_exceptions=True)
        await client.close()

    asyncio.run(last_moments())
    cache = CallCache(path)

    assert stand_in.call_count == 1
    assert len(cache) == 1
    cache.close()


def test_waiting_for_answers_in_flight_ends(stand_in):
    """A model that never answers does not keep a process alive."""

    async def last_moments():
        inner = make_client(stand_in.base_url, model="openai/slow")
        client = CachingClient(inner, CallCache())
        asked = asyncio.create_task(client.complete(chat("asked")))
        await asyncio.to_thread(stand_in.wait_for_calls, 1)
        await asyncio.to_thread(client.settle, 0.01)
        done = asked.done()
        stand_in.release()
        await asked
        await client.close()
        return done

    assert not asyncio.run(last_moments())


def test_refusals_are_kept_for_who_wants_to_do_the_same_again(stand_in, tmp_path):
    """The model is not asked a second time; without the wish it is."""
    path = tmp_path / "calls.jsonl"

    async def ask(keep_refusals):
        inner = make_client(stand_in.base_url, model="openai/too-long")
        client = CachingClient(inner, CallCache(path), keep_refusals=keep_refusals)
        try:
            with pytest.raises(LMRequestError) as refused:
                await client.complete(chat("long"))
            return refused.value
        finally:
            await client.close()

    first, again = (asyncio.run(ask(True)) for _ in range(2))

    assert stand_in.call_count == 1
    assert (again.message, again.reason, again.metadata) == (
        first.message,
        first.reason,
        first.metadata,
    )
    (tmp_path / "calls.jsonl").unlink()
    for _ in range(2):
        asyncio.run(ask(False))
    assert stand_in.call_count == 3


def test_lack_of_log_probabilities_is_known_after_a_restart(stand_in, tmp_path):
    """So that the same requests are made in the same way."""
    path = tmp_path / "calls.jsonl"

    async def supports(*requests):
        inner = make_client(stand_in.base_url, model="openai/no-logprobs")
        client = CachingClient(inner, CallCache(path))
        before = client.supports_logprobs
        for request in requests:
            await client.complete(request)
        after = client.supports_logprobs
        await client.close()
        return before, after

    assert asyncio.run(supports(chat("one", top_logprobs=5))) == (True, False)
    assert asyncio.run(supports()) == (False, False)
