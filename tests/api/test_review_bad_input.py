"""Requests about the review queue that are wrong are refused with every violation."""

import pytest
from google.protobuf.duration_pb2 import Duration

from sidejudge.v1 import (
    feedback_pb2,
)
from sidejudge.v1 import review_service_pb2 as pb
from tests.stand_in import running_stand_in
from tests.support.calls import correction, failure
from tests.support.review import JUDGE
from tests.support.server import running_server, settings_for


@pytest.fixture(scope="module")
def lm():
    with running_stand_in() as running:
        yield running


WRONG = [
    ("ListReviewQueue", pb.ListReviewQueueRequest(page_size=-1), ["judge", "page_size"]),
    (
        "ClaimReviewItems",
        pb.ClaimReviewItemsRequest(
            max_items=101,
            duration=Duration(seconds=0),
            annotators_per_item=11,
            evaluations=["x", "x"],
        ),
        [
            "judge",
            "annotator",
            "max_items",
            "duration",
            "annotators_per_item",
            "evaluations[0]",
            "evaluations[1]",
            "evaluations",
            "max_items",
        ],
    ),
    (
        "ClaimReviewItems",
        pb.ClaimReviewItemsRequest(
            judge=JUDGE, annotator="x" * 129, duration=Duration(seconds=90_000)
        ),
        ["annotator", "duration"],
    ),
    (
        "ReleaseReviewItems",
        pb.ReleaseReviewItemsRequest(judge="safety"),
        ["judge", "annotator", "evaluations"],
    ),
    (
        "EstimateAgreement",
        pb.EstimateAgreementRequest(judge_version="judges/x", weighting=9),
        ["judge_version", "weighting"],
    ),
    ("MeasureAnnotatorAgreement", pb.MeasureAnnotatorAgreementRequest(), ["judge"]),
]  # fmt: skip


@pytest.fixture(scope="module")
def idle(lm, tmp_path_factory):
    directory = tmp_path_factory.mktemp("idle")
    with running_server(settings_for(directory, lm_base_url=lm.base_url)) as running:
        yield running


@pytest.mark.parametrize(("method", "request_", "fields"), WRONG)
def test_wrong_requests_are_told_every_violation(idle, method, request_, fields):
    error = failure(getattr(idle.client.review, method), request_)

    assert (error.code.name, error.reason) == ("INVALID_ARGUMENT", "INVALID_REQUEST")
    assert [v.field for v in error.violations] == fields


def test_unknown_names_tokens_and_sources_are_refused(idle):
    review = idle.client.review
    nobody = "judges/nobody"
    cases = [
        (review.ListReviewQueue, pb.ListReviewQueueRequest(judge=nobody)),
        (
            review.ClaimReviewItems,
            pb.ClaimReviewItemsRequest(judge=nobody, annotator="ann"),
        ),
        (
            review.ReleaseReviewItems,
            pb.ReleaseReviewItemsRequest(
                judge=nobody, annotator="ann", evaluations=["evaluations/x"]
            ),
        ),
        (
            review.EstimateAgreement,
            pb.EstimateAgreementRequest(judge_version=f"{nobody}/versions/1"),
        ),
        (
            review.MeasureAnnotatorAgreement,
            pb.MeasureAnnotatorAgreementRequest(judge=nobody),
        ),
    ]
    for method, request in cases:
        error = failure(method, request)
        assert (error.code.name, error.reason) == ("NOT_FOUND", "JUDGE_NOT_FOUND")
    version = pb.EstimateAgreementRequest(judge_version=f"{JUDGE}/versions/99")
    error = failure(review.EstimateAgreement, version)
    assert error.reason == "JUDGE_VERSION_NOT_FOUND"
    token = pb.ListReviewQueueRequest(judge=JUDGE, page_token="%%%")  # noqa: S106 - no password
    assert failure(review.ListReviewQueue, token).reason == "INVALID_PAGE_TOKEN"
    backwards = pb.MeasureAnnotatorAgreementRequest(judge=JUDGE)
    backwards.start_time.seconds, backwards.end_time.seconds = 2000, 1000
    error = failure(review.MeasureAnnotatorAgreement, backwards)
    assert error.violations[0].field == "end_time"
    unknown = correction("evaluations/x")
    unknown.feedback.source = 9
    error = failure(idle.client.feedback.RecordFeedback, unknown)
    assert [v.field for v in error.violations] == ["feedback.source"]
    assert feedback_pb2.Feedback.Source.Name(1) in error.violations[0].description
