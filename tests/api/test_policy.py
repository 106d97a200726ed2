"""Optimization policies over real gRPC, with a real worker process."""

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask

from sidejudge.v1 import judge_pb2, optimization_pb2
from sidejudge.v1 import optimization_service_pb2 as pb
from sidejudge_server.optimization.executor import start_fork_server
from tests.support.calls import correction, evaluate, failure
from tests.support.server import running_server, settings_for
from tests.support.training import WORD, create_judge

pytestmark = pytest.mark.slow

Optimization = optimization_pb2.Optimization
Policy = pb.OptimizationPolicy
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


def name_of(judge):
    return f"{judge}/optimizationPolicy"


def get(client, judge):
    request = pb.GetOptimizationPolicyRequest(name=name_of(judge))
    return client.optimization.GetOptimizationPolicy(request).optimization_policy


def update(client, judge, *paths, **fields):
    request = pb.UpdateOptimizationPolicyRequest(
        optimization_policy=Policy(name=name_of(judge), **fields),
        update_mask=FieldMask(paths=paths),
    )
    return client.optimization.UpdateOptimizationPolicy(request).optimization_policy


def teach(client, judge, count):
    """Judge items and correct those on which the judge is wrong unless it is told the WORD."""
    for index in range(count):
        passes = index % 2 == 0
        good, bad = ("0.9", "0.1") if passes else ("0.1", "0.9")
        wrong = index % 5 < 3
        text = f"item {index} p(yes)={bad if wrong else good} p(yes|{WORD})={good}"
        judged = evaluate(client, judge=judge, text=text)
        verdict = judge_pb2.VERDICT_PASS if passes else judge_pb2.VERDICT_FAIL
        client.feedback.RecordFeedback(correction(judged.name, verdict=verdict))


def runs(client, judge):
    request = pb.ListOptimizationsRequest(judge=judge)
    return client.optimization.ListOptimizations(request).optimizations


def test_feedback_alone_starts_a_run_that_goes_through_the_gate(server):
    """The policy's run says why it was started, and its candidate is decided about like any."""
    client = server.client
    judge = create_judge(client, "taught")
    set_up = update(client, judge, enabled=True, min_new_examples=80, config=CONFIG)
    assert set_up.waiting_for.startswith("80 more examples")
    teach(client, judge, 80)
    # Reading the policy makes sure that all feedback has been seen; nobody asks for a run.
    assert get(client, judge).new_examples in {80, 0}
    server.run(server.application._scheduler.idle())
    (run,) = runs(client, judge)
    assert run.trigger.source == optimization_pb2.OptimizationTrigger.SOURCE_POLICY
    assert run.trigger.reason == (
        "80 new examples, 48 of them disagreements, since the judge exists"
    )
    watched = client.optimization.WatchOptimization(
        pb.WatchOptimizationRequest(name=run.name), timeout=120
    )
    *_, last = (answer.event for answer in watched)
    ended = last.finished.optimization
    assert ended.state == Optimization.STATE_SUCCEEDED
    assert ended.decision.outcome == optimization_pb2.GateDecision.OUTCOME_IMPROVED
    assert ended.decision.pair_count == ended.dataset.test_count > 0
    assert not ended.decision.deployed
    after = get(client, judge)
    assert after.last_optimization == run.name
    assert after.last_reason == run.trigger.reason
    assert after.last_start_time == run.create_time
    assert (after.new_examples, after.new_disagreements) == (0, 0)
    assert "the cool-down, until" in after.waiting_for


def test_a_judge_without_policy_has_the_defaults(server):
    """Not enabled, and it says so."""
    judge = create_judge(server.client, "plain")
    policy = get(server.client, judge)
    assert policy.name == "judges/plain/optimizationPolicy"
    assert not policy.enabled
    assert (policy.min_new_examples, policy.min_disagreements) == (50, 5)
    assert policy.cool_down == Duration(seconds=6 * 3600)
    assert policy.daily_budget.max_duration == Duration(seconds=1800)
    assert "the policy to be enabled" in policy.waiting_for
    assert not policy.last_optimization


def test_only_named_fields_change_and_unset_ones_get_their_defaults(server):
    """As the update mask says; without one everything is replaced."""
    judge = create_judge(server.client, "changed")
    budget = optimization_pb2.OptimizationBudget(max_lm_calls=500, max_trials=9)
    first = update(
        server.client,
        judge,
        enabled=True,
        min_new_examples=7,
        min_disagreements=0,
        cool_down=Duration(seconds=60),
        daily_budget=budget,
        config=CONFIG,
        deploy_if_better=True,
    )
    assert first.daily_budget.max_lm_calls == 500
    assert first.daily_budget.max_trials == 9
    assert first.config == CONFIG
    assert first.deploy_if_better
    second = update(
        server.client, judge, "min_new_examples", min_new_examples=8, enabled=False
    )
    assert (second.min_new_examples, second.enabled) == (8, True)
    assert second.cool_down == Duration(seconds=60)
    third = update(server.client, judge, "cool_down")
    assert third.cool_down == Duration(seconds=6 * 3600)
    fourth = update(server.client, judge)
    assert (fourth.enabled, fourth.min_disagreements) == (False, 5)
    assert not fourth.daily_budget.HasField("max_lm_calls")
    assert len({p.etag for p in (first, second, third, fourth)}) == 4


