"""Blocking callers wait for the loop's client, and can be freed at once."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from sidejudge_server.errors import LMUnavailableError
from sidejudge_server.judges.blocking import BlockingClient, RunCancelled
from sidejudge_server.judges.kinds import JudgeSpec, initial_program
from sidejudge_server.judges.types import ArtifactInput, JudgeKind, Verdict
from tests.judges.scripted import ScriptedClient, says

SAFETY = initial_program(JudgeSpec(JudgeKind.SAFETY))
ITEM = ArtifactInput("x")


class WaitingClient(ScriptedClient):
    """Never answers, and tells how many wait."""

    def __init__(self):
        super().__init__()
        self.waiting = threading.Semaphore(0)

    async def complete(self, request, *, timeout_s=None):
        """Wait for ever."""
        del request, timeout_s
        self.waiting.release()
        await asyncio.Event().wait()


@pytest.fixture
def blocking():
    clients = []

    def start(client):
        clients.append(BlockingClient(client))
        return clients[-1]

    yield start
    for client in clients:
        client.close()


def test_blocking_call_gives_the_answer(blocking):
    """A thread without a loop can judge."""
    client = blocking(ScriptedClient(says("yes", yes=0.9, no=0.1)))

    answer = client.evaluate(SAFETY, ITEM, explain=False)

    assert answer.result.verdict is Verdict.PASS
    assert (client.model, client.supports_logprobs) == ("scripted", True)


def test_errors_reach_the_caller(blocking):
    """What the client raises is what the blocked thread sees."""
    client = blocking(
        ScriptedClient(LMUnavailableError("down", reason="LM_UNAVAILABLE"))
    )

    with pytest.raises(LMUnavailableError):
        client.evaluate(SAFETY, ITEM, explain=False)


def test_cancel_frees_all_waiting_threads(blocking):
    """Cancelling does not wait for the language model, and is no Exception."""
    inner = WaitingClient()
    client = blocking(inner)

    def wait():
        with pytest.raises(RunCancelled) as caught:
            client.evaluate(SAFETY, ITEM, explain=False)
        return isinstance(caught.value, Exception)

    with ThreadPoolExecutor(3) as pool:
        calls = [pool.submit(wait) for _ in range(3)]
        for _ in calls:
            assert inner.waiting.acquire(timeout=10)
        client.cancel()
        assert [call.result(10) for call in calls] == [False] * 3


def test_no_call_starts_after_cancel(blocking):
    """An optimizer that goes on after the cancellation does not reach the model."""
    inner = ScriptedClient(says("yes"), repeat=True)
    client = blocking(inner)
    client.cancel()

    with pytest.raises(RunCancelled):
        client.evaluate(SAFETY, ITEM, explain=False)

    assert inner.requests == []


def test_closing_closes_the_client_once():
    """The thread ends, and closing again is harmless."""
    inner = ScriptedClient()
    client = BlockingClient(inner)

    client.close()
    client.close()

    assert inner.closed
