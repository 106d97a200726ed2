"""The client of a model that runs on this machine, in a child process of ours."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import secrets
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import structlog

from sidejudge_server.config import ConfigError, LMSettings
from sidejudge_server.errors import DeadlineError, LMUnavailableError
from sidejudge_server.lm.attempts import AttemptMeter
from sidejudge_server.lm.catalogue import (
    CATALOGUE,
    ModelFile,
    ModelMismatchError,
    final_path,
    verify,
)
from sidejudge_server.lm.http_client import ClientOptions, HttpChatClient
from sidejudge_server.lm.pricing import FREE
from sidejudge_server.lm.providers import resolve
from sidejudge_server.lm.types import ChatRequest, ChatResponse

__all__ = ["LOCAL_BODY", "LOCAL_PREFIX", "EmbeddedClient", "EmbeddedOptions"]

_log = structlog.get_logger(__name__)

LOCAL_PREFIX = "local/"
# The prompt up to the first difference from the last one is not computed again.
LOCAL_BODY: Mapping[str, Any] = MappingProxyType({"cache_prompt": True})
# What the child may see of the environment: nothing that could be a secret.
_CHILD_VARIABLES = (
    *("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "SYSTEMROOT"),
    *("LD_LIBRARY_PATH", "PYTHONPATH", "PYTHONHOME", "CUDA_VISIBLE_DEVICES"),
)
_TIMEOUT_S = 600.0
"""A long prompt takes minutes on two busy cores, and giving up on it does not make the next one
faster. Callers have deadlines of their own.
"""
_STOP_S = 5.0


@dataclass(frozen=True, slots=True)
class EmbeddedOptions:
    """How an embedded model runs.

    Attributes:
        context_tokens: Longest prompt and answer together.
        threads: None for one per processor.
        command: Starts the child, with the model's path and options to be appended.
        runtime: Package that the child needs.
        catalogue: Models to choose from.
        meter: Hears of every request before it is made and may forbid it; None for nobody.
    """

    context_tokens: int = 8192
    threads: int | None = None
    command: tuple[str, ...] = (
        sys.executable,
        "-m",
        "sidejudge_server.lm.embedded_child",
    )
    runtime: str = "xllamacpp"
    catalogue: Mapping[str, ModelFile] = field(default_factory=lambda: CATALOGUE)
    meter: AttemptMeter | None = None


@dataclass(frozen=True, slots=True)
class _Running:
    process: asyncio.subprocess.Process
    client: HttpChatClient
    settings: LMSettings

    @property
    def alive(self) -> bool:
        return self.process.returncode is None


class EmbeddedClient:
    """A `ChatClient` that starts its model at the first call and restarts it if it dies.

    The child ends with this process, whatever ends it. Belongs to one event loop.
    """

    def __init__(
        self,
        settings: LMSettings,
        *,
        model_dir: Path,
        environment: Mapping[str, str],
        options: EmbeddedOptions | None = None,
    ) -> None:
        self._options = options or EmbeddedOptions()
        catalogue = self._options.catalogue
        name = settings.model.removeprefix(LOCAL_PREFIX)
        if name not in catalogue:
            known = ", ".join(LOCAL_PREFIX + n for n in catalogue)
            raise ConfigError([f"there is no model {settings.model}; known: {known}"])
        self._settings = settings
        self._entry = catalogue[name]
        self._model_dir = model_dir
        self._environment = {
            n: environment[n] for n in _CHILD_VARIABLES if n in environment
        }
        self._running: _Running | None = None
        self._starting: asyncio.Task[_Running] | None = None
        self._closed = False

    @property
    def model(self) -> str:
        """The model as configured."""
        return self._settings.model

    @property
    def identity(self) -> str:
        """The model and its bytes: the address changes, the answers do not."""
        return self._entry.identity

    @property
    def supports_logprobs(self) -> bool:
        """Whether answers carry token probabilities; true unless configured away."""
        return self._settings.logprobs is not False

    @property
    def process_id(self) -> int | None:
        """The child's id; None if it does not run."""
        running = self._running
        return running.process.pid if running is not None and running.alive else None

    async def start(self) -> None:
        """Load the model, if it is not loaded yet.

        Raises:
            LMUnavailableError: The file or the runtime is missing or wrong; the message says the way out.
        """
        await self._ensure_running()

    async def shared_settings(self) -> LMSettings:
        """Start the model and return settings with which another process can use this one.

        Two processes with a model each would need its memory twice and share the processors anyway.
        """
        return (await self._ensure_running()).settings

    async def complete(
        self, request: ChatRequest, *, timeout_s: float | None = None
    ) -> ChatResponse:
        """Answer one request; a child that died is restarted once.

        Raises:
            LMUnavailableError: The model cannot be started, died twice or is too slow.
            LMRequestError: The prompt is over the context.
            DeadlineError: ``timeout_s`` passed.
        """
        loop = asyncio.get_running_loop()
        deadline = None if timeout_s is None else loop.time() + timeout_s
        try:
            async with asyncio.timeout_at(deadline):
                running = await self._ensure_running()
                try:
                    return await running.client.complete(request)
                except LMUnavailableError:
                    if not await self._has_died(running):
                        raise
                    _log.warning("lm.embedded_restart", model=self.model)
                    running = await self._ensure_running()
                    return await running.client.complete(request)
        except TimeoutError:
            raise DeadlineError(
                f"the deadline passed before {self.model} answered",
                reason="DEADLINE_EXCEEDED",
            ) from None

    async def close(self) -> None:
        """End the child."""
        self._closed = True
        if self._starting is not None:
            self._starting.cancel()
            with suppress(asyncio.CancelledError, LMUnavailableError):
                await self._starting
        if self._running is not None:
            running, self._running = self._running, None
            await running.client.close()
            await _end(running.process)

    async def _has_died(self, running: _Running) -> bool:
        """Tell whether a failed call failed because the child ended."""
        with suppress(TimeoutError):
            # The connection breaks a moment before the process is seen to end.
            await asyncio.wait_for(running.process.wait(), timeout=0.5)
        return not running.alive

    async def _ensure_running(self) -> _Running:
        if self._running is not None and self._running.alive:
            return self._running
        if self._closed:
            raise self._unavailable("it has been closed")
        if self._starting is None:
            # A task of its own: a caller whose time is up must not stop what others wait for.
            self._starting = asyncio.create_task(self._start())
            self._starting.add_done_callback(self._started)
        return await asyncio.shield(self._starting)

    def _started(self, task: asyncio.Task[_Running]) -> None:
        self._starting = None
        if not task.cancelled() and task.exception() is None:
            self._running = task.result()

    async def _start(self) -> _Running:
        if self._running is not None:
            await self._running.client.close()
            self._running = None
        path = await self._verified_path()
        api_key = secrets.token_urlsafe(24)
        process = await asyncio.create_subprocess_exec(
            *self._options.command,
            str(path),
            f"--context={self._options.context_tokens}",
            f"--threads={self._options.threads or os.cpu_count() or 1}",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            # Spinning threads would take the processors from the sidecar.
            env=self._environment | {"OMP_WAIT_POLICY": "passive"},
            # Ctrl+C in a terminal must not end it while the sidecar finishes its calls.
            start_new_session=True,
        )
        try:
            address = await self._read_address(process, api_key)
        except BaseException:
            await _end(process)
            raise
        settings = replace(
            self._settings,
            base_url=f"{address}/v1",
            api_key=api_key,
            max_retries=0,
            timeout_s=max(self._settings.timeout_s, _TIMEOUT_S),
        )
        client = HttpChatClient(
            settings,
            resolve(settings, {}),
            options=ClientOptions(
                FREE,
                concurrency=1,
                extra=LOCAL_BODY,
                meter=self._options.meter,
            ),
        )
        _log.info("lm.embedded_started", model=self.model, process=process.pid)
        return _Running(process, client, settings)

    async def _read_address(
        self, process: asyncio.subprocess.Process, api_key: str
    ) -> str:
        assert process.stdin is not None  # noqa: S101 - a pipe was asked for
        assert process.stdout is not None  # noqa: S101 - a pipe was asked for
        line = b""
        with suppress(BrokenPipeError, ConnectionResetError):
            process.stdin.write(api_key.encode() + b"\n")
            await process.stdin.drain()
            line = await process.stdout.readline()
        if not line:
            raise self._unavailable(f"it ended with status {await process.wait()}")
        message = json.loads(line)
        if "address" not in message:
            raise self._unavailable(f"it did not start: {message.get('error')}")
        return str(message["address"])

    async def _verified_path(self) -> Path:
        path = final_path(self._entry, self._model_dir)
        if not path.is_file():
            raise self._unavailable(
                f"it is not in {self._model_dir}; run: "
                f"sidejudge models pull {self._entry.name}"
            )
        if importlib.util.find_spec(self._options.runtime) is None:
            raise self._unavailable(
                f"the runtime {self._options.runtime} is not installed; run: "
                "pip install 'sidejudge[local]'"
            )
        try:
            await asyncio.to_thread(verify, path, self._entry)
        except ModelMismatchError as error:
            raise self._unavailable(
                f"{error}; run: sidejudge models pull {self._entry.name}"
            ) from None
        except OSError as error:
            raise self._unavailable(f"cannot read {path}: {error.strerror}") from None
        return path

    def _unavailable(self, cause: str) -> LMUnavailableError:
        return LMUnavailableError(
            f"{self.model} cannot run: {cause}",
            reason="LM_UNAVAILABLE",
            metadata={"model": self.model, "cause": cause},
        )


async def _end(process: asyncio.subprocess.Process) -> None:
    """End a child by closing its input, by force if that does not help."""
    if process.stdin is not None:
        process.stdin.close()
    try:
        await asyncio.wait_for(process.wait(), timeout=_STOP_S)
    except TimeoutError:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
