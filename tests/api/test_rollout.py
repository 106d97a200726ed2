"""Rollouts over real gRPC: better, equal, worse and broken candidates."""

import numpy as np
import pytest

from sidejudge.v1 import experiment_pb2, experiment_service_pb2, judge_service_pb2
from tests.stand_in import running_stand_in
from tests.support.calls import artifact, failure
from tests.support.experiments import (
    CANDIDATE,
    JUDGE,
    WORD,
    add_candidate,
    analysis,
    create,
    get,
    judge_and_label,
    outcomes,
    settle,
    start,
    watch,
)
from tests.support.server import running_server, settings_for

pytestmark = pytest.mark.slow

Experiment = experiment_pb2.Experiment
STAGES = [
    experiment_pb2.RolloutStage(share=0.1, min_units=30, margin=0.25),
    experiment_pb2.RolloutStage(share=0.5, min_units=30, margin=0.2),
]


@pytest.fixture(scope="module")
def lm():
    with running_stand_in() as running:
        yield running


@pytest.fixture
def server(lm, tmp_path):
    with running_server(settings_for(tmp_path, lm_base_url=lm.base_url)) as running:
        yield running


def rollout(client, *, circuit_breaker=None, **fields):
    create(
        client,
        mode=Experiment.MODE_ROLLOUT,
        rollout=experiment_pb2.RolloutPlan(
            stages=STAGES, circuit_breaker=circuit_breaker
        ),
        **fields,
    )
    return start(client)


def run(server, *, seed, at_most=1200, **rates):
    """Judge and label items until the rollout has ended; return how many."""
    rng, number = np.random.default_rng(seed), 0
    while get(server.client).state == Experiment.STATE_RUNNING and number < at_most:
        judge_and_label(server.client, outcomes(rng, 15, **rates), first=number)
        number += 15
        settle(server)
    return number


def deployed(client):
    request = judge_service_pb2.GetJudgeRequest(name=JUDGE)
    return client.judges.GetJudge(request).judge.deployed_version


def stages(events):
    return [
        (e.stage_changed.from_stage, e.stage_changed.to_stage)
        for e in events
        if e.WhichOneof("event") == "stage_changed"
    ]


def test_a_better_candidate_goes_through_all_stages_and_is_deployed(server):
    add_candidate(server.client)
    rollout(server.client)
    run(server, seed=1, win=0.16, loss=0.01, both_right=0.73)
    ended = get(server.client)
    assert ended.conclusion.decision == experiment_pb2.DECISION_SHIP
    assert ended.conclusion.author == "sidejudge"
    assert deployed(server.client) == CANDIDATE
    events = watch(server.client)
    assert stages(events) == [(0, 1), (1, 2)]
    assert events[-1].WhichOneof("event") == "concluded"


def test_a_worse_candidate_is_taken_back_with_the_reason(server):
    add_candidate(server.client)
    rollout(server.client)
    run(server, seed=2, win=0.01, loss=0.35, both_right=0.6)
    ended = get(server.client)
    assert ended.conclusion.decision in (
        experiment_pb2.DECISION_REJECT,
        experiment_pb2.DECISION_GUARDRAIL,
        experiment_pb2.DECISION_FUTILE,
    )
    assert ended.conclusion.author == "sidejudge"
    assert "candidate" in ended.conclusion.reason
    assert ended.conclusion.analysis.comparisons[0].losses > 0
    assert deployed(server.client) == f"{JUDGE}/versions/1"
    events = watch(server.client)
    assert stages(events)[-1] == (0, -1)
    (taken_back,) = [
        e.stage_changed
        for e in events
        if e.WhichOneof("event") == "stage_changed" and e.stage_changed.to_stage == -1
    ]
    assert taken_back.reason == ended.conclusion.reason
    assert taken_back.share == 0


def test_a_candidate_that_is_no_better_does_not_finish(server):
    add_candidate(server.client)
    rule = experiment_pb2.StoppingRule(max_units=240)
    rollout(server.client, stopping_rule=rule)
    run(server, seed=3, win=0.05, loss=0.05, both_right=0.8)
    ended = get(server.client)
    assert ended.conclusion.decision == experiment_pb2.DECISION_FUTILE
    assert deployed(server.client) == f"{JUDGE}/versions/1"


def test_a_candidate_without_usable_answers_opens_the_circuit_and_costs_nobody_an_answer(
    server,
):
    client = server.client
    add_candidate(client)
    rollout(
        client,
        circuit_breaker=experiment_pb2.CircuitBreaker(failures=4, window=10),
    )
    versions = set()
    for number in range(200):
        evaluation = client.evaluation.Evaluate(
            artifact(f"Item {number}: p(yes)=0.9 mute|{WORD}", subject=f"task-{number}")
        ).evaluation
        versions.add(evaluation.judge_version)
    settle(server)
    ended = get(client)
    assert versions == {f"{JUDGE}/versions/1"}
    assert ended.state == Experiment.STATE_CONCLUDED
    assert ended.conclusion.decision == experiment_pb2.DECISION_GUARDRAIL
    assert "JUDGE_OUTPUT_UNPARSABLE" in ended.conclusion.reason
    codes = [
        e.warning.code for e in watch(client) if e.WhichOneof("event") == "warning"
    ]
    assert codes == ["CIRCUIT_OPEN"]


def test_a_model_that_is_down_takes_nothing_back(lm, tmp_path):
    with running_stand_in() as other:
        settings = settings_for(tmp_path, lm_base_url=other.base_url)
        with running_server(settings) as server:
            client = server.client
            add_candidate(client)
            rollout(
                client,
                circuit_breaker=experiment_pb2.CircuitBreaker(failures=3, window=10),
            )
            other.fail_after(0)
            for number in range(120):
                request = artifact(f"Item {number}", subject=f"task-{number}")
                failure(client.evaluation.Evaluate, request)
            settle(server)
            assert get(client).state == Experiment.STATE_RUNNING
            known = analysis(client)
            assert known.decision == experiment_pb2.DECISION_RUNNING
            assert sum(arm.failures for arm in known.arms) == 120
            ended = client.experiments.ConcludeExperiment(
                experiment_service_pb2.ConcludeExperimentRequest(
                    name="experiments/trial", decision=experiment_pb2.DECISION_FUTILE
                )
            ).experiment
            assert not ended.conclusion.deployed
            codes = {
                e.warning.code
                for e in watch(client)
                if e.WhichOneof("event") == "warning"
            }
            assert codes == {"LM_DOWN"}


def test_a_rollout_goes_on_where_a_restart_found_it(lm, tmp_path):
    settings = settings_for(tmp_path, lm_base_url=lm.base_url)
    rates = {"win": 0.1, "loss": 0.02, "both_right": 0.8}
    with running_server(settings) as server:
        add_candidate(server.client)
        rollout(server.client)
        rng, number = np.random.default_rng(5), 0
        while get(server.client).rollout_status.stage == 0 and number < 600:
            judge_and_label(server.client, outcomes(rng, 15, **rates), first=number)
            number += 15
            settle(server)
        before = get(server.client)
        known = analysis(server.client)
    with running_server(settings) as server:
        settle(server)
        after = get(server.client)
        assert after.rollout_status == before.rollout_status
        assert after.rollout_status.stage == 1
        again = analysis(server.client)
        assert again.comparisons == known.comparisons
        assert again.sample_ratio == known.sample_ratio
