"""Where runs are executed: one process each, started by a fork server, JSON over a pipe.

The fork server starts before gRPC, DuckDB and any thread exist, so workers inherit none of them. It
preloads only the light module of the child: a run pays a second for its imports, an idle sidecar
pays nothing for them.

The pipe carries JSON both ways: a spec, "cancel" and "leave" down, events up. Its end is also the
lifeline: a worker that sees it close makes no further call, keeps the answers of those that it has made,
and exits within `child.LEAVE_S`, so a killed server leaves no orphans.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import multiprocessing
import threading
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from typing import Any, Protocol

from sidejudge_server.optimization.child import MEMORY_LIMIT_KEY, child_main
from sidejudge_server.optimization.spec import EventKind
from sidejudge_server.optimization.watchdog import Cause, Watchdog, WorkerLimits

__all__ = ["Event", "Executor", "LocalExecutor", "RunStatus", "start_fork_server"]

Event = Mapping[str, Any]
"""A JSON object with ``kind``, one of `EventKind`; the last one of a run is final."""

KILL_AFTER_S = 1.5
"""A worker that has not ended this long after a cancel is killed."""
_JOIN_S = 5.0
_LAST_WORD_S = 0.5
_MIB = 1024 * 1024
_LIGHT = ("sidejudge_server.optimization.child",)


def start_fork_server(preload: Sequence[str] = _LIGHT) -> None:
    """Start the process that workers are forked from. Call it before anything starts a thread.

    Idempotent. The fork server ends with the process that started it.

    Args:
        preload: Modules that workers find loaded. More of them make runs start faster and an idle
            sidecar larger: the optimizer alone takes 80 MB.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(preload))
    forkserver.ensure_running()


@dataclass(frozen=True, slots=True)
class RunStatus:
    """What is known of a run's process.

    Attributes:
        alive: Whether it runs.
        pid: Its process id, None before it has one.
        exit_code: As Python reports it, -9 for SIGKILL; None while it runs.
    """

    alive: bool
    pid: int | None
    exit_code: int | None


class Executor(Protocol):
    """Executes runs; plain data in, plain data out, so a cluster can stand behind it."""

    async def submit(self, run_id: str, spec: Mapping[str, Any]) -> None:
        """Start a run.

        Raises:
            ValueError: A run of that id is going.
            OSError: No process could be started.
        """
        ...

    def events(self, run_id: str) -> AsyncIterator[Event]:
        """Yield the events of a submitted run; the final one is the last. One consumer a run.

        A worker that dies without a final event ends with ``crashed``, its ``exit_code`` and, if the
        executor has ended it, the ``cause`` with its ``limit``, or with ``cancelled`` if it was asked to stop.
        """
        ...

    async def cancel(self, run_id: str) -> None:
        """Ask a run to stop; it is gone within about 2 seconds. No-op for a run that has ended."""
        ...

    def status(self, run_id: str) -> RunStatus:
        """Return what is known of a run; an unknown one is not alive."""
        ...

    async def close(self, *, grace_s: float = 0.0) -> None:
        """End all runs; ``events`` of one that was not finished ends with ``crashed``.

        Args:
            grace_s: Time for workers to keep the answers of calls that they have made.
        """
        ...


@dataclass(slots=True)
class _Run:
    process: ForkServerProcess
    connection: Connection
    events: asyncio.Queue[Event]
    watchdog: Watchdog
    reader: threading.Thread | None = None
    cancelled: bool = False
    killer: asyncio.TimerHandle | None = None
    watch: asyncio.Task[None] | None = None
    cause: Cause | None = None
    send_lock: threading.Lock = field(default_factory=threading.Lock)


