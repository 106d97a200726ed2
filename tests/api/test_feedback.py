"""FeedbackService over real gRPC."""

import math

import pytest

from sidejudge.v1 import evaluation_pb2, feedback_pb2, judge_pb2, judge_service_pb2
from sidejudge.v1 import feedback_service_pb2 as pb
from tests.support.calls import correction, evaluate, failure, new_uuid, rubric

PASS, FAIL, PARTIAL = (
    judge_pb2.VERDICT_PASS,
    judge_pb2.VERDICT_FAIL,
    judge_pb2.VERDICT_PARTIAL,
)


@pytest.fixture
def feedback(server):
    return server.client.feedback


def own_judge(server, name):
    """Create a relevance judge, so that its training set is the test's own."""
    server.client.judges.CreateJudge(
        judge_service_pb2.CreateJudgeRequest(
            judge_id=name, judge=judge_pb2.Judge(relevance={})
        )
    )
    return f"judges/{name}"


def example(text, **fields):
    item = evaluation_pb2.ArtifactInput(artifact=text, context="What was asked.")
    return feedback_pb2.TrainingExample(
        **({"artifact_input": item, "verdict": PASS} | fields)
    )


def test_feedback_is_read_back_and_becomes_an_example(server, feedback):
    """A correction is stored as given, and its training example has the evaluation's input."""
    judge = own_judge(server, "corrected")
    evaluation = evaluate(server.client, judge=judge, text="p(yes)=0.9 wrong answer")
    recorded = feedback.RecordFeedback(
        correction(
            evaluation.name,
            author="ann",
            comment="It does not answer.",
            source=feedback_pb2.Feedback.SOURCE_USER,
        )
    ).feedback
    assert recorded.judge == judge
    assert recorded.verdict == FAIL
    assert recorded.source == feedback_pb2.Feedback.SOURCE_USER
    listed = feedback.ListFeedback(pb.ListFeedbackRequest(evaluation=evaluation.name))
    assert list(listed.feedback) == [recorded]
    examples = feedback.ListTrainingExamples(
        pb.ListTrainingExamplesRequest(judge=judge)
    ).training_examples
    assert [e.feedback for e in examples] == [recorded.name]
    assert examples[0].artifact_input == evaluation.artifact_input
    assert examples[0].verdict == FAIL
    assert examples[0].rationale == "It does not answer."
    assert examples[0].split != feedback_pb2.TrainingExample.SPLIT_UNSPECIFIED
    training_set = feedback.GetTrainingSet(
        pb.GetTrainingSetRequest(judge=judge)
    ).training_set
    assert training_set.example_count == 1
    assert training_set.disagreement_count == 1
    assert training_set.readiness == feedback_pb2.TrainingSet.READINESS_NOT_READY
    assert training_set.problems


def test_unsaid_source_is_an_expert(server, feedback):
    """SOURCE_UNSPECIFIED is read as SOURCE_EXPERT."""
    evaluation = evaluate(server.client)
    recorded = feedback.RecordFeedback(correction(evaluation.name)).feedback
    assert recorded.source == feedback_pb2.Feedback.SOURCE_EXPERT


def test_a_repeated_correction_is_recorded_once(server, feedback):
    """The same request_id returns the first answer."""
    evaluation = evaluate(server.client)
    request = correction(evaluation.name, request_id=new_uuid())
    first = feedback.RecordFeedback(request)
    assert feedback.RecordFeedback(request) == first
    listed = feedback.ListFeedback(pb.ListFeedbackRequest(evaluation=evaluation.name))
    assert len(listed.feedback) == 1


@pytest.mark.parametrize("score", [math.nan, math.inf, -0.1, 1.1])
def test_scores_that_are_no_scores_are_refused(server, feedback, score):
    """NaN and numbers outside 0..1 never reach the database."""
    evaluation = server.client.evaluation.Evaluate(rubric()).evaluation
    error = failure(feedback.RecordFeedback, correction(evaluation.name, score=score))
    assert (error.code.name, error.reason) == ("INVALID_ARGUMENT", "INVALID_REQUEST")
    assert [v.field for v in error.violations] == ["feedback.score"]
    listed = feedback.ListFeedback(pb.ListFeedbackRequest(evaluation=evaluation.name))
    assert not listed.feedback


