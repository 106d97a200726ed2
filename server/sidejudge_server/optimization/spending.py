"""What a run spends, and that it never spends more than it may.

Every request to a model, retries included, is reserved before it is made and settled when it has
ended: calls as such, tokens and money by the most that the request can take. A request that might
exceed a bound waits for others to settle if that can make room, else it is not made.

What a run needs to come to a decision (its refit and its gate) is kept back from the search, so that
a search that has used up its part still ends with a decision. Calls kept back are known; their
tokens, money and seconds are taken for one and a half of what an average call has taken.

Optimizers swallow exceptions, so what stops a search is a BaseException.
"""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TypeVar

from sidejudge_server.lm.attempts import AttemptBound
from sidejudge_server.lm.types import LMUsage
from sidejudge_server.optimization.budget import OptimizationBudget
from sidejudge_server.optimization.call_averages import Amount, CallAverages
from sidejudge_server.optimization.spend_ledger import LedgerSums, SpendLedger
from sidejudge_server.optimization.stops import StopReason

__all__ = ["PURPOSE", "BudgetExhausted", "Purpose", "Shortage", "Spend", "SpendMeter"]

T = TypeVar("T")


class Purpose(StrEnum):
    """What a call is for. Only the search leaves the gate's part alone."""

    SEARCH = "search"
    CLOSING = "closing"


PURPOSE: ContextVar[Purpose] = ContextVar("purpose", default=Purpose.SEARCH)
"""Of the call that is being made: between who knows it and the request lies the run's cache."""


