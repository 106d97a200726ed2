"""Experiments whose arms the caller names, and splits of a judge's versions, over real gRPC."""

import numpy as np
import pytest

import sidejudge
from sidejudge.v1 import (
    evaluation_service_pb2,
    experiment_pb2,
    experiment_service_pb2,
    judge_pb2,
)
from tests.stand_in import running_stand_in
from tests.support.calls import artifact, correction, failure, new_uuid
from tests.support.experiments import (
    JUDGE,
    add_candidate,
    analysis,
    candidate_arm,
    create,
    get,
    judge_and_label,
    outcomes,
    settle,
    start,
    watch,
)
from tests.support.server import running_server, server_process, settings_for

Experiment, Metric = experiment_pb2.Experiment, experiment_pb2.ExperimentMetric
ARMS = [
    experiment_pb2.ExperimentArm(arm="old"),
    experiment_pb2.ExperimentArm(arm="new"),
]
SOLVED = Metric(metric="solved", role=Metric.ROLE_PRIMARY, kind=Metric.KIND_BINARY)
SECONDS = Metric(
    metric="seconds",
    role=Metric.ROLE_GUARDRAIL,
    kind=Metric.KIND_POSITIVE,
    direction=Metric.DIRECTION_LOWER,
    margin=0.2,
)


@pytest.fixture(scope="module")
def lm():
    with running_stand_in() as running:
        yield running


@pytest.fixture
def server(lm, tmp_path):
    with running_server(settings_for(tmp_path, lm_base_url=lm.base_url)) as running:
        yield running


def assign(client, subject, name="experiments/trial"):
    return client.experiments.AssignVariant(
        experiment_service_pb2.AssignVariantRequest(name=name, subject=subject)
    )


def outcome(subject, values, *, arm="", request_id="", name="experiments/trial"):
    return experiment_service_pb2.RecordOutcomeRequest(
        name=name,
        subject=subject,
        arm=arm,
        values=values,
        request_id=request_id or new_uuid(),
    )


def test_the_callers_better_arm_wins_and_its_guardrail_is_watched(server):
    client = server.client
    rule = experiment_pb2.StoppingRule(min_units=80)
    create(client, arms=ARMS, metrics=[SOLVED, SECONDS], stopping_rule=rule)
    start(client)
    rng, number = np.random.default_rng(11), 0
    while analysis(client).decision == experiment_pb2.DECISION_RUNNING:
        assert number < 1500
        for _ in range(50):
            subject = f"task-{number}"
            arm = assign(client, subject).arm
            solved = rng.random() < {"old": 0.6, "new": 0.85}[arm]
            seconds = float(np.exp(rng.normal(1, 0.5)))
            values = {"solved": float(solved), "seconds": seconds}
            client.experiments.RecordOutcome(outcome(subject, values))
            number += 1
        settle(server)
    known = analysis(client)
    assert known.decision == experiment_pb2.DECISION_SHIP
    assert known.winner == "new"
    assert [a.arm for a in known.arms] == ["old", "new"]
    assert sum(a.units for a in known.arms) == number
    assert not known.sample_ratio.alarm
    solved, seconds = known.comparisons
    assert solved.metric == "solved"
    assert not solved.paired
    assert solved.always_valid_interval.low < solved.effect
    assert solved.fixed_interval.low > solved.always_valid_interval.low
    assert seconds.status == experiment_pb2.MetricComparison.STATUS_OK
    assert seconds.asymptotic
    # Nothing acts by itself unless that was asked for.
    assert get(client).state == Experiment.STATE_RUNNING
    assert [e.WhichOneof("event") for e in _first(client, 2)] == ["started", "analysis"]


def _first(client, count):
    request = experiment_service_pb2.WatchExperimentRequest(
        name="experiments/trial", from_start=True
    )
    stream = client.experiments.WatchExperiment(request, timeout=30)
    found = [next(stream).event for _ in range(count)]
    stream.cancel()
    return found


