"""What experiments refuse, and that nothing changes by it."""

import math

import pytest

from sidejudge.v1 import experiment_pb2, experiment_service_pb2, judge_service_pb2
from tests.support.calls import artifact, failure, new_uuid
from tests.support.experiments import JUDGE, create, get, start

Experiment, Metric = experiment_pb2.Experiment, experiment_pb2.ExperimentMetric
Arm = experiment_pb2.ExperimentArm
SOLVED = Metric(metric="solved", role=Metric.ROLE_PRIMARY, kind=Metric.KIND_BINARY)
SECONDS = Metric(metric="seconds", kind=Metric.KIND_POSITIVE)
ARMS = [Arm(arm="old"), Arm(arm="new")]
_count = iter(range(10_000))


def fresh():
    return f"exp-{next(_count)}"


def running(client, **fields):
    experiment_id = fresh()
    values = {"arms": ARMS, "metrics": [SOLVED, SECONDS], **fields}
    create(client, experiment_id, **values)
    return start(client, f"experiments/{experiment_id}")


def refused(client, **fields):
    request = experiment_service_pb2.CreateExperimentRequest(
        experiment_id=fresh(), experiment=Experiment(**fields)
    )
    error = failure(client.experiments.CreateExperiment, request)
    name = f"experiments/{request.experiment_id}"
    read = experiment_service_pb2.GetExperimentRequest(name=name)
    assert failure(client.experiments.GetExperiment, read).code.name == "NOT_FOUND"
    return error


def outcome(client, name, subject, values, arm=""):
    return failure(
        client.experiments.RecordOutcome,
        experiment_service_pb2.RecordOutcomeRequest(
            name=name, subject=subject, arm=arm, values=values, request_id=new_uuid()
        ),
    )


def assign(client, name, subject):
    return client.experiments.AssignVariant(
        experiment_service_pb2.AssignVariantRequest(name=name, subject=subject)
    ).arm


@pytest.mark.parametrize(
    ("fields", "field", "words"),
    [
        ({"arms": [Arm(arm="a", weight=0.5), Arm(arm="b", weight=0.4)]}, "arms", "0.9"),
        ({"arms": [Arm(arm="a", weight=0.5), Arm(arm="b")]}, "arms", "each weight"),
        ({"arms": [Arm(arm="a", weight=math.nan), Arm(arm="b", weight=1)]}, "arms", ""),
        ({"arms": [Arm(arm="a")]}, "arms", "2 to 8"),
        ({"arms": [Arm(arm="a"), Arm(arm="a")]}, "arms[1].arm", "twice"),
        ({"arms": [Arm(arm="A b"), Arm(arm="b")]}, "arms[0].arm", "lowercase"),
        (
            {"arms": [Arm(arm="a", judge_version=f"{JUDGE}/versions/1"), Arm(arm="b")]},
            "arms[0].judge_version",
            "judge",
        ),
        ({"metrics": [SECONDS]}, "metrics", "exactly one primary"),
        ({"metrics": [SOLVED, SOLVED]}, "metrics[1].metric", "twice"),
        ({"metrics": [Metric(metric="x", role=1)]}, "metrics[0].kind", "required"),
        (
            {"metrics": [SOLVED, Metric(metric="latency")]},
            "metrics[1].metric",
            "a judge",
        ),
        ({"traffic_share": 0.0}, "traffic_share", "above 0"),
        ({"traffic_share": math.nan}, "traffic_share", "above 0"),
        ({"shadow_share": 0.5}, "shadow_share", "MODE_SHADOW"),
        ({"namespace": "no spaces"}, "namespace", "letters"),
        (
            {"stopping_rule": experiment_pb2.StoppingRule(alpha=0.5)},
            "stopping_rule.alpha",
            "0.2",
        ),
        (
            {"stopping_rule": experiment_pb2.StoppingRule(min_units=20, max_units=5)},
            "stopping_rule.max_units",
            "min_units",
        ),
        (
            {
                "mode": Experiment.MODE_ROLLOUT,
                "rollout": experiment_pb2.RolloutPlan(
                    stages=[
                        experiment_pb2.RolloutStage(share=0.5, min_units=5),
                        experiment_pb2.RolloutStage(share=0.25, min_units=5),
                    ]
                ),
            },
            "rollout.stages[1].share",
            "before",
        ),
        ({"judge": "judges/safety/x"}, "judge", "judges/{judge}"),
    ],
)
def test_a_wrong_experiment_is_not_created(server, fields, field, words):
    error = refused(server.client, **{"arms": ARMS, "metrics": [SOLVED], **fields})
    assert error.reason == "INVALID_REQUEST"
    found = {v.field: v.description for v in error.violations}
    assert f"experiment.{field}" in found
    assert words in found[f"experiment.{field}"]


