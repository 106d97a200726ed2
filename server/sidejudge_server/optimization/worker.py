"""One run, in its own process: baseline, search, refit, gate.

Every answer goes through the run's call cache, so that a program that is scored in the search, refitted
and judged at the gate is paid for once.
"""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import dspy
from tqdm import tqdm  # type: ignore[import-untyped]  # no stubs are installed

from sidejudge_server.config import LMSettings
from sidejudge_server.errors import SidejudgeError
from sidejudge_server.judges.blocking import BlockingClient, RunCancelled
from sidejudge_server.judges.codec import (
    content_digest,
    program_from_json,
    program_to_json,
)
from sidejudge_server.judges.dspy_judge import (
    JudgeLM,
    example_from,
    program_from_module,
)
from sidejudge_server.judges.types import JudgeProgram
from sidejudge_server.lm.call_cache import CachingClient, CallCache
from sidejudge_server.lm.client import create_client
from sidejudge_server.optimization.gate import decide
from sidejudge_server.optimization.metering import (
    AnswerTally,
    MeteredClient,
    RunAborted,
    SpendMeter,
)
from sidejudge_server.optimization.mipro import SearchTrial, StreamingMIPRO
from sidejudge_server.optimization.plan import total_trials
from sidejudge_server.optimization.prompt_lm import make_prompt_lm
from sidejudge_server.optimization.proposals import Proposal
from sidejudge_server.optimization.reporter import EventSink, Reporter
from sidejudge_server.optimization.scoring import (
    Fitted,
    LabelledItem,
    Scorer,
    TalliedJudge,
    labelled,
    quality,
    refit,
)
from sidejudge_server.optimization.spec import EventKind, Phase, RunSpec
from sidejudge_server.training.metrics import soft_judge_metric, soft_rubric_metric

__all__ = ["WorkerChannel", "run_spec"]

_NEVER = 10**9


class WorkerChannel(EventSink, Protocol):
    """The worker's way to the server."""

    def on_cancel(self, callback: Callable[[], None]) -> None:
        """Call back, from another thread, when the run should stop."""
        ...


def run_spec(document: dict[str, Any], channel: WorkerChannel) -> None:
    """Run one spec and send its events, a final one last. Raises nothing.

    Args:
        document: JSON of a `RunSpec`.
        channel: Where events go.
    """
    spec = RunSpec.from_json(document)
    meter = SpendMeter()
    reporter = Reporter(
        channel,
        meter,
        trials_total=total_trials(spec.plan),
        gate_calls=2 * len(spec.test) + len(spec.train),
    )
    reporter.start()
    # Answers are cached by the run alone, in plain JSON.
    dspy.configure_cache(enable_disk_cache=False, enable_memory_cache=False)
    # Its default lock is a named semaphore that outlives a killed process.
    tqdm.set_lock(threading.RLock())
    try:
        with dspy.context(disable_history=True):
            _Run(spec, reporter, meter, channel).execute()
    except RunCancelled:
        reporter.final(EventKind.CANCELLED)
    except RunAborted as aborted:
        reporter.final(EventKind.FAILED, error=_error(aborted.cause))
    except SidejudgeError as error:
        reporter.final(EventKind.FAILED, error=_error(error))
    except Exception as error:  # noqa: BLE001 - the last resort; the private log has the rest
        traceback.print_exc()
        reporter.final(
            EventKind.FAILED,
            error={
                "code": "INTERNAL",
                "reason": "INTERNAL",
                "message": f"fault in sidejudge: {type(error).__name__}; the run's log has more",
                "metadata": {},
            },
        )


