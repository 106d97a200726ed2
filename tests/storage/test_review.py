"""What may be drawn for the review queue, what was drawn, and who has it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from sidejudge_storage import (
    ReviewClaimRecord,
    ReviewItemRecord,
    ReviewReleaseRecord,
    ShadowJudgmentRecord,
    Storage,
    first_id,
    new_id,
)
from tests.storage import samples

NOW = datetime.now(UTC)
LONG_AGO = NOW - timedelta(days=30)


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[Storage]:
    opened = Storage.open(tmp_path / "s.duckdb")
    yield opened
    opened.close_blocking()


def item(evaluation_id: str, **changes: Any) -> ReviewItemRecord:
    fields: dict[str, Any] = {
        "evaluation_id": evaluation_id,
        "judge_id": "brevity",
        "version": 1,
        "round_number": 1,
        "stream": "ranked",
        "drawn": True,
        "place": 1,
        "inclusion_probability": 0.25,
        "worth": 0.5,
        "reasons": "uncertain",
        "created_at": NOW,
    }
    return ReviewItemRecord(**(fields | changes))


def claim(evaluation_id: str, **changes: Any) -> ReviewClaimRecord:
    fields: dict[str, Any] = {
        "claim_id": new_id(),
        "evaluation_id": evaluation_id,
        "judge_id": "brevity",
        "annotator": "ann",
        "created_at": NOW,
        "expires_at": NOW + timedelta(minutes=15),
    }
    return ReviewClaimRecord(**(fields | changes))


def shadow(evaluation_id: str, **changes: Any) -> ShadowJudgmentRecord:
    fields: dict[str, Any] = {
        "evaluation_id": evaluation_id,
        "experiment_id": "x",
        "arm_id": "b",
        "judge_id": "brevity",
        "version": 2,
        "created_at": NOW,
        "verdict": "fail",
        "score": None,
        "confidence": 0.8,
        "model": "m",
        "input_tokens": 1,
        "cached_input_tokens": 0,
        "output_tokens": 1,
        "lm_calls": 1,
        "cost_usd": None,
        "lm_latency_ms": 1.0,
    }
    return ShadowJudgmentRecord(**(fields | changes))


def test_an_evaluation_may_be_drawn_until_a_round_has_considered_it(
    storage: Storage,
) -> None:
    """Newest first, within the window, with who disagrees and whether it has a label."""
    alone, repeated, again, shadowed, labelled, drawn = (
        samples.evaluation(input_json=f'{{"output":"{n}"}}') for n in (0, 1, 1, 2, 3, 4)
    )
    again = type(again)(
        **{f: getattr(again, f) for f in again.__dataclass_fields__}
        | {"version": 2, "verdict": "fail"}
    )
    other = samples.evaluation(judge_id="other")

    async def work() -> list[Any]:
        await storage.write(alone, repeated, again, shadowed, labelled, drawn, other)
        await storage.write(
            shadow(shadowed.evaluation_id),
            shadow(alone.evaluation_id, verdict="pass"),
            samples.feedback(evaluation_id=labelled.evaluation_id),
            item(drawn.evaluation_id),
        )
        return await storage.review.undrawn(
            "brevity", since=LONG_AGO, window=100, limit=100
        )

    found = asyncio.run(work())

    assert [u.evaluation_id for u in found] == [
        e.evaluation_id for e in (labelled, shadowed, again, repeated, alone)
    ]
    assert [(u.other_answers, u.other_verdicts) for u in found] == [
        (0, 0),
        (1, 1),
        (1, 1),
        (1, 1),
        (1, 0),
    ]
    assert [u.labelled for u in found] == [True, False, False, False, False]


def test_window_and_limit_bound_what_may_be_drawn(storage: Storage) -> None:
    """The window counts considered ones too; the limit does not."""
    evaluations = [samples.evaluation() for _ in range(5)]

    async def work(window: int, limit: int) -> list[str]:
        found = await storage.review.undrawn(
            "brevity", since=LONG_AGO, window=window, limit=limit
        )
        return [u.evaluation_id for u in found]

    async def scenario() -> tuple[list[str], list[str]]:
        await storage.write(*evaluations, item(evaluations[4].evaluation_id))
        return await work(2, 9), await work(9, 2)

    of_window, of_limit = asyncio.run(scenario())

    assert of_window == [evaluations[3].evaluation_id]
    assert of_limit == [evaluations[3].evaluation_id, evaluations[2].evaluation_id]


def test_queue_is_in_order_of_rounds_and_places_without_what_is_labelled(
    storage: Storage,
) -> None:
    """A page goes on behind a place, leaves out what it is told to, and shows labels if asked."""
    a, b, c, d, hidden = (samples.evaluation() for _ in range(5))

    async def scenario() -> list[list[tuple[str, tuple[str, ...]]]]:
        await storage.write(
            a,
            b,
            c,
            d,
            hidden,
            item(a.evaluation_id, round_number=2, place=1),
            item(b.evaluation_id, place=2),
            item(c.evaluation_id, place=1),
            item(d.evaluation_id, place=3),
            item(hidden.evaluation_id, drawn=False, place=None),
            samples.feedback(evaluation_id=b.evaluation_id),
            samples.feedback(evaluation_id=b.evaluation_id, author=""),
        )

        async def names(**options: Any) -> list[tuple[str, tuple[str, ...]]]:
            found = await storage.review.queue(
                "brevity", since=LONG_AGO, limit=9, **options
            )
            return [(q.item.evaluation_id, tuple(sorted(q.labelled_by))) for q in found]

        return [
            await names(),
            await names(show_labelled=True),
            await names(after=(1, 1)),
            await names(without=[c.evaluation_id, a.evaluation_id]),
        ]

    everything, labelled, after, without = asyncio.run(scenario())

    ids = [e.evaluation_id for e in (c, d, a)]
    assert everything == [(i, ()) for i in ids]
    assert labelled == [
        (c.evaluation_id, ()),
        (b.evaluation_id, ("", "ann")),
        (d.evaluation_id, ()),
        (a.evaluation_id, ()),
    ]
    assert after == [(d.evaluation_id, ()), (a.evaluation_id, ())]
    assert without == [(d.evaluation_id, ())]


def test_claims_that_expired_were_given_up_or_are_done_are_not_read(
    storage: Storage,
) -> None:
    """What is left after a restart is what somebody still works on."""
    evaluations = [samples.evaluation() for _ in range(4)]
    held, expired, renewed, done = (claim(e.evaluation_id) for e in evaluations)
    expired = claim(expired.evaluation_id, expires_at=NOW - timedelta(seconds=1))
    given_up = claim(renewed.evaluation_id)

    async def scenario() -> list[ReviewClaimRecord]:
        await storage.write(*evaluations, held, expired, renewed, given_up, done)
        await storage.write(
            ReviewReleaseRecord(given_up.claim_id, "brevity", NOW),
            samples.feedback(evaluation_id=done.evaluation_id),
        )
        return await storage.review.claims(since=NOW)

    assert asyncio.run(scenario()) == [held]


def test_labels_of_items_with_two_authors_are_shared(storage: Storage) -> None:
    """Repeated labels of one author, and labels without one, do not make an item shared."""
    alone, both = samples.evaluation(), samples.evaluation()
    given = [
        samples.feedback(evaluation_id=alone.evaluation_id),
        samples.feedback(evaluation_id=alone.evaluation_id),
        samples.feedback(evaluation_id=alone.evaluation_id, author=""),
        samples.feedback(evaluation_id=both.evaluation_id),
        samples.feedback(evaluation_id=both.evaluation_id, author="ben"),
    ]

    async def scenario() -> list[str]:
        await storage.write(alone, both, *given)
        found = await storage.review.shared_labels(
            "brevity", start=LONG_AGO, end=datetime.now(UTC) + timedelta(hours=1)
        )
        return [label.feedback_id for label in found]

    assert asyncio.run(scenario()) == [g.feedback_id for g in given[3:]]


def test_ids_since_a_moment_are_greater_than_its_first_id() -> None:
    """A bound on ids stands for a bound on times."""
    before = datetime.now(UTC) - timedelta(milliseconds=5)
    made = new_id()
    after = datetime.now(UTC) + timedelta(seconds=5)

    assert first_id(before) < made < first_id(after)
    with pytest.raises(ValueError, match="no time zone"):
        first_id(datetime(2026, 1, 1))  # noqa: DTZ001 - that is what is refused


def test_a_draw_comes_back_as_it_was_written(storage: Storage) -> None:
    """Found by its evaluation while it is in the queue, and no longer after that."""
    drawn, left_out = samples.evaluation(), samples.evaluation()
    written = item(drawn.evaluation_id, worth=0.75, reasons="audit,uncertain")
    ids = [drawn.evaluation_id, left_out.evaluation_id]

    async def scenario() -> tuple[Any, Any]:
        await storage.write(
            drawn, left_out, written, item(left_out.evaluation_id, drawn=False)
        )
        return (
            await storage.review.find("brevity", ids, since=LONG_AGO),
            await storage.review.find("brevity", ids, since=NOW + timedelta(seconds=1)),
        )

    found, later = asyncio.run(scenario())

    assert {i: q.item for i, q in found.items()} == {drawn.evaluation_id: written}
    assert later == {}


def test_a_version_is_estimated_from_all_that_rounds_have_considered(
    storage: Storage,
) -> None:
    """Drawn or not, of this version and time alone."""
    drawn, not_drawn, other = (samples.evaluation(confidence=0.7) for _ in range(3))

    async def scenario(start: datetime) -> list[Any]:
        return await storage.review.judged(
            "brevity", 1, start=start, end=datetime.now(UTC) + timedelta(seconds=1)
        )

    async def fill() -> None:
        await storage.write(
            drawn,
            not_drawn,
            other,
            item(drawn.evaluation_id),
            item(not_drawn.evaluation_id, drawn=False, place=None),
            item(other.evaluation_id, version=2),
        )

    asyncio.run(fill())
    found = asyncio.run(scenario(LONG_AGO))

    assert [(j.evaluation_id, j.drawn) for j in found] == [
        (drawn.evaluation_id, True),
        (not_drawn.evaluation_id, False),
    ]
    assert {(j.confidence, j.inclusion_probability) for j in found} == {(0.7, 0.25)}
    assert asyncio.run(scenario(datetime.now(UTC) - timedelta(microseconds=1))) == []
