"""How long to wait before asking again."""

import random
from datetime import UTC, datetime

import pytest

from sidejudge_server.lm.retry import Backoff, retry_after_s

NOW = datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC)


def test_jitter_fills_the_range_up_to_the_bound():
    """Full jitter: uniform from 0, so that callers do not come back together."""
    backoff = Backoff(base_s=1.0, random=random.Random(1))  # noqa: S311 - jitter
    delays = [backoff.delay_s(3, asked_s=None) for _ in range(1000)]

    assert 0 <= min(delays) < 0.1
    assert 3.9 < max(delays) <= 4.0


def test_bound_stops_growing():
    """The hundredth attempt waits no longer than the cap."""
    backoff = Backoff(cap_s=20.0, random=random.Random(1))  # noqa: S311 - jitter

    assert all(backoff.delay_s(100, asked_s=None) <= 20.0 for _ in range(100))


def test_seeded_waits_repeat():
    """The same seed gives the same waits."""
    first, second = (
        [Backoff(random=random.Random(5)).delay_s(n, asked_s=None) for n in range(1, 5)]  # noqa: S311 - jitter
        for _ in range(2)
    )

    assert first == second


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "3"}, 3.0),
        ({"retry-after": "0.25"}, 0.25),
        ({"retry-after-ms": "250", "retry-after": "1"}, 0.25),
        ({"retry-after": "Thu, 01 Jan 2026 12:00:30 GMT"}, 30.0),
        ({"retry-after": "Thu, 01 Jan 2026 11:00:00 GMT"}, 0.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-5"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
    ],
)
def test_wish_of_the_server_is_read(headers, seconds):
    """Seconds, milliseconds and dates are understood, nonsense is ignored."""
    assert retry_after_s(headers, now=NOW) == seconds
