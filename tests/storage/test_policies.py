"""Policies, what they look at, and that nobody's change gets lost."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from sidejudge_storage import (
    NewExamples,
    OptimizationFilter,
    ReplaceOptimizationPolicy,
    RevisionConflictError,
    Storage,
    new_id,
)
from tests.storage import samples

_REAL = ("feedback", "import")


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[Storage]:
    opened = Storage.open(tmp_path / "s.duckdb")
    yield opened
    opened.close_blocking()


def test_policy_is_replaced_at_the_revision_that_was_read(storage: Storage) -> None:
    """A change of something else than what was read is refused."""
    old = samples.policy()
    new = replace(old, min_new_examples=7, paused=True, revision=2)

    async def work() -> None:
        await storage.write(old)
        await storage.write(ReplaceOptimizationPolicy(new, expected_revision=1))
        with pytest.raises(RevisionConflictError):
            await storage.write(ReplaceOptimizationPolicy(old, expected_revision=1))
        assert await storage.policies.get("brevity") == new
        assert await storage.policies.get("other") is None

    asyncio.run(work())


def test_only_policies_that_may_start_something_are_enabled(storage: Storage) -> None:
    """Neither disabled nor paused ones."""
    kept = [
        samples.policy(judge_id="b"),
        samples.policy(judge_id="a"),
        samples.policy(judge_id="c", enabled=False),
        samples.policy(judge_id="d", paused=True),
    ]

    async def work() -> list[str]:
        await storage.write(*kept)
        return [p.judge_id for p in await storage.policies.enabled()]

    assert asyncio.run(work()) == ["a", "b"]


def test_new_examples_are_counted_after_an_id(storage: Storage) -> None:
    """Accepted ones of these origins, with those on which the judge was wrong."""
    before = samples.example(content_digest="old")
    marker = new_id()
    after = [
        samples.example(),  # the judge said pass
        samples.example(judged_verdict="fail"),
        samples.example(judged_verdict=None),
        samples.example(origin="import", judged_verdict=None),
        samples.example(origin="synthetic"),
        samples.example(rejection="duplicate", split=None),
        samples.example(judge_id="other"),
    ]
    scores = {"verdict": None, "judged_verdict": None, "judge_id": "rubric"}
    scored = [
        samples.example(score=0.5, judged_score=judged, **scores)
        for judged in (0.7, 0.3, 0.65, None)
    ]

    async def count(judge_id: str, after_id: str | None) -> NewExamples:
        return await storage.examples.new(
            judge_id, after=after_id, origins=_REAL, score_difference=0.2
        )

    async def work() -> list[NewExamples]:
        await storage.write(before, *after, *scored)
        return [
            await count("brevity", marker),
            await count("brevity", None),
            await count("rubric", None),
            await count("nobody", None),
        ]

    assert asyncio.run(work()) == [
        NewExamples(4, 1),
        NewExamples(5, 2),
        NewExamples(4, 2),
        NewExamples(0, 0),
    ]


def test_runs_of_a_policy_are_told_from_those_of_callers(storage: Storage) -> None:
    """By judge and time, oldest first."""
    late = samples.NOW + timedelta(hours=1)
    runs = [
        samples.optimization(),
        samples.optimization(trigger_source="policy", trigger_reason="early"),
        samples.optimization(trigger_source="policy", created_at=late),
        samples.optimization(
            trigger_source="policy", created_at=late, trigger_reason="last"
        ),
        samples.optimization(
            trigger_source="policy", created_at=late, judge_id="other"
        ),
    ]

    async def work() -> tuple[list[str], str]:
        await storage.write(*runs)
        found = await storage.optimizations.of_policy("brevity", since=samples.NOW)
        last = await storage.optimizations.list(
            OptimizationFilter(judge_id="brevity", trigger_source="policy"),
            before=None,
            limit=1,
        )
        return [r.optimization_id for r in found], last[0].trigger_reason

    ids, reason = asyncio.run(work())
    assert ids == [r.optimization_id for r in runs[2:4]]
    assert reason == "last"