class LocalExecutor:
    """Runs every spec in a process of this machine. Used from one event loop."""

    def __init__(
        self,
        *,
        kill_after_s: float = KILL_AFTER_S,
        entry: Callable[[Connection], None] = child_main,
        limits: WorkerLimits | None = None,
    ) -> None:
        """Create it; the fork server should be running already.

        Args:
            kill_after_s: Patience with a worker after a cancel.
            entry: What a worker process runs; importable by name.
            limits: What workers may do; None for anything.
        """
        self._context = multiprocessing.get_context("forkserver")
        self._kill_after_s = kill_after_s
        self._entry = entry
        self._limits = limits or WorkerLimits()
        self._runs: dict[str, _Run] = {}
        self._ended: dict[str, RunStatus] = {}
        self._closed = False

    async def submit(self, run_id: str, spec: Mapping[str, Any]) -> None:
        """Start a run; see `Executor.submit`."""
        if run_id in self._runs:
            raise ValueError(f"{run_id} is running already")
        document = {**spec, MEMORY_LIMIT_KEY: self._limits.memory_bytes}
        payload = json.dumps(document).encode()
        ours, theirs = self._context.Pipe(duplex=True)
        process = self._context.Process(
            target=self._entry, args=(theirs,), name=f"sidejudge-{run_id}", daemon=True
        )
        try:
            await asyncio.to_thread(process.start)
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        if self._closed:
            process.kill()
            await asyncio.to_thread(process.join, _JOIN_S)
            ours.close()
            raise OSError("the executor is closed")
        run = _Run(process, ours, asyncio.Queue(), Watchdog(self._limits))
        self._runs[run_id] = run
        loop = asyncio.get_running_loop()
        run.reader = threading.Thread(
            target=self._read,
            args=(run, payload, loop),
            name=f"events-{run_id}",
            daemon=True,
        )
        run.reader.start()
        run.watch = asyncio.create_task(self._watch(run))

    async def events(self, run_id: str) -> AsyncIterator[Event]:
        """Yield the events of a run; see `Executor.events`."""
        run = self._runs[run_id]
        try:
            while True:
                event = await run.events.get()
                yield event
                if EventKind(event["kind"]).is_final:
                    return
        finally:
            await self._forget(run_id)

    async def cancel(self, run_id: str) -> None:
        """Ask a run to stop; see `Executor.cancel`."""
        run = self._runs.get(run_id)
        if run is None or run.cancelled:
            return
        run.cancelled = True
        loop = asyncio.get_running_loop()
        run.killer = loop.call_later(self._kill_after_s, run.process.kill)
        await asyncio.to_thread(_send, run, b'{"command": "cancel"}')

    def status(self, run_id: str) -> RunStatus:
        """Return what is known of a run; see `Executor.status`."""
        run = self._runs.get(run_id)
        if run is None:
            return self._ended.get(run_id, RunStatus(False, None, None))
        return _status(run.process)

    async def close(self, *, grace_s: float = 0.0) -> None:
        """End all runs; see `Executor.close`. Nothing can be submitted afterwards."""
        self._closed = True
        runs = list(self._runs.values())
        await asyncio.gather(*(_leave(run, grace_s) for run in runs))

    async def _watch(self, run: _Run) -> None:
        """End a worker that breaks its limits."""
        while run.cause is None:
            await asyncio.sleep(self._limits.look_every_s)
            run.cause = run.watchdog.verdict(run.process.pid)
        run.process.kill()

    async def _forget(self, run_id: str) -> None:
        run = self._runs.pop(run_id, None)
        if run is None:
            return
        if run.killer is not None:
            run.killer.cancel()
        if run.watch is not None:
            run.watch.cancel()
        # After its last word a worker ends by itself; one that nobody listens to any more does not.
        await asyncio.to_thread(run.process.join, _LAST_WORD_S)
        if run.process.is_alive():
            run.process.kill()
            await asyncio.to_thread(run.process.join, _JOIN_S)
        self._ended[run_id] = _status(run.process)
        if run.reader is not None:
            await asyncio.to_thread(run.reader.join, _JOIN_S)
        run.process.close()

    def _broken(self, run: _Run) -> dict[str, Any]:
        """Return which limit a worker was ended for, with its value; empty if for none."""
        if run.cause is None:
            return {}
        limits = {
            Cause.MEMORY: (self._limits.memory_bytes or 0) / _MIB,
            Cause.SILENCE: self._limits.silence_s,
        }
        return {"cause": run.cause.value, "limit": limits[run.cause]}

    def _read(self, run: _Run, payload: bytes, loop: asyncio.AbstractEventLoop) -> None:
        """Hand the spec down and events up until the worker's end closes. Runs in its own thread."""

        def put(event: Event) -> None:
            try:
                loop.call_soon_threadsafe(run.events.put_nowait, event)
            except RuntimeError:
                run.process.kill()  # the loop is closed: nobody will ever listen

        final = False
        try:
            _send(run, payload)
            while not final:
                event = json.loads(run.connection.recv_bytes())
                final = EventKind(event["kind"]).is_final
                run.watchdog.heard()
                put(event)
        except (EOFError, OSError, ValueError, KeyError, TypeError):
            # The end of the pipe, or a worker that talks nonsense: both are a death.
            run.process.kill()
        finally:
            if not final:
                run.process.join(_JOIN_S)
                put(
                    {"kind": EventKind.CANCELLED.value}
                    if run.cancelled
                    else {
                        "kind": EventKind.CRASHED.value,
                        "exit_code": run.process.exitcode,
                        **self._broken(run),
                    }
                )
            with run.send_lock:
                run.connection.close()


def _send(run: _Run, message: bytes) -> None:
    """Send to the worker; a worker that is gone already is no error."""
    with run.send_lock:
        try:
            run.connection.send_bytes(message)
        except OSError:
            return


async def _leave(run: _Run, grace_s: float) -> None:
    """Ask a worker to leave, and kill it if it has not left in time."""
    if grace_s > 0:
        await asyncio.to_thread(_send, run, b'{"command": "leave"}')
        if run.reader is not None:
            await asyncio.to_thread(run.reader.join, grace_s)
    with contextlib.suppress(ValueError):  # it has ended and was forgotten meanwhile
        run.process.kill()
    if run.reader is not None:
        await asyncio.to_thread(run.reader.join, _JOIN_S)


def _status(process: ForkServerProcess) -> RunStatus:
    return RunStatus(process.is_alive(), process.pid, process.exitcode)