def test_an_arm_slower_than_its_margin_violates_the_guardrail(server):
    client = server.client
    create(client, arms=ARMS, metrics=[SOLVED, SECONDS])
    start(client)
    rng = np.random.default_rng(12)
    for number in range(200):
        subject = f"task-{number}"
        arm = assign(client, subject).arm
        seconds = float(np.exp(rng.normal(1 if arm == "old" else 2.2, 0.4)))
        values = {"solved": float(rng.random() < 0.7), "seconds": seconds}
        client.experiments.RecordOutcome(outcome(subject, values))
    settle(server)
    assert analysis(client).decision == experiment_pb2.DECISION_GUARDRAIL
    # What was decided is what it concludes with if nothing else is said.
    ended = client.experiments.ConcludeExperiment(
        experiment_service_pb2.ConcludeExperimentRequest(
            name="experiments/trial", author="ann"
        )
    ).experiment
    assert ended.conclusion.decision == experiment_pb2.DECISION_GUARDRAIL
    assert "seconds" in ended.conclusion.reason
    assert watch(client)[-1].concluded.name == "experiments/trial"


def test_people_and_a_judge_estimate_the_quality_of_the_callers_arms(server):
    client = server.client
    create(client, arms=ARMS)
    start(client)
    for number in range(120):
        subject = f"task-{number}"
        arm = assign(client, subject).arm
        good = number % 10 < (8 if arm == "new" else 6)
        evaluation = client.evaluation.Evaluate(
            artifact(
                f"Item {number}: p(yes)={0.9 if good else 0.1}",
                subject=subject,
                experiment="experiments/trial",
                omit_reasoning=True,
            )
        ).evaluation
        assert evaluation.experiment == "experiments/trial"
        assert evaluation.arm == arm
        if number % 2:
            verdict = judge_pb2.VERDICT_PASS if good else judge_pb2.VERDICT_FAIL
            client.feedback.RecordFeedback(correction(evaluation.name, verdict=verdict))
    settle(server)
    known = analysis(client)
    for arm in known.arms:
        assert arm.evaluations > 30
        assert 0 < arm.labelled_units < arm.evaluations
        assert arm.judge_corrected.labels == arm.labelled_units
        assert arm.judge_corrected.judgments == arm.evaluations - arm.labelled_units
        by_labels = arm.labels_only.interval.high - arm.labels_only.interval.low
        corrected = arm.judge_corrected.interval.high - arm.judge_corrected.interval.low
        # The judge is always right here: its judgments are as good as labels.
        assert corrected < by_labels
    assert any("random sample" in warning for warning in known.warnings)


def test_each_subject_keeps_its_arm_over_a_kill(lm, tmp_path):
    with server_process(tmp_path, lm_base_url=lm.base_url) as process:
        with sidejudge.connect(process.address) as client:
            create(client, arms=ARMS, metrics=[SOLVED], salt="fixed")
            start(client)
            before = {f"s{i}": assign(client, f"s{i}").arm for i in range(40)}
            client.experiments.RecordOutcome(outcome("s0", {"solved": 1.0}))
        process.kill()
    with (
        server_process(tmp_path, lm_base_url=lm.base_url) as process,
        sidejudge.connect(process.address) as client,
    ):
        after = {f"s{i}": assign(client, f"s{i}").arm for i in range(40)}
        assert after == before
        assert set(before.values()) == {"old", "new"}
        again = failure(
            client.experiments.RecordOutcome, outcome("s0", {"solved": 1.0})
        )
        assert again.reason == "OUTCOME_ALREADY_RECORDED"
        known = analysis(client)
        assert sum(arm.units for arm in known.arms) == 40


