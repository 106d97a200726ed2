"""The language models of one run: behind its cache, metered, and cancelled together."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from sidejudge_server.config import LMSettings
from sidejudge_server.judges.blocking import BlockingClient
from sidejudge_server.lm.call_cache import CachingClient, CallCache
from sidejudge_server.lm.client import create_client
from sidejudge_server.optimization.metering import (
    AnswerTally,
    MeteredClient,
    SpendMeter,
)
from sidejudge_server.optimization.scoring import Scorer
from sidejudge_server.optimization.spec import RunSpec

__all__ = ["RunModels"]


class RunModels:
    """What a run asks.

    Attributes:
        task: Judges.
        prompt: Writes instructions; the same as ``task`` if the run has no use for another.
        tally: Counts unusable answers of the judge.
        scorer: Asks the judge about many items at once.
    """

    def __init__(
        self,
        spec: RunSpec,
        meter: SpendMeter,
        *,
        on_cancel: Callable[[Callable[[], None]], None],
    ) -> None:
        """Connect to the models; no call is made yet.

        Args:
            spec: Says which models.
            meter: Where all calls are added up.
            on_cancel: Takes what to call when the run should stop.
        """
        work_dir = Path(spec.work_dir)
        task = MeteredClient(
            _cached(spec.task_lm, spec, work_dir / "task.jsonl"), meter=meter
        )
        self.task = BlockingClient(task)
        on_cancel(self.task.cancel)
        self.prompt = self.task
        if spec.prompt_lm is not None or spec.plan.instruction_source == "proposer":
            settings = spec.prompt_lm or spec.task_lm
            self.prompt = BlockingClient(
                MeteredClient(
                    _cached(settings, spec, work_dir / "prompt.jsonl"),
                    meter=meter,
                    tolerant=True,
                )
            )
            on_cancel(self.prompt.cancel)
        self.tally = AnswerTally(spec.task_lm.model)
        self.scorer = Scorer(
            task, self.task, tally=self.tally, concurrency=spec.plan.num_threads
        )


def _cached(settings: LMSettings, spec: RunSpec, path: Path) -> CachingClient:
    client = create_client(settings, model_dir=Path(spec.model_dir))
    return CachingClient(client, CallCache(path))
