"""Rounds follow what is announced, rest in between, and hurry for those who wait."""

import asyncio

import pytest

from sidejudge_server.errors import NotFoundError, StorageUnavailableError
from sidejudge_server.rounds import Rounds


class Followed:
    """Notes who was followed; each round takes a second of the loop's clock, which is set by hand."""

    def __init__(self, errors=()):
        self.names = []
        self.errors = list(errors)
        self.now = 0.0

    async def follow(self, judge_id):
        """Note a judge, or fail as was planned."""
        self.names.append(judge_id)
        self.now += 1.0
        if self.errors:
            raise self.errors.pop(0)


def run(scenario, followed, monkeypatch):
    """Run a scenario with the followed one's clock, and the rests that rounds ask for."""
    rests = []
    real_timeout = asyncio.timeout

    def timeout(seconds):
        rests.append(seconds)
        return real_timeout(None)  # until somebody waits

    monkeypatch.setattr("sidejudge_server.rounds.asyncio.timeout", timeout)

    async def main():
        loop = asyncio.get_running_loop()
        monkeypatch.setattr(loop, "time", lambda: followed.now, raising=False)
        rounds = Rounds(followed.follow)
        rounds.start()
        try:
            await scenario(rounds)
        finally:
            await rounds.close()

    asyncio.run(main())
    return rests


async def settle():
    for _ in range(5):
        await asyncio.sleep(0)


def test_many_announcements_make_one_round_and_a_rest_follows(monkeypatch):
    followed = Followed()

    async def scenario(rounds):
        for _ in range(50):
            rounds.look_at("a")
        await settle()
        assert followed.names == ["a"]
        rounds.look_at("a")
        rounds.look_at("b")
        await settle()
        assert followed.names == ["a"], "it rests"
        await rounds.drain()
        assert followed.names == ["a", "a", "b"]

    rests = run(scenario, followed, monkeypatch)
    assert rests == [5.0, 5.0, 5.0], "nine times a second, five at most"


def test_nobody_waits_when_there_is_nothing_to_follow(monkeypatch):
    async def scenario(rounds):
        await rounds.drain()
        rounds.look_at("a")
        await rounds.drain()
        await rounds.drain()

    followed = Followed()
    run(scenario, followed, monkeypatch)
    assert followed.names == ["a"]


GONE = NotFoundError(
    "gone", reason="JUDGE_NOT_FOUND", resource_type="judge", resource_name="judges/a"
)


@pytest.mark.parametrize("error", [GONE, RuntimeError("a bug")])
def test_one_judge_does_not_end_the_rounds(monkeypatch, error):
    followed = Followed([error])

    async def scenario(rounds):
        rounds.look_at("a")
        rounds.look_at("b")
        await rounds.drain()

    run(scenario, followed, monkeypatch)
    assert followed.names == ["a", "b"]


def test_a_judge_whose_storage_is_away_comes_again(monkeypatch):
    followed = Followed([StorageUnavailableError("full", reason="STORAGE_UNAVAILABLE")])

    async def scenario(rounds):
        later = []
        loop = asyncio.get_running_loop()
        monkeypatch.setattr(
            loop, "call_later", lambda *args: later.append(args), raising=False
        )
        rounds.look_at("a")
        await rounds.drain()
        ((delay, again, judge_id),) = later
        assert delay == 2.0
        again(judge_id)
        await rounds.drain()

    run(scenario, followed, monkeypatch)
    assert followed.names == ["a", "a"]