@pytest.mark.slow
def test_a_split_of_versions_routes_each_subject_to_its_arm(server):
    client = server.client
    add_candidate(client)
    create(
        client,
        mode=Experiment.MODE_SPLIT,
        judge=JUDGE,
        arms=[
            experiment_pb2.ExperimentArm(
                arm="baseline", judge_version=f"{JUDGE}/versions/1", weight=0.25
            ),
            experiment_pb2.ExperimentArm(
                arm="candidate", judge_version=f"{JUDGE}/versions/2", weight=0.75
            ),
        ],
    )
    start(client)
    rng = np.random.default_rng(13)
    items = list(outcomes(rng, 200, win=0.2, loss=0.05, both_right=0.7))
    evaluations = judge_and_label(client, items)
    again = judge_and_label(client, items[:20])
    assert [e.judge_version for e in again] == [
        e.judge_version for e in evaluations[:20]
    ]
    candidates = sum(e.arm == "candidate" for e in evaluations)
    assert 120 < candidates < 180
    settle(server)
    known = analysis(client)
    assert sum(arm.units for arm in known.arms) == 200
    assert sum(arm.evaluations for arm in known.arms) == 220
    assert not known.sample_ratio.alarm
    # An explicit version is no part of an experiment.
    alone = client.evaluation.Evaluate(
        artifact("p(yes)=0.9", subject="task-1", judge_version=f"{JUDGE}/versions/1")
    ).evaluation
    assert alone.experiment == ""


def test_shadow_experiments_of_the_caller_pair_the_outcomes_of_a_subject(server):
    client = server.client
    create(client, arms=ARMS, mode=Experiment.MODE_SHADOW, metrics=[SOLVED])
    start(client)
    for number in range(30):
        for arm, solved in (("old", number % 2), ("new", 1)):
            client.experiments.RecordOutcome(
                outcome(f"task-{number}", {"solved": float(solved)}, arm=arm)
            )
    settle(server)
    (solved,) = analysis(client).comparisons
    assert solved.paired
    assert (solved.wins, solved.losses, solved.ties) == (15, 0, 15)


def test_a_late_correction_moves_the_label_and_counts_once(server):
    client = server.client
    add_candidate(client)
    create(client)
    start(client)
    (evaluation,) = judge_and_label(client, [(True, True, False)])
    settle(server)
    (primary,) = [c for c in analysis(client).comparisons if c.metric == "agreement"]
    assert (primary.wins, primary.losses) == (0, 1)
    client.feedback.RecordFeedback(
        correction(evaluation.name, verdict=judge_pb2.VERDICT_FAIL)
    )
    settle(server)
    (primary,) = [c for c in analysis(client).comparisons if c.metric == "agreement"]
    assert (primary.wins, primary.losses, primary.units) == (1, 0, 1)


def test_someone_elses_deployment_makes_the_experiment_invalid(server):
    from sidejudge.v1 import judge_service_pb2

    client = server.client
    add_candidate(client)
    create(client)
    start(client)
    client.judges.DeployJudgeVersion(
        judge_service_pb2.DeployJudgeVersionRequest(
            name=f"{JUDGE}/versions/2", author="bob"
        )
    )
    last = watch(client)[-1]
    assert last.concluded.conclusion.decision == experiment_pb2.DECISION_INVALID
    assert "version 2" in last.concluded.conclusion.reason
    answered = client.evaluation.Evaluate(artifact("p(yes)=0.9")).evaluation
    assert answered.judge_version == f"{JUDGE}/versions/2"


def test_a_batch_is_routed_item_by_item(server):
    client = server.client
    add_candidate(client)
    arm = candidate_arm()
    create(client, mode=Experiment.MODE_SPLIT, judge=JUDGE, arms=[arm])
    start(client)
    requests = [artifact("p(yes)=0.9", subject=f"s{i}") for i in range(32)]
    stream = client.evaluation.BatchEvaluate(
        evaluation_service_pb2.BatchEvaluateRequest(requests=requests), timeout=30
    )
    arms = {r.evaluation.arm for r in stream}
    assert arms == {"baseline", "candidate"}