def test_all_violations_come_at_once(server):
    error = refused(
        server.client,
        arms=[Arm(arm="a", weight=0.5), Arm(arm="a", weight=0.1)],
        traffic_share=2.0,
        namespace="no spaces",
    )
    assert {v.field for v in error.violations} == {
        "experiment.arms",
        "experiment.arms[1].arm",
        "experiment.traffic_share",
        "experiment.namespace",
    }


def test_versions_that_are_not_there_are_not_found(server):
    arms = [Arm(arm="candidate", judge_version=f"{JUDGE}/versions/77")]
    error = refused(server.client, judge=JUDGE, arms=arms)
    assert error.reason == "JUDGE_VERSION_NOT_FOUND"
    error = refused(server.client, judge="judges/nobody", arms=arms)
    assert error.reason == "INVALID_REQUEST"


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"solved": math.nan}, "finite"),
        ({"solved": math.inf}, "finite"),
        ({"solved": 0.5}, "0 or 1"),
        ({"seconds": 0.0}, "above 0"),
        ({"speed": 1.0}, "seconds, solved"),
        ({}, "1 to 16"),
    ],
)
def test_wrong_values_are_refused_and_nothing_is_recorded(server, values, words):
    name = running(server.client).name
    assign(server.client, name, "s")
    error = outcome(server.client, name, "s", {**values})
    assert error.reason == "INVALID_REQUEST"
    text = "; ".join(v.description for v in error.violations)
    assert words in text or "solved, seconds" in text
    good = experiment_service_pb2.RecordOutcomeRequest(
        name=name, subject="s", values={"solved": 1.0, "seconds": 3.0}
    )
    server.client.experiments.RecordOutcome(good)


def test_outcomes_of_subjects_that_were_never_assigned_or_twice_are_refused(server):
    client = server.client
    name = running(client).name
    assert outcome(client, name, "s", {"solved": 1}).reason == "SUBJECT_NOT_ASSIGNED"
    arm = assign(client, name, "s")
    other = "new" if arm == "old" else "old"
    wrong = outcome(client, name, "s", {"solved": 1}, arm=other)
    assert wrong.reason == "OUTCOME_ARM_MISMATCH"
    assert wrong.metadata["assigned"] == arm
    unknown = outcome(client, name, "s", {"solved": 1}, arm="third")
    assert unknown.reason == "INVALID_REQUEST"
    client.experiments.RecordOutcome(
        experiment_service_pb2.RecordOutcomeRequest(
            name=name, subject="s", values={"solved": 1}
        )
    )
    twice = outcome(client, name, "s", {"solved": 0, "seconds": 1})
    assert twice.reason == "OUTCOME_ALREADY_RECORDED"
    assert twice.metadata["metrics"] == "solved"


def test_a_repeated_request_is_answered_as_the_first_time(server):
    client = server.client
    name = running(client).name
    assign(client, name, "s")
    request = experiment_service_pb2.RecordOutcomeRequest(
        name=name, subject="s", values={"solved": 1}, request_id=new_uuid()
    )
    first = client.experiments.RecordOutcome(request)
    assert client.experiments.RecordOutcome(request) == first


def test_a_running_experiment_keeps_its_split(server):
    client = server.client
    experiment = running(client)
    changed = Experiment(
        name=experiment.name,
        arms=[Arm(arm="old", weight=0.9), Arm(arm="new", weight=0.1)],
    )
    request = experiment_service_pb2.UpdateExperimentRequest(experiment=changed)
    request.update_mask.paths.append("arms")
    error = failure(client.experiments.UpdateExperiment, request)
    assert error.reason == "EXPERIMENT_NOT_DRAFT"
    assert get(client, experiment.name) == experiment
    request.update_mask.paths[:] = ["display_name", "labels"]
    request.experiment.display_name = "Better name"
    renamed = client.experiments.UpdateExperiment(request).experiment
    assert renamed.display_name == "Better name"
    assert renamed.arms == experiment.arms
    request.experiment.etag = experiment.etag
    stale = failure(client.experiments.UpdateExperiment, request)
    assert stale.reason == "ETAG_MISMATCH"


def test_a_draft_may_become_something_else(server):
    client = server.client
    experiment_id = fresh()
    create(client, experiment_id, arms=ARMS, metrics=[SOLVED])
    name = f"experiments/{experiment_id}"
    request = experiment_service_pb2.UpdateExperimentRequest(
        experiment=Experiment(name=name, mode=Experiment.MODE_ROLLOUT)
    )
    request.update_mask.paths.append("mode")
    changed = client.experiments.UpdateExperiment(request).experiment
    assert changed.mode == Experiment.MODE_ROLLOUT
    assert [s.share for s in changed.rollout.stages] == [0.05, 0.1, 0.25, 0.5]
    assert [m.metric for m in changed.metrics] == ["solved"]
    not_known = experiment_service_pb2.UpdateExperimentRequest(
        experiment=Experiment(name=name)
    )
    not_known.update_mask.paths.append("state")
    error = failure(client.experiments.UpdateExperiment, not_known)
    assert error.violations[0].field == "update_mask"


