"""What a run that has ended is said to have come to."""

from __future__ import annotations

import pytest

from sidejudge_server.optimization.budget import OptimizationBudget
from sidejudge_server.optimization.outcome import (
    RunOutcome,
    cancelled,
    decided,
    failed,
    out_of_budget,
)
from sidejudge_server.optimization.spec import Progress
from sidejudge_server.optimization.stops import StopReason

_PROGRESS = Progress(
    trials_completed=11,
    trials_total=30,
    baseline_score=0.7,
    best_score=0.8125,
    lm_calls=200,
    input_tokens=9_000,
    output_tokens=100,
    cost_usd=0.4,
    elapsed_s=1_700.0,
)
_SHORTAGE = {"lm_calls": 148, "tokens": 7_400, "cost_usd": 0.3, "seconds": 180.0}
_BUDGET = OptimizationBudget(
    max_lm_calls=200, max_tokens=9_100, max_cost_usd=0.4, max_trials=11
)


@pytest.mark.parametrize(
    ("reason", "reached", "advice"),
    [
        (StopReason.MAX_LM_CALLS, "200 LM calls", "max_lm_calls of at least 348"),
        (StopReason.MAX_TOKENS, "9,100 tokens", "max_tokens of at least 16,500"),
        (StopReason.MAX_COST, "$0.4 ", "max_cost_usd of at least 0.7"),
        (
            StopReason.MAX_DURATION,
            "limit of 30 minutes",
            "max_duration of at least 33 minutes",
        ),
    ],
)
def test_a_run_out_of_budget_says_what_is_missing_and_how_to_go_on(
    reason, reached, advice
):
    """Which bound, what the gate needs, which bound would do, and what became of the best."""
    ending = out_of_budget(
        reason, _SHORTAGE, progress=_PROGRESS, budget=_BUDGET, version=3
    )
    assert (ending.outcome, ending.stop_reason) == (RunOutcome.BUDGET, reason)
    assert reached in ending.summary
    assert "about 148 calls" in ending.summary
    assert advice in ending.summary
    assert "version 3" in ending.summary
    assert "0.812" in ending.summary


@pytest.mark.parametrize(
    "outcome", ["improved", "no_improvement", "not_enough_evidence", "overfit"]
)
def test_the_outcome_of_a_decided_run_is_the_gates(outcome):
    """Its sentence comes first."""
    decision = {"outcome": outcome, "summary": "What it said.", "deployed": False}
    ending = decided(
        decision,
        StopReason.COMPLETED,
        progress=_PROGRESS,
        budget=_BUDGET,
        version=3,
    )
    assert ending.outcome == outcome
    assert ending.stop_reason is StopReason.COMPLETED
    assert ending.summary.startswith("What it said.")
    assert ("deploy it to use it" in ending.summary) == (outcome == "improved")


def test_a_search_that_a_bound_has_cut_short_says_so_beside_the_decision():
    """The gate decided all the same."""
    decision = {"outcome": "improved", "summary": "Better.", "deployed": True}
    ending = decided(
        decision,
        StopReason.MAX_TRIALS,
        progress=_PROGRESS,
        budget=_BUDGET,
        version=3,
    )
    assert "Version 3 serves now." in ending.summary
    assert "11 of 30 trials" in ending.summary
    assert "limit of 11 trials" in ending.summary


def test_nothing_found_is_said():
    """There is no version to look at."""
    decision = {"outcome": "no_improvement", "summary": "Same.", "deployed": False}
    ending = decided(
        decision, StopReason.COMPLETED, progress=_PROGRESS, budget=_BUDGET, version=None
    )
    assert "Nothing that differs" in ending.summary


def test_stopped_runs_say_what_is_kept_and_how_to_go_on():
    """A cancel and an error alike; the error's own way out included."""
    stopped = cancelled(progress=_PROGRESS, version=None)
    assert stopped.columns()["outcome"] == stopped.columns()["stop_reason"]
    assert "Nothing better" in stopped.summary
    assert "200 LM calls" in stopped.summary
    broken = failed("set the right key.", progress=Progress(), version=2)
    assert broken.outcome is RunOutcome.FAILED
    assert "after 0 trials: set the right key." in broken.summary
    assert "version 2" in broken.summary
    for ending in (stopped, broken):
        assert "resume the run" in ending.summary.lower()
