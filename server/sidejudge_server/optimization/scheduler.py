"""Starts the runs that policies ask for, when something has happened that may make one due.

Nothing is polled: accepted examples, the end of a run, a change of a policy and the start of the
server wake it for a judge, and a timer does when the time alone can make a difference, such as at
the end of a cool-down. What it goes by is in the database, so a restart forgets nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from datetime import datetime, timedelta

from sidejudge_server.errors import SidejudgeError
from sidejudge_server.optimization.policies import Clock, PolicyService, utc_now

__all__ = ["PolicyScheduler"]

_log = logging.getLogger(__name__)

_RETRY = timedelta(minutes=1)
"""After an error, such as a database that takes no writes."""


class PolicyScheduler:
    """Watches over the policies of all judges. Belongs to one event loop."""

    def __init__(self, policies: PolicyService, *, clock: Clock = utc_now) -> None:
        """Make it; nothing happens before `start`.

        Args:
            policies: Says what is due and starts it.
            clock: Tells the time.
        """
        self._policies = policies
        self._clock = clock
        self._due: set[str] = set()
        self._timers: dict[str, datetime] = {}
        self._wake = asyncio.Event()
        self._quiet = asyncio.Event()
        # Python 3.11's wait_for may swallow a cancellation that comes with what it waits for.
        self._closing = False
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin, with all enabled policies."""
        self._due.update(await self._policies.enabled())
        self._wake.set()
        self._task = asyncio.create_task(self._work(), name="policy-scheduler")

    async def close(self) -> None:
        """Start nothing more."""
        self._closing = True
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    def wake(self, judge_id: str) -> None:
        """Look at the policy of a judge soon."""
        self._due.add(judge_id)
        self._quiet.clear()
        self._wake.set()

    async def idle(self) -> None:
        """Return when everything that has happened so far has been looked at."""
        await self._quiet.wait()

    async def _work(self) -> None:
        while not self._closing:
            await self._sleep()
            now = self._clock()
            self._due.update(j for j, moment in self._timers.items() if moment <= now)
            while self._due and not self._closing:
                judge_id = self._due.pop()
                self._timers.pop(judge_id, None)
                await self._look(judge_id)
            self._quiet.set()

    async def _sleep(self) -> None:
        """Return when somebody wakes it, or at the first timer."""
        timeout = None
        if self._timers:
            first = min(self._timers.values()) - self._clock()
            timeout = max(0.0, first.total_seconds())
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._wake.wait(), timeout)
        self._wake.clear()

    async def _look(self, judge_id: str) -> None:
        try:
            state = await self._policies.start_if_due(judge_id)
        except SidejudgeError as error:
            _log.warning("no run was started for %s: %s", judge_id, error.reason)
            self._timers[judge_id] = self._clock() + _RETRY
        except Exception as error:  # noqa: BLE001 - one judge must not stop the others
            cause = type(error).__name__  # the text may quote what was judged
            _log.error("the policy of %s could not be looked at: %s", judge_id, cause)
            self._timers[judge_id] = self._clock() + _RETRY
        else:
            if state is not None and state.ruling.look_again_at is not None:
                self._timers[judge_id] = state.ruling.look_again_at
