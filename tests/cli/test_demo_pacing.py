"""The demo searches as much as its time allows on the machine at hand."""

from __future__ import annotations

import pytest

from sidejudge.v1 import feedback_pb2
from sidejudge_server.cli.demo.pacing import examples_that_fit, trials_that_fit

TRAINING_SET = feedback_pb2.TrainingSet(
    train_count=45, validation_count=45, test_count=60
)


@pytest.mark.parametrize(
    ("seconds_per_call", "expected"),
    [
        (0.01, 8),  # a hosted or faked model: never more than 8
        (1.0, 6),  # 600 / 1.2 = 500 calls; 210 are fixed; 290 / 45
        (1.5, 2),  # 333 calls; 123 / 45
        (10.0, 2),  # too slow: the least that can be called a search
        (0.0, 8),
    ],
)
def test_trials_are_what_the_time_allows(seconds_per_call: float, expected: int):
    """Fixed calls of baseline, gap and gate come first, trials take the rest."""
    trials = trials_that_fit(
        TRAINING_SET, seconds_per_call=seconds_per_call, seconds_left=600
    )

    assert trials == expected


def test_time_that_is_over_still_gives_a_search():
    """A slow start must not end in a run without trials."""
    assert trials_that_fit(TRAINING_SET, seconds_per_call=1, seconds_left=-5) == 2


@pytest.mark.parametrize(
    ("seconds_per_call", "available", "expected"),
    [
        (0.1, 150, 150),  # all there are
        (2.0, 150, 125),  # 600 / 2.4 / 2.0
        (9.0, 150, 100),  # fewer would leave the gate nothing to say
        (9.0, 64, 64),
    ],
)
def test_examples_are_what_the_time_allows(
    seconds_per_call: float, available: int, expected: int
):
    """A slow machine gets fewer examples rather than a demo without end."""
    examples = examples_that_fit(
        seconds_per_call=seconds_per_call, seconds_left=600, available=available
    )

    assert examples == expected
