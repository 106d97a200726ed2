"""Server info, health, reflection, and how a server stops."""

import socket
import stat
import threading
import uuid

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from sidejudge.v1 import evaluation_service_pb2, server_service_pb2
from sidejudge_server import __version__
from sidejudge_server.config import ConfigError
from sidejudge_server.judges.requests import RequestLog
from sidejudge_server.lm.http_client import HttpChatClient
from tests.support.calls import artifact, evaluate, failure
from tests.support.server import running_server, settings_for

SERVICES = [
    "",
    "sidejudge.v1.EvaluationService",
    "sidejudge.v1.FeedbackService",
    "sidejudge.v1.JudgeService",
    "sidejudge.v1.OptimizationService",
    "sidejudge.v1.ServerService",
]
SERVING = health_pb2.HealthCheckResponse.SERVING


def check(channel, service):
    request = health_pb2.HealthCheckRequest(service=service)
    return health_pb2_grpc.HealthStub(channel).Check(request).status


def test_server_info_tells_versions_limits_and_models_but_no_secret(server):
    """What a caller may ask for, and who judges."""
    info = server.client.server.GetServerInfo(server_service_pb2.GetServerInfoRequest())
    assert info.version == __version__
    assert info.database_id
    assert info.task_model == "openai/stand-in"
    assert info.prompt_model == ""
    assert info.limits.max_message_bytes == 16 * 1024 * 1024
    assert info.limits.max_text_chars == 200_000
    assert info.limits.max_batch_items == 256
    assert info.limits.max_feedback_batch_items == 10_000
    assert info.limits.default_deadline.seconds == 60
    assert info.limits.min_training_examples == 20
    assert info.limits.recommended_training_examples == 50
    assert "test" not in str(info)  # the key


@pytest.mark.parametrize("service", SERVICES)
def test_every_service_reports_serving(server, service):
    """Probes may ask for one service or for the process."""
    with grpc.insecure_channel(server.address) as channel:
        assert check(channel, service) == SERVING


def test_reflection_names_the_services(server):
    """Grpcurl needs no protos."""
    with grpc.insecure_channel(server.address) as channel:
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        request = reflection_pb2.ServerReflectionRequest(list_services="")
        answer = next(stub.ServerReflectionInfo(iter([request])))
    names = {service.name for service in answer.list_services_response.service}
    assert set(SERVICES) - {""} <= names


def test_reflection_can_be_switched_off(tmp_path):
    """The setting is obeyed."""
    settings = settings_for(tmp_path, server={"reflection": False})
    with (
        running_server(settings) as server,
        grpc.insecure_channel(server.address) as channel,
    ):
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        request = reflection_pb2.ServerReflectionRequest(list_services="")
        with pytest.raises(grpc.RpcError) as caught:
            next(stub.ServerReflectionInfo(iter([request])))
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.slow
def test_a_stopping_server_reports_not_serving_and_finishes_its_calls(
    tmp_path, stand_in
):
    """NOT_SERVING first, then the running call gets its answer."""
    settings = settings_for(
        tmp_path, lm_base_url=stand_in.base_url, model="slow", server={"drain_s": 30.0}
    )
    watched = []
    watching, not_serving = threading.Event(), threading.Event()
    before = stand_in.call_count

    def watch(channel):
        request = health_pb2.HealthCheckRequest(service=SERVICES[1])
        for answer in health_pb2_grpc.HealthStub(channel).Watch(request):
            watched.append(answer.status)
            watching.set()
            if answer.status != SERVING:
                not_serving.set()
                return

    with running_server(settings) as server:
        client = server.client
        pending = client.evaluation.Evaluate.future(artifact(), timeout=60)
        stand_in.wait_for_calls(before + 1)
        watcher = threading.Thread(target=watch, args=(client.channel,))
        watcher.start()
        assert watching.wait(30)
        stopping = threading.Thread(
            target=server.run, args=(server.application.stop(),)
        )
        stopping.start()
        assert not_serving.wait(30)
        stand_in.release()
        assert pending.result().evaluation.name
        stopping.join(30)
        watcher.join(30)
    assert watched[-1] == health_pb2.HealthCheckResponse.NOT_SERVING


