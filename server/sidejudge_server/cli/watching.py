"""Following a run: one stream of events that survives restarts, shown live or line by line."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

import grpc
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.text import Text

from sidejudge.v1 import optimization_pb2, optimization_service_pb2
from sidejudge_server.cli.connection import Session
from sidejudge_server.cli.failures import CommandError
from sidejudge_server.cli.printing import clean, duration, money, number
from sidejudge_server.cli.status import reason_of

__all__ = ["PlainView", "RunState", "View", "follow", "open_view", "phase_word"]

_FIRST_PAUSE_S = 0.2
_LONGEST_PAUSE_S = 5.0
# Failures in a row; the connection itself tries for some 3 seconds before each: about a minute.
_PATIENCE = 10
_PASSING = {"", "SERVER_STOPPING"}


@dataclass(slots=True)
class RunState:
    """What is known of a run so far; changed by its events."""

    phase: str = "queued"
    trials_completed: int = 0
    trials_total: int = 0
    last_score: float | None = None
    best_score: float | None = None
    baseline_score: float | None = None
    lm_calls: int = 0
    cached_calls: int = 0
    cost_usd: float | None = None
    elapsed: timedelta = timedelta()
    eta: timedelta | None = None
    waiting_for: str = ""

    def apply(self, event: optimization_service_pb2.OptimizationEvent) -> list[str]:
        """Take an event in.

        Returns:
            What people should read besides the numbers, one line each; unknown kinds of
            events give nothing.
        """
        kind = event.WhichOneof("event")
        if kind == "snapshot":
            self._take_run(event.snapshot)
            return _expected(event.snapshot)
        if kind == "finished":
            self._take_run(event.finished.optimization)
        elif kind == "phase_changed":
            self.phase = phase_word(event.phase_changed.phase)
            self._take(event.phase_changed.progress)
        elif kind == "trial_completed":
            self.last_score = event.trial_completed.trial.score
            self._take(event.trial_completed.progress)
        elif kind == "heartbeat":
            self._take(event.heartbeat.progress)
        elif kind == "best_improved":
            self.best_score = event.best_improved.score
            trial = event.best_improved.trial.rpartition("/")[2]
            return [f"best so far: trial {trial} with {event.best_improved.score:.3f}"]
        elif kind == "warning":
            return [f"warning: {event.warning.message}"]
        elif kind == "resumed":
            self.phase = "resumed"
            kept = event.resumed.answers_kept
            return [f"goes on: {event.resumed.reason} ({kept} answers kept)"]
        elif kind == "instruction_proposed" and event.instruction_proposed.refusal:
            return [f"instruction refused: {event.instruction_proposed.refusal}"]
        return []

    def line(self) -> str:
        """Return where the run is and the numbers, in one line."""
        return f"{self.place()}  {self.numbers()}"

    def place(self) -> str:
        """Return time, phase, trial, and when it should end or what it waits for."""
        place = (
            f"[{duration(self.elapsed)}] {self.phase}"
            f"  trial {self.trials_completed}/{self.trials_total or '?'}"
        )
        if self.waiting_for:
            return f"{place}  waiting for {self.waiting_for}"
        return place if self.eta is None else f"{place}  ETA {duration(self.eta)}"

    def numbers(self) -> str:
        """Return scores, calls, and the spend where the price is known."""
        parts = [
            f"score {number(self.last_score)}",
            f"best {number(self.best_score)}",
            f"baseline {number(self.baseline_score)}",
            f"{self.lm_calls} calls",
        ]
        if self.cached_calls:
            parts[-1] += f" (+{self.cached_calls} cached)"
        if self.cost_usd is not None:
            parts.append(money(self.cost_usd))
        return "  ".join(parts)

    def _take_run(self, run: optimization_pb2.Optimization) -> None:
        if run.phase:
            self.phase = phase_word(run.phase)
        if run.end_time.ToNanoseconds():
            self.phase = _state_word(run.state)
        self._take(run.progress)

    def _take(self, progress: optimization_pb2.OptimizationProgress) -> None:
        self.trials_completed = progress.trials_completed
        self.trials_total = progress.trials_total
        if progress.HasField("baseline_score"):
            self.baseline_score = progress.baseline_score
        if progress.HasField("best_score"):
            self.best_score = progress.best_score
        self.lm_calls = progress.lm_calls
        self.cached_calls = progress.cached_calls
        self.cost_usd = progress.cost_usd if progress.HasField("cost_usd") else None
        self.elapsed = progress.elapsed.ToTimedelta()
        self.eta = progress.eta.ToTimedelta() if progress.HasField("eta") else None
        self.waiting_for = progress.waiting_for


class View(Protocol):
    """Shows a run."""

    def show(self, event: optimization_service_pb2.OptimizationEvent) -> None:
        """Take an event in and show what changed."""

    def note(self, text: str) -> None:
        """Show a line that is not about an event."""


class PlainView:
    """One line an event, for logs and pipes; heartbeats show that it is alive."""

    def __init__(self) -> None:
        self._state = RunState()

    def show(self, event: optimization_service_pb2.OptimizationEvent) -> None:
        """Print the numbers, and what else is to be read."""
        notes = self._state.apply(event)
        for text in notes:
            self.note(text)
        if not notes and event.WhichOneof("event") != "instruction_proposed":
            self.note(self._state.line())

    def note(self, text: str) -> None:
        """Print a line."""
        print(clean(text), file=sys.stderr, flush=True)


class _LiveView:
    """A bar with the numbers beside it, redrawn in place."""

    def __init__(self, progress: Progress) -> None:
        self._state = RunState()
        self._progress = progress
        self._task = progress.add_task("", total=None, lines="")

    def show(self, event: optimization_service_pb2.OptimizationEvent) -> None:
        for text in self._state.apply(event):
            self.note(text)
        self._progress.update(
            self._task,
            completed=self._state.trials_completed,
            total=self._state.trials_total or None,
            # Two lines fit a terminal of 80 columns.
            lines=f"{self._state.place()}\n{self._state.numbers()}",
        )

    def note(self, text: str) -> None:
        self._progress.console.print(Text(clean(text), style="dim"))


@contextmanager
def open_view() -> Iterator[View]:
    """Yield a live view on a terminal, else one that prints lines; both on stderr."""
    if not sys.stderr.isatty():
        yield PlainView()
        return
    with Progress(
        BarColumn(bar_width=16),
        TextColumn("{task.fields[lines]}", markup=False),
        console=Console(stderr=True),
        transient=True,
    ) as progress:
        yield _LiveView(progress)


def follow(
    session: Session,
    name: str,
    view: View,
    *,
    pause: Callable[[float], None] = time.sleep,
    patience: int = _PATIENCE,
) -> optimization_pb2.Optimization:
    """Show a run until it has ended, however often the sidecar goes away in between.

    Args:
        session: Connection.
        name: `optimizations/{optimization}`.
        view: Where the events go.
        pause: Waits so many seconds before it connects again.
        patience: Failures in a row, without an event in between, that it puts up with.

    Returns:
        The run with its decision.

    Raises:
        CommandError: The sidecar stayed away for about a minute.
        grpc.RpcError: The sidecar answered an error.
    """
    token, failures = "", 0
    ended: optimization_pb2.Optimization | None = None
    while True:
        reason = "the stream ended early"
        try:
            for answer in session.client.optimization.WatchOptimization(
                optimization_service_pb2.WatchOptimizationRequest(
                    name=name, resume_token=token
                )
            ):
                failures = 0
                token = answer.event.resume_token or token
                view.show(answer.event)
                # A run that was resumed goes on after it.
                ended = None
                if answer.event.HasField("finished"):
                    ended = answer.event.finished.optimization
            if ended is not None:
                return ended
        except grpc.RpcError as error:
            gone = isinstance(error, grpc.Call) and error.code() in {
                grpc.StatusCode.UNAVAILABLE,
                grpc.StatusCode.CANCELLED,
            }
            if not gone or reason_of(error) not in _PASSING:
                raise
            if ended is not None:
                return ended
            reason = error.details() or "no connection"
        failures += 1
        if failures > patience:
            raise CommandError(
                f"lost the sidecar at {session.address} ({reason}); the run may still go"
                f" on: `sidejudge optimizations watch {name}`"
            )
        if failures == 1:
            view.note(f"connection lost ({reason}); going on where it broke off")
        pause(min(_FIRST_PAUSE_S * 2 ** (failures - 1), _LONGEST_PAUSE_S))


def phase_word(phase: optimization_pb2.Optimization.Phase.ValueType) -> str:
    """Return a phase in lower case; `working` for phases that newer servers may send."""
    try:
        name = optimization_pb2.Optimization.Phase.Name(phase)
    except ValueError:
        return "working"
    return name.removeprefix("PHASE_").lower()


def _expected(run: optimization_pb2.Optimization) -> list[str]:
    """Return what a run was expected to take, and why a policy started it."""
    lines = []
    if run.trigger.reason:
        lines.append(f"started by the policy: {run.trigger.reason}")
    if run.HasField("estimate"):
        took = run.estimate.duration.ToTimedelta()
        lines.append(f"expected: {run.estimate.lm_calls} calls, {duration(took)}")
    return lines


def _state_word(state: optimization_pb2.Optimization.State.ValueType) -> str:
    return (
        optimization_pb2.Optimization.State.Name(state).removeprefix("STATE_").lower()
    )
