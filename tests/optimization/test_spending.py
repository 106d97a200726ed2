"""What a run spends: reservations, what is kept back, the clock."""

from __future__ import annotations

import asyncio
import threading

import pytest

from sidejudge_server.lm.attempts import AttemptBound, attempt_bound
from sidejudge_server.lm.pricing import Price
from sidejudge_server.lm.types import ChatRequest, LMUsage, Message
from sidejudge_server.optimization.budget import OptimizationBudget
from sidejudge_server.optimization.spending import (
    PURPOSE,
    BudgetExhausted,
    Purpose,
    Spend,
    SpendMeter,
)
from sidejudge_server.optimization.stops import StopReason

_BOUND = AttemptBound(80, 20, 0.01)
_USED = LMUsage(
    input_tokens=20, output_tokens=5, calls=1, cost_usd=0.002, latency_s=0.0
)


class _Clock:
    def __init__(self):
        self.now = 1_000.0

    def __call__(self):
        return self.now


def _for_gate(work):
    """Run a coroutine whose calls are for the gate."""

    async def scenario():
        PURPOSE.set(Purpose.CLOSING)
        return await work

    return asyncio.run(scenario())


async def _call(meter, usage=_USED, bound=_BOUND):
    meter.end(await meter.begin(bound), usage)


async def _calls(meter, count):
    """Make calls until one is forbidden; return how many were made and what forbade the next."""
    for number in range(count):
        try:
            await _call(meter)
        except BudgetExhausted as exhausted:
            return number, exhausted.reason
    return count, None