def test_work_cut_off_by_the_end_is_over_before_anything_closes(
    tmp_path, stand_in, monkeypatch
):
    """A caller with a request_id leaves work behind, which still needs model and database."""
    settings = settings_for(tmp_path, lm_base_url=stand_in.base_url, model="slow")
    before = stand_in.call_count
    logs, left = [], []
    load, end = RequestLog.load, HttpChatClient.close

    async def remember(log):
        logs.append(log)
        await load(log)

    async def count(client):
        left.append(len(logs[0]._running))
        await end(client)

    monkeypatch.setattr(RequestLog, "load", remember)
    monkeypatch.setattr(HttpChatClient, "close", count)
    with running_server(settings) as server:
        request = artifact(request_id=str(uuid.UUID(int=7, version=4)))
        pending = server.client.evaluation.Evaluate.future(request, timeout=60)
        stand_in.wait_for_calls(before + 1)
        server.run(server.application.stop(drain_s=0.0))
        with pytest.raises(grpc.RpcError):
            pending.result()
        stand_in.release()
    assert left == [0]


def test_what_was_stored_is_there_after_a_restart(tmp_path, stand_in):
    """Evaluations, judges and the database's identity survive."""
    settings = settings_for(tmp_path, lm_base_url=stand_in.base_url)
    with running_server(settings) as server:
        name = evaluate(server.client).name
        before = server.client.server.GetServerInfo(
            server_service_pb2.GetServerInfoRequest()
        )
    with running_server(settings) as server:
        request = evaluation_service_pb2.GetEvaluationRequest(name=name)
        assert server.client.evaluation.GetEvaluation(request).evaluation.name == name
        after = server.client.server.GetServerInfo(
            server_service_pb2.GetServerInfoRequest()
        )
    assert after.database_id == before.database_id


def test_an_address_in_use_is_a_clear_error(tmp_path, server):
    """The second server does not share the port."""
    settings = settings_for(tmp_path, server={"address": server.address})
    with (
        pytest.raises(ConfigError, match="cannot be listened on"),
        running_server(settings),
    ):
        pass


def test_a_unix_socket_serves_owner_and_group(tmp_path, stand_in):
    """Mode 0660; a socket that a killed server left behind is replaced."""
    path = tmp_path / "s.sock"
    stale = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    stale.bind(str(path))
    stale.close()
    settings = settings_for(
        tmp_path, lm_base_url=stand_in.base_url, server={"address": f"unix:{path}"}
    )
    with running_server(settings) as server:
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        assert server.address == f"unix:{path}"
        assert evaluate(server.client).name
        with (
            pytest.raises(ConfigError, match="in use by another server"),
            running_server(
                settings_for(tmp_path / "x", server={"address": f"unix:{path}"})
            ),
        ):
            pass


def test_a_file_that_is_no_socket_is_not_removed(tmp_path):
    """A wrong path must not cost somebody a file."""
    path = tmp_path / "notes.txt"
    path.write_text("keep me")
    settings = settings_for(tmp_path, server={"address": f"unix:{path}"})
    with pytest.raises(ConfigError, match="no socket"), running_server(settings):
        pass
    assert path.read_text() == "keep me"


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0:50510",
        "[::]:50510",
        "192.168.1.5:1",
        "example.org:1",
        ":50510",
        "127.0.0.1",
        "127.0.0.1:x",
        "127.0.0.1:65536",
        "unix:",
        "unix:///",
        "50510",
        "",
    ],
)
def test_addresses_that_others_could_reach_are_refused(tmp_path, address):
    """Without encryption only this machine may connect; malformed ones are refused too."""
    settings = settings_for(tmp_path, server={"address": address})
    with (
        pytest.raises(ConfigError, match=r"server\.address"),
        running_server(settings),
    ):
        pass
    assert not (tmp_path / "sidejudge.duckdb").exists()


def test_a_method_that_is_not_there_is_unimplemented(server):
    """An older server says so to a newer client."""
    call = server.client.channel.unary_unary("/sidejudge.v1.JudgeService/Nothing")
    assert failure(call, b"").code is grpc.StatusCode.UNIMPLEMENTED
