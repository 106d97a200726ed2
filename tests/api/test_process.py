"""The sidecar as users start it: a process of its own."""

import json
import os
import select
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

import sidejudge
from sidejudge.v1 import server_service_pb2
from tests.stand_in import running_stand_in
from tests.support.calls import artifact, evaluate, failure
from tests.support.server import ROOT, server_process

pytestmark = pytest.mark.slow

HEAVY = ("dspy", "numpy", "scipy", "pyarrow", "litellm", "optuna", "pandas")

# Serves, answers one call of each kind that could import something late, and lists modules.
MODULES = """
import asyncio, json, sys
from pathlib import Path
from sidejudge_server.optimization.executor import start_fork_server
before = sorted(m for m in sys.modules if m in {"grpc", "duckdb"})
start_fork_server()
from tests.support.calls import artifact, correction
from tests.support.server import running_server, settings_for
from sidejudge.v1 import feedback_service_pb2
with running_server(settings_for(Path(sys.argv[1]), lm_base_url=sys.argv[2])) as server:
    client = server.client
    name = client.evaluation.Evaluate(artifact()).evaluation.name
    client.feedback.RecordFeedback(correction(name))
    client.feedback.GetTrainingSet(
        feedback_service_pb2.GetTrainingSetRequest(judge="judges/safety")
    )
    print(json.dumps({"before": before, "modules": sorted(sys.modules)}))
"""


@pytest.fixture
def lm():
    with running_stand_in() as stand_in:
        yield stand_in


def family(pid):
    """Return a process with all its descendants."""
    members = [pid]
    for member in members:
        for children in Path(f"/proc/{member}/task").glob("*/children"):
            members += [int(child) for child in children.read_text().split()]
    return members


@contextmanager
def ended_children(pid):
    """Assert that the children that a process has now end after the context's body."""
    ends = [os.pidfd_open(child) for child in family(pid)[1:]]
    assert ends
    yield
    for end in ends:
        assert select.select([end], [], [], 30)[0]
        os.close(end)


