"""Labels are looked at when there are a quarter more."""

import pytest

from sidejudge_server.juries.knowledge import labels_to_look_at


@pytest.mark.parametrize(
    ("labels", "looked_at"),
    [(0, 0), (19, 0), (20, 20), (24, 20), (25, 25), (31, 25), (32, 32), (40, 40)],
)
def test_looks_are_at_fixed_numbers_of_labels(labels, looked_at):
    assert labels_to_look_at(labels) == looked_at


def test_few_looks_until_many_labels():
    assert len({labels_to_look_at(n) for n in range(2_000)}) == 22
