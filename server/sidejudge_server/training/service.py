"""Takes corrections and labelled data, and hands out what a judge has to learn from."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

from sidejudge_server.config import Settings
from sidejudge_server.errors import (
    FieldViolation,
    InvalidRequestError,
)
from sidejudge_server.judges.registry import JudgeRegistry
from sidejudge_server.judges.requests import RequestLog
from sidejudge_server.training.collector import TrainingCollector
from sidejudge_server.training.corrections import BatchOutcome, Correction
from sidejudge_server.training.examples import ImportedExample, training_factory
from sidejudge_server.training.labels import label_rules
from sidejudge_server.training.origins import SYNTHETIC
from sidejudge_server.training.readiness import TrainingSet, TrainingSetSummary
from sidejudge_server.training.recorder import FeedbackRecorder, Recent
from sidejudge_storage import (
    ExampleFilter,
    ExampleRecord,
    FeedbackFilter,
    FeedbackRecord,
    Storage,
)

__all__ = [
    "MAX_IMPORT",
    "FeedbackService",
    "ImportOutcome",
    "RejectedImport",
    "TrainingData",
    "TrainingSets",
]

MAX_IMPORT = 1_000
EXPORT_PAGE = 200


@dataclass(frozen=True, slots=True)
class RejectedImport:
    """An imported example that does not count; ``index`` is its position in the call."""

    index: int
    rejection: str
    detail: str


@dataclass(frozen=True, slots=True)
class ImportOutcome:
    """How many examples of an import count, and which do not."""

    imported_count: int
    rejected: tuple[RejectedImport, ...]


@dataclass(frozen=True, slots=True)
class TrainingData:
    """A training set with its examples, oldest first, as of one moment."""

    training_set: TrainingSet
    examples: tuple[ExampleRecord, ...]


class TrainingSets(Protocol):
    """Who knows what a judge has to learn from."""

    async def training_data(
        self, judge_id: str, *, synthetic: bool = True
    ) -> TrainingData:
        """Return the training set with its examples, all acknowledged feedback in it.

        Args:
            judge_id: The judge.
            synthetic: False to leave synthetic examples out.
        """
        ...


class FeedbackService:
    """Records feedback and reads training data."""

    def __init__(
        self,
        storage: Storage,
        registry: JudgeRegistry,
        collector: TrainingCollector,
        settings: Settings,
        *,
        recent: Recent = lambda _: None,
        requests: RequestLog | None = None,
    ) -> None:
        """Make a service.

        Args:
            storage: Where everything is kept.
            registry: The judges.
            collector: Told about feedback; must be started.
            settings: Limits.
            recent: Returns what a recent evaluation answered without asking the database.
            requests: The process's log of requests.
        """
        self._storage = storage
        self._registry = registry
        self._collector = collector
        self._settings = settings
        self._imported: list[Callable[[str], None]] = []
        self._recorder = FeedbackRecorder(
            storage,
            registry,
            collector,
            recent=recent,
            requests=requests or RequestLog(storage),
        )

    def on_recorded(self, listener: Callable[[Sequence[FeedbackRecord]], None]) -> None:
        """Call back with corrections that are on disk; see `FeedbackRecorder.on_recorded`."""
        self._recorder.on_recorded(listener)

    def on_imported(self, listener: Callable[[str], None]) -> None:
        """Call back with the judge's id whenever imported examples count."""
        self._imported.append(listener)

    async def settle(self) -> None:
        """Return when all acknowledged feedback has become examples.

        Raises:
            StorageUnavailableError: The database does not take them.
        """
        await self._collector.drain()

    async def record(
        self, correction: Correction, *, request_id: str = ""
    ) -> FeedbackRecord:
        """Record a correction; see `FeedbackRecorder.record`."""
        return await self._recorder.record(correction, request_id=request_id)

    async def record_batch(
        self, corrections: Sequence[Correction], *, request_id: str = ""
    ) -> BatchOutcome:
        """Record up to 10,000 corrections; see `FeedbackRecorder.record_batch`."""
        return await self._recorder.record_batch(corrections, request_id=request_id)

    async def list(
        self, criteria: FeedbackFilter, *, before: str | None = None, limit: int
    ) -> Sequence[FeedbackRecord]:
        """Return feedback that matches, newest first, at most ``limit``, older than ``before``."""
        return await self._storage.feedback.list(criteria, before=before, limit=limit)

    async def training_set(self, judge_id: str) -> TrainingSet:
        """Sum up what a judge has to learn from, all feedback acknowledged before included.

        Raises:
            NotFoundError: There is no such judge.
            StorageUnavailableError: Examples could not be derived from feedback.
        """
        summary = self._summary(judge_id)
        async for page in self.export(judge_id):
            for example in page:
                summary.add(example)
        return summary.finish(
            await self._storage.examples.rejection_counts(judge_id),
            uses=await self._storage.gate_uses.of(judge_id),
        )

    async def training_data(
        self, judge_id: str, *, synthetic: bool = True
    ) -> TrainingData:
        """Return the training set together with its examples; raises as `training_set`.

        Args:
            judge_id: The judge.
            synthetic: False to leave synthetic examples out.
        """
        summary = self._summary(judge_id)
        await self._collector.drain()
        examples = tuple(
            example
            for example in await self._storage.examples.accepted(judge_id)
            if synthetic or example.origin != SYNTHETIC
        )
        for example in examples:
            summary.add(example)
        rejections = await self._storage.examples.rejection_counts(judge_id)
        uses = await self._storage.gate_uses.of(judge_id)
        return TrainingData(summary.finish(rejections, uses=uses), examples)

    async def list_examples(
        self, criteria: ExampleFilter, *, before: str | None = None, limit: int
    ) -> Sequence[ExampleRecord]:
        """Return examples of a judge, newest first, at most ``limit``, older than ``before``.

        Raises:
            NotFoundError: There is no such judge.
        """
        self._registry.get(criteria.judge_id)
        await self._collector.drain()
        return await self._storage.examples.list(criteria, before=before, limit=limit)

    async def import_examples(
        self, judge_id: str, items: Sequence[ImportedExample]
    ) -> ImportOutcome:
        """Validate labelled examples and write them as one unit, the rejected ones too.

        Args:
            judge_id: The judge.
            items: Up to 1,000; call again for more.

        Raises:
            NotFoundError: There is no such judge.
            InvalidRequestError: There are too many.
            StorageUnavailableError: Nothing was written.
        """
        judge = self._registry.get(judge_id)
        if len(items) > MAX_IMPORT:
            raise InvalidRequestError(
                [
                    FieldViolation(
                        "training_examples",
                        f"has {len(items)} items; at most {MAX_IMPORT} a message",
                    )
                ]
            )
        # Feedback that came before is decided before.
        await self._collector.drain()
        rules = label_rules(judge_id, judge.spec)
        factory = training_factory(
            rules,
            max_text_chars=self._settings.server.max_text_chars,
            default_criteria=judge.spec.default_criteria,
        )
        now = datetime.now(UTC)
        records = await self._collector.intake.admit(
            rules, [factory.from_import(item, created_at=now) for item in items]
        )
        rejected = tuple(
            RejectedImport(index, record.rejection, record.rejection_detail)
            for index, record in enumerate(records)
            if record.rejection is not None
        )
        outcome = ImportOutcome(len(records) - len(rejected), rejected)
        if outcome.imported_count:
            for listener in self._imported:
                listener(judge_id)
        return outcome

    async def export(
        self,
        judge_id: str,
        *,
        include_rejected: bool = False,
        after: str | None = None,
        page_size: int = EXPORT_PAGE,
    ) -> AsyncIterator[Sequence[ExampleRecord]]:
        """Yield pages of a judge's examples, oldest first, from after an example id on.

        Raises:
            NotFoundError: There is no such judge.
            StorageUnavailableError: Examples could not be derived from feedback.
        """
        self._registry.get(judge_id)
        await self._collector.drain()
        criteria = ExampleFilter(judge_id=judge_id, show_rejected=include_rejected)
        while True:
            page = await self._storage.examples.after(
                criteria, after=after, limit=page_size
            )
            if page:
                yield page
            if len(page) < page_size:
                return
            after = page[-1].example_id

    def _summary(self, judge_id: str) -> TrainingSetSummary:
        judge = self._registry.get(judge_id)
        return TrainingSetSummary(
            judge_id,
            scores=judge.spec.answers_score,
            min_examples=self._settings.optimization.min_examples,
            recommended_examples=self._settings.optimization.recommended_examples,
        )
