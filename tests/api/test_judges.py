"""JudgeService over real gRPC."""

import math

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from sidejudge.v1 import judge_pb2
from sidejudge.v1 import judge_service_pb2 as pb
from tests.support.calls import evaluate, failure, new_uuid

CUSTOM = judge_pb2.CustomSpec(
    instructions="Judge whether the reply is polite.",
    question="Is the reply polite?",
    input_fields=["house_rules"],
)


@pytest.fixture
def judges(server):
    return server.client.judges


def create(judges, judge_id, **fields):
    judge = judge_pb2.Judge(**({"relevance": {}} | fields))
    return judges.CreateJudge(
        pb.CreateJudgeRequest(judge_id=judge_id, judge=judge)
    ).judge


def test_built_in_judges_exist_from_the_start(judges):
    """Four judge types and the rubric, each with version 1 deployed."""
    names = [j.name for j in judges.ListJudges(pb.ListJudgesRequest()).judges]
    assert {
        "judges/faithfulness",
        "judges/minimality",
        "judges/relevance",
        "judges/rubric",
        "judges/safety",
    } <= set(names)
    rubric = judges.GetJudge(pb.GetJudgeRequest(name="judges/rubric")).judge
    assert rubric.built_in
    assert rubric.deployed_version == "judges/rubric/versions/1"
    assert len(rubric.rubric.default_criteria) == 3


def test_a_created_judge_is_read_back(judges):
    """What was asked for is what is there, with version 1 from its instructions."""
    judge = create(
        judges,
        "polite",
        relevance=None,
        custom=CUSTOM,
        display_name="Polite",
        description="Manners.",
        labels={"team": "support"},
    )
    assert judge.name == "judges/polite"
    assert judge.custom.instructions == CUSTOM.instructions
    assert judge.custom.output == judge_pb2.CustomSpec.OUTPUT_VERDICT
    assert list(judge.custom.input_fields) == ["house_rules"]
    assert dict(judge.labels) == {"team": "support"}
    assert judges.GetJudge(pb.GetJudgeRequest(name=judge.name)).judge == judge
    version = judges.GetJudgeVersion(
        pb.GetJudgeVersionRequest(name=judge.deployed_version)
    ).judge_version
    assert version.instructions == CUSTOM.instructions
    assert version.question == CUSTOM.question
    assert version.origin == judge_pb2.JudgeVersion.ORIGIN_INITIAL


def test_a_repeated_creation_returns_the_first_answer(judges):
    """The same request_id creates once."""
    request = pb.CreateJudgeRequest(
        judge_id="once",
        judge=judge_pb2.Judge(safety={}),
        request_id=new_uuid(),
    )
    assert judges.CreateJudge(request) == judges.CreateJudge(request)


def test_a_name_is_taken_only_once(judges):
    """Also by a deleted judge, whose evaluations still bear the name."""
    create(judges, "taken")
    judges.DeleteJudge(pb.DeleteJudgeRequest(name="judges/taken"))
    error = failure(
        judges.CreateJudge,
        pb.CreateJudgeRequest(judge_id="taken", judge=judge_pb2.Judge(safety={})),
    )
    assert error.code.name == "ALREADY_EXISTS"
    assert error.reason == "JUDGE_ALREADY_EXISTS"


@pytest.mark.parametrize(
    "name", ["artifact", "reasoning", "verdict", "demos", "config", "model_config"]
)
def test_a_name_that_an_optimization_needs_itself_is_refused(judges, name):
    """The judge would serve well until the first optimization of it."""
    custom = judge_pb2.CustomSpec(instructions="Judge.", input_fields=["fine", name])
    request = pb.CreateJudgeRequest(
        judge_id="clash", judge=judge_pb2.Judge(custom=custom)
    )
    error = failure(judges.CreateJudge, request)
    assert [v.field for v in error.violations] == ["judge.custom.input_fields[1]"]


