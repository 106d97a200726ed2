"""Exporting and importing judge versions over real gRPC."""

import json

import pytest

from sidejudge.v1 import judge_pb2
from sidejudge.v1 import judge_service_pb2 as pb
from tests.support.calls import failure, new_uuid

VERSION = judge_pb2.JudgeVersion(
    instructions="Judge whether the reply answers the question. é \u2028 </artifact>",
    question="Does it?",
    demonstrations=[
        judge_pb2.Demonstration(
            inputs={"artifact": "A cherry.", "context": "Name a red fruit."},
            verdict=judge_pb2.VERDICT_PASS,
            reasoning="A cherry is one.",
        )
    ],
    decision_rule=judge_pb2.DecisionRule(pass_offset=0.125),
)


@pytest.fixture
def judges(server):
    return server.client.judges


@pytest.fixture
def exported(judges):
    """The document of a version written by hand."""
    version = judges.CreateJudgeVersion(
        pb.CreateJudgeVersionRequest(parent="judges/relevance", judge_version=VERSION)
    ).judge_version
    return judges.ExportJudgeVersion(
        pb.ExportJudgeVersionRequest(name=version.name)
    ).document


def bring(judges, document, parent="judges/relevance", **fields):
    return judges.ImportJudgeVersion(
        pb.ImportJudgeVersionRequest(parent=parent, document=document, **fields)
    ).judge_version


def refusal(judges, document, parent="judges/relevance"):
    request = pb.ImportJudgeVersionRequest(parent=parent, document=document)
    return failure(judges.ImportJudgeVersion, request)


def changed(document, **values):
    """The document with top-level values replaced, its digest left as it was."""
    return json.dumps(json.loads(document) | values)


def test_an_exported_version_comes_back_the_same_in_another_judge(judges, exported):
    """How it answers is identical; where it came from is kept; it does not serve by itself."""
    judges.CreateJudge(
        pb.CreateJudgeRequest(
            judge_id="relevance-two", judge=judge_pb2.Judge(relevance={})
        )
    )
    version = bring(judges, exported, parent="judges/relevance-two")
    assert version.instructions == VERSION.instructions
    assert version.demonstrations == VERSION.demonstrations
    assert version.decision_rule == VERSION.decision_rule
    assert version.origin == judge_pb2.JudgeVersion.ORIGIN_IMPORT
    document = json.loads(exported)
    assert version.imported_from == document["lineage"]["name"]
    assert version.import_digest == document["digest"]
    assert version.prompt_digest == document["lineage"]["prompt_digest"]
    judge = judges.GetJudge(pb.GetJudgeRequest(name="judges/relevance-two")).judge
    assert judge.deployed_version == "judges/relevance-two/versions/1"


def test_an_import_survives_a_round_trip(judges, exported):
    """Exporting what was imported names the import and holds the same program."""
    version = bring(judges, exported)
    again = judges.ExportJudgeVersion(
        pb.ExportJudgeVersionRequest(name=version.name)
    ).document
    first, second = json.loads(exported), json.loads(again)
    assert second["program"] == first["program"]
    assert second["lineage"]["imported_from"] == first["lineage"]["name"]


def test_a_repeated_import_adds_one_version(judges, exported):
    """The same request_id gets the first answer."""
    request_id = new_uuid()
    first = bring(judges, exported, request_id=request_id)
    assert bring(judges, exported, request_id=request_id) == first


@pytest.mark.parametrize(
    ("break_it", "problem"),
    [
        (lambda d: d[:-40], "not JSON"),
        (lambda _: "[" * 100_000, "not JSON"),
        (lambda _: '{"format": "something/1"}', "no document"),
        (lambda d: changed(d, format="sidejudge.judge_version/2"), "newer sidejudge"),
        (lambda d: changed(d, program={}), "digest does not match"),
        (lambda d: changed(d, extra=1), "exactly the keys"),
        (lambda d: d.replace("A cherry is one.", "No."), "digest does not match"),
        (lambda d: d.replace("0.125", "NaN"), "not finite"),
    ],
)
def test_a_document_that_is_not_whole_is_refused(judges, exported, break_it, problem):
    """What is wrong is named, nothing is added."""
    before = judges.ListJudgeVersions(
        pb.ListJudgeVersionsRequest(parent="judges/relevance")
    )
    refused = refusal(judges, break_it(exported))
    assert refused.code.name == "INVALID_ARGUMENT"
    assert refused.reason == "VERSION_DOCUMENT_INVALID"
    assert problem in refused.message
    assert "cherry" not in refused.message
    after = judges.ListJudgeVersions(
        pb.ListJudgeVersionsRequest(parent="judges/relevance")
    )
    assert after == before


def test_a_version_of_another_kind_is_refused(judges, exported):
    """A relevance version cannot answer for the rubric judge."""
    refused = refusal(judges, exported, parent="judges/rubric")
    assert refused.code.name == "INVALID_ARGUMENT"
    assert "another kind" in refused.message


def test_an_import_needs_a_judge_and_a_document(judges):
    """All that is missing is named at once; an unknown judge is not found."""
    refused = refusal(judges, "", parent="")
    assert refused.reason == "INVALID_REQUEST"
    assert {v.field for v in refused.violations} == {"parent", "document"}
    unknown = refusal(judges, "{}", parent="judges/nobody")
    assert unknown.reason == "JUDGE_NOT_FOUND"


def test_versions_with_the_same_prompt_have_the_same_prompt_digest(judges):
    """A decision rule does not reach the prompt; an instruction does."""

    def digest(**fields):
        version = judge_pb2.JudgeVersion()
        version.CopyFrom(VERSION)
        version.MergeFrom(judge_pb2.JudgeVersion(**fields))
        return judges.CreateJudgeVersion(
            pb.CreateJudgeVersionRequest(
                parent="judges/relevance", judge_version=version
            )
        ).judge_version.prompt_digest

    plain = digest()
    assert plain == digest(decision_rule={"pass_offset": -1.0})
    assert plain != digest(instructions="Judge the reply.")
    assert len(plain) == 64