class _Run:
    """The steps of one run. Implements `SearchObserver`."""

    def __init__(
        self,
        spec: RunSpec,
        reporter: Reporter,
        meter: SpendMeter,
        channel: WorkerChannel,
    ) -> None:
        self._spec = spec
        self._reporter = reporter
        self._program = program_from_json(spec.program_json)
        self._train = [labelled(e) for e in spec.train]
        self._validation = [labelled(e) for e in spec.validation]
        self._test = [labelled(e) for e in spec.test]
        work_dir = Path(spec.work_dir)
        task = MeteredClient(
            _cached(spec.task_lm, spec, work_dir / "task.jsonl"), meter=meter
        )
        self._task = BlockingClient(task)
        channel.on_cancel(self._task.cancel)
        self._prompt = self._task
        if spec.prompt_lm is not None or spec.plan.instruction_source == "proposer":
            settings = spec.prompt_lm or spec.task_lm
            self._prompt = BlockingClient(
                MeteredClient(
                    _cached(settings, spec, work_dir / "prompt.jsonl"),
                    meter=meter,
                    tolerant=True,
                )
            )
            channel.on_cancel(self._prompt.cancel)
        self._tally = AnswerTally(spec.task_lm.model)
        self._scorer = Scorer(
            task, self._task, tally=self._tally, concurrency=spec.plan.num_threads
        )
        # Fully scored candidates in the order of their first appearance, by program JSON.
        self._candidates: dict[str, JudgeProgram] = {}
        self._warned_unusable = False

    def execute(self) -> None:
        """Run all phases and send the result."""
        self._search()
        self._reporter.search_ended()
        self._reporter.phase(Phase.REFITTING)
        best = self._choose()
        self._reporter.phase(Phase.GATING)
        self._gate(best)

    # --- SearchObserver -------------------------------------------------------------------------

    def phase(self, phase: Phase) -> None:
        """Pass on."""
        self._reporter.phase(phase)

    def proposed(self, proposal: Proposal) -> None:
        """Pass on."""
        self._reporter.proposed(proposal)

    def warning(self, message: str) -> None:
        """Pass on."""
        self._reporter.warning(message)

    def should_stop(self) -> bool:
        """Never: a cancelled run stops at once, not at the end of a trial."""
        return False

    def trial(self, trial: SearchTrial) -> None:
        """Report a trial; keep a candidate that was scored on everything."""
        self._reporter.trial(trial)
        self._warn_of_unusable()
        if not trial.full:
            return
        program = program_from_module(trial.module, self._program)
        self._candidates.setdefault(program_to_json(program), program)
        if trial.best:
            fitted = self._refit(program)
            self._reporter.best_improved(
                trial.number,
                score=trial.score,
                program_json=program_to_json(fitted.program),
            )

    # --- Steps ----------------------------------------------------------------------------------

    def _search(self) -> None:
        metric = soft_rubric_metric if self._program.scores else soft_judge_metric
        module = TalliedJudge(self._program, tally=self._tally)
        validation = [_example(item) for item in self._validation]
        plan = self._spec.plan
        self._reporter.phase(Phase.BASELINE)
        with dspy.context(lm=JudgeLM(self._task)):
            scored = dspy.Evaluate(
                devset=validation,
                metric=metric,
                num_threads=plan.num_threads,
                max_errors=_NEVER,
            )(module)
        baseline = scored.score / 100
        self._reporter.baseline(
            baseline,
            example_count=len(validation),
            trial={
                "instructions": self._program.instructions,
                "demonstration_count": len(self._program.demonstrations),
            },
        )
        self._warn_of_unusable()
        StreamingMIPRO(
            metric=metric,
            task_lm=JudgeLM(self._task),
            prompt_lm=make_prompt_lm(self._prompt),
            plan=plan,
            curated=self._spec.curated,
            baseline_score=baseline,
            observer=self,
        ).search(
            module,
            train=[_example(item) for item in self._train],
            validation=validation,
        )

    def _choose(self) -> Fitted:
        """Return the refitted candidate that is best out of fold; the starting version is one."""
        best = self._refit(self._program)
        for program in self._candidates.values():
            fitted = self._refit(program)
            if fitted.quality > best.quality:
                best = fitted
        return best

    def _gate(self, best: Fitted) -> None:
        differs = best.program != self._program
        old = self._quality(self._program, self._test)
        new = self._quality(best.program, self._test) if differs else old
        shown = {content_digest(d.input) for d in best.program.demonstrations}
        train = [i for i in self._train if content_digest(i.input) not in shown]
        decision = decide(
            old,
            new,
            train=self._quality(best.program, train),
            validation=self._quality(best.program, self._validation),
            scores=self._program.scores,
        )
        if self._tally.unusable:
            self._reporter.warning(
                f"{self._tally.unusable} of {self._tally.answers} answers held no verdict or "
                "grade and counted as wrong"
            )
        self._reporter.final(
            EventKind.RESULT,
            candidate=program_to_json(best.program) if differs else None,
            decision=decision.to_json(),
            metrics={
                **best.metrics,
                f"test.{decision.metric}": decision.candidate.value,
                f"test.baseline_{decision.metric}": decision.baseline.value,
            },
        )

    def _refit(self, program: JudgeProgram) -> Fitted:
        answers = self._scorer.answers(program, self._validation)
        return refit(program, self._validation, answers)

    def _quality(
        self, program: JudgeProgram, items: Sequence[LabelledItem]
    ) -> list[float]:
        return quality(program, items, self._scorer.answers(program, items))

    def _warn_of_unusable(self) -> None:
        if self._tally.unusable and not self._warned_unusable:
            self._warned_unusable = True
            self._reporter.warning(
                "an answer of the model held no verdict or grade; such answers count as wrong, "
                "and more than a fifth of them end the run"
            )


def _cached(settings: LMSettings, spec: RunSpec, path: Path) -> CachingClient:
    client = create_client(settings, model_dir=Path(spec.model_dir))
    return CachingClient(client, CallCache(path))


def _example(item: LabelledItem) -> Any:  # noqa: ANN401 - dspy is untyped
    return example_from(
        item.input, verdict=item.verdict, score=item.score, reasoning=item.rationale
    )


def _error(error: SidejudgeError) -> dict[str, Any]:
    return {
        "code": error.code,
        "reason": error.reason,
        "message": error.message,
        "metadata": error.metadata,
    }
