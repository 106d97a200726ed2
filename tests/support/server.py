"""The whole sidecar for tests: in a thread of this process, or as a process of its own."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Coroutine, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import sidejudge
from sidejudge_server.application import Application
from sidejudge_server.config import (
    LMSettings,
    OptimizationSettings,
    ServerSettings,
    Settings,
    StorageSettings,
)

__all__ = [
    "RunningServer",
    "ServerProcess",
    "running_server",
    "server_process",
    "settings_for",
]

T = TypeVar("T")
ROOT = Path(__file__).resolve().parents[2]
START_LIMIT_S = 60.0


def settings_for(
    directory: Path,
    *,
    lm_base_url: str = "http://127.0.0.1:9/v1",
    model: str = "stand-in",
    server: Mapping[str, Any] | None = None,
    lm: Mapping[str, Any] | None = None,
    optimization: Mapping[str, Any] | None = None,
) -> Settings:
    """Return settings of a sidecar on a free port with its database in a directory.

    Args:
        directory: Where the database is.
        lm_base_url: Of the stand-in; by default nobody answers there.
        model: Mode of the stand-in.
        server: Further fields of ServerSettings.
        lm: Further fields of LMSettings.
        optimization: Further fields of OptimizationSettings.
    """
    task_lm = LMSettings(
        model=f"openai/{model}", api_key="test", base_url=lm_base_url, max_retries=0
    )
    return Settings(
        server=ServerSettings(
            **{"address": "127.0.0.1:0", "drain_s": 2.0, **(server or {})}
        ),
        storage=StorageSettings(path=directory / "sidejudge.duckdb"),
        task_lm=replace(task_lm, **(lm or {})),
        optimization=OptimizationSettings(**(optimization or {})),
        model_dir=directory / "models",
    )


@dataclass(frozen=True, slots=True)
class RunningServer:
    """A sidecar in a thread of this process."""

    address: str
    client: sidejudge.Client
    application: Application
    loop: asyncio.AbstractEventLoop

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in the server's event loop and return its result."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(60)


@contextmanager
def running_server(settings: Settings) -> Iterator[RunningServer]:
    """Run a sidecar while the context lasts; its database stays for the next one."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="sidecar", daemon=True)
    thread.start()

    def run(coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, loop).result(60)

    try:
        application = Application(settings)
        run(application.start())
        try:
            with sidejudge.connect(application.address) as client:
                yield RunningServer(application.address, client, application, loop)
        finally:
            run(application.stop())
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


class ServerProcess:
    """A sidecar in its own process, as users start it."""

    def __init__(self, directory: Path, environment: Mapping[str, str]) -> None:
        inherited = {k: v for k, v in os.environ.items() if "SIDEJUDGE" not in k}
        self._log = (directory / "server.log").open("ab")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "sidejudge_server", "serve"],
            env={
                **inherited,
                "SIDEJUDGE_ADDRESS": "127.0.0.1:0",
                "SIDEJUDGE_DATABASE": str(directory / "sidejudge.duckdb"),
                **environment,
            },
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )
        self.ready: dict[str, Any] = {}

    @property
    def address(self) -> str:
        """Where it listens."""
        return str(self.ready["address"])

    def wait_until_ready(self) -> None:
        """Return when it answers calls; RuntimeError if it ended instead."""
        assert self.process.stdout is not None
        killer = threading.Timer(START_LIMIT_S, self.process.kill)
        killer.start()
        line = self.process.stdout.readline()
        killer.cancel()
        if not line:
            raise RuntimeError(f"the sidecar ended with {self.process.wait()}")
        self.ready = json.loads(line)

    def kill(self) -> None:
        """End it as a power cut would: SIGKILL, no goodbye."""
        self.process.kill()
        self.process.wait()

    def terminate(self) -> int:
        """End it in order and return its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)

    def close(self) -> None:
        """Release pipes; kill it if it still runs."""
        if self.process.poll() is None:
            self.kill()
        if self.process.stdout is not None:
            self.process.stdout.close()
        self._log.close()


@contextmanager
def server_process(
    directory: Path, *, lm_base_url: str, environment: Mapping[str, str] | None = None
) -> Iterator[ServerProcess]:
    """Run a sidecar as a process while the context lasts; standard error goes to server.log."""
    server = ServerProcess(
        directory,
        {
            "SIDEJUDGE_LM": "openai/stand-in",
            "SIDEJUDGE_LM_BASE_URL": lm_base_url,
            "SIDEJUDGE_LM_API_KEY": "test",
            **(environment or {}),
        },
    )
    try:
        server.wait_until_ready()
        yield server
    finally:
        server.close()
