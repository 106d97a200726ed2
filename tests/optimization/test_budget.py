"""Bounds of a run: ranges, defaults, replacement."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest

from sidejudge_server.config import LMSettings, Settings
from sidejudge_server.optimization.budget import OptimizationBudget, unpriced_models
from sidejudge_server.optimization.plan import (
    InstructionSource,
    SearchPlan,
    total_trials,
    within_trials,
)
from tests.optimization.runs import PLAN


def test_the_default_bounds_the_time_alone():
    """Thirty minutes; nothing else."""
    budget = OptimizationBudget()
    assert budget.max_duration_s == 1800
    assert (budget.max_lm_calls, budget.max_tokens) == (None, None)
    assert (budget.max_cost_usd, budget.max_trials) == (None, None)
    assert budget.violations() == []


@pytest.mark.parametrize(
    "bounds",
    [
        {"max_lm_calls": 1, "max_tokens": 1, "max_trials": 1, "max_duration_s": 1},
        {"max_cost_usd": 0.000_001, "max_trials": 500, "max_duration_s": 604_800},
    ],
)
def test_limits_themselves_are_allowed(bounds):
    """The ends of the ranges belong to them."""
    assert OptimizationBudget(**bounds).violations() == []


def test_all_that_is_wrong_is_told_at_once():
    """One violation a field, with its path."""
    budget = OptimizationBudget(
        max_lm_calls=0,
        max_tokens=-1,
        max_cost_usd=math.nan,
        max_duration_s=0.5,
        max_trials=501,
    )
    assert [v.field for v in budget.violations()] == [
        "optimization.budget.max_lm_calls",
        "optimization.budget.max_tokens",
        "optimization.budget.max_cost_usd",
        "optimization.budget.max_duration",
        "optimization.budget.max_trials",
    ]


@pytest.mark.parametrize("cost", [0.0, -1.0, math.inf])
def test_money_must_be_a_finite_sum(cost):
    """Nothing, debts and everything are no bounds."""
    (violation,) = OptimizationBudget(max_cost_usd=cost).violations()
    assert violation.field.endswith("max_cost_usd")


def test_a_bound_of_money_needs_prices():
    """It says which model has none, and the way out."""
    budget = OptimizationBudget(max_cost_usd=1.0)
    (violation,) = budget.violations(unpriced=["openai/own", "x/y"])
    assert "openai/own and x/y" in violation.description
    assert "input_usd_per_mtok" in violation.description
    assert OptimizationBudget().violations(unpriced=["openai/own"]) == []


def test_models_without_price_are_those_that_will_be_asked():
    """The prompt model counts unless instructions are curated."""
    settings = replace(
        Settings(),
        task_lm=LMSettings(model="openai/gpt-4o-mini"),
        prompt_lm=LMSettings(model="openai/own"),
    )
    assert unpriced_models(settings) == ["openai/own"]
    assert unpriced_models(settings, source=InstructionSource.CURATED) == []
    assert unpriced_models(Settings()) == []


def test_bounds_can_be_replaced_one_by_one():
    """Those that are not named stay."""
    budget = OptimizationBudget(max_lm_calls=5, max_trials=7)
    assert budget.with_bounds({"max_lm_calls": 9}) == OptimizationBudget(
        max_lm_calls=9, max_trials=7
    )


def test_a_budget_survives_storage():
    """JSON there and back; one that was stored before there were budgets has the defaults."""
    budget = OptimizationBudget(max_lm_calls=5, max_cost_usd=0.25, max_duration_s=60)
    stored = json.loads(json.dumps(budget.to_json()))
    assert OptimizationBudget.from_json(stored) == budget
    assert OptimizationBudget.from_json({}) == OptimizationBudget()


@pytest.mark.parametrize("minibatch", [None, 5])
@pytest.mark.parametrize("most", [1, 2, 3, 5, 6, 7, 12, 13, 100, None])
def test_a_plan_is_cut_to_the_trials_allowed(minibatch, most):
    """As many as fit, full evaluations counted, and one at least."""
    plan: SearchPlan = replace(PLAN, num_trials=20, minibatch_size=minibatch)
    cut = within_trials(plan, most)
    assert cut.num_trials >= 1
    if most is None:
        assert cut == plan
        return
    assert total_trials(cut) <= most
    longer = replace(cut, num_trials=cut.num_trials + 1)
    assert cut.num_trials == 20 or total_trials(longer) > most
