"""MonitoringService over real gRPC: a judge that goes bad, inputs that do, and a healthy stream."""

import asyncio

import numpy as np
import pytest

from sidejudge.v1 import judge_service_pb2
from sidejudge.v1 import monitoring_service_pb2 as pb
from tests.stand_in import running_stand_in
from tests.support.calls import failure
from tests.support.experiments import (
    CANDIDATE,
    JUDGE,
    add_candidate,
    judge_and_label,
    outcomes,
)
from tests.support.server import running_server, settings_for

Status, Event = pb.MonitorStatus, pb.MonitorEvent
NAME = f"{JUDGE}/monitor"


@pytest.fixture(scope="module")
def lm():
    with running_stand_in() as running:
        yield running


@pytest.fixture
def server(lm, tmp_path):
    with running_server(settings_for(tmp_path, lm_base_url=lm.base_url)) as running:
        yield running


def deploy(client, version=CANDIDATE):
    client.judges.DeployJudgeVersion(
        judge_service_pb2.DeployJudgeVersionRequest(name=version, author="ann")
    )


def deployed(client):
    request = judge_service_pb2.GetJudgeRequest(name=JUDGE)
    return client.judges.GetJudge(request).judge.deployed_version


def update(client, **fields):
    request = pb.UpdateMonitorRequest(monitor=pb.Monitor(name=NAME, **fields))
    request.update_mask.paths.extend(fields)
    return client.monitoring.UpdateMonitor(request).monitor


def monitor(server):
    asyncio.run_coroutine_threadsafe(
        server.application.monitors.drain(), server.loop
    ).result(60)
    request = pb.GetMonitorRequest(name=NAME)
    return server.client.monitoring.GetMonitor(request).monitor


def kinds(client):
    request = pb.ListMonitorEventsRequest(parent=NAME)
    return [e.kind for e in client.monitoring.ListMonitorEvents(request).events]


def feed(server, rng, count, first, **rates):
    judge_and_label(server.client, outcomes(rng, count, **rates), first=first)
    return monitor(server)


@pytest.mark.slow
def test_a_version_that_gets_worse_than_the_previous_one_is_rolled_back(server):
    client, rng = server.client, np.random.default_rng(1)
    add_candidate(client)
    deploy(client)
    update(client, audit_share=1.0, rollback_evidence=20.0)
    known = feed(server, rng, 60, 0, win=0.08, loss=0.0, both_right=0.9)
    assert known.status.state == Status.STATE_WATCHING
    assert 0.6 < known.status.min_agreement < 0.95
    number = 60
    while deployed(client) == CANDIDATE and number < 600:
        # The deployed version is wrong on a third of what the previous one gets right.
        known = feed(server, rng, 20, number, win=0.0, loss=0.33, both_right=0.6)
        number += 20
    assert deployed(client) == f"{JUDGE}/versions/1"
    events = kinds(client)
    assert Event.KIND_ALARM in events
    assert Event.KIND_ROLLED_BACK in events
    history = client.monitoring.ListMonitorEvents(
        pb.ListMonitorEventsRequest(parent=NAME)
    ).events
    (rolled,) = [e for e in history if e.kind == Event.KIND_ROLLED_BACK]
    assert rolled.judge_version == CANDIDATE
    assert "evidence" in rolled.reason
    known = monitor(server)
    assert known.status.judge_version == f"{JUDGE}/versions/1"
    assert known.status.state == Status.STATE_LEARNING


@pytest.mark.slow
def test_inputs_that_change_for_both_versions_take_nothing_back(server):
    client, rng = server.client, np.random.default_rng(2)
    add_candidate(client)
    deploy(client)
    update(client, audit_share=1.0, min_agreement=0.85)
    number, known = 0, monitor(server)
    while known.status.state != Status.STATE_INPUT_DRIFT and number < 600:
        known = feed(server, rng, 20, number, win=0.1, loss=0.1, both_right=0.4)
        number += 20
    assert known.status.state == Status.STATE_INPUT_DRIFT
    assert "optimize" in known.status.reason
    assert known.status.previous_version == f"{JUDGE}/versions/1"
    assert deployed(client) == CANDIDATE
    again = client.monitoring.RestartMonitor(pb.RestartMonitorRequest(name=NAME))
    assert again.monitor.status.audit_labels == 0
    assert again.monitor.status.state == Status.STATE_WATCHING


def test_without_a_previous_version_an_alarm_gives_advice(server):
    client, rng = server.client, np.random.default_rng(3)
    update(client, audit_share=1.0, min_agreement=0.95)
    known = feed(server, rng, 60, 0, win=0.0, loss=0.0, both_right=0.3)
    assert known.status.state == Status.STATE_INPUT_DRIFT
    assert "no previous version" in known.status.reason
    assert kinds(client)[:2] == [Event.KIND_INPUT_DRIFT, Event.KIND_ALARM]


