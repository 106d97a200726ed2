"""Ids sort by the time they were made."""

from __future__ import annotations

import threading
import uuid

from hypothesis import given
from hypothesis import strategies as st

from sidejudge_storage import new_id
from sidejudge_storage.ids import _IdSource


def test_ids_have_the_layout_of_uuid_version_7() -> None:
    """Any tool that knows UUIDs reads them, also their time."""
    parsed = uuid.UUID(new_id())

    assert parsed.version == 7
    assert parsed.variant == uuid.RFC_4122


def test_id_holds_the_millisecond_it_was_made() -> None:
    """The first 48 bits are the time."""
    assert _IdSource().next(0x0123456789AB).startswith("01234567-89ab-7")


@given(st.lists(st.integers(min_value=0, max_value=2**48 - 1), min_size=2, max_size=50))
def test_ids_increase_whatever_the_clock_does(millis: list[int]) -> None:
    """A clock that stands still or is set back does not disturb the order."""
    source = _IdSource()

    ids = [source.next(m) for m in millis]

    assert ids == sorted(set(ids))


def test_full_tail_moves_on_to_the_next_millisecond() -> None:
    """The order survives more ids in a millisecond than the tail can count."""
    source = _IdSource()
    first = source.next(5)
    source._tail = (1 << 74) - 1

    second = source.next(5)

    assert second > first
    assert second.startswith("00000000-0006-7")


def test_threads_never_get_the_same_id() -> None:
    """Ids are made on the event loop and in threads at once."""
    made: list[str] = []

    def work() -> None:
        made.extend(new_id() for _ in range(2000))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(set(made)) == 8000
