"""What callers hear when the language model does not deliver, and that nothing is stored then."""

import grpc
import pytest

from sidejudge.v1 import evaluation_service_pb2 as pb
from sidejudge.v1 import judge_pb2, server_service_pb2
from tests.stand_in import running_stand_in
from tests.support.calls import artifact, evaluate, failure, new_uuid
from tests.support.server import running_server, settings_for

pytestmark = pytest.mark.slow

FAILURES = [
    ("down", "UNAVAILABLE", "LM_UNAVAILABLE"),
    ("hang-up", "UNAVAILABLE", "LM_UNAVAILABLE"),
    ("rate-limited", "RESOURCE_EXHAUSTED", "LM_RATE_LIMITED"),
    ("bad-key", "FAILED_PRECONDITION", "LM_CREDENTIALS_REJECTED"),
    ("unknown-model", "FAILED_PRECONDITION", "LM_REQUEST_REJECTED"),
    ("too-long", "FAILED_PRECONDITION", "LM_REQUEST_REJECTED"),
    ("garbage", "INTERNAL", "JUDGE_OUTPUT_UNPARSABLE"),
]


def stored(server):
    return list(
        server.client.evaluation.ListEvaluations(
            pb.ListEvaluationsRequest()
        ).evaluations
    )


@pytest.mark.parametrize(("model", "code", "reason"), FAILURES)
def test_failing_models_are_errors_and_never_verdicts(tmp_path, model, code, reason):
    """Each failure has its own reason and names the model; nothing is stored."""
    with (
        running_stand_in() as stand_in,
        running_server(
            settings_for(tmp_path, lm_base_url=stand_in.base_url, model=model)
        ) as server,
    ):
        error = failure(server.client.evaluation.Evaluate, artifact())
        assert (error.code.name, error.reason) == (code, reason)
        assert error.metadata["model"] == f"openai/{model}"
        assert stored(server) == []


def test_a_model_that_is_down_is_not_asked_again_by_the_connection(tmp_path):
    """The server has retried; the client library's retries would multiply the wait."""
    with (
        running_stand_in() as stand_in,
        running_server(
            settings_for(tmp_path, lm_base_url=stand_in.base_url, model="down")
        ) as server,
    ):
        error = failure(server.client.evaluation.Evaluate, artifact())
        assert error.retry_after_s > 0
        assert stand_in.call_count == 1


def test_an_unreachable_model_is_unavailable(tmp_path):
    """Nobody listens at the address."""
    with running_server(settings_for(tmp_path)) as server:
        error = failure(server.client.evaluation.Evaluate, artifact())
        assert (error.code.name, error.reason) == ("UNAVAILABLE", "LM_UNAVAILABLE")
        assert stored(server) == []


def test_a_rate_limit_says_when_to_come_back(tmp_path):
    """The provider's own delay is passed on."""
    with (
        running_stand_in() as stand_in,
        running_server(
            settings_for(tmp_path, lm_base_url=stand_in.base_url, model="rate-limited")
        ) as server,
    ):
        stand_in.retry_after = "7"
        error = failure(server.client.evaluation.Evaluate, artifact())
        assert error.retry_after_s == 7


def test_an_outage_that_ends_costs_nothing_but_time(tmp_path):
    """The same request_id works once the model is back."""
    with (
        running_stand_in() as stand_in,
        running_server(settings_for(tmp_path, lm_base_url=stand_in.base_url)) as server,
    ):
        request = artifact(request_id=new_uuid())
        stand_in.fail_after(0)
        assert (
            failure(server.client.evaluation.Evaluate, request).reason
            == "LM_UNAVAILABLE"
        )
        stand_in.fail_after(None)
        answer = server.client.evaluation.Evaluate(request).evaluation
        assert [e.name for e in stored(server)] == [answer.name]


def test_models_without_probabilities_state_their_confidence(tmp_path):
    """A verdict without logprobs says where its confidence comes from."""
    with (
        running_stand_in() as stand_in,
        running_server(
            settings_for(
                tmp_path,
                lm_base_url=stand_in.base_url,
                model="ignores-logprobs",
            )
        ) as server,
    ):
        answer = evaluate(server.client, text="p(yes)=0.9 fine")
        assert answer.judgment.verdict == judge_pb2.VERDICT_PASS
        assert not answer.judgment.HasField("probabilities")


def test_a_call_without_deadline_ends_at_the_default_one(tmp_path):
    """A slow model does not hold callers for ever; what it says later is not stored."""
    with (
        running_stand_in() as stand_in,
        running_server(
            settings_for(
                tmp_path,
                lm_base_url=stand_in.base_url,
                model="slow",
                server={"default_deadline_s": 0.3},
            )
        ) as server,
    ):
        with pytest.raises(grpc.RpcError) as caught:
            server.client.evaluation.Evaluate(artifact())
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        stand_in.release()
        assert stored(server) == []


def test_the_callers_deadline_reaches_the_model(tmp_path):
    """The LM call ends with the call that needs it."""
    with (
        running_stand_in() as stand_in,
        running_server(
            settings_for(tmp_path, lm_base_url=stand_in.base_url, model="slow")
        ) as server,
    ):
        error = failure(server.client.evaluation.Evaluate, artifact(), timeout=0.3)
        assert error.code is grpc.StatusCode.DEADLINE_EXCEEDED
        stand_in.wait_for_disconnects(1)


def test_a_retry_after_a_lost_connection_shares_the_first_call(tmp_path):
    """The caller goes away and comes back with its request_id: the LM is asked once."""
    with (
        running_stand_in() as stand_in,
        running_server(
            settings_for(tmp_path, lm_base_url=stand_in.base_url, model="slow")
        ) as server,
    ):
        request = artifact(request_id=new_uuid())
        first = server.client.evaluation.Evaluate.future(request, timeout=30)
        stand_in.wait_for_calls(1)
        first.cancel()
        second = server.client.evaluation.Evaluate.future(request, timeout=30)
        stand_in.release()
        answer = second.result().evaluation
        assert [e.name for e in stored(server)] == [answer.name]
        assert stand_in.call_count == 1


def test_too_many_evaluations_at_once_are_refused(tmp_path):
    """What cannot be worked on soon is refused with a time to come back."""
    with (
        running_stand_in() as stand_in,
        running_server(
            settings_for(
                tmp_path,
                lm_base_url=stand_in.base_url,
                model="slow",
                server={"max_pending_evaluations": 2},
            )
        ) as server,
    ):
        waiting = [
            server.client.evaluation.Evaluate.future(artifact(f"p(yes)=0.9 {n}"))
            for n in range(2)
        ]
        stand_in.wait_for_calls(2)
        error = failure(server.client.evaluation.Evaluate, artifact())
        assert (error.code.name, error.reason) == ("RESOURCE_EXHAUSTED", "OVERLOADED")
        assert error.retry_after_s > 0
        stand_in.release()
        assert all(w.result().evaluation.name for w in waiting)


def test_a_server_whose_model_fails_still_serves_the_rest(tmp_path):
    """Only judging needs the model."""
    with running_server(
        settings_for(tmp_path, lm={"model": "local/qwen2.5-coder-1.5b"})
    ) as server:
        info = server.client.server.GetServerInfo(
            server_service_pb2.GetServerInfoRequest()
        )
        assert info.task_model == "local/qwen2.5-coder-1.5b"
