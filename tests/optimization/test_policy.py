"""When a judge is optimized by itself: the rule."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from sidejudge_server.optimization.budget import OptimizationBudget
from sidejudge_server.optimization.plan import Auto, OptimizationConfig
from sidejudge_server.optimization.policy import Policy, Situation, Spent, rule

_NOW = datetime(2026, 8, 20, 12, 0, tzinfo=UTC)
_POLICY = Policy(enabled=True)
_DUE = Situation(now=_NOW, new_examples=52, new_disagreements=9)


def _ruling(policy=_POLICY, **situation):
    return rule(policy, replace(_DUE, **situation))


def test_enough_examples_and_disagreements_make_a_run_due():
    """The reason has the figures."""
    ruling = _ruling()
    assert ruling.waiting_for == ""
    assert ruling.reason == (
        "52 new examples, 9 of them disagreements, since the judge exists"
    )
    since = _ruling(last_run="optimizations/x", last_run_at=_NOW - timedelta(days=2))
    assert since.reason.endswith("since optimizations/x of 2026-08-18 12:00 UTC")


@pytest.mark.parametrize(
    ("policy", "situation", "waits"),
    [
        (replace(_POLICY, enabled=False), {}, "enabled"),
        (replace(_POLICY, paused=True, pause_reason="ann: audit"), {}, "ann: audit"),
        (_POLICY, {"new_examples": 49}, "1 more examples: 49 of 50 are new"),
        (_POLICY, {"new_disagreements": 3}, "2 more disagreements"),
        (_POLICY, {"active": "optimizations/x"}, "optimizations/x to end"),
        (_POLICY, {"last_end": _NOW - timedelta(hours=5)}, "until 2026-08-20 13:00"),
    ],
)
def test_each_condition_holds_a_run_back_on_its_own(policy, situation, waits):
    """And says what is missing."""
    ruling = _ruling(policy, **situation)
    assert waits in ruling.waiting_for
    assert ruling.reason == ""


def test_all_that_is_missing_is_said_at_once():
    """One look is enough to know what to do."""
    ruling = _ruling(Policy(), new_examples=0, new_disagreements=0)
    assert ruling.waiting_for.count(";") == 3 - 1 + ruling.waiting_for.count("; it")


def test_cool_down_ends_at_its_time():
    """The moment to look again is the end of the cool-down."""
    waiting = _ruling(last_end=_NOW - timedelta(hours=5, minutes=59))
    assert waiting.look_again_at == _NOW + timedelta(minutes=1)
    assert _ruling(last_end=_NOW - timedelta(hours=6)).reason


@pytest.mark.parametrize(
    ("failures", "minutes", "cause"),
    [
        (1, 10, "a pause after a failed run"),
        (2, 20, "a pause after 2 failed runs in a row"),
        (8, 1280, "a pause after 8 failed runs in a row"),
        (9, 1440, "a pause after 9 failed runs in a row"),
        (50, 1440, "a pause after 50 failed runs in a row"),
    ],
)
def test_failures_hold_the_next_run_back_longer_each_time(failures, minutes, cause):
    """Also without a cool-down; a longer cool-down counts instead."""
    policy = replace(_POLICY, cool_down=timedelta())
    end = _NOW - timedelta(seconds=1)
    waiting = _ruling(policy, last_end=end, failures=failures)
    over = end + timedelta(minutes=minutes)
    assert waiting.look_again_at == over
    assert waiting.waiting_for == f"{cause}, until {over:%Y-%m-%d %H:%M} UTC"
    assert _ruling(policy, last_end=_NOW - (over - end), failures=failures).reason
    assert _ruling(policy, last_end=_NOW, failures=0).reason
    cooling = _ruling(
        replace(_POLICY, cool_down=timedelta(days=2)), last_end=end, failures=failures
    )
    assert cooling.waiting_for.startswith("the cool-down, until")


def test_the_rest_of_the_daily_budget_is_the_budget_of_the_run():
    """Calls, tokens and money that the last 24 hours have left; time and trials bound each run."""
    budget = OptimizationBudget(
        max_lm_calls=1_000,
        max_tokens=50_000,
        max_cost_usd=2.0,
        max_duration_s=600.0,
        max_trials=20,
    )
    ruling = _ruling(
        replace(_POLICY, daily_budget=budget),
        spent=Spent(lm_calls=400, tokens=30_000, cost_usd=0.5),
    )
    assert ruling.budget == OptimizationBudget(600, 20_000, 1.5, 600.0, 20)
    assert ruling.reason


@pytest.mark.parametrize(
    ("budget", "spent", "waits"),
    [
        (
            OptimizationBudget(max_lm_calls=100),
            Spent(lm_calls=100),
            "100 of 100 calls are made",
        ),
        (OptimizationBudget(max_tokens=10), Spent(tokens=11), "11 of 10 tokens"),
        (
            OptimizationBudget(max_cost_usd=1.0),
            Spent(cost_usd=1.0),
            "$1.0000 of $1.0000 are spent",
        ),
        (OptimizationBudget(max_cost_usd=1.0), Spent(cost_usd=None), "not known"),
    ],
)
def test_a_used_up_daily_budget_waits_for_the_oldest_run_to_be_a_day_old(
    budget, spent, waits
):
    """Each bound works on its own, and time alone lifts it."""
    policy = replace(_POLICY, daily_budget=budget)
    oldest = _NOW - timedelta(hours=20)
    ruling = _ruling(policy, spent=spent, oldest_spend_at=oldest)
    assert waits in ruling.waiting_for
    assert ruling.look_again_at == _NOW + timedelta(hours=4)


def test_spend_is_added_up_and_an_unknown_price_stays_unknown():
    """Progress of runs that never got anywhere is empty."""
    done = {"lm_calls": 3, "input_tokens": 10, "output_tokens": 2, "cost_usd": 0.25}
    assert Spent.of([done, {}, done]) == Spent(6, 24, 0.5)
    assert Spent.of([done, {"cost_usd": None}]).cost_usd is None


def test_everything_out_of_range_is_named():
    """Also what is wrong with the budget and the search, by their paths in the policy."""
    policy = Policy(
        min_new_examples=0,
        min_disagreements=-1,
        cool_down=timedelta(seconds=-1),
        daily_budget=OptimizationBudget(max_lm_calls=0),
        config=OptimizationConfig(num_trials=0, auto=Auto.LIGHT),
    )
    assert [v.field for v in policy.violations()] == [
        "optimization_policy.min_new_examples",
        "optimization_policy.min_disagreements",
        "optimization_policy.cool_down",
        "optimization_policy.daily_budget.max_lm_calls",
        "optimization_policy.config.num_trials",
    ]
    assert not Policy().violations()
