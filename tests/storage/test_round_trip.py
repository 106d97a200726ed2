"""What was written is read back as it was."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import fields
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sidejudge_storage import (
    EvaluationRecord,
    FeedbackRecord,
    RequestRecord,
    Storage,
    new_id,
)
from tests.storage import samples

_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
_NUMBER = st.none() | st.floats(allow_nan=False, allow_infinity=False)


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[Storage]:
    opened = Storage.open(tmp_path / "s.duckdb")
    yield opened
    opened.close_blocking()


def test_every_record_comes_back_as_it_was(storage: Storage) -> None:
    """All kinds of rows survive the way through one unit."""
    kept = {
        "judge": samples.judge(),
        "version": samples.version(parent_version=3, model="m"),
        "deployment": samples.deployment(previous_version=4),
        "evaluation": samples.evaluation(verdict=None, score=0.1),
        "feedback": samples.feedback(),
        "example": samples.example(),
        "optimization": samples.optimization(started_at=samples.NOW),
        "event": samples.event(),
        "gate_use": samples.gate_use(),
        "policy": samples.policy(),
        "shadow": samples.shadow(sums_json="[1.5]"),
        "request": samples.request(),
    }

    async def work() -> dict[str, object]:
        await storage.write(*kept.values())
        return {
            "judge": (await storage.judges.all())[0],
            "version": (await storage.judges.versions("brevity"))[0],
            "deployment": (await storage.judges.deployments("brevity"))[0],
            "evaluation": await storage.evaluations.get(
                kept["evaluation"].evaluation_id
            ),
            "feedback": await storage.feedback.get(kept["feedback"].feedback_id),
            "example": await storage.examples.get(kept["example"].example_id),
            "optimization": await storage.optimizations.get(
                kept["optimization"].optimization_id
            ),
            "event": (
                await storage.optimizations.events("o1", after_sequence=0, limit=9)
            )[0],
            "gate_use": (await storage.gate_uses.of("brevity"))[0],
            "policy": await storage.policies.get("brevity"),
            "shadow": (await storage.shadow_candidates.of("brevity"))[0],
            "request": await storage.requests.get("r1"),
        }

    assert asyncio.run(work()) == kept


@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    rows=st.lists(
        st.tuples(_TEXT, _TEXT, _NUMBER, st.integers(0, 2**62)), min_size=1, max_size=6
    )
)
def test_hostile_text_and_numbers_come_back_as_they_were(
    storage: Storage, rows: list[tuple[str, str, float | None, int]]
) -> None:
    """Quotes, NULs, markup and odd floats are data, alone (bound) and in batches (as JSON)."""
    kept = [
        samples.evaluation(input_json=a, reasoning=b, score=c, input_tokens=d)
        for a, b, c, d in rows
    ]

    async def work() -> dict[str, EvaluationRecord]:
        await storage.write(*kept)
        return await storage.evaluations.get_many(e.evaluation_id for e in kept)

    found = asyncio.run(work())

    assert [found[e.evaluation_id] for e in kept] == kept


def test_time_of_another_zone_comes_back_as_the_same_moment_in_utc(
    storage: Storage,
) -> None:
    """Times are stored in UTC to the microsecond."""
    moment = datetime(2026, 1, 1, 1, 2, 3, 4, tzinfo=timezone(timedelta(hours=5)))
    kept = samples.feedback(created_at=moment)

    async def work() -> FeedbackRecord | None:
        await storage.write(kept)
        return await storage.feedback.get(kept.feedback_id)

    found = asyncio.run(work())

    assert found is not None
    assert found.created_at == moment
    assert found.created_at.utcoffset() == timedelta(0)


@pytest.mark.parametrize(
    "wrong",
    [
        samples.feedback(created_at=datetime(2026, 1, 1)),  # noqa: DTZ001 - the wrong input
        samples.feedback(comment="\ud800"),
    ],
    ids=["time without a zone", "lone surrogate"],
)
def test_unusable_value_is_refused_before_it_reaches_the_writer(
    storage: Storage, wrong: FeedbackRecord
) -> None:
    """A caller's mistake is the caller's error and leaves the database alone."""

    async def work() -> None:
        with pytest.raises(ValueError, match=r"time zone|surrogate"):
            await storage.write(wrong)
        assert await storage.feedback.get(wrong.feedback_id) is None

    asyncio.run(work())


def test_hostile_id_finds_nothing(storage: Storage) -> None:
    """Lookups bind what they are asked for."""
    hostile = "x' OR 1=1 --"

    async def work() -> None:
        await storage.write(samples.evaluation())
        assert await storage.evaluations.existing([hostile]) == {}
        assert await storage.evaluations.get_many([hostile, new_id()]) == {}

    asyncio.run(work())


# Columns of rows that were committed alone, which are no fields of their records.
_ALONE = {"commit_seq", "request_id", "request_method", "request_fingerprint"}


def test_columns_of_the_schema_are_the_fields_of_the_records(storage: Storage) -> None:
    """The migrations and the record classes describe the same rows, in the same order."""
    from sidejudge_storage.tables import _BY_TYPE

    for record_type, table in _BY_TYPE.items():
        rows = storage._database.query(
            "SELECT column_name, data_type FROM duckdb_columns()"
            " WHERE table_name = ? AND schema_name = 'main' ORDER BY column_index",
            [table.name],
        )
        columns = [
            r for r in rows if r[0] not in _ALONE or record_type is RequestRecord
        ]
        assert [name for name, _ in columns] == [f.name for f in fields(record_type)]
        assert columns == [(c.name, c.sql_type) for c in table.columns]
