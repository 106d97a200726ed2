"""ReviewService over real gRPC: what is asked first, claims, labels, and what they show."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from google.protobuf.duration_pb2 import Duration

from sidejudge.v1 import (
    evaluation_service_pb2,
    feedback_pb2,
    feedback_service_pb2,
    judge_pb2,
    judge_service_pb2,
)
from sidejudge.v1 import review_service_pb2 as pb
from sidejudge_server.config import ReviewSettings
from sidejudge_server.review.queue import ClaimRequest
from tests.stand_in import running_stand_in
from tests.support.calls import correction, evaluate, failure, rubric
from tests.support.review import (
    JUDGE,
    claim,
    forward,
    judge_items,
    names,
    queue,
    set_audit,
)
from tests.support.server import running_server, settings_for

Item = pb.ReviewItem
OTHER = {
    judge_pb2.VERDICT_PASS: judge_pb2.VERDICT_FAIL,
    judge_pb2.VERDICT_FAIL: judge_pb2.VERDICT_PASS,
}
MIXED = [0.99, 0.5, 0.95, 0.6, 0.98, 0.9]


@pytest.fixture(scope="module")
def lm():
    with running_stand_in() as running:
        yield running


@pytest.fixture
def server(lm, tmp_path):
    with running_server(settings_for(tmp_path, lm_base_url=lm.base_url)) as running:
        set_audit(running.client, 0.0)
        yield running


def label(client, name, author, *, verdict=judge_pb2.VERDICT_FAIL, **fields):
    request = correction(name, verdict=verdict, author=author, **fields)
    return client.feedback.RecordFeedback(request).claim_outcome


def release(client, annotator, evaluations):
    return pb.ReleaseReviewItemsRequest(
        judge=JUDGE, annotator=annotator, evaluations=evaluations
    )


def estimate(client, **fields):
    request = pb.EstimateAgreementRequest(judge_version=f"{JUDGE}/versions/1", **fields)
    return client.review.EstimateAgreement(request)


def test_what_the_judge_is_least_sure_of_comes_first(server):
    """With fewer evaluations than a round draws all are drawn, in order of worth."""
    judged = judge_items(server.client, MIXED)

    found = queue(server.client)

    assert names(found) == [judged[n] for n in (1, 3, 5, 2, 4, 0)]
    assert [i.worth for i in found] == sorted((i.worth for i in found), reverse=True)
    assert {i.inclusion_probability for i in found} == {1.0}
    assert found[0].reasons == [Item.REASON_UNCERTAIN]
    assert found[-1].reasons == [Item.REASON_CHANCE]
    assert {i.stream for i in found} == {Item.STREAM_RANKED}
    assert found[0].evaluation.artifact_input.artifact.startswith("Item 1")


def test_disagreement_rare_labels_and_audits_are_told_as_reasons(server):
    """Another version's other verdict on the same input, and a verdict that is hardly ever right."""
    client = server.client
    for name in judge_items(client, [0.99] * 12):
        label(client, name, "ann", verdict=judge_pb2.VERDICT_PASS)
    version = client.judges.CreateJudgeVersion(
        judge_service_pb2.CreateJudgeVersionRequest(
            parent=JUDGE,
            judge_version=judge_pb2.JudgeVersion(instructions="Be meticulous."),
        )
    ).judge_version.name
    text = "p(yes)=0.99 p(yes|meticulous)=0.01"
    requests = [{"text": text}, {"text": text, "judge_version": version}]
    passed, failed = (evaluate(client, **fields).name for fields in requests)
    set_audit(client, 1.0)
    (audited,) = judge_items(client, [0.97])

    found = {i.evaluation.name: i for i in queue(client)}

    assert found[passed].reasons == [Item.REASON_DISAGREEMENT]
    assert set(found[failed].reasons) == {
        Item.REASON_DISAGREEMENT,
        Item.REASON_RARE_LABEL,
    }
    assert found[audited].reasons == [Item.REASON_AUDIT]
    assert found[audited].stream == Item.STREAM_UNIFORM


