"""One run, in its own process: baseline, search, refit, gate.

Every answer goes through the run's call cache, so that a program that is scored in the search, refitted
and judged at the gate is paid for once.
"""

from __future__ import annotations

import contextlib
import threading
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Protocol

import dspy
from tqdm import tqdm  # type: ignore[import-untyped]  # no stubs are installed

from sidejudge_server.errors import SidejudgeError
from sidejudge_server.judges.blocking import RunCancelled
from sidejudge_server.judges.codec import (
    content_digest,
    program_from_json,
    program_to_json,
)
from sidejudge_server.judges.types import JudgeProgram
from sidejudge_server.optimization.algorithms import (
    SearchContext,
    algorithm_for,
)
from sidejudge_server.optimization.child import LEAVE_S
from sidejudge_server.optimization.faults import (
    RunAborted,
    error_document,
    error_of,
    work_dir_error,
)
from sidejudge_server.optimization.gate import decide
from sidejudge_server.optimization.gate_evidence import with_answers
from sidejudge_server.optimization.head_fitting import headed
from sidejudge_server.optimization.ladder import planned_trials
from sidejudge_server.optimization.memory_limit import lift_memory_limit
from sidejudge_server.optimization.plan import within_trials
from sidejudge_server.optimization.reporter import EventSink, Reporter
from sidejudge_server.optimization.run_models import RunModels
from sidejudge_server.optimization.scoring import (
    Fitted,
    LabelledItem,
    labelled,
    quality,
)
from sidejudge_server.optimization.spec import EventKind, Phase, RunSpec
from sidejudge_server.optimization.spend_ledger import SpendLedger
from sidejudge_server.optimization.spending import BudgetExhausted, SpendMeter
from sidejudge_server.optimization.stops import StopReason
from sidejudge_server.optimization.trial import Trial, TrialLog

__all__ = ["WorkerChannel", "run_spec"]

_REACHES = "the budget reaches the gate"
_STOPPED = "why the search stopped"
_LAST_ANSWERS_S = 0.8
"""How long a cancelled run waits for answers that are paid for; the server waits 1.5 s for its end."""


class WorkerChannel(EventSink, Protocol):
    """The worker's way to the server."""

    def on_cancel(self, callback: Callable[[], None]) -> None:
        """Call back, from another thread, when the run should stop."""
        ...

    def on_leave(self, callback: Callable[[float], None]) -> None:
        """Call back, from another thread, when the process has so many seconds left."""
        ...


def run_spec(document: dict[str, Any], channel: WorkerChannel) -> None:
    """Run one spec and send its events, a final one last. Raises nothing.

    Args:
        document: JSON of a `RunSpec`.
        channel: Where events go.
    """
    spec = RunSpec.from_json(document)
    spec = replace(spec, plan=within_trials(spec.plan, spec.budget.max_trials))
    try:
        ledger = SpendLedger(Path(spec.work_dir) / "spend.bin")
    except OSError as error:
        failure = error_document(work_dir_error(error))
        channel.send({"kind": EventKind.FAILED.value, "error": failure})
        return
    meter = SpendMeter(
        spec.budget, spent=spec.spent, elapsed_s=spec.elapsed_s, ledger=ledger
    )
    reporter = Reporter(
        channel,
        meter,
        trials_total=planned_trials(spec.plan, spec.budget.max_trials),
        gate_calls=_gate_calls(spec),
    )
    reporter.start()
    # Answers are cached by the run alone, in plain JSON.
    dspy.configure_cache(enable_disk_cache=False, enable_memory_cache=False)
    # Its default lock is a named semaphore that outlives a killed process.
    tqdm.set_lock(threading.RLock())
    models: RunModels | None = None
    try:
        with dspy.context(disable_history=True):
            models = RunModels(
                spec,
                meter,
                on_cancel=channel.on_cancel,
                on_leave=channel.on_leave,
                observer=reporter,
            )
            _Run(spec, reporter, models).execute()
    except RunCancelled:
        if models is not None:
            models.settle(_LAST_ANSWERS_S)
        reporter.final(EventKind.CANCELLED)
    except RunAborted as aborted:
        if models is not None:
            models.settle(LEAVE_S)
        _fail(reporter, aborted.cause)
    except Exception as error:  # noqa: BLE001 - the last resort; the private log has the rest
        _fail(reporter, error_of(error))


