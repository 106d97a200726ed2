"""ExperimentService over real gRPC, with a model whose two versions truly differ."""

import numpy as np
import pytest

from sidejudge.v1 import experiment_pb2, experiment_service_pb2, judge_service_pb2
from tests.stand_in import running_stand_in
from tests.support.experiments import (
    CANDIDATE,
    JUDGE,
    add_candidate,
    analysis,
    create,
    get,
    judge_and_label,
    label_batch,
    outcomes,
    settle,
    start,
)
from tests.support.server import running_server, settings_for

Experiment = experiment_pb2.Experiment


@pytest.fixture(scope="module")
def lm():
    with running_stand_in() as running:
        yield running


@pytest.fixture
def server(lm, tmp_path):
    with running_server(settings_for(tmp_path, lm_base_url=lm.base_url)) as running:
        add_candidate(running.client)
        yield running


def deployed(client):
    return client.judges.GetJudge(
        judge_service_pb2.GetJudgeRequest(name=JUDGE)
    ).judge.deployed_version


@pytest.mark.slow
def test_an_experiment_in_shadow_ships_the_better_version(server):
    """80 % against 88 %: the candidate wins on 10 % of the items and loses on 2 %."""
    client = server.client
    create(client, act_on_decision=True)
    start(client)
    rng = np.random.default_rng(20261126)
    number = 0
    while get(client).state == Experiment.STATE_RUNNING and number < 1000:
        items = outcomes(rng, 20, win=0.10, loss=0.02, both_right=0.78)
        evaluations = judge_and_label(client, items, first=number)
        assert {e.judge_version for e in evaluations} == {f"{JUDGE}/versions/1"}
        number += 20
        settle(server)
    ended = get(client)
    assert ended.conclusion.decision == experiment_pb2.DECISION_SHIP
    assert ended.conclusion.winner == "candidate"
    assert ended.conclusion.deployed
    assert deployed(client) == CANDIDATE
    final = analysis(client)
    (primary,) = [c for c in final.comparisons if c.metric == "agreement"]
    assert primary.paired
    assert primary.wins + primary.losses + primary.ties == primary.units == number
    assert primary.e_value >= 20
    assert primary.effect >= 0.05


REPLAYS, LABELS, LOOK_EVERY = 200, 120, 20


@pytest.mark.slow
def test_equal_versions_ship_a_winner_in_at_most_5_percent_of_200_replays(
    server, record_property
):
    """Both are right on 80 %, and wrong on different items; someone looks after every 20 labels.

    Any observed improvement may ship here, so that nothing but the evidence holds it back.
    """
    client = server.client
    rng = np.random.default_rng(2026)
    shipped = 0
    for replay in range(REPLAYS):
        name = f"experiments/replay-{replay}"
        rule = experiment_pb2.StoppingRule(min_improvement=0.0)
        create(client, f"replay-{replay}", stopping_rule=rule)
        start(client, name)
        items = list(outcomes(rng, LABELS, win=0.12, loss=0.12, both_right=0.68))
        for first in range(0, LABELS, LOOK_EVERY):
            label_batch(client, items[first : first + LOOK_EVERY], first=first)
            settle(server)
            decision = analysis(client, name).decision
            if decision != experiment_pb2.DECISION_RUNNING:
                break
        shipped += decision == experiment_pb2.DECISION_SHIP
        client.experiments.ConcludeExperiment(
            experiment_service_pb2.ConcludeExperimentRequest(
                name=name, decision=experiment_pb2.DECISION_FUTILE
            )
        )
    record_property("shipped", shipped)
    assert shipped <= REPLAYS * 0.05
