"""What a worker tells the server: events with the run's progress, in JSON.

Keys by kind, as watchers get them:

* phase_changed: phase, progress
* instruction_proposed: instruction_index (-1 if refused), instructions, refusal
* trial_completed: trial (number, score, example_count, full_evaluation, instruction_index,
  demonstration_set_index, instructions, demonstration_count, best, algorithm ("" for the baseline),
  stopped_early, end_time), progress
* best_improved: trial (number), score, program (canonical program JSON, refitted)
* warning: message
* progress: progress
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import Any, Protocol

from sidejudge_server.optimization.proposals import Proposal
from sidejudge_server.optimization.spec import EventKind, Phase, Progress
from sidejudge_server.optimization.spending import SpendMeter
from sidejudge_server.optimization.trial import Trial

__all__ = ["EventSink", "Reporter", "remaining_s"]

_PROGRESS_EVERY_S = 1.0


class EventSink(Protocol):
    """Takes events; thread-safe."""

    def send(self, event: Mapping[str, Any]) -> None:
        """Take one event."""
        ...


class Reporter:
    """Sends events and keeps the run's progress; thread-safe."""

    def __init__(
        self,
        sink: EventSink,
        meter: SpendMeter,
        *,
        trials_total: int,
        gate_calls: int,
    ) -> None:
        """Create it.

        Args:
            sink: Takes the events.
            meter: Knows what was spent and how long it took.
            trials_total: Planned trials.
            gate_calls: LM calls that the gate will make.
        """
        self._gate_calls = gate_calls
        self._calls_before_search = 0
        self._calls_before_gate: int | None = None
        self._sink = sink
        self._meter = meter
        self._search_started: float | None = None
        self._trials = 0
        self._total = trials_total
        self._baseline: float | None = None
        self._best: float | None = None
        self._waiting_for = ""
        self._stopped = threading.Event()

    def start(self) -> None:
        """Send progress every second from a thread, so that long phases are seen to live.

        The same thread ends what has no time left.
        """
        threading.Thread(target=self._tick, name="progress", daemon=True).start()

    def stop(self) -> None:
        """Send no further progress."""
        self._stopped.set()

    @property
    def progress(self) -> Progress:
        """How far the run is and what it has spent."""
        now = time.monotonic()
        return Progress(
            trials_completed=self._trials,
            trials_total=max(self._total, self._trials),
            baseline_score=self._baseline,
            best_score=self._best,
            elapsed_s=round(self._meter.elapsed_s, 3),
            eta_s=None if self._waiting_for else self._eta_s(now),
            waiting_for=self._waiting_for,
            **asdict(self._meter.spend),
        )

    def phase(self, phase: Phase) -> None:
        """Say that a phase begins."""
        calls = self._meter.spend.lm_calls
        if phase is Phase.SEARCHING and self._search_started is None:
            self._search_started = time.monotonic()
            self._calls_before_search = calls
        elif phase is Phase.GATING:
            self._calls_before_gate = calls
        self._send(
            EventKind.PHASE_CHANGED,
            phase=phase.value,
            progress=self.progress.to_json(),
        )

    def proposed(self, proposal: Proposal) -> None:
        """Say that an instruction competes or was refused."""
        self._send(
            EventKind.INSTRUCTION_PROPOSED,
            instruction_index=proposal.index,
            instructions=proposal.instructions,
            refusal=proposal.refusal,
        )

    def trial(self, trial: Trial) -> None:
        """Report a trial; number 0 is the version that the run starts from."""
        if trial.number == 0:
            self._baseline = trial.score
        self._trials = trial.number
        if trial.best:
            self._best = trial.score
        self._send(
            EventKind.TRIAL_COMPLETED,
            trial={
                "number": trial.number,
                "score": trial.score,
                "example_count": trial.example_count,
                "full_evaluation": trial.full,
                "instruction_index": trial.instruction_index,
                "demonstration_set_index": trial.demo_set_index,
                "instructions": trial.instructions,
                "demonstration_count": trial.demo_count,
                "best": trial.best,
                "algorithm": trial.algorithm.value if trial.algorithm else "",
                "stopped_early": trial.stopped_early,
                "end_time": datetime.now(UTC).isoformat(),
            },
            progress=self.progress.to_json(),
        )

    def best_improved(self, trial: int, *, score: float, program_json: str) -> None:
        """Hand over the best program so far, so that a stopped run leaves something behind."""
        self._send(
            EventKind.BEST_IMPROVED, trial=trial, score=score, program=program_json
        )

    def warning(self, message: str) -> None:
        """Report something that does not stop the run."""
        self._send(EventKind.WARNING, message=message)

    def waiting_for(self, what: str) -> None:
        """Note what the run waits for; "" if it goes on."""
        self._waiting_for = what

    def final(self, kind: EventKind, **payload: object) -> None:
        """Send the last word."""
        self.stop()
        progress = replace(self.progress, eta_s=None)
        self._send(kind, progress=progress.to_json(), **payload)

    def search_ended(self) -> None:
        """Correct the planned number of trials to what became of it."""
        self._total = self._trials

    def _send(self, kind: EventKind, **payload: object) -> None:
        self._sink.send({"kind": kind.value, **payload})

    def _eta_s(self, now: float) -> float | None:
        if self._search_started is None:
            return None
        calls = self._meter.spend.lm_calls
        gated = (
            0 if self._calls_before_gate is None else calls - self._calls_before_gate
        )
        return remaining_s(
            now - self._search_started,
            calls=calls - self._calls_before_search,
            trials=self._trials,
            trials_left=self._total - self._trials,
            gate_calls_left=self._gate_calls - gated,
        )

    def _tick(self) -> None:
        while not self._stopped.wait(_PROGRESS_EVERY_S):
            self._meter.watch_time()
            self._send(EventKind.PROGRESS, progress=self.progress.to_json())


def remaining_s(
    elapsed_s: float,
    *,
    calls: int,
    trials: int,
    trials_left: int,
    gate_calls_left: int,
) -> float | None:
    """Estimate the seconds to the end of a run; None before its first trial has ended.

    Trials still to come take what trials took, the gate's calls what calls took. Answers from the
    run's cache make later trials faster than the first ones, so the estimate errs on the long side.

    Args:
        elapsed_s: Since the search began.
        calls: LM calls since then, without answers from the cache.
        trials: Trials that have ended.
        trials_left: Trials still to come; negative counts as none.
        gate_calls_left: Calls that the gate still has to make; negative counts as none.
    """
    if not trials:
        return None
    per_call = elapsed_s / calls if calls else 0.0
    estimate = elapsed_s / trials * max(0, trials_left) + per_call * max(
        0, gate_calls_left
    )
    return round(estimate, 3)
