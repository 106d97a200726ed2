"""Synthetic examples at the door to the training data, on a real database."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from sidejudge_server.judges.codec import content_digest, input_to_json
from sidejudge_server.judges.types import ArtifactInput
from sidejudge_server.training.examples import Candidate
from sidejudge_server.training.intake import ExampleIntake
from sidejudge_server.training.labels import LabelRules
from sidejudge_storage import Storage
from tests.storage import samples

_RULES = LabelRules("safety", scores=False)


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[Storage]:
    opened = Storage.open(tmp_path / "s.duckdb")
    yield opened
    opened.close_blocking()


def _record(text, **changes):
    item = ArtifactInput(artifact=text)
    fields = {
        "judge_id": "safety",
        "input_json": input_to_json(item),
        "content_digest": content_digest(item),
    }
    return samples.example(**(fields | changes))


def _candidate(text, **changes):
    fields = {"origin": "synthetic", "split": None, "judged_verdict": None}
    return Candidate(_record(text, **(fields | changes)), ArtifactInput(artifact=text))


def _admit(storage, *candidates, at_most=99, stored=()):
    intake = ExampleIntake(storage, max_text_chars=100)

    async def work():
        await storage.write(*stored)
        return await intake.admit_synthetic(_RULES, candidates, at_most=at_most)

    return asyncio.run(work())


def test_accepted_ones_are_on_the_train_side_of_their_group(storage):
    """The group is that of a real train example."""
    real = _record("real", group_key="g", split="train")
    (record,) = _admit(storage, _candidate("new", group_key="g"), stored=[real])
    assert (record.split, record.rejection) == ("train", None)
    assert asyncio.run(storage.examples.get(record.example_id)) == record


@pytest.mark.parametrize("side", ["test", "validation", None])
def test_groups_of_other_sides_are_refused(storage, side):
    """Nothing that a model wrote gets near what candidates are compared on."""
    stored = [_record("real", group_key="g", split=side)] if side else []
    (record,) = _admit(storage, _candidate("new", group_key="g"), stored=stored)
    assert (record.split, record.rejection) == (None, "group_leakage")


def test_known_inputs_are_duplicates_and_leave_what_is_there_alone(storage):
    """Also with another label: a model's claim takes no real example down."""
    real = _record("known", group_key="g", split="train", verdict="fail")
    (record,) = _admit(
        storage, _candidate("known", group_key="g", verdict="pass"), stored=[real]
    )
    assert record.rejection == "duplicate"
    assert real.example_id in record.rejection_detail
    assert asyncio.run(storage.examples.get(real.example_id)) == real


def test_bound_and_validator_hold(storage):
    """What is invalid by itself is rejected, what is too many is left out."""
    real = _record("real", group_key="g", split="train")
    records = _admit(
        storage,
        _candidate("x" * 101, group_key="g"),
        _candidate("one", group_key="g"),
        _candidate("one", group_key="g", verdict="pass"),
        _candidate("two", group_key="g"),
        _candidate("three", group_key="g"),
        at_most=2,
        stored=[real],
    )
    assert [r.rejection for r in records] == ["too_large", None, "duplicate", None]


def test_they_do_not_shift_the_balance_of_the_split(storage):
    """New groups go where real examples are missing."""
    stored = [
        _record("real", split="train"),
        _record("made up", split="train", origin="synthetic"),
        _record("no", split=None, rejection="duplicate"),
        _record("no", split=None, rejection="duplicate", origin="synthetic"),
    ]

    async def work():
        await storage.write(*stored)
        return (
            await storage.examples.split_counts("safety"),
            await storage.examples.rejection_counts("safety"),
        )

    assert asyncio.run(work()) == ({("train", "fail"): 1}, {"duplicate": 1})