def test_all_that_is_wrong_with_a_new_judge_is_told_at_once(judges):
    """Nothing is created, and no violation hides another."""
    request = pb.CreateJudgeRequest(
        judge_id="Wrong-",
        judge=judge_pb2.Judge(
            display_name="x" * 129,
            labels={"k" * 129: ""},
            custom=judge_pb2.CustomSpec(
                output=7, input_fields=["Ok", "context", "a", "a"]
            ),
        ),
        request_id="not-a-uuid",
    )
    error = failure(judges.CreateJudge, request)
    assert error.reason == "INVALID_REQUEST"
    assert sorted({v.field for v in error.violations}) == [
        "judge.custom.input_fields",
        "judge.custom.input_fields[0]",
        "judge.custom.input_fields[1]",
        "judge.custom.instructions",
        "judge.custom.output",
        "judge.display_name",
        "judge.labels",
        "judge_id",
        "request_id",
    ]


def test_a_judge_needs_a_kind(judges):
    """Without it nobody knows what the judge looks at."""
    error = failure(judges.CreateJudge, pb.CreateJudgeRequest(judge_id="kindless"))
    assert [v.field for v in error.violations] == ["judge.kind"]


def test_an_update_changes_what_the_mask_names(judges):
    """Fields outside the mask stay, whatever the request holds."""
    judge = create(judges, "updated", description="Before.", display_name="Before")
    changed = judges.UpdateJudge(
        pb.UpdateJudgeRequest(
            judge=judge_pb2.Judge(
                name=judge.name, description="After.", display_name="After"
            ),
            update_mask=FieldMask(paths=["description"]),
        )
    ).judge
    assert (changed.description, changed.display_name) == ("After.", "Before")
    assert changed.etag != judge.etag


def test_an_update_with_an_old_etag_is_refused(judges):
    """Somebody was faster: their change is not overwritten."""
    judge = create(judges, "raced")
    request = pb.UpdateJudgeRequest(
        judge=judge_pb2.Judge(name=judge.name, description="1", etag=judge.etag),
        update_mask=FieldMask(paths=["description"]),
    )
    judges.UpdateJudge(request)
    error = failure(judges.UpdateJudge, request)
    assert (error.code.name, error.reason) == ("ABORTED", "ETAG_MISMATCH")


@pytest.mark.parametrize(
    "paths", [[], ["kind"], ["deployed_version"], ["rubric.default_criteria"]]
)
def test_what_decides_answers_cannot_be_updated(judges, paths):
    """Behaviour lives in versions; criteria belong to rubrics."""
    request = pb.UpdateJudgeRequest(
        judge=judge_pb2.Judge(name="judges/safety"),
        update_mask=FieldMask(paths=paths),
    )
    assert [v.field for v in failure(judges.UpdateJudge, request).violations] == [
        "update_mask"
    ]


def test_a_deleted_judge_is_out_of_service(judges):
    """It judges no more; its versions stay readable."""
    judge = create(judges, "gone")
    judges.DeleteJudge(pb.DeleteJudgeRequest(name=judge.name, etag=judge.etag))
    error = failure(judges.GetJudge, pb.GetJudgeRequest(name=judge.name))
    assert (error.code.name, error.reason) == ("NOT_FOUND", "JUDGE_NOT_FOUND")
    assert error.metadata == {"judge": "judges/gone"}
    judges.GetJudgeVersion(pb.GetJudgeVersionRequest(name=judge.deployed_version))


def test_built_in_judges_cannot_be_deleted(judges):
    """They exist at every start."""
    error = failure(judges.DeleteJudge, pb.DeleteJudgeRequest(name="judges/safety"))
    assert (error.code.name, error.reason) == ("FAILED_PRECONDITION", "JUDGE_BUILT_IN")


def test_a_version_by_hand_is_read_back_and_does_not_serve(judges):
    """Demonstrations, rule and question survive; deploying is a step of its own."""
    judge = create(judges, "by-hand", relevance=None, custom=CUSTOM)
    demo = judge_pb2.Demonstration(
        inputs={"artifact": "Hi.", "context": "Greet.", "house_rules": "Be kind."},
        verdict=judge_pb2.VERDICT_PARTIAL,
        reasoning="Short.",
    )
    created = judges.CreateJudgeVersion(
        pb.CreateJudgeVersionRequest(
            parent=judge.name,
            judge_version=judge_pb2.JudgeVersion(
                instructions="Be strict.",
                demonstrations=[demo],
                decision_rule=judge_pb2.DecisionRule(pass_offset=-0.5),
            ),
        )
    ).judge_version
    assert created.name == "judges/by-hand/versions/2"
    assert list(created.demonstrations) == [demo]
    assert created.decision_rule.pass_offset == -0.5
    assert not created.HasField("score_map")
    assert created.question == CUSTOM.question
    assert created.parent == "judges/by-hand/versions/1"
    assert created.origin == judge_pb2.JudgeVersion.ORIGIN_MANUAL
    read = judges.GetJudgeVersion(pb.GetJudgeVersionRequest(name=created.name))
    assert read.judge_version == created
    now = judges.GetJudge(pb.GetJudgeRequest(name=judge.name)).judge
    assert now.deployed_version == judge.deployed_version


