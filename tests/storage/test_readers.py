"""Lists, filters and pages."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from sidejudge_storage import (
    EvaluationFilter,
    EvaluationKey,
    ExampleFilter,
    FeedbackFilter,
    GateUseRecord,
    OptimizationFilter,
    RejectExample,
    Storage,
)
from tests.storage import samples


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[Storage]:
    opened = Storage.open(tmp_path / "s.duckdb")
    yield opened
    opened.close_blocking()


def test_pages_show_every_evaluation_once_newest_first(storage: Storage) -> None:
    """The last id of a page is where the next one starts, whatever is written meanwhile."""
    kept = [samples.evaluation() for _ in range(7)]

    async def work() -> list[str]:
        await storage.write(*kept)
        seen: list[str] = []
        before = None
        while page := await storage.evaluations.list(
            EvaluationFilter(), before=before, limit=3
        ):
            seen += [e.evaluation_id for e in page]
            before = seen[-1]
            await storage.write(samples.evaluation())
        return seen

    seen = asyncio.run(work())

    assert seen == [e.evaluation_id for e in reversed(kept)]


@pytest.mark.parametrize(
    "condition",
    [
        EvaluationFilter(judge_id="safety"),
        EvaluationFilter(version=2),
        EvaluationFilter(verdict="partial"),
        EvaluationFilter(subject="agents/b"),
        EvaluationFilter(labels={"a/b~c": 'say "hi"'}),
        EvaluationFilter(labels={"env": "prod", "a/b~c": 'say "hi"'}),
        EvaluationFilter(start=samples.NOW + timedelta(seconds=1)),
        EvaluationFilter(
            judge_id="safety",
            start=samples.NOW + timedelta(seconds=1),
            end=samples.NOW + timedelta(seconds=2),
        ),
    ],
    ids=str,
)
def test_filter_finds_the_one_evaluation_that_fits(
    storage: Storage, condition: EvaluationFilter
) -> None:
    """Conditions are conjunctive; the start of a time range is inclusive, its end is not."""
    wanted = samples.evaluation(
        judge_id="safety",
        version=2,
        verdict="partial",
        subject="agents/b",
        labels_json='{"a/b~c":"say \\"hi\\"","env":"prod"}',
        created_at=samples.NOW + timedelta(seconds=1),
    )

    async def work() -> list[str]:
        await storage.write(samples.evaluation(), wanted, samples.evaluation())
        found = await storage.evaluations.list(condition, before=None, limit=10)
        return [e.evaluation_id for e in found]

    assert asyncio.run(work()) == [wanted.evaluation_id]


def test_end_of_a_time_range_is_exclusive(storage: Storage) -> None:
    """Ranges that follow each other share nothing."""

    async def work() -> int:
        await storage.write(samples.evaluation())
        found = await storage.evaluations.list(
            EvaluationFilter(end=samples.NOW), before=None, limit=10
        )
        return len(found)

    assert asyncio.run(work()) == 0


def test_concurrent_lookups_share_queries(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """64 callers with one id each need a few queries, and each gets its own answer."""
    kept = [samples.evaluation(verdict=None, score=i / 64) for i in range(64)]
    queries: list[str] = []
    query = storage._database.query
    monkeypatch.setattr(
        storage._database,
        "query",
        lambda sql, params: (queries.append(sql), query(sql, params))[1],
    )

    async def work() -> list[dict[str, EvaluationKey]]:
        await storage.write(*kept)
        return await asyncio.gather(
            *(storage.evaluations.existing([e.evaluation_id]) for e in kept)
        )

    found = asyncio.run(work())

    assert found == [
        {
            e.evaluation_id: EvaluationKey(
                e.evaluation_id, e.judge_id, e.verdict, e.score
            )
        }
        for e in kept
    ]
    assert len(queries) < 10


def test_lookup_of_a_cancelled_caller_does_not_disturb_the_others(
    storage: Storage,
) -> None:
    """Callers that share a query do not share their fate."""
    kept = samples.evaluation()

    async def work() -> dict[str, EvaluationKey]:
        await storage.write(kept)
        first = asyncio.create_task(storage.evaluations.existing([kept.evaluation_id]))
        second = asyncio.create_task(storage.evaluations.existing([kept.evaluation_id]))
        await asyncio.sleep(0)
        first.cancel()
        return await second

    assert list(asyncio.run(work())) == [kept.evaluation_id]


def test_feedback_is_listed_by_every_condition(storage: Storage) -> None:
    """Judge, evaluation, source and author each narrow the list."""
    wanted = samples.feedback(
        judge_id="j2", evaluation_id="e2", source="user", author="bob"
    )
    conditions = [
        FeedbackFilter(judge_id="j2"),
        FeedbackFilter(evaluation_id="e2"),
        FeedbackFilter(source="user"),
        FeedbackFilter(author="bob"),
    ]

    async def work() -> list[list[str]]:
        await storage.write(samples.feedback(), wanted)
        lists = [
            await storage.feedback.list(c, before=None, limit=9) for c in conditions
        ]
        return [[f.feedback_id for f in found] for found in lists]

    assert asyncio.run(work()) == [[wanted.feedback_id]] * 4


def test_feedback_without_example_is_what_is_left_to_derive(storage: Storage) -> None:
    """A rejected example counts: its feedback has been dealt with."""
    done, refused, first, second = (samples.feedback() for _ in range(4))

    async def work() -> list[str]:
        await storage.write(second, first, refused, done)
        await storage.write(
            samples.example(feedback_id=done.feedback_id),
            samples.example(feedback_id=refused.feedback_id, rejection="too_large"),
            samples.example(feedback_id=None),
        )
        return [f.feedback_id for f in await storage.feedback.without_example(10)]

    assert asyncio.run(work()) == [first.feedback_id, second.feedback_id]


def test_examples_are_listed_by_side_and_rejection(storage: Storage) -> None:
    """Rejected examples show no side and appear only when asked for."""
    train = samples.example(split="train")
    test = samples.example(split="test")
    rejected = samples.example(split=None, rejection="too_large")
    foreign = samples.example(judge_id="safety")

    async def work() -> list[list[str]]:
        await storage.write(train, test, rejected, foreign)
        lists = [
            await storage.examples.list(c, before=None, limit=9)
            for c in (
                ExampleFilter("brevity"),
                ExampleFilter("brevity", split="test"),
                ExampleFilter("brevity", show_rejected=True),
            )
        ]
        lists.append(
            await storage.examples.after(
                ExampleFilter("brevity", show_rejected=True),
                after=train.example_id,
                limit=1,
            )
        )
        lists.append(await storage.examples.accepted("brevity"))
        return [[e.example_id for e in found] for found in lists]

    assert asyncio.run(work()) == [
        [test.example_id, train.example_id],
        [test.example_id],
        [rejected.example_id, test.example_id, train.example_id],
        [test.example_id],
        [train.example_id, test.example_id],
    ]


def test_group_keeps_the_side_of_an_example_that_was_rejected_later(
    storage: Storage,
) -> None:
    """What was trained on must not come back as a test."""
    example = samples.example(group_key="g1", split="validation")
    never = samples.example(group_key="g2", split=None, rejection="too_large")

    async def work() -> dict[str, str]:
        await storage.write(example, never)
        await storage.write(RejectExample(example.example_id, "superseded", "by x"))
        changed = await storage.examples.get(example.example_id)
        assert changed is not None
        assert (changed.split, changed.rejection) == (None, "superseded")
        assert changed.rejection_detail == "by x"
        return await storage.examples.group_splits("brevity", ["g1", "g2", "g3"])

    assert asyncio.run(work()) == {"g1": "validation"}


def test_the_first_example_of_an_input_is_found_rejected_or_not(
    storage: Storage,
) -> None:
    """A label that was replaced was there all the same; other judges have their own."""
    foreign = samples.example(judge_id="other", content_digest="d1")
    superseded = samples.example(content_digest="d1", rejection="superseded")
    later = samples.example(content_digest="d1")

    async def work() -> dict[str, str]:
        await storage.write(foreign, superseded, later)
        assert await storage.examples.first_by_digest("brevity", []) == {}
        return await storage.examples.first_by_digest("brevity", ["d1", "d3"])

    assert asyncio.run(work()) == {"d1": superseded.example_id}


def test_same_input_is_found_unless_it_was_rejected_for_good(storage: Storage) -> None:
    """Accepted and conflicting examples take part in comparisons, others do not."""
    accepted = samples.example(content_digest="d1")
    conflicting = samples.example(content_digest="d1", rejection="conflicting_label")
    superseded = samples.example(content_digest="d1", rejection="superseded")
    other = samples.example(content_digest="d2")

    async def work() -> list[str]:
        await storage.write(accepted, conflicting, superseded, other)
        found = await storage.examples.by_digests("brevity", ["d1", "d3"])
        assert await storage.examples.by_digests("brevity", []) == []
        return [e.example_id for e in found]

    assert asyncio.run(work()) == [accepted.example_id, conflicting.example_id]


def test_examples_are_found_by_their_evaluation(storage: Storage) -> None:
    """Rejected ones too: a later correction has to see them."""
    kept = samples.example(evaluation_id="e1", rejection="duplicate")

    async def work() -> list[str]:
        await storage.write(kept, samples.example(evaluation_id="e2"))
        found = await storage.examples.by_evaluations("brevity", ["e1", "e9"])
        return [e.example_id for e in found]

    assert asyncio.run(work()) == [kept.example_id]


def test_counts_are_by_side_and_label_or_fifth_of_the_score(storage: Storage) -> None:
    """A score on a border belongs to the fifth above it, 1.0 to the last."""
    scores = [0.0, 0.19, 0.2, 0.6, 0.6000000000000001, 1.0]

    async def work() -> tuple[dict[tuple[str, str], int], dict[str, int]]:
        await storage.write(
            samples.example(verdict="pass"),
            samples.example(verdict="pass", split="test"),
            samples.example(rejection="duplicate"),
            *(samples.example(verdict=None, score=s) for s in scores),
        )
        return (
            await storage.examples.split_counts("brevity"),
            await storage.examples.rejection_counts("brevity"),
        )

    counts, rejections = asyncio.run(work())

    assert counts == {
        ("train", "pass"): 1,
        ("test", "pass"): 1,
        ("train", "0.0-0.2"): 2,
        ("train", "0.2-0.4"): 1,
        ("train", "0.6-0.8"): 2,
        ("train", "0.8-1.0"): 1,
    }
    assert rejections == {"duplicate": 1}


def test_active_optimizations_are_those_that_have_not_ended(storage: Storage) -> None:
    """Queued, running and cancelling ones, oldest first."""
    states = ["queued", "running", "cancelling", "succeeded", "failed", "cancelled"]
    kept = [samples.optimization(state=s) for s in states]

    async def work() -> tuple[list[str], list[str]]:
        await storage.write(*kept)
        active = await storage.optimizations.active()
        failed = await storage.optimizations.list(
            OptimizationFilter(judge_id="brevity", state="failed"),
            before=None,
            limit=9,
        )
        return [o.state for o in active], [o.state for o in failed]

    assert asyncio.run(work()) == (["queued", "running", "cancelling"], ["failed"])


def test_events_are_read_on_from_a_sequence_number(storage: Storage) -> None:
    """A watcher that was cut off continues where it was, also for some kinds only."""
    kinds = ["phase", "trial", "trial", "log", "phase"]

    async def work() -> tuple[list[int], list[int], list[int], int, int]:
        await storage.write(
            *(samples.event(sequence=i, kind=k) for i, k in enumerate(kinds, 1)),
            samples.event(optimization_id="o2", sequence=9),
        )
        read = storage.optimizations
        after = await read.events("o1", after_sequence=1, limit=2)
        some = await read.events("o1", after_sequence=0, limit=9, kinds=["phase"])
        none = await read.events("o1", after_sequence=0, limit=9, kinds=[])
        return (
            [e.sequence for e in after],
            [e.sequence for e in some],
            [e.sequence for e in none],
            await read.last_sequence("o1"),
            await read.last_sequence("o3"),
        )

    assert asyncio.run(work()) == ([2, 3], [1, 5], [], 5, 0)


def test_judges_and_their_history_come_in_order(storage: Storage) -> None:
    """Versions and deployments ascend, whatever order they were written in."""

    async def work() -> tuple[list[int], list[tuple[str, int]], list[int]]:
        await storage.write(
            samples.version(version=2),
            samples.version(version=1),
            samples.version(judge_id="a"),
            samples.deployment(sequence=2),
            samples.deployment(sequence=1),
        )
        return (
            [v.version for v in await storage.judges.versions("brevity")],
            [(v.judge_id, v.version) for v in await storage.judges.all_versions()],
            [d.sequence for d in await storage.judges.deployments("brevity")],
        )

    assert asyncio.run(work()) == (
        [1, 2],
        [("a", 1), ("brevity", 1), ("brevity", 2)],
        [1, 2],
    )


def test_requests_since_a_moment_come_oldest_first(storage: Storage) -> None:
    """The moment itself is included."""
    second = timedelta(seconds=1)

    async def work() -> list[str]:
        await storage.write(
            samples.request(request_id="c", created_at=samples.NOW + second),
            samples.request(request_id="b", created_at=samples.NOW),
            samples.request(request_id="a", created_at=samples.NOW - second),
        )
        return [r.request_id for r in await storage.requests.since(samples.NOW)]

    assert asyncio.run(work()) == ["b", "c"]


def test_a_use_that_was_stored_twice_counts_once(storage: Storage) -> None:
    """Uses of a judge come oldest first, one for each run."""
    first = samples.gate_use()
    second = samples.gate_use(
        optimization_id="o2", created_at=samples.NOW + timedelta(hours=1)
    )

    async def work() -> list[GateUseRecord]:
        await storage.write(second, first, first)
        await storage.write(samples.gate_use(judge_id="other"))
        return await storage.gate_uses.of("brevity")

    assert asyncio.run(work()) == [first, second]
