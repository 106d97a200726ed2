"""Turns feedback on evaluations of experiments into labels of their arms."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Final

import structlog

from sidejudge_server.errors import (
    LMRateLimitedError,
    LMUnavailableError,
    NotFoundError,
    SidejudgeError,
    StorageUnavailableError,
)
from sidejudge_server.experiments.registry import ExperimentRegistry
from sidejudge_server.experiments.shadowing import ShadowAnswer, ShadowJudging
from sidejudge_server.experiments.types import Arm, Experiment, Mode, State
from sidejudge_server.judges.agreement import agreement, answer_value
from sidejudge_server.judges.codec import input_from_json
from sidejudge_server.judges.requests import commit
from sidejudge_storage import (
    EvaluationRecord,
    ExperimentLabelRecord,
    FeedbackRecord,
    Storage,
)

__all__ = ["Labelling", "counting_feedback"]

_log = structlog.get_logger(__name__)

_BATCH: Final = 256
_AT_ONCE: Final = 8
_FIRST_RETRY_S: Final = 1.0
_LAST_RETRY_S: Final = 60.0
_SOURCES: Final = ("downstream", "user", "expert")


class Labelling:
    """Labels the arms of running experiments, also of feedback that comes late.

    Late feedback counts for the arm that judged. In shadow mode and in rollouts the other arms judge
    the item too, so that each label makes a pair. Feedback on an experiment that has ended changes
    nothing: its analysis stays as it was concluded. Belongs to one event loop.
    """

    def __init__(
        self,
        storage: Storage,
        experiments: ExperimentRegistry,
        shadowing: ShadowJudging,
    ) -> None:
        self._storage = storage
        self._experiments = experiments
        self._shadowing = shadowing
        self._waiting: dict[str, None] = {}
        self._wake = asyncio.Event()
        self._slots = asyncio.Semaphore(_AT_ONCE)
        self._work_task: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._listeners: list[Callable[[str], None]] = []
        self._closing = False

    async def start(self) -> None:
        """Take up what was not labelled before the restart, and begin."""
        for experiment in self._experiments.list(state=State.RUNNING):
            found = await self._storage.feedback.unlabelled(experiment.experiment_id)
            self._waiting.update(dict.fromkeys(found))
        self._work_task = asyncio.create_task(self._work())
        self._wake.set()

    async def close(self) -> None:
        """Stop; what is not labelled yet is taken up at the next start."""
        self._closing = True
        running = [*self._tasks, *([self._work_task] if self._work_task else [])]
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    async def drain(self) -> None:
        """Wait until all feedback that was heard of is labelled."""
        while self._waiting or self._tasks:
            if self._tasks:
                await asyncio.wait(set(self._tasks))
            else:
                await asyncio.sleep(0)

    def on_labelled(self, listener: Callable[[str], None]) -> None:
        """Call back with the id of an experiment that has new labels; must not block or raise."""
        self._listeners.append(listener)

    def hear(self, records: Sequence[FeedbackRecord]) -> None:
        """Hear of feedback that is on disk."""
        if not self._experiments.any_running:
            return
        self._waiting.update(dict.fromkeys(r.evaluation_id for r in records))
        self._wake.set()

    async def _work(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._waiting:
                ids = list(self._waiting)[:_BATCH]
                task = asyncio.create_task(self._take_up(ids))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
                for evaluation_id in ids:
                    del self._waiting[evaluation_id]
                await asyncio.wait({task})
                if not task.cancelled() and (error := task.exception()) is not None:
                    _log.warning("labels wait", cause=str(error))
                    self._waiting.update(dict.fromkeys(ids))
                    await asyncio.sleep(_FIRST_RETRY_S)

    async def _take_up(self, ids: Sequence[str]) -> None:
        """Begin to label those evaluations that belong to a running experiment."""
        evaluations = await self._storage.evaluations.in_experiments(ids)
        feedback: dict[str, list[FeedbackRecord]] = {}
        for record in await self._storage.feedback.of_evaluations(
            e.evaluation_id for e in evaluations
        ):
            feedback.setdefault(record.evaluation_id, []).append(record)
        for evaluation in evaluations:
            given = feedback.get(evaluation.evaluation_id)
            if given and self._running(evaluation) is not None:
                task = asyncio.create_task(self._label(evaluation, given))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    async def _label(
        self, evaluation: EvaluationRecord, feedback: Sequence[FeedbackRecord]
    ) -> None:
        """Label an evaluation, however long the language model or the database is away."""
        retry_s = _FIRST_RETRY_S
        while True:
            experiment = self._running(evaluation)
            if experiment is None:
                return
            try:
                async with self._slots:
                    rows = await self._rows(experiment, evaluation, feedback)
                    await commit(self._storage, *rows)
            except (
                LMUnavailableError,
                LMRateLimitedError,
                StorageUnavailableError,
            ) as error:
                _log.info("a label waits", experiment=experiment.name, cause=str(error))
                await asyncio.sleep(retry_s)
                retry_s = min(_LAST_RETRY_S, 2 * retry_s)
            except SidejudgeError as error:
                # Waiting would not help: the model refuses this item, or the judge is gone.
                _log.warning(
                    "a label is left out", experiment=experiment.name, cause=str(error)
                )
                return
            else:
                break
        for listener in self._listeners:
            listener(experiment.experiment_id)

    async def _rows(
        self,
        experiment: Experiment,
        evaluation: EvaluationRecord,
        feedback: Sequence[FeedbackRecord],
    ) -> list[ExperimentLabelRecord]:
        given = counting_feedback(feedback)
        answered = ShadowAnswer(
            evaluation.verdict, evaluation.score, evaluation.confidence
        )
        newest = max(record.feedback_id for record in feedback)
        rows = []
        for arm in self._arms_to_label(experiment, evaluation):
            answer = (
                answered
                if arm.arm_id == evaluation.arm_id
                else await self._shadowing.judge(
                    experiment,
                    arm,
                    evaluation_id=evaluation.evaluation_id,
                    item=input_from_json(evaluation.input_json),
                    explain=bool(evaluation.reasoning),
                )
            )
            rows.append(
                _row(
                    experiment,
                    evaluation,
                    arm,
                    answer=answer,
                    given=given,
                    feedback_id=newest,
                )
            )
        return rows

    def _arms_to_label(
        self, experiment: Experiment, evaluation: EvaluationRecord
    ) -> Iterable[Arm]:
        if experiment.judge_id is None or experiment.mode is Mode.SPLIT:
            arm = experiment.arm(evaluation.arm_id or "")
            return () if arm is None else (arm,)
        return experiment.arms

    def _running(self, evaluation: EvaluationRecord) -> Experiment | None:
        with suppress(NotFoundError):
            experiment = self._experiments.get(evaluation.experiment_id or "")
            if experiment.state is State.RUNNING:
                return experiment
        return None


def counting_feedback(feedback: Sequence[FeedbackRecord]) -> FeedbackRecord:
    """Return the correction that counts for an evaluation.

    The last one of each author counts; of these an expert's before a user's before a downstream
    signal; among equals the latest.

    Args:
        feedback: All corrections of one evaluation, at least one.
    """
    last: dict[tuple[str, str], FeedbackRecord] = {}
    for record in sorted(feedback, key=lambda r: r.feedback_id):
        author = record.author or record.feedback_id
        last[record.source, author] = record
    return max(last.values(), key=lambda r: (_SOURCES.index(r.source), r.feedback_id))


def _row(
    experiment: Experiment,
    evaluation: EvaluationRecord,
    arm: Arm,
    *,
    answer: ShadowAnswer,
    given: FeedbackRecord,
    feedback_id: str,
) -> ExperimentLabelRecord:
    label = answer_value(given.verdict, given.score)
    if label is None:
        raise AssertionError("feedback without a correction")
    quality = label
    if experiment.judge_id is not None:
        quality = agreement(
            label_verdict=given.verdict,
            label_score=given.score,
            verdict=answer.verdict,
            score=answer.score,
        )
    return ExperimentLabelRecord(
        experiment_id=experiment.experiment_id,
        evaluation_id=evaluation.evaluation_id,
        arm_id=arm.arm_id,
        unit=evaluation.subject or evaluation.evaluation_id,
        stage=evaluation.stage or 0,
        feedback_id=feedback_id,
        created_at=datetime.now(UTC),
        quality=quality,
        label=label,
        judged=answer_value(answer.verdict, answer.score),
        confidence=answer.confidence,
        answered=arm.arm_id == evaluation.arm_id,
    )