def _fail(reporter: Reporter, error: SidejudgeError) -> None:
    """Send why the run cannot go on; its log has the rest."""
    lift_memory_limit()
    with contextlib.suppress(OSError):  # the log may be on the disk that is full
        traceback.print_exc()
    reporter.final(EventKind.FAILED, error=error_document(error))


class _Run:
    """The steps of one run, the same for every algorithm."""

    def __init__(self, spec: RunSpec, reporter: Reporter, models: RunModels) -> None:
        self._reporter = reporter
        self._models = models
        self._program = program_from_json(spec.program_json)
        self._test = [labelled(e) for e in spec.test]
        self._test_ids = [e.example_id for e in spec.test]
        self._shared = spec.shared_with_earlier
        self._warned_unusable = False
        self._algorithm = algorithm_for(spec.plan)
        self._meter = models.meter
        self._gate_calls = _gate_calls(spec)
        self._concurrency = spec.plan.num_threads
        self._best: Fitted | None = None
        self._context = SearchContext(
            self._program,
            train=[labelled(e) for e in spec.train],
            validation=[labelled(e) for e in spec.validation],
            models=models,
            plan=spec.plan,
            curated=spec.curated,
            reporter=reporter,
            trials=TrialLog(self),
            algorithm=spec.plan.algorithm,
            max_trials=spec.budget.max_trials,
        )

    def execute(self) -> None:
        """Run all phases and send the result, which lacks a decision if the budget ends before it."""
        try:
            self._reporter.phase(Phase.BASELINE)
            self._baseline()
            stop_reason = self._search()
            self._reporter.search_ended()
            self._reporter.phase(Phase.REFITTING)
            self._best = self._choose()
            self._reporter.phase(Phase.GATING)
            self._best = self._headed(self._best)
            self._gate(self._best, stop_reason)
        except BudgetExhausted as exhausted:
            self._meter.wait_until_idle()
            self._reporter.search_ended()
            self._end_undecided(exhausted)

    def trial(self, trial: Trial) -> None:
        """Report a trial; warn once of answers that cannot be used."""
        self._models.tally.check()
        self._reporter.trial(trial)
        if self._models.tally.unusable and not self._warned_unusable:
            self._warned_unusable = True
            self._reporter.warning(
                "an answer of the model held no verdict or grade; such answers count as wrong, "
                "and more than a fifth of them end the run"
            )

    def _baseline(self) -> None:
        """Score the version that the run starts from; it is trial 0."""
        context = self._context
        # One call alone finds out what the model can do; asked at once, some calls would be made before
        # that is known and others after, another time other ones.
        self._models.closing_scorer.answers(self._program, context.validation[:1])
        context.trials.add(
            self._program,
            score=context.score(self._program, closing=True),
            example_count=len(context.validation),
        )

    def _search(self) -> StopReason:
        """Search until the end or until only what the decision takes is left; say which."""
        decisions = self._models.decisions
        reaches = self._meter.keep_back(
            self._gate_calls,
            concurrency=self._concurrency,
            reaches=decisions.recall(_REACHES),
        )
        if not decisions.once(_REACHES, lambda: reaches):
            self._reporter.warning(
                f"the budget does not reach the gate, which takes about {self._gate_calls} calls: "
                "the best version will be kept, but not decided about"
            )
        if (stopped := decisions.recall(_STOPPED)) is not None:
            self._meter.stop_search_at_next_request(StopReason(stopped))
        try:
            self._algorithm.search(self._context)
        except BudgetExhausted as exhausted:
            self._meter.wait_until_idle()
            reason = exhausted.reason.value
            return StopReason(decisions.once(_STOPPED, lambda: reason))
        return StopReason.COMPLETED

    def _choose(self) -> Fitted:
        """Return the refitted candidate that is best out of fold; the starting version is one.

        An algorithm may have chosen itself, by a stricter comparison.
        """
        if self._context.chosen is not None:
            return self._context.chosen
        best = self._context.refit(self._program, closing=True)
        for program in self._context.candidates.values():
            fitted = self._context.refit(program, closing=True)
            if fitted.quality > best.quality:
                best = fitted
        return best

    def _headed(self, best: Fitted) -> Fitted:
        """Return the best with a learned head, or the starting version with one, if that is better."""
        scorer = self._models.closing_scorer
        # The gate needs these answers in any case; here they teach the head.
        scorer.answers(best.program, self._gap_items(best.program))
        return headed(
            best,
            start=self._context.refit(self._program, closing=True),
            train=[item for item in self._context.train if not item.synthetic],
            validation=self._context.validation,
            scorer=scorer,
        )

    def _gap_items(self, program: JudgeProgram) -> list[LabelledItem]:
        """Return the training examples that a program was not made from, for its gap check.

        Guidelines are made from all of them. Remembered examples that only vote are left out one
        by one when they are looked at, so they count.
        """
        memory = program.memory
        if memory is not None and memory.guidelines:
            return []
        seen = {content_digest(d.input) for d in program.demonstrations}
        if memory is not None and memory.shown:
            seen |= {content_digest(e.input) for e in memory.examples}
        return [
            item
            for item in self._context.train
            if not item.synthetic and content_digest(item.input) not in seen
        ]

    def _gate(self, best: Fitted, stop_reason: StopReason) -> None:
        """Compare the chosen candidate with the version that serves, on held-out examples."""
        differs = best.program != self._program
        scorer = self._models.closing_scorer
        old = scorer.answers(self._program, self._test)
        new = scorer.answers(best.program, self._test) if differs else old
        recalled_old = scorer.recalled(self._program, self._test)
        recalled_new = scorer.recalled(best.program, self._test)
        train = self._gap_items(best.program)
        decision = decide(
            quality(self._program, self._test, old, recalled=recalled_old),
            quality(best.program, self._test, new, recalled=recalled_new),
            train=self._quality(best.program, train),
            validation=self._quality(best.program, self._context.validation),
            scores=self._program.scores,
            shared=self._shared,
            differs=differs,
            labels=[item.verdict.value for item in self._test if item.verdict],
        )
        decision = with_answers(
            decision,
            self._test,
            example_ids=self._test_ids,
            baseline=(self._program, old),
            candidate=(best.program, new),
            recalled=(recalled_old, recalled_new),
        )
        tally = self._models.tally
        if tally.unusable:
            self._reporter.warning(
                f"{tally.unusable} of {tally.answers} answers held no verdict or "
                "grade and counted as wrong"
            )
        self._reporter.final(
            EventKind.RESULT,
            candidate=program_to_json(best.program) if differs else None,
            decision=decision.to_json(),
            stop_reason=stop_reason.value,
            metrics={
                **best.metrics,
                f"test.{decision.metric}": decision.candidate.value,
                f"test.baseline_{decision.metric}": decision.baseline.value,
            },
        )

    def _end_undecided(self, exhausted: BudgetExhausted) -> None:
        """Hand over the best so far with what is missing for a decision about it."""
        best = self._best
        differs = best is not None and best.program != self._program
        self._reporter.final(
            EventKind.RESULT,
            candidate=program_to_json(best.program) if best and differs else None,
            decision=None,
            stop_reason=exhausted.reason.value,
            shortage=asdict(self._meter.shortage),
            metrics=dict(best.metrics) if best else {},
        )

    def _quality(
        self, program: JudgeProgram, items: Sequence[LabelledItem]
    ) -> list[float]:
        return self._models.closing_scorer.quality(program, items)


def _gate_calls(spec: RunSpec) -> int:
    """Return about how many answers a decision takes."""
    real = sum(not example.synthetic for example in spec.train)
    return 2 * len(spec.test) + real
