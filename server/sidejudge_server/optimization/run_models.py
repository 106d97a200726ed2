"""The language models of one run: behind its cache, metered, and cancelled together."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from sidejudge_server.config import LMSettings
from sidejudge_server.judges.blocking import BlockingClient, LoopThread
from sidejudge_server.lm.caching_client import CachingClient
from sidejudge_server.lm.call_cache import CallCache
from sidejudge_server.lm.client import create_client
from sidejudge_server.lm.types import LMUsage
from sidejudge_server.optimization.decisions import RecordedDecisions
from sidejudge_server.optimization.leave_out import LeaveOut
from sidejudge_server.optimization.metering import AnswerTally, MeteredClient
from sidejudge_server.optimization.outage import Outage, OutageObserver
from sidejudge_server.optimization.scoring import RecordedAnswers, Scorer
from sidejudge_server.optimization.spec import RunSpec
from sidejudge_server.optimization.spending import Purpose, SpendMeter

__all__ = ["RunModels"]


class RunModels:
    """What a run asks.

    Attributes:
        task: Judges.
        prompt: Writes instructions; the same as ``task`` if the run has no use for another.
        tally: Counts unusable answers of the judge.
        scorer: Asks the judge about many items at once.
        closing_task: Judges, paid from what is kept back for the decision.
        closing_scorer: Asks about many items, paid from there too.
        meter: Where all calls are added up.
        decisions: What was decided by what was left of the budget.
    """

    def __init__(
        self,
        spec: RunSpec,
        meter: SpendMeter,
        *,
        on_cancel: Callable[[Callable[[], None]], None],
        observer: OutageObserver,
        on_leave: Callable[[Callable[[float], None]], None] = lambda _: None,
    ) -> None:
        """Connect to the models; no call is made yet.

        Args:
            spec: Says which models.
            meter: Where all calls are added up.
            on_cancel: Takes what to call when the run should stop.
            observer: Hears of models that do not answer.
            on_leave: Takes what to call, with the seconds left, before the process ends.
        """
        self._caches: list[CachingClient] = []
        work_dir = Path(spec.work_dir)
        self.decisions = RecordedDecisions(work_dir / "decisions.ndjson", spec.budget)
        on_leave(self.settle)
        self.meter = meter
        outage = Outage(
            spec.task_lm.model, patience_s=spec.lm_outage_s, observer=observer
        )
        cached = self._cached(spec.task_lm, spec, "task.jsonl")
        self._thread = LoopThread()
        self.tally = AnswerTally(spec.task_lm.model)
        self._hide = LeaveOut((*spec.train, *spec.validation, *spec.test))
        self._answers = RecordedAnswers()
        self.task, self.scorer = self._judge(
            cached, spec, purpose=Purpose.SEARCH, outage=outage
        )
        self.closing_task, self.closing_scorer = self._judge(
            cached, spec, purpose=Purpose.CLOSING, outage=outage
        )
        # What is paid for is kept, though nobody waits for it any more.
        on_cancel(self._keep_what_comes)
        on_cancel(self.task.cancel)
        on_cancel(self.closing_task.cancel)
        self.prompt = self.task
        if spec.prompt_lm is not None or spec.plan.instruction_source == "proposer":
            settings = spec.prompt_lm or spec.task_lm
            self.prompt = BlockingClient(
                MeteredClient(
                    self._cached(settings, spec, "prompt.jsonl", keep_refusals=True),
                    meter=meter,
                    outage=Outage(
                        settings.model,
                        patience_s=spec.lm_outage_s,
                        observer=observer,
                    ),
                    tolerant=True,
                )
            )
            on_cancel(self.prompt.cancel)

        meter.paid_before(sum((c.cache.stored_usage for c in self._caches), LMUsage()))

    def settle(self, timeout_s: float) -> None:
        """Make no further calls, and keep the answers of those in progress.

        Args:
            timeout_s: How long to wait for them at most.
        """
        self._keep_what_comes()
        last_moment = time.monotonic() + timeout_s
        for client in self._caches:
            client.settle(max(0.0, last_moment - time.monotonic()))

    def _keep_what_comes(self) -> None:
        for client in self._caches:
            client.keep_what_comes()

    def _cached(
        self,
        settings: LMSettings,
        spec: RunSpec,
        name: str,
        *,
        keep_refusals: bool = False,
    ) -> CachingClient:
        client = create_client(
            settings, model_dir=Path(spec.model_dir), meter=self.meter
        )
        cached = CachingClient(
            client,
            CallCache(Path(spec.work_dir) / name),
            keep_refusals=keep_refusals,
        )
        self._caches.append(cached)
        return cached

    def _judge(
        self,
        cached: CachingClient,
        spec: RunSpec,
        *,
        purpose: Purpose,
        outage: Outage,
    ) -> tuple[BlockingClient, Scorer]:
        metered = MeteredClient(
            cached, meter=self.meter, purpose=purpose, outage=outage
        )
        blocking = BlockingClient(metered, runs_in=self._thread, hide=self._hide)
        return blocking, Scorer(
            metered,
            blocking,
            tally=self.tally,
            concurrency=spec.plan.num_threads,
            recorded=self._answers,
        )
