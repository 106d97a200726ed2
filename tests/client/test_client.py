"""The public surface of the Python client, against a real server."""

import asyncio
import subprocess
import sys

import grpc
import pytest

import sidejudge
from sidejudge.v1 import evaluation_service_pb2, judge_service_pb2, server_service_pb2
from tests.stand_in import running_stand_in
from tests.support.calls import artifact, failure
from tests.support.server import running_server, settings_for

LIGHT = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name in {"structlog", "duckdb", "aiohttp", "dspy", "numpy", "grpc_status"} or (
            name == "google.rpc.error_details_pb2"
        ):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Refuse())
import grpc, sidejudge
class Failed(grpc.RpcError):
    code = lambda self: grpc.StatusCode.NOT_FOUND
    details = lambda self: "no such judge"
    trailing_metadata = lambda self: (("grpc-status-details-bin", b"x"),)
error = sidejudge.SidejudgeError.from_rpc_error(Failed())
print(error, "|", error.reason, "|", error.violations)
"""


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    with running_stand_in() as stand_in:
        settings = settings_for(
            tmp_path_factory.mktemp("client"), lm_base_url=stand_in.base_url
        )
        with running_server(settings) as server:
            yield stand_in, server


def test_public_names_are_these():
    """Adding or removing one is a decision."""
    assert sorted(sidejudge.__all__) == [
        "AsyncClient",
        "Client",
        "SidejudgeError",
        "Violation",
        "connect",
        "connect_async",
    ]


def test_a_client_has_the_stubs_of_all_services(running):
    """Each service is an attribute."""
    _, server = running
    with sidejudge.connect(server.address) as client:
        names = [j.name for j in client.judges.ListJudges(list_judges()).judges]
        assert "judges/safety" in names
        assert client.server.GetServerInfo(get_info()).version
        assert client.evaluation.Evaluate(artifact()).evaluation.name
        assert client.feedback.ListFeedback is not None
        assert client.optimization.GetOptimization is not None


def list_judges():
    return judge_service_pb2.ListJudgesRequest()


def get_info():
    return server_service_pb2.GetServerInfoRequest()


def test_an_async_client_calls_and_streams(running):
    """The same stubs for asyncio."""
    _, server = running

    async def scenario():
        async with sidejudge.connect_async(server.address) as client:
            answer = await client.evaluation.Evaluate(artifact())
            batch = evaluation_service_pb2.BatchEvaluateRequest(
                requests=[artifact("p(yes)=0.9 a"), artifact("p(yes)=0.9 b")]
            )
            indexes = [a.index async for a in client.evaluation.BatchEvaluate(batch)]
            with pytest.raises(grpc.RpcError) as caught:
                await client.judges.GetJudge(
                    judge_service_pb2.GetJudgeRequest(name="judges/unknown")
                )
            return answer, indexes, caught.value

    answer, indexes, raised = asyncio.run(scenario())
    assert answer.evaluation.name
    assert sorted(indexes) == [0, 1]
    error = sidejudge.SidejudgeError.from_rpc_error(raised)
    assert error.reason == "JUDGE_NOT_FOUND"


def test_an_error_has_reason_metadata_and_violations(running):
    """Typed from the status details; its text is one line."""
    _, server = running
    error = failure(server.client.evaluation.Evaluate, artifact("", judge="x"))
    assert error.code is grpc.StatusCode.INVALID_ARGUMENT
    assert error.violations == (
        sidejudge.Violation("judge", "must have the form judges/{judge}"),
        sidejudge.Violation(
            "artifact_input.artifact", "is required and must not be blank"
        ),
    )
    assert error.metadata == {"fields": "judge,artifact_input.artifact"}
    assert error.call_id
    assert str(error).startswith("INVALID_ARGUMENT INVALID_REQUEST: judge: ")


def test_requests_get_an_id_and_the_callers_message_stays_as_it_is(running):
    """Attempts repeated by the connection are one request; two calls are two."""
    stand_in, server = running
    request = artifact("p(yes)=0.9 twice")
    before = stand_in.call_count
    first = server.client.evaluation.Evaluate(request).evaluation
    second = server.client.evaluation.Evaluate(request).evaluation
    assert request.request_id == ""
    assert first.name != second.name
    assert stand_in.call_count == before + 2


def test_a_server_that_comes_later_is_waited_for(tmp_path):
    """The connection retries what found nobody: a restart goes unnoticed."""
    with running_server(settings_for(tmp_path)) as server:
        address = server.address
    with sidejudge.connect(address) as client:
        pending = client.server.GetServerInfo.future(get_info(), timeout=30)
        settings = settings_for(tmp_path, server={"address": address})
        with running_server(settings):
            assert pending.result().version


def test_nobody_at_the_address_is_an_error_without_reason():
    """No server, no details: code and message must do."""
    with sidejudge.connect("127.0.0.1:9") as client:
        error = failure(client.server.GetServerInfo, get_info())
    assert error.code is grpc.StatusCode.UNAVAILABLE
    assert error.reason == ""
    assert str(error).startswith("UNAVAILABLE: ")


def test_the_light_install_needs_no_server_packages():
    """Without the server extra, and without details to read, code and message remain."""
    done = subprocess.run(  # noqa: S603 - our own program
        [sys.executable, "-c", LIGHT], capture_output=True, text=True, check=True
    )
    assert done.stdout == "NOT_FOUND: no such judge |  | ()\n"
