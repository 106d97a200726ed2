"""Patience with a model that does not answer: a run waits for it instead of failing.

All calls of a run to one model share one `Outage`. The first call that fails begins it; from then on
one call at a time asks the model, with growing waits, and all others queue behind it, so that a model
that is down is not stormed and a budget in calls is not used up by asking. The first answer ends it.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

from sidejudge_server.errors import LMError, LMRateLimitedError, LMUnavailableError
from sidejudge_server.lm.retry import Backoff

__all__ = ["Outage", "OutageObserver"]

T = TypeVar("T")

_BASE_S = 2.0
_CAP_S = 60.0
_MINUTES_FROM_S = 120


class OutageObserver(Protocol):
    """Who wants to know what a run waits for; thread-safe."""

    def warning(self, message: str) -> None:
        """Something that does not stop the run."""
        ...

    def waiting_for(self, what: str) -> None:
        """The run waits for this; "" if it goes on."""
        ...


class Outage:
    """The outages of one model. Belongs to one event loop."""

    def __init__(
        self,
        model: str,
        *,
        patience_s: float,
        observer: OutageObserver,
        backoff: Backoff | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """Create it.

        Args:
            model: For people.
            patience_s: An outage that lasts longer ends the run; 0 for the first failure.
            observer: Hears when an outage begins and ends.
            backoff: Waits between two questions.
            clock: Seconds, from any beginning.
            sleep: How to wait.
        """
        self._model = model
        self._patience_s = patience_s
        self._observer = observer
        self._backoff = backoff or Backoff(
            base_s=_BASE_S,
            cap_s=_CAP_S,
            longest_wait_s=patience_s,
            random=random.Random(),  # noqa: S311 - jitter
        )
        self._clock = clock
        self._sleep = sleep
        self._asking = asyncio.Lock()
        self._began: float | None = None
        self._attempts = 0
        self._error: LMError | None = None

    async def ask(
        self,
        call: Callable[[], Awaitable[T]],
        *,
        before_waiting: Callable[[], None] = lambda: None,
    ) -> T:
        """Make a call, and make it again while the model does not answer.

        Args:
            call: Makes it.
            before_waiting: Raises if there is no use in waiting.

        Raises:
            LMUnavailableError: It did not answer for longer than the patience.
            LMRateLimitedError: It refused for longer than the patience, or wants a longer wait.
            LMError: It refuses for another reason: at once.
        """
        while True:
            if self._began is None:
                try:
                    return await call()
                except (LMUnavailableError, LMRateLimitedError) as error:
                    self._failed(error)
            async with self._asking:
                if self._began is None:
                    continue  # it came back while this call was queueing
                before_waiting()
                await self._wait()
                try:
                    answer = await call()
                except (LMUnavailableError, LMRateLimitedError) as error:
                    self._failed(error)
                else:
                    self._ended()
                    return answer

    async def _wait(self) -> None:
        """Wait before the next question, or raise what the model failed with."""
        assert self._error is not None  # noqa: S101 - there is an outage
        assert self._began is not None  # noqa: S101 - there is an outage
        left_s = self._began + self._patience_s - self._clock()
        delay_s = self._backoff.delay_s(
            self._attempts, asked_s=self._error.retry_after_s
        )
        if left_s <= 0 or delay_s is None:
            raise self._error
        await self._sleep(min(delay_s, left_s))

    def _failed(self, error: LMError) -> None:
        self._error = error
        self._attempts += 1
        if self._began is not None:
            return
        self._began = self._clock()
        if self._patience_s <= 0:
            return
        cause = error.metadata.get("cause") or error.message
        self._observer.waiting_for(self._model)
        self._observer.warning(
            f"{self._model} does not answer ({cause}); the run waits for it, at most "
            f"{_duration(self._patience_s)}"
        )

    def _ended(self) -> None:
        """Go on; called with the lock, by the call that was answered."""
        if self._began is None:
            return
        lasted_s = self._clock() - self._began
        self._began, self._error, self._attempts = None, None, 0
        self._observer.waiting_for("")
        self._observer.warning(
            f"{self._model} answers again after {_duration(lasted_s)}"
        )


def _duration(seconds: float) -> str:
    if seconds < _MINUTES_FROM_S:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} minutes"