def resident_mib(pid):
    status = Path(f"/proc/{pid}/status").read_text()
    line = next(x for x in status.splitlines() if x.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


def test_serving_imports_nothing_heavy(tmp_path, lm):
    """A sidecar's memory and start-up are what its users feel; numbers belong into workers."""
    done = subprocess.run(  # noqa: S603 - our own program
        [sys.executable, "-c", MODULES, str(tmp_path), lm.base_url],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    seen = json.loads(done.stdout.splitlines()[-1])
    loaded = {module.partition(".")[0] for module in seen["modules"]}
    # pytest and what it brings are of the test, not of the server.
    assert [name for name in HEAVY if name in loaded] == []
    assert seen["before"] == []


def test_logging_brings_no_console_library():
    """Logs are JSON; whoever needs rich afterwards still gets it."""
    program = """
import sys
from sidejudge_server.app import _import_structlog_alone
_import_structlog_alone()
import structlog
print(sorted(m for m in sys.modules if m.startswith("rich")))
import rich.table
"""
    done = subprocess.run(  # noqa: S603 - our own program
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    assert done.stdout.strip() == "[]"


def test_an_idle_sidecar_is_small(tmp_path, lm):
    """Server, fork server and its tracker stay under 150 MB together."""
    with server_process(tmp_path, lm_base_url=lm.base_url) as server:
        sizes = {pid: resident_mib(pid) for pid in family(server.process.pid)}
    assert sum(sizes.values()) < 150, sizes


def test_sigterm_ends_in_order(tmp_path, lm):
    """Exit code 0, nothing left behind but the database."""
    with server_process(tmp_path, lm_base_url=lm.base_url) as server:
        with sidejudge.connect(server.address) as client:
            name = evaluate(client).name
        with ended_children(server.process.pid):
            assert server.terminate() == 0
    assert name
    log = [json.loads(x) for x in (tmp_path / "server.log").read_text().splitlines()]
    assert [line["event"] for line in log] == ["listening", "stopping", "stopped"]


def test_a_second_signal_forces_the_exit(tmp_path, lm):
    """Who cannot wait for the last calls does not have to."""
    environment = {"SIDEJUDGE_LM": "openai/slow", "SIDEJUDGE_DRAIN_S": "600"}
    with (
        server_process(
            tmp_path, lm_base_url=lm.base_url, environment=environment
        ) as server,
        sidejudge.connect(server.address) as client,
    ):
        pending = client.evaluation.Evaluate.future(artifact(), timeout=60)
        lm.wait_for_calls(1)
        server.process.send_signal(signal.SIGINT)
        with (tmp_path / "server.log").open() as log:
            while "stopping" not in log.readline():
                assert server.process.poll() is None
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(30) == 130
        assert pending.exception() is not None


def test_a_killed_server_leaves_no_process_behind(tmp_path, lm):
    """The fork server sees its pipe close."""
    with (
        server_process(tmp_path, lm_base_url=lm.base_url) as server,
        ended_children(server.process.pid),
    ):
        server.kill()


def run_serve(directory, **environment):
    inherited = {k: v for k, v in os.environ.items() if "SIDEJUDGE" not in k}
    return subprocess.run(
        [sys.executable, "-m", "sidejudge_server", "serve"],
        env={
            **inherited,
            "SIDEJUDGE_ADDRESS": "127.0.0.1:0",
            "SIDEJUDGE_DATABASE": str(directory / "sidejudge.duckdb"),
            "SIDEJUDGE_LM": "openai/stand-in",
            "SIDEJUDGE_LM_API_KEY": "test",
            **environment,
        },
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_database_in_use_is_a_clear_exit(tmp_path, lm):
    """One process a file; the message says so, without a traceback."""
    with server_process(tmp_path, lm_base_url=lm.base_url):
        done = run_serve(tmp_path)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "sidejudge.duckdb" in done.stderr


def test_an_open_address_is_a_clear_exit(tmp_path):
    """Refused before anything is opened."""
    done = run_serve(tmp_path, SIDEJUDGE_ADDRESS="0.0.0.0:50510")
    assert done.returncode == 2
    assert "other machines" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "sidejudge.duckdb").exists()


def test_a_port_in_use_is_a_clear_exit(tmp_path):
    """Not a shared port, not a traceback."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run_serve(tmp_path, SIDEJUDGE_ADDRESS=f"127.0.0.1:{port}")
    assert done.returncode == 2
    assert "cannot be listened on" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_missing_model_does_not_keep_the_server_from_serving(tmp_path, lm):
    """The log and the failed call say the same way out."""
    environment = {
        "SIDEJUDGE_LM": "local/qwen2.5-coder-1.5b",
        "SIDEJUDGE_LM_BASE_URL": "",
        "SIDEJUDGE_LM_API_KEY": "",
        "SIDEJUDGE_MODEL_DIR": str(tmp_path / "models"),
    }
    with (
        server_process(
            tmp_path, lm_base_url=lm.base_url, environment=environment
        ) as server,
        sidejudge.connect(server.address) as client,
    ):
        assert client.server.GetServerInfo(
            server_service_pb2.GetServerInfoRequest()
        ).version
        error = failure(client.evaluation.Evaluate, artifact())
        server.terminate()
    assert error.reason == "LM_UNAVAILABLE"
    assert "sidejudge models pull" in error.message
    log = [json.loads(x) for x in (tmp_path / "server.log").read_text().splitlines()]
    causes = [line["cause"] for line in log if line["event"].startswith("the model")]
    assert causes == [error.message]
    assert sum("cannot run" in json.dumps(line) for line in log) == 1


def test_the_log_holds_no_texts_and_no_secrets(tmp_path, lm):
    """At debug level every call has its line, with what happened and not with what was said."""
    environment = {"SIDEJUDGE_LOG_LEVEL": "debug", "SIDEJUDGE_LM_API_KEY": "sk-hidden"}
    with (
        server_process(
            tmp_path, lm_base_url=lm.base_url, environment=environment
        ) as server,
        sidejudge.connect(server.address) as client,
    ):
        evaluate(client, text="p(yes)=0.9 MARKER", labels={"who": "MARKER"})
        failure(client.evaluation.Evaluate, artifact("MARKER", judge="judges/none"))
        server.terminate()
    log = (tmp_path / "server.log").read_text()
    assert "MARKER" not in log
    assert "sk-hidden" not in log
    calls = [x for x in map(json.loads, log.splitlines()) if x["event"] == "call"]
    assert [(c["method"].rpartition("/")[2], c["code"]) for c in calls] == [
        ("Evaluate", "OK"),
        ("Evaluate", "NOT_FOUND"),
    ]
    assert all(c["request_id"] and c["duration_ms"] > 0 for c in calls)
