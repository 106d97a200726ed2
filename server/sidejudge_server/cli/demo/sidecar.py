"""The demo's own sidecar: a child process that may outlive the demo, and how it is stopped."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import grpc

import sidejudge
from sidejudge.v1 import server_service_pb2
from sidejudge_server.cli.failures import CommandError

__all__ = ["DemoSidecar", "RunningSidecar", "stop_running"]

_START_S = 120.0
_STOP_S = 30.0
_POLL_S = 0.1
_LOG_LINES = 15
_STATE_FILE = "server.json"
_DATABASE = "demo.duckdb"
_LOG = "server.log"
_READY_FILE = "ready.json"


@dataclass(frozen=True, slots=True)
class RunningSidecar:
    """What the demo writes down about a sidecar that it leaves running."""

    pid: int
    address: str
    database_id: str


class DemoSidecar:
    """A sidecar on a fresh database in the demo's directory.

    A context manager: leaving it stops the process unless `keep` was called.

    Attributes:
        address: Where it listens, ``host:port``; empty until it serves.
    """

    def __init__(self, directory: Path, *, lm: str) -> None:
        self._directory = directory
        self._lm = lm
        self._kept = False
        self._process: subprocess.Popen[bytes] | None = None
        self.address = ""

    @property
    def log(self) -> Path:
        """Where the sidecar writes its log."""
        return self._directory / _LOG

    def __enter__(self) -> DemoSidecar:
        """Start it and wait until it serves.

        Raises:
            CommandError: It ended, or did not serve within two minutes.
        """
        self._directory.mkdir(parents=True, exist_ok=True)
        _remove_old(self._directory)
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(  # noqa: S603 - this interpreter, our own module
                [
                    *(sys.executable, "-m", "sidejudge_server", "serve"),
                    *("--address", "127.0.0.1:0", "--lm", self._lm),
                    *("--database", str(self._directory / _DATABASE)),
                    *("--ready-file", str(self._directory / _READY_FILE)),
                ],
                # Threads of the embedded model must not spin while they wait.
                env={"OMP_WAIT_POLICY": "passive", **os.environ},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            self.address = self._wait_until_serving(self._process)
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Stop it unless it is to be kept."""
        if not self._kept:
            self._stop()

    def keep(self) -> RunningSidecar:
        """Leave it running after the demo and write down how to find it."""
        if self._process is None:
            raise RuntimeError("the sidecar was not started")
        with sidejudge.connect(self.address) as client:
            info = client.server.GetServerInfo(
                server_service_pb2.GetServerInfoRequest()
            )
        running = RunningSidecar(self._process.pid, self.address, info.database_id)
        state = self._directory / _STATE_FILE
        state.write_text(json.dumps(asdict(running)) + "\n", encoding="utf-8")
        self._kept = True
        # It lives on by intent: nobody shall warn that it was not waited for.
        self._process.returncode = 0
        return running

    def _wait_until_serving(self, process: subprocess.Popen[bytes]) -> str:
        """Return the address once calls are answered."""
        deadline = time.monotonic() + _START_S
        ready = self._directory / _READY_FILE
        while time.monotonic() < deadline:
            if process.poll() is not None:
                raise CommandError(
                    f"the sidecar ended with exit code {process.returncode}:\n"
                    f"{_tail(self.log)}"
                )
            # Until its newline is there, the line may be half written.
            if ready.exists() and (line := ready.read_text()).endswith("\n"):
                return str(json.loads(line)["address"])
            time.sleep(_POLL_S)
        raise CommandError(f"the sidecar does not serve:\n{_tail(self.log)}")

    def _stop(self) -> None:
        process = self._process
        if process is None or process.poll() is not None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def stop_running(directory: Path) -> RunningSidecar | None:
    """Stop the sidecar that an earlier demo left running in this directory.

    Returns:
        What was stopped; None if nothing runs.

    Raises:
        CommandError: The process is there, but it is not known to be the demo's, or does not end.
    """
    state = directory / _STATE_FILE
    try:
        running = RunningSidecar(**json.loads(state.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        raise CommandError(f"{state} cannot be read: {error}") from error
    if not _alive(running.pid):
        state.unlink()
        return None
    # The id of the process may belong to something else by now: only a sidecar that answers with
    # the demo's database is the demo's.
    if _database_id(running.address) != running.database_id:
        raise CommandError(
            f"process {running.pid} runs but does not answer at {running.address} as the"
            f" demo's sidecar; if it is the demo's, end it yourself, then remove {state}"
        )
    os.kill(running.pid, signal.SIGTERM)
    deadline = time.monotonic() + _STOP_S
    while _alive(running.pid):
        if time.monotonic() > deadline:
            raise CommandError(f"process {running.pid} does not end after SIGTERM")
        time.sleep(_POLL_S)
    state.unlink(missing_ok=True)
    return running


def _database_id(address: str) -> str | None:
    with sidejudge.connect(address) as client:
        try:
            info = client.server.GetServerInfo(
                server_service_pb2.GetServerInfoRequest(), timeout=5
            )
        except grpc.RpcError:
            return None
    return str(info.database_id)


def _alive(pid: int) -> bool:
    with suppress(ChildProcessError):
        # Collects it if it is our own child, which would else stay as a zombie.
        os.waitpid(pid, os.WNOHANG)
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _remove_old(directory: Path) -> None:
    """Remove what an earlier demo left: its database with all that lies beside it."""
    (directory / _READY_FILE).unlink(missing_ok=True)
    for path in directory.glob(f"{_DATABASE}*"):
        if path.is_dir():
            for inner in sorted(path.rglob("*"), reverse=True):
                inner.rmdir() if inner.is_dir() else inner.unlink()
            path.rmdir()
        else:
            path.unlink()


def _tail(path: Path) -> str:
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    return "\n".join(lines[-_LOG_LINES:])
