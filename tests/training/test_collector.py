"""Every piece of feedback becomes exactly one example, whatever happens in between."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from sidejudge_server.errors import StorageUnavailableError
from sidejudge_server.judges.types import ArtifactInput
from sidejudge_server.training import collector as module
from tests.training.builders import evaluation, feedback
from tests.training.service_setup import running

pytestmark = pytest.mark.slow


async def stored(env, count, *, announce=True, label="fail"):
    """Store evaluations with feedback on them; announce it as the service does."""
    abouts = [evaluation() for _ in range(count)]
    said = [feedback(about, verdict=label) for about in abouts]
    await env.storage.write(*abouts, *said)
    if announce:
        env.collector.notify(said)
    return said


def once_each(examples, said):
    """Assert that each piece of feedback has one example."""
    counts = Counter(example.feedback_id for example in examples)
    assert counts == Counter(f.feedback_id for f in said)


def test_drain_waits_for_all_feedback_announced_before(tmp_path):
    """More than one chunk, and nothing is missing afterwards."""

    async def main():
        async with running(tmp_path) as env:
            said = await stored(env, 1200)
            await env.collector.drain()
            examples = await env.storage.examples.accepted("relevance")
            once_each(examples, said)

    asyncio.run(main())


def test_feedback_left_by_a_dead_server_is_caught_up(tmp_path):
    """It was acknowledged but has no example yet."""

    async def main():
        async with running(tmp_path, start=False) as env:
            said = await stored(env, 700, announce=False)
        async with running(tmp_path) as env:
            await env.collector.drain()
            once_each(await env.examples(), said)
        async with running(tmp_path) as env:
            once_each(await env.examples(), said)

    asyncio.run(main())


def test_a_flood_beyond_the_queue_is_read_back_from_the_database(tmp_path, monkeypatch):
    """Also when more comes while it catches up; the queue never holds more than its limit."""
    monkeypatch.setattr(module, "_QUEUE", 30)
    monkeypatch.setattr(module, "_CHUNK", 20)

    async def main():
        async with running(tmp_path) as env:
            said = []
            for size in (25, 25, 10, 60, 1, 1, 20, 40):
                said += await stored(env, size)
                assert len(env.collector._queue) <= 30
                await asyncio.sleep(0)
            await env.collector.drain()
            once_each(await env.examples(), said)
            last = await stored(env, 3)
            await env.collector.drain()
            once_each(await env.examples(), said + last)

    asyncio.run(main())


def test_feedback_while_catching_up_is_not_derived_twice(tmp_path, monkeypatch):
    """Tasks that record all the time while the collector reads what is behind."""
    monkeypatch.setattr(module, "_CHUNK", 5)

    async def main():
        async with running(tmp_path, start=False) as env:
            said = await stored(env, 23, announce=False)

            async def keep_recording():
                for _ in range(8):
                    said.extend(await stored(env, 2))

            env.collector.start()
            await asyncio.gather(keep_recording(), keep_recording())
            await env.collector.drain()
            once_each(await env.examples(), said)
            assert env.collector._idle

    asyncio.run(main())


def test_a_failure_is_reported_and_made_up_for(tmp_path, monkeypatch):
    """Whoever waits is told; the next attempt derives everything, once."""
    monkeypatch.setattr(module, "_RETRY_S", 0.01)

    async def main():
        async with running(tmp_path) as env:
            await env.collector.drain()
            real, left, mended = env.collector.intake.admit, [2], asyncio.Event()

            async def failing(*args, **kwargs):
                if left[0]:
                    left[0] -= 1
                    raise RuntimeError("broken: some judged text")
                mended.set()
                return await real(*args, **kwargs)

            monkeypatch.setattr(env.collector.intake, "admit", failing)
            said = await stored(env, 4)
            with pytest.raises(StorageUnavailableError) as raised:
                await env.collector.drain()
            assert "judged text" not in str(raised.value.metadata)
            await mended.wait()
            await env.collector.drain()
            once_each(await env.examples(), said)

    asyncio.run(main())


def test_feedback_on_what_cannot_be_read_is_rejected_once(tmp_path):
    """It would be tried for ever otherwise; the rest of its chunk is fine."""

    async def main():
        async with running(tmp_path) as env:
            lost = feedback(evaluation(), verdict="fail")
            await env.storage.write(lost)
            env.collector.notify([lost])
            said = await stored(env, 2)
            await env.collector.drain()
            examples = {e.feedback_id: e for e in await env.examples()}
            assert examples[lost.feedback_id].rejection == "empty_input"
            assert [examples[f.feedback_id].rejection for f in said] == [None, None]
            assert await env.storage.feedback.without_example(10) == []

    asyncio.run(main())


def test_stopping_leaves_the_rest_for_the_next_start(tmp_path, monkeypatch):
    """Close finishes the chunk at hand; nothing is lost or done twice."""
    monkeypatch.setattr(module, "_CHUNK", 10)

    async def main():
        async with running(tmp_path) as env:
            said = await stored(env, 100)
            await asyncio.sleep(0)
        async with running(tmp_path) as env:
            once_each(await env.examples(), said)

    asyncio.run(main())


def test_waiting_for_a_stopped_collector_fails(tmp_path):
    """Instead of hanging the shutdown."""

    async def main():
        async with running(tmp_path, start=False) as env:
            await stored(env, 1)
            waiting = asyncio.create_task(env.collector.drain())
            await asyncio.sleep(0)
            await env.collector.close()
            with pytest.raises(StorageUnavailableError):
                await waiting

    asyncio.run(main())


def test_groups_keep_their_side_over_chunks_and_restarts(tmp_path, monkeypatch):
    """One group, many chunks, one side."""
    monkeypatch.setattr(module, "_CHUNK", 3)

    async def main():
        splits = set()
        for _ in range(2):
            async with running(tmp_path) as env:
                abouts = [evaluation(group="doc") for _ in range(8)]
                said = [feedback(about, verdict="pass") for about in abouts]
                await env.storage.write(*abouts, *said)
                env.collector.notify(said)
                splits |= {e.split for e in await env.examples()}
        assert len(splits) == 1

    asyncio.run(main())


def test_a_superseded_example_is_taken_down_in_the_database(tmp_path):
    """The later correction counts, on the same side."""

    async def main():
        async with running(tmp_path) as env:
            about = evaluation(ArtifactInput("same"))
            await env.storage.write(about)
            for label in ("pass", "fail"):
                said = feedback(about, verdict=label)
                await env.storage.write(said)
                env.collector.notify([said])
                await env.collector.drain()
            first, second = await env.examples()
            assert (first.rejection, second.rejection) == ("superseded", None)
            assert second.example_id in first.rejection_detail
            groups = await env.storage.examples.group_splits(
                "relevance", [second.group_key]
            )
            assert groups == {second.group_key: second.split}

    asyncio.run(main())


def test_listeners_hear_of_examples_that_count_once_they_are_on_disk(tmp_path):
    """By judge, without the rejected ones, and of none a second time."""
    heard = []

    async def main():
        async with running(tmp_path, start=False) as env:
            env.collector.on_accepted(lambda judge, made: heard.append((judge, made)))
            env.collector.start()
            said = await stored(env, 3)
            await env.collector.drain()
            about = evaluation(ArtifactInput(""))
            empty = feedback(about, verdict="fail")
            await env.storage.write(about, empty)
            env.collector.notify([empty])
            await env.collector.drain()
            return said, await env.examples()

    said, examples = asyncio.run(main())
    assert [judge for judge, _ in heard] == ["relevance"]
    once_each(heard[0][1], said)
    assert len(examples) == 4


def test_a_backlog_leaves_room_for_the_feedback_that_comes(tmp_path, monkeypatch):
    """A chunk during which more came is followed by a rest, the others by the next chunk."""
    monkeypatch.setattr(module, "_CHUNK", 5)

    async def main():
        async with running(tmp_path, start=False) as env:
            said = await stored(env, 20, announce=False)
            rests, done = [], asyncio.Event()
            step, steps = env.collector._step, []

            async def linger(longest_s):
                rests.append((len(steps), longest_s))

            async def stepping():
                await step()
                steps.append(len(steps))
                if len(steps) == 2:
                    said.extend(await stored(env, 1))
                if env.collector._idle:
                    done.set()

            monkeypatch.setattr(env.collector, "_linger", linger)
            monkeypatch.setattr(env.collector, "_step", stepping)
            env.collector.start()
            async with asyncio.timeout(30):
                await done.wait()
            once_each(await env.storage.examples.accepted("relevance"), said)
            return rests

    (began, longest), (after, rest), *_ = asyncio.run(main())
    assert (began, longest) == (0, module._LONGEST_LINGER_S)
    assert after == 2
    assert rest > 0