def test_two_annotators_at_once_never_get_the_same_item(server):
    """Eight people claim at the same time; every item goes to one of them."""
    judge_items(server.client, [0.5 + n / 100 for n in range(30)])
    people = [f"annotator {n}" for n in range(8)]

    with ThreadPoolExecutor(8) as pool:
        claimed = list(pool.map(lambda who: claim(server.client, who, 4), people))

    given = [name for items in claimed for name in names(items)]
    assert len(given) == len(set(given)) == 30
    assert min(map(len, claimed)) >= 2
    assert queue(server.client) == []
    shown = queue(server.client, show_claimed=True)
    assert len(shown) == 30
    assert {c.annotator for i in shown for c in i.claims} == set(people)


def test_items_of_a_caller_that_has_gone_are_kept_all_the_same(server):
    """What is on disk must be known, or somebody else gets it and a restart brings it back."""
    judge_items(server.client, MIXED)
    review = server.application.review

    async def scenario():
        going = asyncio.ensure_future(review.claim(ClaimRequest("safety", "ann", 2)))
        await asyncio.sleep(0)
        going.cancel()
        return await review.claim(ClaimRequest("safety", "ben", 10))

    others = server.run(scenario())

    assert len(others) == 4
    held = {c.annotator for i in queue(server.client, show_claimed=True) for c in i.claims}  # fmt: skip
    assert held == {"ann", "ben"}


def test_claiming_again_returns_the_same_items_and_renews_them(server):
    judge_items(server.client, MIXED)
    first = claim(server.client, "ann", 2)
    forward(server, minutes=10)

    again = claim(server.client, "ann", 3)

    assert names(again)[:2] == names(first)
    renewed, before = again[0].claims[0], first[0].claims[0]
    assert renewed.expire_time.seconds > before.expire_time.seconds + 500


def test_an_expired_claim_goes_to_somebody_else(server):
    """Its holder is told so, and a label that comes too late is recorded all the same."""
    client = server.client
    judge_items(client, MIXED)
    (held,) = claim(client, "ann")
    (other,) = claim(client, "ben")
    assert names([held]) != names([other])
    forward(server, minutes=16)

    (taken,) = claim(client, "cem")

    assert names([taken]) == names([held])
    error = failure(client.review.ReleaseReviewItems, release(client, "ann", names([held])))  # fmt: skip
    assert (error.code.name, error.reason) == ("FAILED_PRECONDITION", "CLAIM_EXPIRED")
    assert error.metadata == {"evaluations": names([held])[0], "annotator": "ann"}
    assert label(client, names([held])[0], "ann") == pb.CLAIM_OUTCOME_EXPIRED
    assert names([held])[0] not in names(queue(client, show_claimed=True))


def test_a_label_says_what_became_of_the_claim(server):
    """Held, held by another, or nobody's; it counts whatever it is."""
    client = server.client
    judge_items(client, MIXED)
    held, another = claim(client, "ann", 2)
    (free, *_) = names(queue(client))

    assert label(client, names([held])[0], "ann") == pb.CLAIM_OUTCOME_HELD
    assert label(client, names([another])[0], "ben") == pb.CLAIM_OUTCOME_HELD_BY_ANOTHER
    assert label(client, free, "ben") == pb.CLAIM_OUTCOME_UNSPECIFIED
    left = names(queue(client, show_claimed=True))
    assert len(left) == 3
    labelled = queue(client, show_labelled=True, show_claimed=True)
    assert sum(i.annotator_count for i in labelled) == 3


def test_several_annotators_get_an_item_if_asked_for(server):
    """Two of them, then it is taken; nobody gets what they have labelled themselves."""
    client = server.client
    judge_items(client, [0.5])
    (first,) = claim(client, "ann", annotators_per_item=2)
    assert label(client, names([first])[0], "ann") == pb.CLAIM_OUTCOME_HELD

    assert claim(client, "ann", annotators_per_item=2) == []
    assert claim(client, "ben") == []
    (second,) = claim(client, "ben", annotators_per_item=2)
    assert names([second]) == names([first])
    assert second.annotator_count == 1
    assert claim(client, "cem", annotators_per_item=2) == []
    assert names(claim(client, "cem", annotators_per_item=3)) == names([first])


def test_released_items_are_free_at_once(server):
    client = server.client
    judge_items(client, MIXED)
    items = names(claim(client, "ann", 2))

    given_up = client.review.ReleaseReviewItems(release(client, "ann", items))

    assert given_up.released_count == 2
    assert names(claim(client, "ben", 2)) == items
    error = failure(client.review.ReleaseReviewItems, release(client, "ann", items))
    assert error.reason == "CLAIM_NOT_HELD"


