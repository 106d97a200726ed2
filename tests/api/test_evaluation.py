"""EvaluationService over real gRPC."""

import pytest

from sidejudge.v1 import (
    evaluation_pb2,
    evaluation_service_pb2,
    judge_pb2,
    judge_service_pb2,
)
from tests.support.calls import artifact, evaluate, failure, new_uuid, rubric

PB = evaluation_service_pb2


def test_evaluate_answers_a_verdict_with_its_probabilities(server):
    """A verdict comes with the LM's probabilities, usage and the version that answered."""
    request = artifact(
        "p(yes)=0.9 fine", subject="agent-1", group="session-1", labels={"env": "test"}
    )
    answer = server.client.evaluation.Evaluate(request, timeout=30).evaluation
    assert answer.judgment.verdict == judge_pb2.VERDICT_PASS
    assert answer.judgment.confidence == pytest.approx(0.9, abs=0.01)
    assert answer.judgment.probabilities.passed == pytest.approx(0.9, abs=0.01)
    assert answer.judgment.confidence_source == evaluation_pb2.CONFIDENCE_SOURCE_LOGPROB
    assert answer.judgment.reasoning != ""
    assert answer.judge == "judges/safety"
    assert answer.judge_version == "judges/safety/versions/1"
    assert answer.artifact_input == request.artifact_input
    assert answer.usage.model == "openai/stand-in"
    assert answer.usage.input_tokens > 0
    assert answer.usage.lm_calls == 1
    assert (answer.subject, answer.group) == ("agent-1", "session-1")
    assert dict(answer.labels) == {"env": "test"}


def test_evaluate_answers_a_score_to_rubric_judges(server):
    """A rubric's score is the mean grade on the scale 0..1; default criteria are shown."""
    answer = server.client.evaluation.Evaluate(
        rubric("grade=4.2 good"), timeout=30
    ).evaluation
    assert answer.rubric.score == pytest.approx(0.8, abs=0.02)
    assert answer.rubric.score_stddev > 0
    assert [c.name for c in answer.rubric_input.criteria] == [
        "correctness",
        "completeness",
        "clarity",
    ]


def test_omitted_reasoning_does_not_change_the_verdict(server):
    """Faster and cheaper, same verdict and probabilities."""
    short = evaluate(server.client, text="p(yes)=0.2 bad", omit_reasoning=True)
    long = evaluate(server.client, text="p(yes)=0.2 bad")
    assert short.judgment.reasoning == ""
    assert short.judgment.verdict == long.judgment.verdict == judge_pb2.VERDICT_FAIL
    assert short.judgment.probabilities == long.judgment.probabilities
    assert short.usage.output_tokens < long.usage.output_tokens


def test_an_evaluation_is_readable_as_it_was_answered(server):
    """What was answered is what is stored."""
    answer = evaluate(server.client)
    request = PB.GetEvaluationRequest(name=answer.name)
    assert server.client.evaluation.GetEvaluation(request).evaluation == answer


def test_texts_of_any_kind_survive(server):
    """Text is data: control characters, emoji, markers and null bytes come back as they were."""
    text = "p(yes)=0.7 \x00\x1b[31m \U0001f600 ]] ## completed ## <|im_end|> é\u2028"
    answer = evaluate(server.client, text=text)
    stored = server.client.evaluation.GetEvaluation(
        PB.GetEvaluationRequest(name=answer.name)
    ).evaluation
    assert stored.artifact_input.artifact == text


def test_a_repeated_request_is_answered_without_asking_the_lm_again(server, stand_in):
    """An LM call costs money: the same request_id is judged once."""
    request = artifact("p(yes)=0.8 once", request_id=new_uuid())
    first = server.client.evaluation.Evaluate(request).evaluation
    calls = stand_in.call_count
    second = server.client.evaluation.Evaluate(request).evaluation
    assert second == first
    assert stand_in.call_count == calls


def test_a_request_id_stands_for_one_request(server):
    """Another request under the same id is refused, not answered with the wrong thing."""
    identity = new_uuid()
    evaluate(server.client, text="p(yes)=0.8 a", request_id=identity)
    error = failure(
        server.client.evaluation.Evaluate,
        artifact("p(yes)=0.8 b", request_id=identity),
    )
    assert error.reason == "REQUEST_ID_REUSED"
    assert error.metadata["request_id"] == identity


def test_a_version_other_than_the_deployed_one_can_judge(server):
    """The version asked for answers, and the answer names it."""
    created = server.client.judges.CreateJudgeVersion(
        _new_version("Judge very strictly.")
    ).judge_version
    answer = evaluate(
        server.client, judge="judges/relevance", judge_version=created.name
    )
    assert answer.judge_version == created.name


def _new_version(instructions):
    return judge_service_pb2.CreateJudgeVersionRequest(
        parent="judges/relevance",
        judge_version=judge_pb2.JudgeVersion(instructions=instructions),
    )