@pytest.mark.parametrize(
    ("bounds", "most"),
    [
        ({}, 10**6),
        ({"max_lm_calls": 20}, 20 - 2 - 5),
        # Calls took 25 tokens and $0.002, which is counted one and a half times.
        ({"max_tokens": 1_000}, (1_000 - 2 * 25) // 37.5 - 5),
        ({"max_cost_usd": 0.0601}, (0.0601 - 2 * 0.002) // 0.003 - 5),
    ],
)
def test_what_is_left_reaches_for_so_many_average_calls(bounds, most):
    """After two calls, with five kept back for the gate."""

    async def scenario():
        meter = SpendMeter(OptimizationBudget(**bounds), clock=_Clock())
        await _calls(meter, 2)
        meter.keep_back(5)
        return meter.reaches_for(most), meter.reaches_for(most + 1)

    reached, beyond = asyncio.run(scenario())
    assert reached
    assert beyond == (not bounds)


def test_time_that_is_left_reaches_for_so_many_average_calls():
    """Calls of 2 s count as 3 s; 4 at once; 20 kept back."""

    async def scenario():
        clock = _Clock()
        meter = SpendMeter(OptimizationBudget(max_duration_s=62.0), clock=clock)
        ticket = await meter.begin(_BOUND)
        clock.now += 2.0
        meter.end(ticket, _USED)
        meter.keep_back(20, concurrency=4)
        return [meter.reaches_for(calls) for calls in (59, 60, 61)]

    assert asyncio.run(scenario()) == [True, False, False]


def test_without_a_budget_everything_is_within_reach():
    """Not even time is bounded."""
    assert SpendMeter().reaches_for(10**9)


@pytest.mark.parametrize(
    ("bounds", "made", "reason"),
    [
        ({"max_lm_calls": 4}, 4, StopReason.MAX_LM_CALLS),
        # The last call must have room for its 100 tokens, of which it will take 25.
        ({"max_tokens": 199}, 4, StopReason.MAX_TOKENS),
        ({"max_tokens": 200}, 5, StopReason.MAX_TOKENS),
        ({"max_cost_usd": 0.0179}, 4, StopReason.MAX_COST),
        ({"max_cost_usd": 0.0181}, 5, StopReason.MAX_COST),
        ({}, 50, None),
    ],
)
def test_a_call_that_could_exceed_a_bound_is_not_made(bounds, made, reason):
    """Calls, tokens and money, by the most that the call can take."""
    meter = SpendMeter(OptimizationBudget(**bounds))
    assert asyncio.run(_calls(meter, 50)) == (made, reason)
    assert meter.spend.lm_calls == made
    assert meter.spend.input_tokens == 20 * made


def test_a_search_that_was_stopped_stays_stopped():
    """Also for a call that would fit: threads that are left over must spend nothing."""
    meter = SpendMeter(OptimizationBudget(max_tokens=150))

    async def scenario():
        await _calls(meter, 5)
        await _call(meter, bound=AttemptBound(1, 1, 0.0))

    with pytest.raises(BudgetExhausted):
        asyncio.run(scenario())


def test_a_call_waits_for_others_that_may_take_less():
    """With a call in flight there is no room; when it has ended there is."""
    meter = SpendMeter(OptimizationBudget(max_tokens=150))

    async def scenario():
        first = await meter.begin(_BOUND)
        second = asyncio.create_task(_call(meter))
        for _ in range(5):
            await asyncio.sleep(0)
        waiting = not second.done()
        meter.end(first, _USED)
        await second
        return waiting

    assert asyncio.run(scenario())
    assert meter.spend.lm_calls == 2


def test_a_call_whose_end_is_not_known_keeps_its_reservation():
    """A request that was sent may be billed although there was no answer."""
    meter = SpendMeter(OptimizationBudget(max_tokens=199))

    async def scenario():
        await _call(meter, usage=None)
        return await _calls(meter, 5)

    assert asyncio.run(scenario()) == (0, StopReason.MAX_TOKENS)
    assert meter.spend == Spend(lm_calls=1)


def test_a_refused_call_costs_a_call_and_no_tokens():
    """Providers bill answers."""
    meter = SpendMeter(OptimizationBudget(max_tokens=150))
    asyncio.run(_call(meter, usage=LMUsage()))
    assert meter.spend == Spend(lm_calls=1)
    assert asyncio.run(_calls(meter, 2)) == (2, None)


def test_what_the_gate_needs_is_kept_back():
    """The search ends early, the gate has its calls."""
    meter = SpendMeter(OptimizationBudget(max_lm_calls=10))
    assert meter.keep_back(6)
    assert asyncio.run(_calls(meter, 10)) == (4, StopReason.MAX_LM_CALLS)
    assert meter.stopped.reason is StopReason.MAX_LM_CALLS
    assert _for_gate(_calls(meter, 10)) == (6, StopReason.MAX_LM_CALLS)


def test_tokens_and_money_of_the_gate_are_guessed_from_the_average():
    """One and a half of what calls took so far, which was 25 tokens."""
    meter = SpendMeter(OptimizationBudget(max_tokens=1_000))
    _for_gate(_calls(meter, 4))
    assert meter.keep_back(20)  # 750 tokens of the 900 that are left
    made, reason = asyncio.run(_calls(meter, 20))
    assert (made, reason) == (3, StopReason.MAX_TOKENS)
    assert meter.shortage.tokens == 750


def test_nothing_is_kept_back_for_a_gate_out_of_reach():
    """The search gets all of it: with more budget the run goes on from its cache."""
    meter = SpendMeter(OptimizationBudget(max_lm_calls=10))
    assert not meter.keep_back(11)
    assert asyncio.run(_calls(meter, 20)) == (10, StopReason.MAX_LM_CALLS)
    assert meter.shortage.lm_calls == 11


def test_answers_for_the_gate_leave_fewer_to_be_kept():
    """Those from the cache were never counted on."""
    meter = SpendMeter(OptimizationBudget(max_lm_calls=10))
    meter.keep_back(6)
    meter.answered(Purpose.CLOSING, cached=False)
    meter.answered(Purpose.CLOSING, cached=True)
    meter.answered(Purpose.SEARCH, cached=False)
    assert meter.shortage.lm_calls == 5
    assert meter.spend.cached_calls == 1


def test_time_stops_search_before_the_gate_and_then_the_gate():
    """Time for the gate is guessed from what calls took: 10 s each, two at once."""
    clock = _Clock()
    meter = SpendMeter(OptimizationBudget(max_duration_s=100), clock=clock)

    async def slow():
        ticket = await meter.begin(_BOUND)
        clock.now += 10
        meter.end(ticket, _USED)

    _for_gate(slow())
    assert meter.keep_back(4, concurrency=2)  # 4 * 15 s / 2 = 30 s

    async def scenario():
        made = 0
        try:
            while True:
                await slow()
                made += 1
        except BudgetExhausted as exhausted:
            return made, exhausted.reason

    assert asyncio.run(scenario()) == (6, StopReason.MAX_DURATION)
    clock.now += 40
    with pytest.raises(BudgetExhausted):
        _for_gate(slow())


def test_seconds_of_a_call_are_those_of_this_life():
    """How long the calls of earlier lives took is not known; they count for nothing."""
    clock = _Clock()
    meter = SpendMeter(
        OptimizationBudget(max_duration_s=10_000),
        spent=Spend(2_000, 0, 40_000, 10_000, 4.0),
        elapsed_s=2_000,
        clock=clock,
    )

    async def scenario():
        for _ in range(400):
            ticket = await meter.begin(_BOUND)
            clock.now += 1
            meter.end(ticket, _USED, answered=True)

    asyncio.run(scenario())
    assert meter.keep_back(10)
    assert meter.shortage.seconds == pytest.approx(15.0)
    assert meter.shortage.tokens == 375


def test_answers_without_token_counts_still_tell_what_the_gate_needs():
    """They took their time, and at most their bound."""
    clock = _Clock()
    meter = SpendMeter(OptimizationBudget(max_duration_s=100), clock=clock)

    async def silent():
        ticket = await meter.begin(_BOUND)
        clock.now += 1
        meter.end(ticket, None, answered=True)

    assert meter.keep_back(50)

    async def scenario():
        made = 0
        try:
            while True:
                await silent()
                made += 1
        except BudgetExhausted as exhausted:
            return made, exhausted.reason

    assert asyncio.run(scenario()) == (25, StopReason.MAX_DURATION)
    assert meter.shortage.tokens == 50 * 150
    assert meter.shortage.cost_usd == pytest.approx(50 * 0.015)
    _for_gate(silent())


def test_requests_without_an_answer_tell_nothing_about_others():
    """One that timed out took as long as it may."""
    clock = _Clock()
    meter = SpendMeter(OptimizationBudget(max_duration_s=100), clock=clock)

    async def lost():
        ticket = await meter.begin(_BOUND)
        clock.now += 30
        meter.end(ticket, None)

    asyncio.run(lost())
    meter.keep_back(50)
    assert meter.shortage.seconds == 0


def test_watching_the_time_ends_calls_that_wait():
    """A model that does not answer holds no run beyond its time."""
    clock = _Clock()
    meter = SpendMeter(OptimizationBudget(max_duration_s=60), clock=clock)

    async def scenario():
        signal = meter.stop_signal(Purpose.SEARCH)
        meter.watch_time()
        early = signal.done()
        clock.now += 61
        await asyncio.to_thread(meter.watch_time)
        return early, await signal

    early, stopped = asyncio.run(scenario())
    assert not early
    assert stopped.reason is StopReason.MAX_DURATION


def test_earlier_lives_count():
    """Calls, tokens, money and time of a run that goes on."""
    meter = SpendMeter(
        OptimizationBudget(max_lm_calls=10, max_duration_s=60),
        spent=Spend(8, 3, 800, 100, 0.08),
        elapsed_s=20,
        clock=(clock := _Clock()),
    )
    clock.now += 5
    assert meter.elapsed_s == 25
    assert asyncio.run(_calls(meter, 5)) == (2, StopReason.MAX_LM_CALLS)
    assert meter.spend == Spend(10, 3, 840, 110, pytest.approx(0.084))


def test_an_unknown_price_makes_the_sum_unknown():
    """No number is better than a wrong one."""
    meter = SpendMeter()
    asyncio.run(_call(meter, usage=LMUsage(calls=1, cost_usd=None)))
    assert meter.spend.cost_usd is None


def test_threads_never_pass_a_bound_together():
    """Eight loops in eight threads make exactly as many calls as there are."""
    meter = SpendMeter(OptimizationBudget(max_lm_calls=500))
    made = []

    def work():
        made.append(asyncio.run(_calls(meter, 1_000))[0])

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(made) == meter.spend.lm_calls == 500


def test_the_bound_of_a_request_is_its_bytes():
    """No tokenizer that works on bytes makes more tokens than there are."""
    request = ChatRequest(
        (Message("system", "ab"), Message("user", "ä€")), max_tokens=7
    )
    bound = attempt_bound(request, max_output_tokens=7, price=Price(1, 2, 0.1, 3))
    assert bound.input_tokens >= 2 + 5
    assert bound.output_tokens == 7
    assert bound.cost_usd == pytest.approx((bound.input_tokens * 3 + 7 * 2) / 1e6)
