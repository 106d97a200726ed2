"""Requests to judge that are wrong in form: all violations at once, no LM call, nothing stored."""

import grpc
import pytest

from sidejudge.v1 import evaluation_pb2, feedback_pb2, judge_pb2
from sidejudge.v1 import evaluation_service_pb2 as pb
from sidejudge.v1 import feedback_service_pb2 as feedback_pb
from sidejudge.v1 import judge_service_pb2 as judge_pb
from sidejudge.v1 import optimization_service_pb2 as optimization_pb
from sidejudge.v1.feedback_service_pb2_grpc import FeedbackServiceStub
from tests.support.calls import artifact, failure, rubric

LONG = "x" * 200_001


def item(**fields):
    return evaluation_pb2.ArtifactInput(**({"artifact": "a"} | fields))


def criteria(*names):
    return evaluation_pb2.RubricInput(
        task_context="t",
        agent_output="o",
        criteria=[judge_pb2.Criterion(name=name) for name in names],
    )


WRONG = [
    (pb.EvaluateRequest(), ["judge", "input"]),
    (pb.EvaluateRequest(judge="safety", artifact_input=item()), ["judge"]),
    (artifact("  \n"), ["artifact_input.artifact"]),
    (artifact(LONG), ["artifact_input.artifact"]),
    (
        pb.EvaluateRequest(
            judge="judges/safety",
            artifact_input=item(context=LONG, ground_truth=LONG),
        ),
        ["artifact_input.ground_truth", "artifact_input.context"],
    ),
    (
        pb.EvaluateRequest(
            judge="judges/safety",
            artifact_input=item(fields={f"f{n}": "x" for n in range(9)}),
        ),
        ["artifact_input.fields"],
    ),
    (
        pb.EvaluateRequest(
            judge="judges/rubric", rubric_input=evaluation_pb2.RubricInput()
        ),
        ["rubric_input.task_context", "rubric_input.agent_output"],
    ),
    (
        pb.EvaluateRequest(judge="judges/rubric", rubric_input=criteria("a", "a", "")),
        ["rubric_input.criteria[2].name", "rubric_input.criteria"],
    ),
    (
        pb.EvaluateRequest(
            judge="judges/rubric", rubric_input=criteria(*map(str, range(17)))
        ),
        ["rubric_input.criteria"],
    ),
    (artifact(judge_version="judges/relevance/versions/1"), ["judge_version"]),
    (artifact(judge_version="judges/safety/versions/0"), ["judge_version"]),
    (
        artifact(
            subject="x" * 257,
            group="x" * 257,
            labels={str(n): "" for n in range(33)},
            request_id="7",
        ),
        ["subject", "group", "labels", "request_id"],
    ),
]


@pytest.mark.parametrize(("request_", "fields"), WRONG)
def test_wrong_requests_are_told_every_violation(server, stand_in, request_, fields):
    """INVALID_ARGUMENT with the paths of all wrong fields; the LM is not asked."""
    calls = stand_in.call_count
    error = failure(server.client.evaluation.Evaluate, request_)
    assert (error.code.name, error.reason) == ("INVALID_ARGUMENT", "INVALID_REQUEST")
    assert [v.field for v in error.violations] == fields
    assert error.metadata["fields"] == ",".join(fields)
    assert stand_in.call_count == calls


def test_input_of_another_shape_says_which_is_expected(server):
    """Both shapes are named, so that the caller can mend it."""
    error = failure(server.client.evaluation.Evaluate, artifact(judge="judges/rubric"))
    assert (error.code.name, error.reason) == (
        "INVALID_ARGUMENT",
        "INPUT_KIND_MISMATCH",
    )
    assert error.metadata["judge"] == "judges/rubric"
    assert error.metadata["expected"] == "rubric_input"
    assert error.metadata["got"] == "artifact_input"
    wrong = rubric()
    wrong.judge = "judges/safety"
    error = failure(server.client.evaluation.Evaluate, wrong)
    assert error.metadata["expected"] == "artifact_input"


def test_faithfulness_needs_a_ground_truth(server):
    """Without a source there is nothing to be faithful to."""
    error = failure(
        server.client.evaluation.Evaluate, artifact(judge="judges/faithfulness")
    )
    assert [v.field for v in error.violations] == ["artifact_input.ground_truth"]