def test_items_can_be_claimed_by_name_if_they_are_free(server):
    client = server.client
    judged = judge_items(client, MIXED)
    claim(client, "ann")
    label(client, judged[0], "ben")

    def named(*evaluations):
        return pb.ClaimReviewItemsRequest(
            judge=JUDGE, annotator="cem", evaluations=evaluations
        )

    claiming = client.review.ClaimReviewItems
    error = failure(claiming, named(judged[0], judged[2]))
    assert (error.reason, error.metadata["evaluations"]) == (
        "REVIEW_ITEM_LABELLED",
        judged[0],
    )
    error = failure(claiming, named(judged[1], judged[2]))
    assert (error.code.name, error.reason) == ("ABORTED", "REVIEW_ITEM_CLAIMED")
    error = failure(claiming, named("evaluations/nobody", judged[2]))
    assert (error.code.name, error.reason) == ("NOT_FOUND", "REVIEW_ITEM_NOT_FOUND")
    assert names(queue(client))[0] == judged[3]
    assert names(claiming(named(judged[4], judged[2])).items) == [judged[4], judged[2]]


def test_a_restart_keeps_draws_and_claims(lm, tmp_path):
    settings = settings_for(tmp_path, lm_base_url=lm.base_url)
    with running_server(settings) as server:
        judge_items(server.client, MIXED)
        before = queue(server.client)
        held = claim(server.client, "ann", 2)
    with running_server(settings) as server:
        assert names(queue(server.client)) == names(before)[2:]
        after = queue(server.client, show_claimed=True)
        assert [i.inclusion_probability for i in after] == [
            i.inclusion_probability for i in before
        ]
        assert after[0].claims == held[0].claims
        assert names(claim(server.client, "ann", 2)) == names(held)
        assert label(server.client, names(held)[0], "ann") == pb.CLAIM_OUTCOME_HELD
        review = server.client.review
        review.ReleaseReviewItems(release(server.client, "ann", names(held)[1:]))
        late = names(claim(server.client, "ben", duration=Duration(seconds=1)))
    with running_server(settings) as server:
        forward(server, seconds=5)
        assert queue(server.client, show_claimed=True)[0].claims == []
        review = server.client.review
        error = failure(review.ReleaseReviewItems, release(server.client, "ben", late))
        assert error.reason == "CLAIM_EXPIRED"


def test_pages_go_on_where_the_one_before_ended(server):
    client = server.client
    judge_items(client, [0.5 + n / 100 for n in range(25)])
    whole = names(queue(client))
    found, request = [], pb.ListReviewQueueRequest(judge=JUDGE, page_size=10)
    while True:
        page = client.review.ListReviewQueue(request)
        found += names(page.items)
        if not page.next_page_token:
            break
        request.page_token = page.next_page_token

    assert found == whole
    assert len(whole) == 25
    request.show_labelled = True
    error = failure(client.review.ListReviewQueue, request)
    assert error.reason == "INVALID_PAGE_TOKEN"


def test_the_next_round_is_drawn_when_the_last_one_is_nearly_done(server):
    """What a round has considered is never drawn again, new evaluations are."""
    client = server.client
    judge_items(client, MIXED)
    assert {i.round for i in queue(client)} == {1}
    (new,) = judge_items(client, [0.51])

    found = queue(client)

    assert [i.round for i in found] == [1] * 6 + [2]
    assert names(found)[-1] == new