def test_batch_answers_every_item_by_index(server):
    """Results come as they complete; bad items carry their own error and stop no other."""
    items = [
        artifact("p(yes)=0.9 good"),
        artifact("p(yes)=0.9", judge="judges/unknown"),
        artifact(""),
        rubric("grade=2.0 poor"),
        artifact("p(yes)=0.1 bad"),
    ]
    answers = {
        answer.index: answer
        for answer in server.client.evaluation.BatchEvaluate(
            PB.BatchEvaluateRequest(requests=items), timeout=30
        )
    }
    outcomes = {index: a.WhichOneof("outcome") for index, a in answers.items()}
    assert outcomes == {
        0: "evaluation",
        1: "error",
        2: "error",
        3: "evaluation",
        4: "evaluation",
    }
    assert answers[1].error.code == 5
    assert answers[2].error.code == 3
    assert "requests[2].artifact_input.artifact" in answers[2].error.message
    assert answers[4].evaluation.judgment.verdict == judge_pb2.VERDICT_FAIL


def test_a_repeated_batch_item_is_judged_once(server, stand_in):
    """After a broken stream the caller sends the missing items again, each with its id."""
    item = artifact("p(yes)=0.6 in a batch", request_id=new_uuid())
    request = PB.BatchEvaluateRequest(requests=[item, item, item])
    before = stand_in.call_count
    names = {a.evaluation.name for a in server.client.evaluation.BatchEvaluate(request)}
    again = {a.evaluation.name for a in server.client.evaluation.BatchEvaluate(request)}
    assert len(names) == 1
    assert again == names
    assert stand_in.call_count == before + 1


def test_a_full_batch_is_judged(server):
    """256 items of one call wait for the LM in turn and are not refused."""
    items = [artifact(f"p(yes)=0.9 item {n}", omit_reasoning=True) for n in range(256)]
    request = PB.BatchEvaluateRequest(requests=items)
    answers = list(server.client.evaluation.BatchEvaluate(request, timeout=60))
    assert sorted(a.index for a in answers) == list(range(256))
    assert {a.WhichOneof("outcome") for a in answers} == {"evaluation"}


@pytest.mark.parametrize("count", [0, 257])
def test_batches_have_a_size(server, count):
    """1 to 256 items."""
    request = PB.BatchEvaluateRequest(requests=[artifact()] * count)
    error = failure(server.client.evaluation.BatchEvaluate, request)
    assert [v.field for v in error.violations] == ["requests"]


def test_lists_are_paged_newest_first(server):
    """Pages join without gap or overlap; the last one has no token."""
    made = [
        evaluate(server.client, subject="paged", omit_reasoning=True).name
        for _ in range(7)
    ]
    listed, token, pages = [], "", 0
    while True:
        page = server.client.evaluation.ListEvaluations(
            PB.ListEvaluationsRequest(subject="paged", page_size=3, page_token=token)
        )
        listed += [e.name for e in page.evaluations]
        pages += 1
        token = page.next_page_token
        if not token:
            break
    assert listed == made[::-1]
    assert pages == 3


def test_list_filters_are_combined(server):
    """Judge, verdict, subject, labels and times all must match."""
    wanted = evaluate(
        server.client, text="p(yes)=0.1", subject="s1", labels={"a": "1", "b": "2"}
    )
    for other in (
        {"text": "p(yes)=0.9", "subject": "s1", "labels": {"a": "1"}},
        {"text": "p(yes)=0.1", "subject": "s2", "labels": {"a": "1"}},
        {"text": "p(yes)=0.1", "subject": "s1", "labels": {"a": "2"}},
        {"text": "p(yes)=0.1", "subject": "s1", "judge": "judges/relevance"},
    ):
        evaluate(server.client, **other)
    request = PB.ListEvaluationsRequest(
        judge="judges/safety",
        verdict=judge_pb2.VERDICT_FAIL,
        subject="s1",
        labels={"a": "1"},
        start_time=wanted.create_time,
    )
    found = server.client.evaluation.ListEvaluations(request)
    assert [e.name for e in found.evaluations] == [wanted.name]
    request.end_time.CopyFrom(wanted.create_time)
    assert not server.client.evaluation.ListEvaluations(request).evaluations


def test_a_page_token_is_bound_to_its_filters(server):
    """A token of one list says nothing about another."""
    for _ in range(2):
        evaluate(server.client, subject="bound", omit_reasoning=True)
    list_evaluations = server.client.evaluation.ListEvaluations
    page = list_evaluations(PB.ListEvaluationsRequest(subject="bound", page_size=1))
    error = failure(
        list_evaluations,
        PB.ListEvaluationsRequest(subject="other", page_token=page.next_page_token),
    )
    assert error.reason == "INVALID_PAGE_TOKEN"
    malformed = PB.ListEvaluationsRequest(page_token="%%%")  # noqa: S106 - no password
    assert failure(list_evaluations, malformed).reason == "INVALID_PAGE_TOKEN"


def test_pages_stay_under_what_clients_accept(server):
    """Large evaluations make short pages instead of messages over 4 MB."""
    big = "p(yes)=0.9 " + "x" * 190_000
    for _ in range(24):
        evaluate(server.client, text=big, subject="big", omit_reasoning=True)
    page = server.client.evaluation.ListEvaluations(
        PB.ListEvaluationsRequest(subject="big", page_size=100)
    )
    assert page.ByteSize() < 4 * 1024 * 1024
    assert 1 <= len(page.evaluations) < 24
    rest = server.client.evaluation.ListEvaluations(
        PB.ListEvaluationsRequest(
            subject="big", page_size=100, page_token=page.next_page_token
        )
    )
    assert len(page.evaluations) + len(rest.evaluations) == 24