class BudgetExhausted(BaseException):
    """The budget lets no further call of this purpose be made. No Exception: DSPy swallows those."""

    def __init__(self, reason: StopReason, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


@dataclass(frozen=True, slots=True)
class Spend:
    """What a run has spent. Answers from its own cache cost nothing.

    Attributes:
        lm_calls: Requests made, retries included.
        cached_calls: Answers from the run's cache.
        input_tokens: Prompt tokens of the answers.
        output_tokens: Generated tokens of the answers.
        cost_usd: None when a price is not known.
    """

    lm_calls: int = 0
    cached_calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost_usd: float | None = 0.0


@dataclass(frozen=True, slots=True)
class Shortage:
    """What is missing for a decision: calls, and what they will take by the average so far."""

    lm_calls: int
    tokens: int
    cost_usd: float
    seconds: float


@dataclass(slots=True)
class _Ticket:
    bound: AttemptBound
    began: float


class SpendMeter:
    """Adds up what all models of a run take and keeps them within its budget; thread-safe.

    Implements `lm.attempts.AttemptMeter`.
    """

    def __init__(
        self,
        budget: OptimizationBudget | None = None,
        *,
        spent: Spend | None = None,
        elapsed_s: float = 0.0,
        ledger: SpendLedger | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begin to count the time.

        Args:
            budget: Bounds; None for none, not even of time.
            spent: What earlier lives of the run have spent; counts against the bounds.
            elapsed_s: How long earlier lives were at work.
            ledger: Where requests are written before they are made; what earlier lives have written
                there counts as well. None for nowhere.
            clock: Seconds, from any beginning.
        """
        self._budget = budget
        self._clock = clock
        self._began = clock() - elapsed_s
        self._lock = threading.Lock()
        self._open_calls = 0
        self._idle = threading.Condition()
        spent = spent or Spend()
        before = ledger.before if ledger is not None else LedgerSums()
        self._ledger = ledger
        self._calls = max(spent.lm_calls, before.attempts)
        self._cached = spent.cached_calls
        self._usage = LMUsage(
            input_tokens=spent.input_tokens,
            output_tokens=spent.output_tokens,
            cost_usd=spent.cost_usd,
        )
        # Ended without saying what they took: they may be billed, so their bound stays reserved.
        self._unsettled = Amount(before.unsettled_tokens, before.unsettled_usd)
        self._in_flight = Amount()
        self._averages = CallAverages()
        if spent.lm_calls:
            self._averages = CallAverages(
                self._calls, Amount(self._taken_tokens, self._taken_usd)
            )
        self._closing_left = 0
        self._keeps = True
        self._stop_next: StopReason | None = None
        self._concurrency = 1
        self._stopped: dict[Purpose, BudgetExhausted] = {}
        self._room: set[asyncio.Future[None]] = set()
        self._stops: dict[Purpose, set[asyncio.Future[BudgetExhausted]]] = {
            purpose: set() for purpose in Purpose
        }

    # --- What was spent -------------------------------------------------------------------------

    @property
    def spend(self) -> Spend:
        """The sums so far, of all lives of the run."""
        with self._lock:
            usage = self._usage
            return Spend(
                self._calls,
                self._cached,
                usage.input_tokens,
                usage.output_tokens,
                usage.cost_usd,
            )

    def paid_before(self, usage: LMUsage) -> None:
        """Take note that earlier lives of the run have paid at least for these answers.

        Args:
            usage: Of all answers in the run's caches. A worker that outlived its server for a moment
                has kept some that nobody was told of.
        """
        with self._lock:
            self._calls = max(self._calls, usage.calls)
            so_far = self._usage
            costs = (so_far.cost_usd, usage.cost_usd)
            self._usage = replace(
                so_far,
                input_tokens=max(so_far.input_tokens, usage.input_tokens),
                output_tokens=max(so_far.output_tokens, usage.output_tokens),
                cost_usd=None if None in costs else max(c or 0.0 for c in costs),
            )

    @property
    def elapsed_s(self) -> float:
        """How long the run has been at work, all of its lives together."""
        return self._clock() - self._began

    @property
    def stopped(self) -> BudgetExhausted | None:
        """What has stopped the search, if something has."""
        with self._lock:
            return self._stopped.get(Purpose.SEARCH)

    def raise_if_stopped(self, purpose: Purpose) -> None:
        """Raise BudgetExhausted if no further request of this purpose may be made."""
        with self._lock:
            if (stopped := self._stopped.get(purpose)) is not None:
                raise stopped

    def answered(self, purpose: Purpose, *, cached: bool) -> None:
        """Take note of an answer: one from the cache cost nothing, one for the gate leaves one less."""
        with self._lock:
            if cached:
                self._cached += 1
            elif purpose is Purpose.CLOSING:
                self._closing_left = max(0, self._closing_left - 1)

    @contextmanager
    def call(self) -> Iterator[None]:
        """Be seen as busy by `wait_until_idle`."""
        with self._idle:
            self._open_calls += 1
        try:
            yield
        finally:
            with self._idle:
                self._open_calls -= 1
                self._idle.notify_all()

    def wait_until_idle(self) -> None:
        """Wait for calls in flight: what they answer is paid for and belongs into the run's cache."""
        with self._idle:
            self._idle.wait_for(lambda: not self._open_calls)

    # --- Keeping back ---------------------------------------------------------------------------

    def keep_back(
        self, calls: int, *, concurrency: int = 1, reaches: bool | None = None
    ) -> bool:
        """Keep so many calls back from the search, for the refit and the gate.

        Args:
            calls: Answers that are needed after the search; replaces what was kept back before.
            concurrency: Calls at once, to guess how long they will take.
            reaches: What an earlier life of the run was told; None asks anew.

        Returns:
            False if the rest of the budget does not reach that far: nothing is kept back then, and
            the run cannot come to a decision.
        """
        with self._lock:
            self._closing_left = calls
            self._concurrency = max(1, concurrency)
            self._keeps = True
            nothing = AttemptBound(0, 0, 0.0)
            if reaches is None:
                reaches = self._excess(Purpose.SEARCH, nothing, calls=0) is None
            self._keeps = reaches
            return reaches

    def stop_search_at_next_request(self, reason: StopReason) -> None:
        """End the search where it ended in an earlier life: at the first answer that is not there.

        Args:
            reason: Why it ended.
        """
        with self._lock:
            self._stop_next = reason

    def reaches_for(self, calls: float) -> bool:
        """Say whether the search may make so many more calls if each takes what an average one took.

        Args:
            calls: LM calls that something would take; at least 0.
        """
        with self._lock:
            averages = self._averages
            bound = AttemptBound(
                round(calls * averages.call_tokens),
                0,
                calls * averages.call_usd,
            )
            if self._excess(Purpose.SEARCH, bound, calls=math.ceil(calls)) is not None:
                return False
            seconds = (calls + self._kept(Purpose.SEARCH)) * averages.call_seconds
            most_s = self._budget.max_duration_s if self._budget else math.inf
            return self.elapsed_s + seconds / self._concurrency < most_s

    @property
    def shortage(self) -> Shortage:
        """What the run still needs to come to a decision, as far as it can be told."""
        with self._lock:
            left, averages = self._closing_left, self._averages
            return Shortage(
                left,
                round(left * averages.call_tokens),
                left * averages.call_usd,
                left * averages.call_seconds / self._concurrency,
            )

    # --- AttemptMeter ---------------------------------------------------------------------------

    async def begin(self, bound: AttemptBound) -> object:
        """Reserve what a request can take; see `AttemptMeter.begin`.

        Raises:
            BudgetExhausted: It does not fit in the budget, or not in the search's part of it.
            OSError: It cannot be written to the ledger.
        """
        purpose = PURPOSE.get()
        while True:
            with self._lock:
                if (stopped := self._stopped.get(purpose)) is not None:
                    raise stopped
                excess = self._excess(purpose, bound)
                if purpose is Purpose.SEARCH:
                    excess = self._stop_next or excess
                if excess is not None:
                    raise self._stop(purpose, excess)
                if self._fits_now(purpose, bound):
                    if self._ledger is not None:
                        self._ledger.begun(bound)
                    self._calls += 1
                    self._in_flight.add(bound.tokens, bound.cost_usd)
                    return _Ticket(bound, self._clock())
                room: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                self._room.add(room)
            try:
                await room
            finally:
                with self._lock:
                    self._room.discard(room)

    def end(
        self, ticket: object, usage: LMUsage | None, *, answered: bool = False
    ) -> None:
        """Take note of what a request took; see `AttemptMeter.end`."""
        assert isinstance(ticket, _Ticket)  # noqa: S101 - from `begin`
        with self._lock:
            bound, averages = ticket.bound, self._averages
            seconds = self._clock() - ticket.began
            self._in_flight.add(bound.tokens, bound.cost_usd, sign=-1)
            if usage is not None and self._ledger is not None:
                with suppress(
                    OSError
                ):  # then it counts with all that it could have taken
                    self._ledger.settled(bound)
            if usage is None:
                self._unsettled.add(bound.tokens, bound.cost_usd)
                if answered:
                    averages.add(bound.tokens, bound.cost_usd, seconds=seconds)
            else:
                self._usage += usage
                if usage.calls:
                    tokens = usage.input_tokens + usage.output_tokens
                    averages.add(tokens, usage.cost_usd, seconds=seconds)
            waiting = tuple(self._room)
        for room in waiting:
            _resolve(room, None)

    # --- Time -----------------------------------------------------------------------------------

    def watch_time(self) -> None:
        """Stop what has no time left, calls that wait for an answer included; call it now and then."""
        for purpose in Purpose:
            with self._lock:
                if purpose in self._stopped or not self._overdue(purpose):
                    continue
                stopped = self._stop(purpose, StopReason.MAX_DURATION)
                waiting = tuple(self._stops[purpose])
            for stop in waiting:
                _resolve(stop, stopped)

    def stop_signal(self, purpose: Purpose) -> asyncio.Future[BudgetExhausted]:
        """Return a future of the running loop that is done when the time is up; cancel it after use."""
        signal: asyncio.Future[BudgetExhausted]
        signal = asyncio.get_running_loop().create_future()
        with self._lock:
            stopped = self._stopped.get(purpose)
            if stopped is not None and stopped.reason is StopReason.MAX_DURATION:
                signal.set_result(stopped)
                return signal
            self._stops[purpose].add(signal)

        def forget(_: asyncio.Future[BudgetExhausted]) -> None:
            with self._lock:
                self._stops[purpose].discard(signal)

        signal.add_done_callback(forget)
        return signal

    # --- Decisions, under the lock --------------------------------------------------------------

    def _excess(
        self, purpose: Purpose, bound: AttemptBound, *, calls: int = 1
    ) -> StopReason | None:
        """Say which bound a request could exceed even if all others took nothing more."""
        budget = self._budget
        if budget is None:
            return None
        kept = self._kept(purpose)
        averages = self._averages
        most = budget.max_lm_calls
        if most is not None and self._calls + calls + kept > most:
            return StopReason.MAX_LM_CALLS
        if budget.max_tokens is not None:
            kept_tokens = kept * averages.call_tokens
            if self._taken_tokens + bound.tokens + kept_tokens > budget.max_tokens:
                return StopReason.MAX_TOKENS
        if budget.max_cost_usd is not None:
            kept_usd = kept * averages.call_usd
            if bound.cost_usd is None:
                return (
                    StopReason.MAX_COST
                )  # a bound that cannot be checked is not passed
            if self._taken_usd + bound.cost_usd + kept_usd > budget.max_cost_usd:
                return StopReason.MAX_COST
        return StopReason.MAX_DURATION if self._overdue(purpose) else None

    def _fits_now(self, purpose: Purpose, bound: AttemptBound) -> bool:
        """Say whether a request fits even if all in flight take all that they can."""
        flight = self._in_flight
        cost = None if bound.cost_usd is None else bound.cost_usd + flight.usd
        beside = AttemptBound(
            bound.input_tokens + round(flight.tokens), bound.output_tokens, cost
        )
        return self._excess(purpose, beside) is None

    def _overdue(self, purpose: Purpose) -> bool:
        if self._budget is None:
            return False
        averages = self._averages
        kept_s = self._kept(purpose) * averages.call_seconds
        kept_s /= self._concurrency
        return self.elapsed_s + kept_s >= self._budget.max_duration_s

    def _kept(self, purpose: Purpose) -> int:
        """Return the calls that a purpose has to leave alone."""
        return self._closing_left if self._keeps and purpose is Purpose.SEARCH else 0

    @property
    def _taken_tokens(self) -> float:
        usage = self._usage
        return usage.input_tokens + usage.output_tokens + self._unsettled.tokens

    @property
    def _taken_usd(self) -> float:
        return (self._usage.cost_usd or 0.0) + self._unsettled.usd

    def _stop(self, purpose: Purpose, reason: StopReason) -> BudgetExhausted:
        kept = self._kept(purpose)
        message = f"{reason.value} of the budget is reached"
        if kept:
            message += f", less {kept} calls for the gate"
        stopped = BudgetExhausted(reason, message)
        self._stopped[purpose] = stopped
        if purpose is Purpose.CLOSING:
            self._stopped.setdefault(Purpose.SEARCH, stopped)
        return stopped


def _resolve(future: asyncio.Future[T], value: T) -> None:
    """Complete a future of another thread's loop, if both still live."""

    def complete() -> None:
        if not future.done():
            future.set_result(value)

    with suppress(RuntimeError):  # the loop is closed
        future.get_loop().call_soon_threadsafe(complete)