def test_states_follow_each_other_once(server):
    client = server.client
    experiment_id = fresh()
    create(client, experiment_id, arms=ARMS, metrics=[SOLVED])
    name = f"experiments/{experiment_id}"
    analyze = experiment_service_pb2.AnalyzeExperimentRequest(name=name)
    error = failure(client.experiments.AnalyzeExperiment, analyze)
    assert error.reason == "EXPERIMENT_NOT_STARTED"
    not_running = experiment_service_pb2.AssignVariantRequest(name=name, subject="s")
    error = failure(client.experiments.AssignVariant, not_running)
    assert error.reason == "EXPERIMENT_NOT_RUNNING"
    start(client, name)
    again = experiment_service_pb2.StartExperimentRequest(name=name)
    error = failure(client.experiments.StartExperiment, again)
    assert error.reason == "EXPERIMENT_NOT_DRAFT"
    undecided = experiment_service_pb2.ConcludeExperimentRequest(name=name)
    error = failure(client.experiments.ConcludeExperiment, undecided)
    assert error.violations[0].field == "decision"
    wrong = experiment_service_pb2.ConcludeExperimentRequest(
        name=name,
        decision=experiment_pb2.DECISION_SHIP,
        winner="old",
        deploy_winner=True,
    )
    error = failure(client.experiments.ConcludeExperiment, wrong)
    assert {v.field for v in error.violations} == {"winner", "deploy_winner"}
    end = experiment_service_pb2.ConcludeExperimentRequest(
        name=name, decision=experiment_pb2.DECISION_FUTILE, reason="enough"
    )
    ended = client.experiments.ConcludeExperiment(end).experiment
    assert ended.conclusion.reason == "enough"
    error = failure(client.experiments.ConcludeExperiment, end)
    assert error.reason == "EXPERIMENT_CONCLUDED"
    assert get(client, name) == ended


def test_a_name_is_taken_once_and_a_request_repeated_safely(server):
    client = server.client
    request = experiment_service_pb2.CreateExperimentRequest(
        experiment_id=fresh(),
        experiment=Experiment(arms=ARMS, metrics=[SOLVED]),
        request_id=new_uuid(),
    )
    first = client.experiments.CreateExperiment(request)
    assert client.experiments.CreateExperiment(request) == first
    request.request_id = new_uuid()
    error = failure(client.experiments.CreateExperiment, request)
    assert error.reason == "EXPERIMENT_ALREADY_EXISTS"


def test_namespaces_do_not_overlap(server):
    client = server.client
    shared = {"namespace": "checkout", "arms": ARMS, "metrics": [SOLVED]}
    first = running(client, traffic_share=0.6, **shared)
    second_id = fresh()
    create(client, second_id, traffic_share=0.5, **shared)
    request = experiment_service_pb2.StartExperimentRequest(
        name=f"experiments/{second_id}"
    )
    error = failure(client.experiments.StartExperiment, request)
    assert error.reason == "NAMESPACE_FULL"
    assert error.metadata["free"] == "0.4"
    assert error.metadata["experiments"] == first.name
    third = running(client, traffic_share=0.4, **shared)
    for subject in (f"s{i}" for i in range(200)):
        takes_part = [
            client.experiments.AssignVariant(
                experiment_service_pb2.AssignVariantRequest(name=name, subject=subject)
            ).takes_part
            for name in (first.name, third.name)
        ]
        assert sum(takes_part) == 1


