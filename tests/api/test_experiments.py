"""ExperimentService over real gRPC, with a model whose two versions truly differ."""

import numpy as np
import pytest

from sidejudge.v1 import experiment_pb2, judge_service_pb2
from tests.stand_in import running_stand_in
from tests.support.experiments import (
    CANDIDATE,
    JUDGE,
    add_candidate,
    analysis,
    create,
    get,
    judge_and_label,
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
