"""Processes under measurement: started, waited for by their own word, ended by id."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

__all__ = [
    "Sidecar",
    "empty_server",
    "free_port",
    "peak_mib",
    "resident_mib",
    "sidecar",
    "simulated_judge",
    "stand_in",
]

ROOT = Path(__file__).resolve().parent.parent
START_LIMIT_S = 60.0


@dataclass(frozen=True, slots=True)
class Sidecar:
    """A running sidecar: where it listens, its process, and how long it took to serve."""

    address: str
    pid: int
    start_s: float


def _stop(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def _speaking(module: str, *arguments: str) -> Iterator[str]:
    """Run a module that prints one line when it is ready; yield the line."""
    process = subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    try:
        if process.stdout is None:
            raise RuntimeError("no pipe")
        yield process.stdout.readline().strip()
    finally:
        _stop(process)


@contextmanager
def stand_in() -> Iterator[str]:
    """Run the LM stand-in; yield its base URL."""
    with _speaking("tests.stand_in", "--port", "0") as line:
        yield line


@contextmanager
def simulated_judge(latency_ms: float) -> Iterator[str]:
    """Run the simulated judge; yield its base URL."""
    with _speaking("bench.simulated_judge", "--latency-ms", str(latency_ms)) as line:
        yield line


@contextmanager
def empty_server() -> Iterator[str]:
    """Run a server with one empty rpc; yield its address."""
    with _speaking("bench.empty_server") as line:
        yield f"127.0.0.1:{line}"


@contextmanager
def sidecar(
    directory: Path,
    *,
    port: int,
    lm_base_url: str = "",
    settings: Mapping[str, str] | None = None,
) -> Iterator[Sidecar]:
    """Run the sidecar on a fresh database; yield it once it reports SERVING.

    Args:
        directory: Where its database and log are.
        port: Free port of the loopback address.
        lm_base_url: Of the stand-in.
        settings: Environment variables instead of those of the stand-in.
    """
    address = f"127.0.0.1:{port}"
    environment = {
        **{k: v for k, v in os.environ.items() if not k.startswith("SIDEJUDGE_")},
        "SIDEJUDGE_ADDRESS": address,
        "SIDEJUDGE_DATABASE": str(directory / "bench.duckdb"),
        **(
            settings
            or {
                "SIDEJUDGE_LM": "openai/stand-in",
                "SIDEJUDGE_LM_BASE_URL": lm_base_url,
                "SIDEJUDGE_LM_API_KEY": "bench",
                "SIDEJUDGE_LM_MAX_CONCURRENCY": "64",
            }
        ),
    }
    log = (directory / "sidecar.log").open("w")
    started = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "sidejudge_server", "serve"],
        env=environment,
        stdout=log,
        stderr=log,
        cwd=directory,
        text=True,
    )
    try:
        _wait_until_serving(address, process)
        yield Sidecar(address, process.pid, time.perf_counter() - started)
    finally:
        _stop(process)
        log.close()


def _wait_until_serving(address: str, process: subprocess.Popen[str]) -> None:
    deadline = time.perf_counter() + START_LIMIT_S
    # A channel of its own a try: a channel that was refused once backs off for a second.
    while time.perf_counter() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"the sidecar ended with {process.returncode}")
        with grpc.insecure_channel(address) as channel:
            try:
                answer = health_pb2_grpc.HealthStub(channel).Check(
                    health_pb2.HealthCheckRequest(), timeout=1
                )
            except grpc.RpcError:
                time.sleep(0.02)
                continue
            if answer.status == health_pb2.HealthCheckResponse.SERVING:
                return
    raise RuntimeError("the sidecar did not come up")


def free_port() -> int:
    """Return a port of the loopback address that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def resident_mib(pid: int) -> dict[str, float]:
    """Return resident MiB (RSS) and proportional MiB (PSS) of a process with its descendants."""
    members = [_memory(member) for member in _family(pid)]
    return {name: sum(m[name] for m in members) for name in ("rss", "pss")}


def peak_mib(pid: int) -> dict[str, float]:
    """Return resident and proportional MiB of the largest descendant of a process."""
    members = [_memory(member) for member in _family(pid)[1:]]
    return {
        name: max((m[name] for m in members), default=0.0) for name in ("rss", "pss")
    }


def _memory(pid: int) -> dict[str, float]:
    try:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return {"rss": 0.0, "pss": 0.0}
    values = {
        line.split(":")[0]: float(line.split()[1]) for line in rollup.splitlines()[1:]
    }
    return {"rss": values["Rss"] / 1024, "pss": values["Pss"] / 1024}


def _family(pid: int) -> list[int]:
    members = [pid]
    for member in members:
        for children in Path(f"/proc/{member}/task").glob("*/children"):
            try:
                members += [int(child) for child in children.read_text().split()]
            except OSError:  # ended meanwhile
                continue
    return members