def test_all_that_is_wrong_with_a_version_is_told_at_once(judges):
    """Numbers, inputs and answers of demonstrations included."""
    version = judge_pb2.JudgeVersion(
        decision_rule=judge_pb2.DecisionRule(pass_offset=math.nan),
        score_map=judge_pb2.ScoreMap(slope=-1.0, intercept=math.inf),
        demonstrations=[
            judge_pb2.Demonstration(inputs={"nonsense": "x"}),
            judge_pb2.Demonstration(score=math.nan),
        ],
    )
    request = pb.CreateJudgeVersionRequest(
        parent="judges/safety", judge_version=version
    )
    error = failure(judges.CreateJudgeVersion, request)
    assert {v.field for v in error.violations} == {
        "judge_version.instructions",
        "judge_version.decision_rule.pass_offset",
        "judge_version.score_map.slope",
        "judge_version.score_map.intercept",
        "judge_version.demonstrations[0].inputs[nonsense]",
        "judge_version.demonstrations[0].answer",
        "judge_version.demonstrations[1].score",
    }


def test_deploy_and_rollback_choose_who_serves(server, judges):
    """The deployed version answers; a rollback returns to the one before."""
    judge = create(judges, "rolled")
    second = judges.CreateJudgeVersion(
        pb.CreateJudgeVersionRequest(
            parent=judge.name,
            judge_version=judge_pb2.JudgeVersion(instructions="Second."),
        )
    ).judge_version
    deployed = judges.DeployJudgeVersion(
        pb.DeployJudgeVersionRequest(name=second.name, author="ann", reason="better")
    ).judge
    assert deployed.deployed_version == second.name
    assert evaluate(server.client, judge=judge.name).judge_version == second.name
    back = judges.RollbackJudge(
        pb.RollbackJudgeRequest(name=judge.name, author="ann", etag=deployed.etag)
    ).judge
    assert back.deployed_version == judge.deployed_version
    error = failure(judges.RollbackJudge, pb.RollbackJudgeRequest(name=judge.name))
    assert (error.code.name, error.reason) == (
        "FAILED_PRECONDITION",
        "NO_PREVIOUS_VERSION",
    )


def test_a_version_that_is_not_there_cannot_be_deployed(judges):
    """NOT_FOUND names it."""
    error = failure(
        judges.DeployJudgeVersion,
        pb.DeployJudgeVersionRequest(name="judges/safety/versions/99"),
    )
    assert error.reason == "JUDGE_VERSION_NOT_FOUND"
    assert error.metadata == {"judge_version": "judges/safety/versions/99"}


def test_judges_and_versions_are_paged(judges):
    """Judges by name, versions newest first, both without gap."""
    judge = create(judges, "paged")
    for number in range(2, 6):
        judges.CreateJudgeVersion(
            pb.CreateJudgeVersionRequest(
                parent=judge.name,
                judge_version=judge_pb2.JudgeVersion(instructions=f"No {number}."),
            )
        )
    versions, token = [], ""
    while not versions or token:
        page = judges.ListJudgeVersions(
            pb.ListJudgeVersionsRequest(
                parent=judge.name, page_size=2, page_token=token
            )
        )
        versions += [v.name.rpartition("/")[2] for v in page.judge_versions]
        token = page.next_page_token
    assert versions == ["5", "4", "3", "2", "1"]
    names, token = [], ""
    while not names or token:
        found = judges.ListJudges(pb.ListJudgesRequest(page_size=2, page_token=token))
        names += [j.name for j in found.judges]
        token = found.next_page_token
    everything = judges.ListJudges(pb.ListJudgesRequest(page_size=1000)).judges
    assert names == sorted(names) == [j.name for j in everything]