def test_unknown_names_are_not_found(server):
    """NOT_FOUND with the reason of the collection and the name that was asked for."""
    client = server.client
    cases = [
        (
            client.evaluation.Evaluate,
            artifact(judge="judges/unknown"),
            "JUDGE_NOT_FOUND",
        ),
        (
            client.evaluation.Evaluate,
            artifact(judge_version="judges/safety/versions/77"),
            "JUDGE_VERSION_NOT_FOUND",
        ),
        (
            client.evaluation.GetEvaluation,
            pb.GetEvaluationRequest(name="evaluations/unknown"),
            "EVALUATION_NOT_FOUND",
        ),
        (
            client.judges.GetJudge,
            judge_pb.GetJudgeRequest(name="judges/unknown"),
            "JUDGE_NOT_FOUND",
        ),
        (
            client.judges.ListJudgeVersions,
            judge_pb.ListJudgeVersionsRequest(parent="judges/unknown"),
            "JUDGE_NOT_FOUND",
        ),
        (
            client.feedback.GetTrainingSet,
            feedback_pb.GetTrainingSetRequest(judge="judges/unknown"),
            "JUDGE_NOT_FOUND",
        ),
        (
            client.feedback.ListTrainingExamples,
            feedback_pb.ListTrainingExamplesRequest(judge="judges/unknown"),
            "JUDGE_NOT_FOUND",
        ),
        (
            client.feedback.ExportTrainingExamples,
            feedback_pb.ExportTrainingExamplesRequest(judge="judges/unknown"),
            "JUDGE_NOT_FOUND",
        ),
        (
            client.optimization.GetOptimization,
            optimization_pb.GetOptimizationRequest(name="optimizations/unknown"),
            "OPTIMIZATION_NOT_FOUND",
        ),
        (
            client.optimization.ListTrials,
            optimization_pb.ListTrialsRequest(parent="optimizations/unknown"),
            "OPTIMIZATION_NOT_FOUND",
        ),
        (
            client.optimization.WatchOptimization,
            optimization_pb.WatchOptimizationRequest(name="optimizations/unknown"),
            "OPTIMIZATION_NOT_FOUND",
        ),
        (
            client.optimization.CancelOptimization,
            optimization_pb.CancelOptimizationRequest(name="optimizations/unknown"),
            "OPTIMIZATION_NOT_FOUND",
        ),
    ]
    for method, request, reason in cases:
        error = failure(method, request)
        assert (error.code.name, error.reason) == ("NOT_FOUND", reason)


def test_malformed_names_are_invalid(server):
    """A name of another form is a mistake, not a resource that is missing."""
    client = server.client
    cases = [
        (client.evaluation.GetEvaluation, pb.GetEvaluationRequest(name="x"), "name"),
        (client.judges.GetJudge, judge_pb.GetJudgeRequest(), "name"),
        (
            client.judges.GetJudgeVersion,
            judge_pb.GetJudgeVersionRequest(name="judges/a"),
            "name",
        ),
        (
            client.judges.DeleteJudge,
            judge_pb.DeleteJudgeRequest(name="judges/A"),
            "name",
        ),
        (client.judges.UpdateJudge, judge_pb.UpdateJudgeRequest(), "judge.name"),
        (
            client.judges.CreateJudgeVersion,
            judge_pb.CreateJudgeVersionRequest(),
            "parent",
        ),
        (
            client.judges.ListJudgeVersions,
            judge_pb.ListJudgeVersionsRequest(),
            "parent",
        ),
        (
            client.judges.DeployJudgeVersion,
            judge_pb.DeployJudgeVersionRequest(name="judges/safety"),
            "name",
        ),
        (client.judges.RollbackJudge, judge_pb.RollbackJudgeRequest(), "name"),
        (
            client.feedback.GetTrainingSet,
            feedback_pb.GetTrainingSetRequest(),
            "judge",
        ),
        (
            client.optimization.GetOptimization,
            optimization_pb.GetOptimizationRequest(name="optimizations/"),
            "name",
        ),
        (
            client.optimization.CancelOptimization,
            optimization_pb.CancelOptimizationRequest(),
            "name",
        ),
        (client.optimization.ListTrials, optimization_pb.ListTrialsRequest(), "parent"),
    ]
    for method, request, field in cases:
        error = failure(method, request)
        assert error.reason == "INVALID_REQUEST"
        assert [v.field for v in error.violations] == [field]


def test_wrong_filters_are_told_at_once(server):
    """Lists check as requests that change something do."""
    error = failure(
        server.client.evaluation.ListEvaluations,
        pb.ListEvaluationsRequest(
            judge="x", judge_version="y", verdict=9, page_size=-1
        ),
    )
    fields = ["judge", "judge_version", "verdict", "page_size"]
    assert [v.field for v in error.violations] == fields
    error = failure(
        server.client.feedback.ListFeedback,
        feedback_pb.ListFeedbackRequest(judge="x", evaluation="y", source=9),
    )
    assert [v.field for v in error.violations] == ["judge", "evaluation", "source"]
    error = failure(
        server.client.optimization.ListOptimizations,
        optimization_pb.ListOptimizationsRequest(judge="x", state=99),
    )
    assert [v.field for v in error.violations] == ["judge", "state"]


def test_messages_over_the_limit_are_refused(server):
    """16 MB by default; the server goes on."""
    huge = feedback_pb2.Feedback(comment="x" * 1000)
    request = feedback_pb.BatchRecordFeedbackRequest(feedback=[huge] * 18_000)
    unlimited = [("grpc.max_send_message_length", -1)]
    with grpc.insecure_channel(server.address, options=unlimited) as channel:
        stub = FeedbackServiceStub(channel)
        error = failure(stub.BatchRecordFeedback, request)
    assert error.code.name == "RESOURCE_EXHAUSTED"
    server.client.evaluation.Evaluate(artifact())
