"""Judging items with the arms that did not answer, while nobody waits for the language model."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime

import structlog

from sidejudge_server.errors import JudgeOutputError, LMError, SidejudgeError
from sidejudge_server.experiments.assignment import hash_to_unit
from sidejudge_server.experiments.types import Arm, Experiment
from sidejudge_server.judges.evaluator import Answer, evaluate
from sidejudge_server.judges.registry import JudgeRegistry
from sidejudge_server.judges.requests import commit
from sidejudge_server.judges.slack import Slack
from sidejudge_server.judges.types import JudgeInput, Judgment
from sidejudge_server.lm.types import ChatClient
from sidejudge_storage import (
    EvaluationRecord,
    ExperimentFailureRecord,
    ShadowJudgmentRecord,
    Storage,
)

__all__ = ["ShadowAnswer", "ShadowJudging"]

_log = structlog.get_logger(__name__)

_MOST_WAITING = 1_000


@dataclass(frozen=True, slots=True)
class ShadowAnswer:
    """What an arm says of an item; verdict and score are None if its answer was unusable."""

    verdict: str | None = None
    score: float | None = None
    confidence: float | None = None


@dataclass(frozen=True, slots=True)
class _Waiting:
    experiment: Experiment
    evaluation_id: str
    answered_by: str
    item: JudgeInput
    explain: bool


class ShadowJudging:
    """Judges items with other arms, in the background or on demand. Belongs to one event loop."""

    def __init__(
        self,
        storage: Storage,
        judges: JudgeRegistry,
        client: ChatClient,
        *,
        slack: Slack,
        workers: int = 1,
    ) -> None:
        """Make it.

        Args:
            storage: Where judgments are kept.
            judges: The versions.
            client: The language model.
            slack: Says when the model is free.
            workers: Items judged at once.
        """
        self._storage = storage
        self._judges = judges
        self._client = client
        self._slack = slack
        self._workers = workers
        self._waiting: asyncio.Queue[_Waiting] = asyncio.Queue(_MOST_WAITING)
        self._running: dict[tuple[str, str, str], asyncio.Task[ShadowAnswer]] = {}
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin with what is offered."""
        self._tasks = [asyncio.create_task(self._work()) for _ in range(self._workers)]

    async def close(self) -> None:
        """Stop; what was offered and not judged yet is judged when a label comes."""
        for task in [*self._tasks, *self._running.values()]:
            task.cancel()
        await asyncio.gather(
            *self._tasks, *self._running.values(), return_exceptions=True
        )

    async def drain(self) -> None:
        """Wait until everything that was offered is judged or given up."""
        await self._waiting.join()

    def offer(
        self, experiment: Experiment, record: EvaluationRecord, item: JudgeInput
    ) -> None:
        """Judge an item with the other arms some time, if it belongs to the share that is to be.

        A full queue forgets it: it is judged when a label comes.
        """
        place = hash_to_unit("shadow", experiment.experiment_id, record.evaluation_id)
        if place >= experiment.shadow_share:
            return
        with suppress(asyncio.QueueFull):
            self._waiting.put_nowait(
                _Waiting(
                    experiment,
                    record.evaluation_id,
                    record.arm_id or "",
                    item,
                    bool(record.reasoning),
                )
            )

    async def judge(
        self,
        experiment: Experiment,
        arm: Arm,
        *,
        evaluation_id: str,
        item: JudgeInput,
        explain: bool,
    ) -> ShadowAnswer:
        """Return what an arm says of an item, asking the language model if it was not asked before.

        Args:
            experiment: The experiment.
            arm: One of its arms.
            evaluation_id: The evaluation of the item.
            item: What is judged.
            explain: Whether to ask for reasons as the evaluation did: else latency and cost of
                the arms could not be compared.

        Raises:
            LMError: The model did not deliver; an unusable answer is no error here.
            StorageUnavailableError: The answer could not be kept.
        """
        key = experiment.experiment_id, arm.arm_id, evaluation_id
        running = self._running.get(key)
        if running is None:
            running = asyncio.create_task(
                self._judge(experiment, arm, evaluation_id, item, explain=explain)
            )
            self._running[key] = running
            running.add_done_callback(lambda _: self._running.pop(key, None))
        return await asyncio.shield(running)

    async def _work(self) -> None:
        while True:
            waiting = await self._waiting.get()
            try:
                for arm in waiting.experiment.arms:
                    if arm.arm_id != waiting.answered_by:
                        await self.judge(
                            waiting.experiment,
                            arm,
                            evaluation_id=waiting.evaluation_id,
                            item=waiting.item,
                            explain=waiting.explain,
                        )
            except SidejudgeError as error:
                # It is judged when a label comes.
                _log.debug("an item was not judged in shadow", cause=error.message)
            finally:
                self._waiting.task_done()

    async def _judge(
        self,
        experiment: Experiment,
        arm: Arm,
        evaluation_id: str,
        item: JudgeInput,
        *,
        explain: bool,
    ) -> ShadowAnswer:
        known = await self._storage.shadow_judgments.get(
            experiment.experiment_id, arm.arm_id, evaluation_id
        )
        if known is not None:
            return ShadowAnswer(known.verdict, known.score, known.confidence)
        judge_id = experiment.judge_id or ""
        version = self._judges.get_version(judge_id, arm.version)
        try:
            answer = await self._slack.run(
                lambda: evaluate(version.program, item, self._client, explain=explain)
            )
        except JudgeOutputError as error:
            await commit(self._storage, _failure(experiment, arm, error))
            return ShadowAnswer()
        record = _judgment(
            experiment, arm, evaluation_id, answer, model=self._client.model
        )
        await commit(self._storage, record)
        return ShadowAnswer(record.verdict, record.score, record.confidence)


def _judgment(
    experiment: Experiment,
    arm: Arm,
    evaluation_id: str,
    answer: Answer,
    *,
    model: str,
) -> ShadowJudgmentRecord:
    result, usage = answer.result, answer.usage
    verdict = score = confidence = None
    if isinstance(result, Judgment):
        verdict, confidence = result.verdict.value, result.confidence
    else:
        score = result.score
    return ShadowJudgmentRecord(
        evaluation_id=evaluation_id,
        experiment_id=experiment.experiment_id,
        arm_id=arm.arm_id,
        judge_id=experiment.judge_id or "",
        version=arm.version or 0,
        created_at=datetime.now(UTC),
        verdict=verdict,
        score=score,
        confidence=confidence,
        model=model,
        input_tokens=usage.input_tokens,
        cached_input_tokens=usage.cached_input_tokens,
        output_tokens=usage.output_tokens,
        lm_calls=usage.calls,
        cost_usd=usage.cost_usd,
        lm_latency_ms=1000.0 * usage.latency_s,
    )


def _failure(
    experiment: Experiment, arm: Arm, error: LMError
) -> ExperimentFailureRecord:
    return ExperimentFailureRecord(
        experiment_id=experiment.experiment_id,
        arm_id=arm.arm_id,
        judge_id=experiment.judge_id or "",
        version=arm.version or 0,
        created_at=datetime.now(UTC),
        reason=error.reason,
        shadow=True,
        subject="",
        stage=experiment.status.stage,
    )
