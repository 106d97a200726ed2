"""The first thing that runs in a worker process: lifeline, output, environment, then the worker.

Light on purpose: the fork server preloads it. Everything heavy is imported in `_work`, after the
environment that it reads at import is in place.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from sidejudge_server.optimization.faults import error_document, work_dir_error
from sidejudge_server.optimization.memory_limit import set_memory_limit

__all__ = ["LEAVE_S", "MEMORY_LIMIT_KEY", "Channel", "child_main"]

MEMORY_LIMIT_KEY = "memory_limit_bytes"
"""Beside the fields of a spec: what the process may use; None for no limit."""

EXIT_ORPHANED = 75
EXIT_LOCKED = 76
LEAVE_S = 10.0
"""How long a worker may take to leave: it waits for answers that are paid for already."""
_LOCK_S = LEAVE_S + 5.0
_LOCK_POLL_S = 0.05
_PRIVATE_FILE = 0o600
_PRIVATE_DIRECTORY = 0o700


class Channel:
    """The worker's end of the pipe. Sending is thread-safe."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._lock = threading.Lock()
        self._on_cancel: list[Callable[[], None]] = []
        self._cancelled = False
        self._on_leave: list[Callable[[float], None]] = []

    def receive_spec(self) -> dict[str, Any]:
        """Return the first message.

        Raises:
            EOFError: The server is gone.
        """
        spec: dict[str, Any] = json.loads(self._connection.recv_bytes())
        return spec

    def send(self, event: Mapping[str, Any]) -> None:
        """Send one event. If the server is gone, this process leaves too and the event is lost."""
        message = json.dumps(event, allow_nan=False).encode()
        with self._lock, suppress(OSError):
            self._connection.send_bytes(message)

    def on_cancel(self, callback: Callable[[], None]) -> None:
        """Call back, from another thread, when the server asks to stop; at once if it has."""
        with self._lock:
            self._on_cancel.append(callback)
            cancelled = self._cancelled
        if cancelled:
            callback()

    def on_leave(self, callback: Callable[[float], None]) -> None:
        """Call back, from another thread, when the process has to leave.

        Args:
            callback: Gets the seconds that it may take to keep what would be lost.
        """
        with self._lock:
            self._on_leave.append(callback)

    def watch(self) -> None:
        """Start the thread that listens to the server and leaves with it."""
        threading.Thread(target=self._watch, name="lifeline", daemon=True).start()

    def _watch(self) -> None:
        while True:
            try:
                message = json.loads(self._connection.recv_bytes())
            except (EOFError, OSError, ValueError):
                message = {"command": "leave"}
            if message.get("command") == "leave":
                self._leave()
            if message.get("command") == "cancel":
                with self._lock:
                    self._cancelled = True
                    callbacks = tuple(self._on_cancel)
                for callback in callbacks:
                    callback()

    def _leave(self) -> None:
        """End the process, but keep what would be lost with it."""
        with self._lock:
            callbacks = tuple(self._on_leave)
        last_moment = time.monotonic() + LEAVE_S
        threads = [
            threading.Thread(target=callback, args=(LEAVE_S,), daemon=True)
            for callback in callbacks
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(max(0.0, last_moment - time.monotonic()))
        # No further clean-up: whatever the worker does now, nobody will ever see it.
        os._exit(EXIT_ORPHANED)


def child_main(connection: Connection) -> None:
    """Run one spec and end the process. Entry point of worker processes.

    Args:
        connection: The worker's end of the pipe; the first message is the spec.
    """
    # Ctrl-C in the server's terminal is for the server, which decides what it means for its workers;
    # the optimizer would take it as the end of an evaluation and go on with wrong scores.
    os.setsid()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    channel = Channel(connection)
    try:
        spec = channel.receive_spec()
    except (EOFError, OSError):
        os._exit(EXIT_ORPHANED)
    channel.watch()
    limit = spec.pop(MEMORY_LIMIT_KEY, None)
    if limit is not None:
        set_memory_limit(limit)
    try:
        _enter_work_dir(Path(spec["work_dir"]))
    except OSError as error:
        channel.send({"kind": "failed", "error": error_document(work_dir_error(error))})
        os._exit(0)
    _work(spec, channel)
    with suppress(OSError):  # the log may be on a disk that is full
        sys.stdout.flush()
        sys.stderr.flush()
    # No waiting for threads of libraries: the last event is sent, the results are with the server.
    os._exit(0)


def _enter_work_dir(work_dir: Path) -> None:
    """Send all output to a private log and keep the optimizer's caches in the run's directory.

    The optimizer prints, and logs example contents when something fails: neither may reach the
    server's log.
    """
    work_dir.mkdir(mode=_PRIVATE_DIRECTORY, parents=True, exist_ok=True)
    _lock(work_dir)
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
    log = os.open(work_dir / "worker.log", flags, _PRIVATE_FILE)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    os.environ["DSPY_CACHEDIR"] = str(work_dir / "dspy")
    # Without it the first call fetches a price list from the internet, with retries.
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "true"
    os.environ["OMP_WAIT_POLICY"] = "passive"


def _lock(work_dir: Path) -> None:
    """Wait until no other worker uses the run's directory; the lock goes with the process.

    The worker of a server that was killed may still be waiting for answers that the run will need.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
    lock = os.open(work_dir / "lock", flags, _PRIVATE_FILE)
    last_moment = time.monotonic() + _LOCK_S
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > last_moment:
                os._exit(EXIT_LOCKED)
            time.sleep(_LOCK_POLL_S)
        else:
            return


def _work(spec: dict[str, Any], channel: Channel) -> None:
    from sidejudge_server.optimization.worker import run_spec

    run_spec(spec, channel)