def test_a_judge_in_an_experiment_is_not_deleted_and_its_baseline_must_serve(server):
    client = server.client
    from sidejudge.v1 import judge_pb2

    client.judges.CreateJudge(
        judge_service_pb2.CreateJudgeRequest(
            judge_id="taste",
            judge=judge_pb2.Judge(relevance=judge_pb2.RelevanceSpec()),
        )
    )
    for word in ("strict", "mild"):
        client.judges.CreateJudgeVersion(
            judge_service_pb2.CreateJudgeVersionRequest(
                parent="judges/taste",
                judge_version=judge_pb2.JudgeVersion(instructions=f"Be {word}."),
            )
        )
    not_deployed = fresh()
    create(
        client,
        not_deployed,
        judge="judges/taste",
        arms=[
            Arm(arm="two", judge_version="judges/taste/versions/2"),
            Arm(arm="one", judge_version="judges/taste/versions/1"),
        ],
    )
    request = experiment_service_pb2.StartExperimentRequest(
        name=f"experiments/{not_deployed}"
    )
    error = failure(client.experiments.StartExperiment, request)
    assert error.reason == "EXPERIMENT_BASELINE_NOT_DEPLOYED"
    good = fresh()
    create(
        client,
        good,
        judge="judges/taste",
        arms=[Arm(arm="three", judge_version="judges/taste/versions/3")],
    )
    start(client, f"experiments/{good}")
    delete = judge_service_pb2.DeleteJudgeRequest(name="judges/taste")
    error = failure(client.judges.DeleteJudge, delete)
    assert error.reason == "EXPERIMENT_IN_PROGRESS"
    assert error.metadata["experiment"] == f"experiments/{good}"


def test_evaluations_name_only_experiments_of_the_caller(server):
    client = server.client
    name = running(client).name
    unassigned = artifact("p(yes)=0.9", subject="nobody", experiment=name)
    error = failure(client.evaluation.Evaluate, unassigned)
    assert error.reason == "SUBJECT_NOT_ASSIGNED"
    no_subject = artifact("p(yes)=0.9", experiment=name)
    error = failure(client.evaluation.Evaluate, no_subject)
    assert error.violations[0].field == "subject"
    unknown = artifact("p(yes)=0.9", subject="s", experiment="experiments/none")
    error = failure(client.evaluation.Evaluate, unknown)
    assert error.reason == "EXPERIMENT_NOT_FOUND"


def test_tokens_of_other_experiments_are_refused(server):
    client = server.client
    one, other = running(client).name, running(client).name

    def watching(name, **fields):
        return experiment_service_pb2.WatchExperimentRequest(name=name, **fields)

    stream = client.experiments.WatchExperiment(watching(one), timeout=30)
    token = next(stream).event.resume_token
    stream.cancel()
    foreign = watching(other, resume_token=token)
    error = failure(client.experiments.WatchExperiment, foreign)
    assert error.reason == "INVALID_RESUME_TOKEN"


def test_an_experiment_without_labels_says_so(server):
    client = server.client
    name = running(client).name
    known = client.experiments.AnalyzeExperiment(
        experiment_service_pb2.AnalyzeExperimentRequest(name=name)
    ).analysis
    assert known.decision == experiment_pb2.DECISION_RUNNING
    assert "0 labelled units" in known.reason
    primary = known.comparisons[0]
    assert primary.cannot_say
    assert not primary.HasField("e_value")
    assert not primary.HasField("effect")
    assert all(arm.labels_only.cannot_say for arm in known.arms)


def test_equal_values_have_no_interval_for_one_look(server):
    client = server.client
    name = running(client).name
    for number in range(40):
        assign(client, name, f"s{number}")
        client.experiments.RecordOutcome(
            experiment_service_pb2.RecordOutcomeRequest(
                name=name,
                subject=f"s{number}",
                values={"solved": 1.0, "seconds": 2.0},
            )
        )
    known = client.experiments.AnalyzeExperiment(
        experiment_service_pb2.AnalyzeExperimentRequest(name=name)
    ).analysis
    solved, seconds = known.comparisons
    assert solved.effect == 0
    assert solved.e_value == pytest.approx(1)
    assert "no spread" in seconds.cannot_say
    assert not seconds.HasField("fixed_interval")
    assert not seconds.HasField("anytime_p")


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({}, "baseline_rate"),
        ({"baseline_rate": 1.5}, "baseline_rate"),
        ({"baseline_rate": 0.8, "min_improvement": 0.3}, "min_improvement"),
        ({"baseline_rate": 0.8, "power": 0.1}, "power"),
        ({"baseline_rate": 0.8, "labels_per_day": -1.0}, "labels_per_day"),
    ],
)
def test_impossible_plans_are_refused(server, fields, field):
    request = experiment_service_pb2.PlanExperimentRequest(**fields)
    error = failure(server.client.experiments.PlanExperiment, request)
    assert field in {v.field for v in error.violations}


def test_a_plan_says_how_many_labels_each_mode_takes(server):
    plan = server.client.experiments.PlanExperiment(
        experiment_service_pb2.PlanExperimentRequest(
            baseline_rate=0.8, min_improvement=0.08, labels_per_day=50, max_labels=500
        )
    )
    assert plan.split_labels == 658
    assert plan.paired_labels == 153
    assert 100 < plan.sequential_labels < 160
    assert plan.duration.seconds == pytest.approx(
        86400 * plan.sequential_labels / 50, abs=2
    )
    assert 0 < plan.smallest_improvement < 0.08
