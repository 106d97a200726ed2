"""Turns feedback into training examples in the background, and catches up after a restart.

Feedback is acknowledged once it is on disk; its example follows. What is still to be done is
held in a short queue and, beyond that, read back from the database, which knows the feedback
without an example. So a flood of feedback costs no memory and a crash loses nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence

from sidejudge_server.config import ServerSettings
from sidejudge_server.errors import StorageUnavailableError
from sidejudge_server.judges.codec import content_digest, input_to_json
from sidejudge_server.judges.registry import JudgeRegistry
from sidejudge_server.judges.types import ArtifactInput, JudgeInput, RubricInput
from sidejudge_server.training.examples import (
    Candidate,
    TrainingFactory,
    own_group,
    training_factory,
)
from sidejudge_server.training.intake import ExampleIntake
from sidejudge_server.training.labels import LabelRules, label_rules
from sidejudge_server.training.origins import FEEDBACK
from sidejudge_server.training.validator import Rejection
from sidejudge_storage import EvaluationRecord, ExampleRecord, FeedbackRecord, Storage
from sidejudge_storage.ids import new_id

__all__ = ["AcceptedListener", "TrainingCollector"]

AcceptedListener = Callable[[str, Sequence[ExampleRecord]], None]
"""Takes a judge's id and its new examples."""

_log = logging.getLogger(__name__)

_CHUNK = 250
_QUEUE = 20_000
_SLICE = 50  # candidates made before other tasks get a turn
_RETRY_S = 1.0
_QUIET_S = 0.25
_LONGEST_LINGER_S = 5.0
"""Examples are made when no feedback has come for a quarter of a second, after 5 seconds at the
latest, and at once if somebody waits for them: made beside the recording of more feedback, they
doubled its latency at one caller and halved its rate at 64.
"""
_REST_FACTOR = 9.0
"""While feedback keeps coming, a chunk of examples is followed by a rest this many times as long, so
that a backlog takes a tenth of the time at most: without, it left corrections a quarter of their rate.
"""
_QUIET_REST_FACTOR = 2.0
"""The same when no feedback comes: evaluations may, and took 9.6 ms instead of 8.6 beside a backlog."""


