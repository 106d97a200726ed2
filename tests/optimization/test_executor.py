"""Real worker processes: events, cancel, death, orphans."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sidejudge_server.optimization.executor import LocalExecutor
from tests.optimization import toy_workers

pytestmark = pytest.mark.slow

_ROOT = Path(__file__).parents[2]


async def _all_events(executor: LocalExecutor, run_id: str) -> list[dict]:
    return [dict(event) async for event in executor.events(run_id)]


def test_events_arrive_in_order_and_the_final_one_ends_them():
    """What a worker says reaches the consumer, and its process is gone afterwards."""

    async def scenario():
        executor = LocalExecutor(entry=toy_workers.echo)
        await executor.submit("a", {"text": "hällo"})
        events = await _all_events(executor, "a")
        return events, executor.status("a")

    events, status = asyncio.run(scenario())
    assert events[0] == {"kind": "warning", "message": "hällo"}
    assert events[1]["kind"] == "result"
    assert events[1]["pid"] == status.pid != os.getpid()
    assert (status.alive, status.exit_code) == (False, 0)


def test_death_without_a_last_word_is_a_crash():
    """The exit code tells why."""

    async def scenario():
        executor = LocalExecutor(entry=toy_workers.dies)
        await executor.submit("a", {})
        return await _all_events(executor, "a")

    events = asyncio.run(scenario())
    assert [e["kind"] for e in events] == ["warning", "crashed"]
    assert events[-1]["exit_code"] == 3


@pytest.mark.parametrize(
    "text", ["\x80 no json", "[]", "{}", '{"kind": "no kind of event"}']
)
def test_nonsense_from_a_worker_is_a_crash(text):
    """A worker whose messages cannot be read is killed."""

    async def scenario():
        executor = LocalExecutor(entry=toy_workers.talks_nonsense)
        await executor.submit("a", {"text": text})
        return await _all_events(executor, "a")

    (event,) = asyncio.run(scenario())
    assert (event["kind"], event["exit_code"]) == ("crashed", -signal.SIGKILL)


def test_worker_killed_from_outside_harms_no_other():
    """One process a run: a SIGKILL takes one run only."""

    async def scenario():
        executor = LocalExecutor(entry=toy_workers.polite)
        await executor.submit("victim", {})
        await executor.submit("bystander", {})
        victim, bystander = executor.events("victim"), executor.events("bystander")
        await anext(victim)
        await anext(bystander)
        os.kill(executor.status("victim").pid, signal.SIGKILL)
        crash = await anext(victim)
        alive = executor.status("bystander").alive
        await executor.cancel("bystander")
        last = await anext(bystander)
        await victim.aclose()
        await bystander.aclose()
        return crash, alive, last

    crash, alive, last = asyncio.run(scenario())
    assert crash == {"kind": "crashed", "exit_code": -signal.SIGKILL}
    assert alive
    assert last == {"kind": "cancelled"}


def test_worker_that_ignores_a_cancel_is_killed():
    """Then the last word is said for it."""

    async def scenario():
        executor = LocalExecutor(entry=toy_workers.deaf, kill_after_s=0.05)
        await executor.submit("a", {})
        events = executor.events("a")
        await anext(events)
        await executor.cancel("a")
        await executor.cancel("a")
        last = await anext(events)
        await events.aclose()
        return last, executor.status("a")

    last, status = asyncio.run(scenario())
    assert last == {"kind": "cancelled"}
    assert status.exit_code == -signal.SIGKILL


def test_closing_ends_all_runs():
    """No worker outlives its executor."""

    async def scenario():
        executor = LocalExecutor(entry=toy_workers.deaf)
        await executor.submit("a", {})
        events = executor.events("a")
        await anext(events)
        await executor.close()
        last = await anext(events)
        await events.aclose()
        return last, executor.status("a").alive

    last, alive = asyncio.run(scenario())
    assert last == {"kind": "crashed", "exit_code": -signal.SIGKILL}
    assert not alive


def test_unknown_run_is_not_alive_and_cannot_be_cancelled():
    """Both are harmless."""
    executor = LocalExecutor()
    asyncio.run(executor.cancel("nobody"))
    assert not executor.status("nobody").alive


_SERVER = """
import asyncio, json, sys
from sidejudge_server.optimization.executor import LocalExecutor, start_fork_server
from tests.optimization import toy_workers

async def main():
    executor = LocalExecutor(entry=toy_workers.deaf)
    await executor.submit("a", {})
    event = await anext(executor.events("a"))
    print(json.loads(event["message"])["pid"], flush=True)
    await asyncio.Event().wait()

if __name__ == "__main__":
    start_fork_server()
    asyncio.run(main())
"""


def test_killed_server_leaves_no_worker_behind():
    """The worker's lifeline closes with the server, however it dies."""
    path = [str(_ROOT), *sys.path]
    with subprocess.Popen(  # noqa: S603 - our own code in our own interpreter
        [sys.executable, "-c", _SERVER],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path)},
    ) as server:
        try:
            pid = int(server.stdout.readline())
            watch = os.pidfd_open(pid)
        finally:
            server.kill()
    try:
        assert _ended(watch)
    finally:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(watch, signal.SIGKILL)
        os.close(watch)


def _ended(pidfd: int) -> bool:
    """Wait, at most 10 seconds, for a process to end."""
    import select

    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(10_000))


def test_fork_server_does_not_load_the_optimizer():
    """An idle sidecar must not pay for dspy."""
    code = (
        "import json, sys; import sidejudge_server.optimization.executor;"
        "print(json.dumps([m for m in ('dspy', 'numpy', 'scipy', 'optuna') if m in sys.modules]))"
    )
    found = subprocess.run(  # noqa: S603 - our own code in our own interpreter
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert json.loads(found.stdout) == []