@pytest.mark.slow
def test_agreement_is_estimated_with_weights_and_refused_without(lm, tmp_path):
    """The estimate is what its formula gives of the probabilities that the queue shows."""
    settings = replace(
        settings_for(tmp_path, lm_base_url=lm.base_url),
        review=ReviewSettings(round_items=100),
    )
    with running_server(settings) as server:
        client = server.client
        set_audit(client, 0.0)
        judge_items(client, [0.5 + (n % 50) / 100 for n in range(400)])
        assert "30 more" in estimate(client).cannot_say
        drawn = queue(client, page_size=1000)
        assert len({i.inclusion_probability for i in drawn}) > 1
        listed = client.evaluation.ListEvaluations(
            evaluation_service_pb2.ListEvaluationsRequest(judge=JUDGE, page_size=1000)
        ).evaluations
        total = sum(e.judgment.confidence for e in listed)
        for number, item in enumerate(drawn):
            if number == 5:
                started = estimate(client)
            judged = item.evaluation.judgment
            right = number % 4 > 0
            verdict = judged.verdict if right else OTHER[judged.verdict]
            label(client, item.evaluation.name, "ann", verdict=verdict)
            total += (right - judged.confidence) / item.inclusion_probability

        found = estimate(client)

        assert (started.rounds, started.waiting) == (0, len(drawn) - 5)
        assert found.cannot_say == ""
        assert found.estimate == pytest.approx(total / 400)
        assert (found.considered, found.labelled) == (400, len(drawn))
        assert 0 < found.low < found.estimate < found.high <= 1
        unweighted = pb.EstimateAgreementRequest(
            judge_version=f"{JUDGE}/versions/1",
            weighting=pb.EstimateAgreementRequest.WEIGHTING_NONE,
        )
        error = failure(client.review.EstimateAgreement, unweighted)
        assert (error.code.name, error.reason) == (
            "FAILED_PRECONDITION",
            "BIASED_SAMPLE",
        )
        assert error.metadata == {"ranked": str(len(drawn)), "uniform": "0"}
        unweighted.uniform_only = True
        assert "30 more" in client.review.EstimateAgreement(unweighted).cannot_say


def test_audit_items_alone_may_count_all_alike(server):
    client = server.client
    set_audit(client, 1.0)
    judge_items(client, [0.9] * 40)
    for number, item in enumerate(queue(client)):
        assert item.stream == Item.STREAM_UNIFORM
        verdict = judge_pb2.VERDICT_FAIL if number % 4 == 0 else judge_pb2.VERDICT_PASS
        label(client, item.evaluation.name, "ann", verdict=verdict)

    found = estimate(
        client,
        weighting=pb.EstimateAgreementRequest.WEIGHTING_NONE,
        uniform_only=True,
    )

    assert found.estimate == pytest.approx(0.75)


def test_agreement_of_annotators_is_measured(server):
    client = server.client
    judged = judge_items(client, [0.5] * 12)
    queue(client)
    request = pb.MeasureAnnotatorAgreementRequest(judge=JUDGE)
    for number, name in enumerate(judged):
        same = judge_pb2.VERDICT_PASS if number % 2 else judge_pb2.VERDICT_FAIL
        label(client, name, "ann", verdict=same)
        if number == 4:
            few = client.review.MeasureAnnotatorAgreement(request)
            assert few.items == 4
            assert "6 more" in few.cannot_say
        label(client, name, "ben", verdict=judge_pb2.VERDICT_PASS if number == 0 else same)  # fmt: skip

    found = client.review.MeasureAnnotatorAgreement(request)

    assert (found.items, found.annotators, found.labels) == (12, 2, 24)
    assert found.percent_agreement == pytest.approx(11 / 12)
    assert 0.7 < found.krippendorff_alpha < 1
    assert found.gwet_ac1_low < found.gwet_ac1 < found.gwet_ac1_high
    assert found.cannot_say == ""


def test_scores_are_queued_by_the_spread_of_their_grades(server):
    set_audit(server.client, 0.0, judge="judges/rubric")
    judge = server.client.evaluation.Evaluate
    judged = [judge(rubric(f"grade={g}")).evaluation for g in (5.0, 3.5)]
    assert judged[0].rubric.score_stddev != judged[1].rubric.score_stddev

    found = queue(server.client, judge="judges/rubric")

    assert set(names(found)) == {e.name for e in judged}
    by_spread = sorted(judged, key=lambda e: -e.rubric.score_stddev)
    assert names(found) == [e.name for e in by_spread]


def test_a_batch_says_what_became_of_claims(server):
    client = server.client
    judge_items(client, MIXED)
    held = claim(client, "ann", 2)
    batch = feedback_service_pb2.BatchRecordFeedbackRequest(
        feedback=[
            feedback_pb2.Feedback(
                evaluation=name, verdict=judge_pb2.VERDICT_PASS, author=author
            )
            for name, author in zip(names(held), ["ann", "ben"], strict=True)
        ]
        + [feedback_pb2.Feedback(evaluation="evaluations/none", author="ann")]
    )
    answer = client.feedback.BatchRecordFeedback(batch)
    assert answer.recorded_count == 2
    assert [(one.index, one.outcome) for one in answer.claim_outcomes] == [
        (0, pb.CLAIM_OUTCOME_HELD),
        (1, pb.CLAIM_OUTCOME_HELD_BY_ANOTHER),
    ]