def test_a_correction_must_fit_the_judge(server, feedback):
    """No score for verdicts, no verdict for scores, no partial where there is none."""
    verdict = evaluate(server.client, judge="judges/safety").name
    score = server.client.evaluation.Evaluate(rubric()).evaluation.name
    for request, field in (
        (correction(verdict, score=0.5), "feedback.score"),
        (correction(score, verdict=PASS), "feedback.verdict"),
        (correction(verdict, verdict=PARTIAL), "feedback.verdict"),
    ):
        error = failure(feedback.RecordFeedback, request)
        assert [v.field for v in error.violations] == [field]


def test_feedback_for_an_unknown_evaluation_is_refused(feedback):
    """There is nothing to correct."""
    error = failure(feedback.RecordFeedback, correction("evaluations/unknown"))
    assert (error.code.name, error.reason) == ("NOT_FOUND", "EVALUATION_NOT_FOUND")
    assert error.metadata == {"evaluation": "evaluations/unknown"}


def test_all_that_is_wrong_with_feedback_is_told_at_once(feedback):
    """Every field of the table of limits, and the request_id."""
    request = pb.RecordFeedbackRequest(
        feedback=feedback_pb2.Feedback(
            evaluation="judges/safety",
            source=9,
            author="x" * 129,
            comment="x" * 4001,
        ),
        request_id="x",
    )
    error = failure(feedback.RecordFeedback, request)
    assert [v.field for v in error.violations] == [
        "feedback.evaluation",
        "feedback.correction",
        "feedback.source",
        "feedback.author",
        "feedback.comment",
        "request_id",
    ]


def test_a_batch_records_the_good_and_reports_the_bad(server, feedback):
    """Items with errors are named by index; the others are on disk."""
    good = [evaluate(server.client).name for _ in range(2)]
    items = [
        feedback_pb2.Feedback(evaluation=good[0], verdict=FAIL),
        feedback_pb2.Feedback(evaluation="evaluations/unknown", verdict=FAIL),
        feedback_pb2.Feedback(evaluation=good[1], score=math.nan),
        feedback_pb2.Feedback(evaluation="nonsense", verdict=42),
        feedback_pb2.Feedback(evaluation=good[1], verdict=PASS),
    ]
    request = pb.BatchRecordFeedbackRequest(feedback=items, request_id=new_uuid())
    answer = feedback.BatchRecordFeedback(request)
    assert answer.recorded_count == 2
    assert [bool(name) for name in answer.names] == [True, False, False, False, True]
    assert [(e.index, e.status.code) for e in answer.errors] == [(1, 5), (2, 3), (3, 3)]
    assert "feedback[3].evaluation" in answer.errors[2].status.message
    assert "feedback[3].verdict" in answer.errors[2].status.message
    assert feedback.BatchRecordFeedback(request) == answer
    for name in good:
        listed = feedback.ListFeedback(pb.ListFeedbackRequest(evaluation=name))
        assert len(listed.feedback) == 1


@pytest.mark.parametrize("count", [0, 10_001])
def test_batches_of_feedback_have_a_size(feedback, count):
    """1 to 10,000 corrections."""
    items = [feedback_pb2.Feedback()] * count
    error = failure(
        feedback.BatchRecordFeedback, pb.BatchRecordFeedbackRequest(feedback=items)
    )
    assert [v.field for v in error.violations] == ["feedback"]


def test_feedback_is_filtered_and_paged(server, feedback):
    """Filters are combined; pages join without gap, newest first."""
    evaluation = evaluate(server.client).name
    made = [
        feedback.RecordFeedback(correction(evaluation, author=f"a{n % 2}")).feedback
        for n in range(6)
    ]
    names, token = [], ""
    while not names or token:
        page = feedback.ListFeedback(
            pb.ListFeedbackRequest(
                evaluation=evaluation, author="a1", page_size=2, page_token=token
            )
        )
        names += [f.name for f in page.feedback]
        token = page.next_page_token
    assert names == [f.name for f in made if f.author == "a1"][::-1]


def test_import_counts_and_tells_what_does_not_count(server, feedback):
    """Each rejected example has its index over all messages and its reason."""
    judge = own_judge(server, "imported")
    messages = [
        pb.ImportTrainingExamplesRequest(
            judge=judge,
            training_examples=[example(f"text {n}", group=f"g{n}") for n in range(5)],
        ),
        pb.ImportTrainingExamplesRequest(
            training_examples=[
                example("text 0", group="g0"),
                example("text 5", group="g5", verdict=None, score=0.5),
                example("", group="g6"),
                example("x" * 200_001, group="g7"),
                example("text 8", group="g8", verdict=None),
            ]
        ),
    ]
    answer = feedback.ImportTrainingExamples(iter(messages))
    rejection = feedback_pb2.TrainingExample.Rejection.Name
    assert answer.imported_count == 5
    assert [(r.index, rejection(r.rejection)) for r in answer.rejected] == [
        (5, "REJECTION_DUPLICATE"),
        (6, "REJECTION_LABEL_MISMATCH"),
        (7, "REJECTION_EMPTY_INPUT"),
        (8, "REJECTION_TOO_LARGE"),
        (9, "REJECTION_LABEL_MISMATCH"),
    ]
    assert answer.rejected_count == 5
    assert answer.training_set.example_count == 5
    assert answer.training_set.group_count == 5


