"""EstimateOptimization over real gRPC."""

import pytest

from sidejudge.v1 import (
    feedback_pb2,
    optimization_pb2,
)
from sidejudge.v1 import optimization_service_pb2 as pb
from tests.support.calls import artifact, failure
from tests.support.server import running_server, settings_for
from tests.support.training import create_judge, import_examples

Optimization = optimization_pb2.Optimization
Config = optimization_pb2.OptimizationConfig


def estimate(client, judge, *, budget=None, **config):
    request = pb.EstimateOptimizationRequest(
        optimization=Optimization(judge=judge, config=Config(**config), budget=budget)
    )
    return client.optimization.EstimateOptimization(request, timeout=30)


def test_estimate_says_what_a_run_takes_and_starts_nothing(server, stand_in):
    """Calls, tokens, time and trials, the completed configuration and the readiness."""
    judge = create_judge(server.client, "estimated")
    import_examples(server.client, judge, 100)
    before = stand_in.call_count
    answer = estimate(server.client, judge, num_trials=6)
    assert stand_in.call_count == before
    assert not server.client.optimization.ListOptimizations(
        pb.ListOptimizationsRequest(judge=judge)
    ).optimizations
    found = answer.estimate
    assert found.lm_calls > answer.training_set.validation_count
    assert found.input_tokens > 20 * found.lm_calls
    assert found.output_tokens >= found.lm_calls
    assert found.duration.ToTimedelta().total_seconds() > 1
    assert found.trials == 6
    assert (answer.config.num_trials, answer.config.seed) == (6, 9)
    assert answer.config.num_candidates >= 4
    assert answer.training_set.readiness == feedback_pb2.TrainingSet.READINESS_MARGINAL


def test_more_trials_are_expected_to_take_more(server):
    """The estimate follows the configuration."""
    judge = create_judge(server.client, "scaled")
    import_examples(server.client, judge, 100)
    few = estimate(server.client, judge, num_trials=3).estimate
    many = estimate(server.client, judge, num_trials=60).estimate
    assert many.lm_calls > 2 * few.lm_calls
    assert many.input_tokens > 2 * few.input_tokens


def test_a_budget_is_applied_and_one_that_is_too_small_is_a_warning(server):
    """Nothing is expected beyond it, and what does not reach the gate is said before it is spent."""
    judge = create_judge(server.client, "bounded")
    import_examples(server.client, judge, 100)
    whole = estimate(server.client, judge, num_trials=60)
    assert not any("max_lm_calls" in w for w in whole.warnings)
    budget = optimization_pb2.OptimizationBudget(max_lm_calls=400)
    some = estimate(server.client, judge, num_trials=60, budget=budget)
    assert some.estimate.lm_calls == 400 < whole.estimate.lm_calls
    assert 0 < some.estimate.trials < 60
    assert any("leaves room for about" in w for w in some.warnings)
    tiny = optimization_pb2.OptimizationBudget(max_lm_calls=20)
    none = estimate(server.client, judge, num_trials=60, budget=tiny)
    assert (none.estimate.lm_calls, none.estimate.trials) == (20, 0)
    assert any("does not reach the gate" in w for w in none.warnings)


def test_price_is_unknown_until_it_is_configured(server, stand_in, tmp_path):
    """An unknown price is unset with a way out; a configured one gives an amount."""
    judge = create_judge(server.client, "priced")
    import_examples(server.client, judge, 60)
    answer = estimate(server.client, judge)
    assert not answer.estimate.HasField("cost_usd")
    assert any("SIDEJUDGE_LM_INPUT_USD_PER_MTOK" in w for w in answer.warnings)
    priced = settings_for(
        tmp_path,
        lm_base_url=stand_in.base_url,
        lm={"input_usd_per_mtok": 1.0, "output_usd_per_mtok": 2.0},
    )
    with running_server(priced) as other:
        judge = create_judge(other.client, "priced")
        import_examples(other.client, judge, 60)
        found = estimate(other.client, judge).estimate
    tokens = found.input_tokens + 2 * found.output_tokens
    assert found.cost_usd == pytest.approx(tokens / 1e6, rel=0.01)


def test_recent_evaluations_replace_the_assumed_numbers(server):
    """Time and tokens are those measured on this judge, and the basis says so."""
    judge = create_judge(server.client, "measured")
    import_examples(server.client, judge, 60)
    assumed = estimate(server.client, judge).estimate
    assert "an assumed 1 s a call" in assumed.basis
    for number in range(6):
        request = artifact(f"p(yes)=0.9 item {number}", judge=judge)
        request.omit_reasoning = True
        server.client.evaluation.Evaluate(request, timeout=30)
    measured = estimate(server.client, judge).estimate
    assert "the mean of the last 6 evaluations" in measured.basis
    assert "as measured" in measured.basis
    assert measured.lm_calls == assumed.lm_calls
    assert measured.duration.ToTimedelta() < assumed.duration.ToTimedelta()


def test_data_that_are_not_ready_are_estimated_with_the_reason(server):
    """No examples, or too few: an answer that says what is missing instead of an error."""
    judge = create_judge(server.client, "unready")
    empty = estimate(server.client, judge)
    assert empty.training_set.readiness == feedback_pb2.TrainingSet.READINESS_NOT_READY
    assert empty.training_set.problems
    assert empty.estimate.trials >= 1
    import_examples(server.client, judge, 10)
    few = estimate(server.client, judge)
    assert few.training_set.example_count == 10
    assert few.estimate.lm_calls > empty.estimate.lm_calls
    assert any("held out for the gate" in w for w in few.warnings)


@pytest.mark.parametrize(
    ("optimization", "reason"),
    [
        (Optimization(judge="judges/nobody"), "JUDGE_NOT_FOUND"),
        (Optimization(judge="nobody"), "INVALID_REQUEST"),
        (
            Optimization(judge="judges/safety", config=Config(num_trials=501, seed=-1)),
            "INVALID_REQUEST",
        ),
        (
            Optimization(
                judge="judges/safety",
                budget=optimization_pb2.OptimizationBudget(max_lm_calls=0),
            ),
            "INVALID_REQUEST",
        ),
        (
            Optimization(
                judge="judges/safety",
                config=Config(num_trials=5, auto=Config.AUTO_LIGHT),
            ),
            "INVALID_REQUEST",
        ),
    ],
)
def test_bad_requests_are_refused_with_all_violations(server, optimization, reason):
    """As CreateOptimization refuses them."""
    error = failure(
        server.client.optimization.EstimateOptimization,
        pb.EstimateOptimizationRequest(optimization=optimization),
    )
    assert error.reason == reason