class TrainingCollector:
    """Derives one example, accepted or rejected, from every piece of feedback."""

    def __init__(
        self,
        storage: Storage,
        registry: JudgeRegistry,
        *,
        max_text_chars: int = ServerSettings().max_text_chars,
    ) -> None:
        """Make a collector; nothing happens before `start`.

        Args:
            storage: Where feedback comes from and examples go.
            registry: Says what labels a judge has.
            max_text_chars: Largest text field, in characters.
        """
        self._storage = storage
        self._registry = registry
        self._max_text_chars = max_text_chars
        self.intake = ExampleIntake(storage, max_text_chars=max_text_chars)
        self._listeners: list[AcceptedListener] = []
        self._queue: deque[FeedbackRecord] = deque()
        # The database may hold feedback without an example that is not in the queue.
        self._behind = True
        # New feedback goes to the queue again, but what came just before is still to be read.
        self._catching_up = False
        self._wake = asyncio.Event()
        self._urgent = asyncio.Event()  # somebody waits for the examples
        self._closing = False
        self._task: asyncio.Task[None] | None = None
        # Pieces of feedback that were announced and worked off; drain compares the two.
        self._announced = 0
        self._worked_off = 0
        self._before_queue = 0  # announced before the queue was used again
        self._waiters: list[tuple[int, asyncio.Future[None]]] = []

    def on_accepted(self, listener: AcceptedListener) -> None:
        """Call back whenever feedback has become examples that count; before `start`.

        Examples are on disk by then. A listener must not block or raise, and hears of nothing twice
        and, after a crash, of some not at all: what matters is to be read from the database.
        """
        self._listeners.append(listener)

    def start(self) -> None:
        """Begin to work, first on feedback that was left when the server last stopped."""
        if self._task is None:
            self._announced += 1  # the catch-up itself, so that drain waits for it
            self._wake.set()
            self._task = asyncio.create_task(self._work(), name="training-collector")

    async def close(self) -> None:
        """Finish the chunk at hand and stop; the rest is caught up at the next start."""
        self._closing = True
        self._wake.set()
        self._urgent.set()
        if self._task is not None:
            await self._task
        self._fail_waiters("the server is stopping")

    def notify(self, records: Sequence[FeedbackRecord]) -> None:
        """Announce feedback that is on disk. Call it before the feedback is acknowledged."""
        self._announced += len(records)
        if self._behind or len(self._queue) + len(records) > _QUEUE:
            self._behind = True
        else:
            self._queue.extend(records)
        self._wake.set()

    async def drain(self) -> None:
        """Return when all feedback announced so far has its example.

        Raises:
            StorageUnavailableError: The database does not take the examples.
        """
        if self._worked_off >= self._announced:
            return
        future = asyncio.get_running_loop().create_future()
        self._waiters.append((self._announced, future))
        self._wake.set()
        self._urgent.set()
        await future

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while not self._closing:
            await self._wake.wait()
            await self._linger(_LONGEST_LINGER_S)
            self._wake.clear()
            while not self._idle and not self._closing:
                announced, began = self._announced, loop.time()
                try:
                    await self._step()
                except Exception as error:  # noqa: BLE001 - the feedback is safe, try again
                    cause = type(error).__name__  # the text may quote what was judged
                    _log.warning("training examples could not be derived: %s", cause)
                    self._queue.clear()
                    self._behind, self._catching_up = True, False
                    self._fail_waiters(cause)
                    await self._pause()
                await asyncio.sleep(0)
                took = loop.time() - began
                if self._waiters or self._idle:
                    continue
                if announced != self._announced:
                    await self._linger(_REST_FACTOR * took)
                else:
                    await self._rest(_QUIET_REST_FACTOR * took)

    async def _linger(self, longest_s: float) -> None:
        """Return at a quiet moment, after ``longest_s``, or when somebody waits."""
        loop = asyncio.get_running_loop()
        latest = loop.time() + longest_s
        announced = -1
        while announced != self._announced and loop.time() < latest:
            announced = self._announced
            if await self._rest(_QUIET_S):
                return

    async def _rest(self, seconds: float) -> bool:
        """Wait; return at once, and whether that is why, when somebody waits for the examples."""
        try:
            await asyncio.wait_for(self._urgent.wait(), seconds)
        except TimeoutError:
            return False
        self._urgent.clear()
        return True

    @property
    def _idle(self) -> bool:
        return not (self._queue or self._behind or self._catching_up)

    async def _pause(self) -> None:
        """Wait before the next attempt, or until somebody asks for one."""
        try:
            await asyncio.wait_for(self._wake.wait(), _RETRY_S)
        except TimeoutError:
            return

    async def _step(self) -> None:
        """Work off one chunk, oldest feedback first."""
        if self._catching_up or not self._queue:
            await self._read_chunk()
            return
        size = min(_CHUNK, len(self._queue))
        chunk = [self._queue.popleft() for _ in range(size)]
        await self._derive(chunk)
        self._reach(self._worked_off + size)

    async def _read_chunk(self) -> None:
        """Work off a chunk of what the database has.

        A short chunk is all there is. But feedback may have come meanwhile, so the queue takes
        new feedback first and then everything before that is read once more. What shows up in
        both is left out by the intake.
        """
        announced = self._announced
        chunk = await self._storage.feedback.without_example(_CHUNK)
        await self._derive(chunk)
        if len(chunk) == _CHUNK:
            return
        if self._catching_up:
            self._catching_up = False
            self._reach(self._before_queue)
        elif announced == self._announced:
            self._behind = False
            self._reach(announced)
        else:
            self._behind, self._catching_up = False, True
            self._before_queue = self._announced

    def _reach(self, worked_off: int) -> None:
        self._worked_off = worked_off
        for target, future in self._waiters:
            if target <= worked_off and not future.done():
                future.set_result(None)
        self._waiters = [(t, f) for t, f in self._waiters if not f.done()]

    def _fail_waiters(self, cause: str) -> None:
        for _, future in self._waiters:
            if not future.done():
                future.set_exception(
                    StorageUnavailableError(
                        "training examples could not be derived from feedback; the "
                        "feedback itself is safe, try again",
                        reason="STORAGE_UNAVAILABLE",
                        metadata={"cause": cause[:200]},
                        retry_after_s=_RETRY_S,
                    )
                )
        self._waiters = []

    async def _derive(self, chunk: Sequence[FeedbackRecord]) -> None:
        """Write the examples of a chunk, judge by judge."""
        by_judge: defaultdict[str, list[FeedbackRecord]] = defaultdict(list)
        for feedback in chunk:
            by_judge[feedback.judge_id].append(feedback)
        for judge_id, items in by_judge.items():
            evaluations = await self._storage.evaluations.get_many(
                list({feedback.evaluation_id for feedback in items})
            )
            await self._derive_for(judge_id, items, evaluations=evaluations)

    async def _derive_for(
        self,
        judge_id: str,
        items: Sequence[FeedbackRecord],
        *,
        evaluations: Mapping[str, EvaluationRecord],
    ) -> None:
        judge = self._registry.find(judge_id)
        rules = (
            label_rules(judge_id, judge.spec)
            if judge
            else LabelRules(judge_id, scores=items[0].score is not None)
        )
        factory = training_factory(rules, max_text_chars=self._max_text_chars)
        candidates: list[Candidate] = []
        refused: list[ExampleRecord] = []
        for index, feedback in enumerate(items):
            if index % _SLICE == _SLICE - 1:
                await asyncio.sleep(0)
            evaluation = evaluations.get(feedback.evaluation_id)
            made = _candidate(factory, evaluation, feedback)
            if made is None:
                refused.append(_unreadable(rules, feedback))
            else:
                candidates.append(made)
        records = await self.intake.admit(rules, candidates, refused=refused)
        accepted = [record for record in records if record.rejection is None]
        if accepted:
            for listener in self._listeners:
                listener(judge_id, accepted)


def _candidate(
    factory: TrainingFactory,
    evaluation: EvaluationRecord | None,
    feedback: FeedbackRecord,
) -> Candidate | None:
    """Return a candidate, None if the evaluation is gone or cannot be read."""
    if evaluation is None:
        return None
    try:
        return factory.from_feedback(evaluation, feedback)
    except ValueError:
        return None


def _unreadable(rules: LabelRules, feedback: FeedbackRecord) -> ExampleRecord:
    """Return a rejected example, so that the feedback is not tried again for ever."""
    empty: JudgeInput = RubricInput("", "") if rules.scores else ArtifactInput("")
    digest = content_digest(empty)
    return ExampleRecord(
        example_id=new_id(),
        judge_id=rules.judge_id,
        created_at=feedback.created_at,
        origin=FEEDBACK,
        source=feedback.source,
        author=feedback.author,
        evaluation_id=feedback.evaluation_id,
        feedback_id=feedback.feedback_id,
        group_key=own_group(digest),
        content_digest=digest,
        split=None,
        input_json=input_to_json(empty),
        verdict=feedback.verdict,
        score=feedback.score,
        rationale=feedback.comment,
        judged_verdict=None,
        judged_score=None,
        rejection=Rejection.EMPTY_INPUT,
        rejection_detail="the evaluation is gone or its input cannot be read",
    )