def test_import_names_wrong_fields_and_keeps_messages_before(server, feedback):
    """Each message is one transaction."""
    judge = own_judge(server, "half-imported")
    messages = [
        pb.ImportTrainingExamplesRequest(
            judge=judge, training_examples=[example("good")]
        ),
        pb.ImportTrainingExamplesRequest(
            training_examples=[
                example("fine"),
                feedback_pb2.TrainingExample(verdict=9, source=9),
            ]
        ),
    ]
    error = failure(feedback.ImportTrainingExamples, iter(messages))
    assert {v.field for v in error.violations} == {
        "training_examples[1].input",
        "training_examples[1].verdict",
        "training_examples[1].source",
    }
    training_set = feedback.GetTrainingSet(pb.GetTrainingSetRequest(judge=judge))
    assert training_set.training_set.example_count == 1


@pytest.mark.parametrize(
    ("judges", "count", "reason"),
    [
        ([], 0, "INVALID_REQUEST"),
        ([""], 1, "INVALID_REQUEST"),
        (["judges/unknown"], 1, "JUDGE_NOT_FOUND"),
        (["judges/safety", "judges/relevance"], 1, "INVALID_REQUEST"),
        (["judges/safety"], 1001, "INVALID_REQUEST"),
    ],
)
def test_an_import_is_for_one_known_judge(feedback, judges, count, reason):
    """The first message names it, later ones may repeat it; 1,000 examples a message."""
    messages = [
        pb.ImportTrainingExamplesRequest(
            judge=judge, training_examples=[feedback_pb2.TrainingExample()] * count
        )
        if judge == "judges/safety" and count > 1
        else pb.ImportTrainingExamplesRequest(
            judge=judge, training_examples=[] if len(judges) > 1 else [example("x")]
        )
        for judge in judges
    ]
    assert failure(feedback.ImportTrainingExamples, iter(messages)).reason == reason


def test_export_gives_everything_back_and_resumes_after_any_message(server, feedback):
    """Oldest first; with a token exactly what comes after it."""
    judge = own_judge(server, "exported")
    texts = [f"text {n}" for n in range(450)]
    feedback.ImportTrainingExamples(
        iter(
            [
                pb.ImportTrainingExamplesRequest(
                    judge=judge, training_examples=[example(text) for text in texts]
                )
            ]
        )
    )
    request = pb.ExportTrainingExamplesRequest(judge=judge)
    parts = list(feedback.ExportTrainingExamples(request))
    assert [
        e.artifact_input.artifact for part in parts for e in part.training_examples
    ] == texts
    assert all(len(part.training_examples) <= 200 for part in parts)
    assert {e.group for part in parts for e in part.training_examples} == {""}
    request.resume_token = parts[0].resume_token
    assert list(feedback.ExportTrainingExamples(request)) == parts[1:]
    request.judge = "judges/safety"
    error = failure(feedback.ExportTrainingExamples, request)
    assert error.reason == "INVALID_RESUME_TOKEN"


def test_lists_of_examples_hide_rejected_ones_unless_asked(server, feedback):
    """Rejected examples stay visible with their reason."""
    judge = own_judge(server, "listed")
    message = pb.ImportTrainingExamplesRequest(
        judge=judge, training_examples=[example("one"), example("one")]
    )
    feedback.ImportTrainingExamples(iter([message]))
    counting = feedback.ListTrainingExamples(
        pb.ListTrainingExamplesRequest(judge=judge)
    ).training_examples
    everything = feedback.ListTrainingExamples(
        pb.ListTrainingExamplesRequest(judge=judge, show_rejected=True)
    ).training_examples
    assert (len(counting), len(everything)) == (1, 2)
    rejected = everything[0]
    assert rejected.rejection == feedback_pb2.TrainingExample.REJECTION_DUPLICATE
    assert counting[0].name in rejected.rejection_detail
    assert rejected.split == feedback_pb2.TrainingExample.SPLIT_UNSPECIFIED