def test_pause_and_resume_are_visible(server):
    """With the reason, and without changing anything else."""
    judge = create_judge(server.client, "paused")
    update(server.client, judge, enabled=True)
    pause = server.client.optimization.PauseOptimizationPolicy
    resume = server.client.optimization.ResumeOptimizationPolicy
    paused = pause(
        pb.PauseOptimizationPolicyRequest(name=name_of(judge), reason="ann: audit")
    ).optimization_policy
    assert (paused.paused, paused.pause_reason) == (True, "ann: audit")
    assert "ann: audit" in paused.waiting_for
    assert paused.enabled
    resumed = resume(
        pb.ResumeOptimizationPolicyRequest(name=name_of(judge))
    ).optimization_policy
    assert (resumed.paused, resumed.pause_reason) == (False, "")


def test_policy_survives_a_restart(stand_in, tmp_path):
    """It is in the database, its pause too."""
    settings = settings_for(tmp_path, lm_base_url=stand_in.base_url)
    with running_server(settings) as first:
        update(first.client, "judges/safety", enabled=True, min_new_examples=70)
        kept = first.client.optimization.PauseOptimizationPolicy(
            pb.PauseOptimizationPolicyRequest(name=name_of("judges/safety"))
        ).optimization_policy
    with running_server(settings) as second:
        assert get(second.client, "judges/safety") == kept


def test_somebody_elses_change_is_not_overwritten(server):
    """A stale etag is refused."""
    judge = create_judge(server.client, "shared")
    stale = get(server.client, judge).etag
    update(server.client, judge, enabled=True, etag=stale)
    error = failure(
        server.client.optimization.UpdateOptimizationPolicy,
        pb.UpdateOptimizationPolicyRequest(
            optimization_policy=Policy(name=name_of(judge), etag=stale)
        ),
    )
    assert (error.code.name, error.reason) == ("ABORTED", "ETAG_MISMATCH")
    assert get(server.client, judge).enabled


def test_everything_wrong_with_a_policy_is_named_at_once(server):
    """Ranges, unknown paths and a budget that cannot be kept."""
    error = failure(
        server.client.optimization.UpdateOptimizationPolicy,
        pb.UpdateOptimizationPolicyRequest(
            optimization_policy=Policy(
                name=name_of("judges/safety"),
                min_new_examples=0,
                min_disagreements=100_001,
                cool_down=Duration(seconds=-1),
                daily_budget=optimization_pb2.OptimizationBudget(
                    max_lm_calls=0, max_cost_usd=1.0
                ),
                config=optimization_pb2.OptimizationConfig(num_trials=501),
            )
        ),
    )
    assert error.reason == "INVALID_REQUEST"
    assert [v.field for v in error.violations] == [
        "optimization_policy.min_new_examples",
        "optimization_policy.min_disagreements",
        "optimization_policy.cool_down",
        "optimization_policy.daily_budget.max_lm_calls",
        "optimization_policy.daily_budget.max_cost_usd",
        "optimization_policy.config.num_trials",
    ]
    masked = failure(
        server.client.optimization.UpdateOptimizationPolicy,
        pb.UpdateOptimizationPolicyRequest(
            optimization_policy=Policy(name="judges/safety"),
            update_mask=FieldMask(paths=["paused", "enabled"]),
        ),
    )
    assert [v.field for v in masked.violations] == [
        "optimization_policy.name",
        "update_mask",
    ]
    too_long = failure(
        server.client.optimization.PauseOptimizationPolicy,
        pb.PauseOptimizationPolicyRequest(
            name=name_of("judges/safety"), reason="x" * 513
        ),
    )
    assert [v.field for v in too_long.violations] == ["reason"]


@pytest.mark.parametrize(
    ("method", "request_"),
    [
        ("GetOptimizationPolicy", pb.GetOptimizationPolicyRequest),
        ("PauseOptimizationPolicy", pb.PauseOptimizationPolicyRequest),
        ("ResumeOptimizationPolicy", pb.ResumeOptimizationPolicyRequest),
    ],
)
def test_policies_of_no_judge_are_not_found(server, method, request_):
    """And names of another form are invalid."""
    call = getattr(server.client.optimization, method)
    missing = failure(call, request_(name=name_of("judges/nobody")))
    assert missing.reason == "JUDGE_NOT_FOUND"
    assert failure(call, request_(name="judges/nobody")).reason == "INVALID_REQUEST"