@pytest.mark.slow
def test_a_healthy_judge_raises_no_alarm_and_a_restart_changes_no_figure(lm, tmp_path):
    settings = settings_for(tmp_path, lm_base_url=lm.base_url)
    rates = {"win": 0.0, "loss": 0.05, "both_right": 0.9}
    rng = np.random.default_rng(4)
    with running_server(settings) as server:
        update(server.client, audit_share=1.0, min_agreement=0.85)
        before = feed(server, rng, 150, 0, **rates)
        assert before.status.state == Status.STATE_WATCHING
        assert before.status.audit_labels == 150
    with running_server(settings) as server:
        after = monitor(server)
        assert after == before
        more = feed(server, rng, 150, 150, **rates)
        assert more.status.audit_labels == 300
        assert more.status.state == Status.STATE_WATCHING


def test_only_items_chosen_by_chance_count(server):
    client, rng = server.client, np.random.default_rng(5)
    update(client, audit_share=0.3)
    evaluations = judge_and_label(
        client, outcomes(rng, 100, win=0.0, loss=0.0, both_right=0.9)
    )
    chosen = [e for e in evaluations if e.HasField("audit_probability")]
    assert 10 < len(chosen) < 55  # binomial: beyond that once in a million runs
    assert {e.audit_probability for e in chosen} == {0.3}
    assert monitor(server).status.audit_labels == len(chosen)
    listed = client.monitoring.ListAuditItems(
        pb.ListAuditItemsRequest(parent=NAME, page_size=1000)
    ).evaluations
    assert [e.name for e in listed] == [e.name for e in reversed(chosen)]
    unlabelled = client.monitoring.ListAuditItems(
        pb.ListAuditItemsRequest(parent=NAME, unlabelled_only=True)
    ).evaluations
    assert list(unlabelled) == []
    (point,) = client.monitoring.QueryPerformance(
        pb.QueryPerformanceRequest(parent=NAME)
    ).points
    assert point.audit_items == point.labelled == len(chosen)
    assert point.agreement_low < point.agreement < point.agreement_high
    assert point.cumulative_low < point.agreement_low
    assert point.cumulative_agreement == point.agreement


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"audit_share": 1.5}, "monitor.audit_share"),
        ({"min_agreement": 1.0}, "monitor.min_agreement"),
        ({"tolerance": float("nan")}, "monitor.tolerance"),
        ({"rollback_evidence": 0.5}, "monitor.rollback_evidence"),
    ],
)
def test_settings_out_of_range_are_refused_and_nothing_changes(server, fields, field):
    before = monitor(server)
    request = pb.UpdateMonitorRequest(monitor=pb.Monitor(name=NAME, **fields))
    request.update_mask.paths.extend(fields)
    error = failure(server.client.monitoring.UpdateMonitor, request)
    assert {v.field for v in error.violations} == {field}
    assert monitor(server) == before


def test_names_masks_and_etags_are_checked(server):
    client = server.client
    unknown = pb.GetMonitorRequest(name="judges/nobody/monitor")
    assert failure(client.monitoring.GetMonitor, unknown).reason == "JUDGE_NOT_FOUND"
    malformed = pb.GetMonitorRequest(name="judges/safety")
    error = failure(client.monitoring.GetMonitor, malformed)
    assert error.violations[0].field == "name"
    stale = monitor(server).etag
    update(client, audit_share=0.2)
    request = pb.UpdateMonitorRequest(monitor=pb.Monitor(name=NAME, etag=stale))
    error = failure(client.monitoring.UpdateMonitor, request)
    assert error.reason == "ETAG_MISMATCH"
    request = pb.UpdateMonitorRequest(monitor=pb.Monitor(name=NAME))
    request.update_mask.paths.append("status")
    error = failure(client.monitoring.UpdateMonitor, request)
    assert error.violations[0].field == "update_mask"
    backwards = pb.QueryPerformanceRequest(parent=NAME)
    backwards.start_time.seconds, backwards.end_time.seconds = 2000, 1000
    error = failure(client.monitoring.QueryPerformance, backwards)
    assert error.violations[0].field == "end_time"


def test_safety_judges_take_more_evidence(server):
    assert monitor(server).rollback_evidence == 100
    other = server.client.monitoring.GetMonitor(
        pb.GetMonitorRequest(name="judges/relevance/monitor")
    ).monitor
    assert other.rollback_evidence == 20
    assert other.auto_rollback
