"""Budgets and outcomes of runs over real gRPC."""

import json
import re
from collections import Counter

import pytest

from sidejudge.v1 import optimization_pb2
from sidejudge.v1 import optimization_service_pb2 as pb
from sidejudge_server.optimization.executor import start_fork_server
from tests.stand_in import running_stand_in
from tests.support.calls import failure
from tests.support.server import running_server, settings_for
from tests.support.training import teachable_judge

pytestmark = pytest.mark.slow

Optimization = optimization_pb2.Optimization
Budget = optimization_pb2.OptimizationBudget
CONFIG = optimization_pb2.OptimizationConfig(
    num_trials=4,
    num_candidates=4,
    max_bootstrapped_demos=0,
    max_labeled_demos=0,
    instruction_source=optimization_pb2.OptimizationConfig.INSTRUCTION_SOURCE_CURATED,
)


@pytest.fixture(scope="module", autouse=True)
def fork_server():
    """Workers are forked from a process without threads, as in `sidejudge serve`."""
    start_fork_server()


@pytest.fixture
def asked(tmp_path):
    """Ask for a run with a budget of a judge of 60 examples; gives its last state and the stand-in."""
    with running_stand_in() as stand_in:
        settings = settings_for(tmp_path, lm_base_url=stand_in.base_url)
        with running_server(settings) as server:
            judge = teachable_judge(server.client, "bounded", examples=60)

            def ask(**bounds):
                return server.client.optimization.Optimize(
                    pb.OptimizeRequest(
                        optimization=Optimization(
                            judge=judge, config=CONFIG, budget=Budget(**bounds)
                        )
                    ),
                    timeout=120,
                )

            ask.client = server.client.optimization
            yield ask, stand_in


def _ended(events):
    return list(events)[-1].event.finished.optimization


def test_a_run_without_a_budget_gets_thirty_minutes(asked):
    """Nothing else is bounded, and an ended run says what came out."""
    run = _ended(asked[0]())
    assert run.budget == Budget(max_duration={"seconds": 1800})
    assert run.state == Optimization.STATE_SUCCEEDED
    assert run.outcome == run.decision.outcome != Optimization.OUTCOME_UNSPECIFIED
    assert run.stop_reason == Optimization.STOP_REASON_COMPLETED
    assert run.decision.summary in run.summary


def test_a_run_out_of_budget_ends_in_order(asked):
    """SUCCEEDED without a decision; the outcome says why and how to go on."""
    ask, stand_in = asked
    before = stand_in.call_count
    run = _ended(ask(max_lm_calls=30))
    assert stand_in.call_count - before == 30 == run.progress.lm_calls
    assert run.state == Optimization.STATE_SUCCEEDED
    assert run.outcome == Optimization.OUTCOME_BUDGET
    assert run.stop_reason == Optimization.STOP_REASON_MAX_LM_CALLS
    assert not run.HasField("decision")
    assert not run.HasField("error")
    assert "max_lm_calls of at least" in run.summary


def test_all_that_is_wrong_with_a_budget_is_told_at_once(asked):
    """Ranges, and a bound of money on a model without a price."""
    ask, _ = asked
    wrong = {
        "max_lm_calls": 0,
        "max_tokens": -5,
        "max_cost_usd": 2.0,
        "max_duration": {"seconds": 0, "nanos": 500_000_000},
        "max_trials": 501,
    }
    error = failure(lambda bounds, timeout: ask(**bounds), wrong)
    assert [v.field for v in error.violations] == [
        f"optimization.budget.{name}"
        for name in (
            "max_lm_calls",
            "max_tokens",
            "max_cost_usd",
            "max_duration",
            "max_trials",
        )
    ]
    (money,) = [v for v in error.violations if v.field.endswith("max_cost_usd")]
    assert "openai/stand-in" in money.description


def test_a_run_out_of_budget_goes_on_with_the_bound_that_it_names(asked):
    """Nothing is asked twice, the calls of both lives count, and the gate decides."""
    ask, stand_in = asked
    before = stand_in.call_count
    run = _ended(ask(max_lm_calls=30))
    bound = int(re.search(r"max_lm_calls of at least ([\d,]+)", run.summary)[1])
    ask.client.ResumeOptimization(
        pb.ResumeOptimizationRequest(name=run.name, budget=Budget(max_lm_calls=bound))
    )
    answers = ask.client.WatchOptimization(pb.WatchOptimizationRequest(name=run.name))
    run = _ended(answers)
    assert run.outcome == run.decision.outcome != Optimization.OUTCOME_UNSPECIFIED
    assert run.budget.max_lm_calls == bound
    assert run.progress.lm_calls == stand_in.call_count - before <= bound
    bodies = Counter(json.dumps(b, sort_keys=True) for b in stand_in.requests)
    assert max(bodies.values()) == 1
