"""Puts corrections on disk: checked, once per request_id, and announced to the collector."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from sidejudge_server.errors import (
    FieldViolation,
    InvalidRequestError,
    SidejudgeError,
)
from sidejudge_server.judges.registry import JudgeRegistry
from sidejudge_server.judges.requests import Claim, RequestLog, commit
from sidejudge_server.training.collector import TrainingCollector
from sidejudge_server.training.completion import run_to_end
from sidejudge_server.training.corrections import (
    BatchOutcome,
    BatchResource,
    Correction,
    ItemError,
    correction_problem,
    corrections_fingerprint,
    evaluation_not_found,
    feedback_record,
)
from sidejudge_server.training.labels import LabelRules, label_rules
from sidejudge_storage import (
    Command,
    EvaluationKey,
    FeedbackFilter,
    FeedbackRecord,
    Storage,
)
from sidejudge_storage.ids import new_id

__all__ = ["MAX_BATCH", "FeedbackRecorder", "Recent"]

MAX_BATCH = 10_000

Recent = Callable[[str], EvaluationKey | None]
"""Returns what a recent evaluation answered without asking the database, None if unknown."""

_SLICE = 1_000  # corrections checked before other tasks get a turn


class FeedbackRecorder:
    """Records single corrections and batches."""

    def __init__(
        self,
        storage: Storage,
        registry: JudgeRegistry,
        collector: TrainingCollector,
        *,
        recent: Recent,
        requests: RequestLog,
    ) -> None:
        """Make a recorder.

        Args:
            storage: Where feedback is kept.
            registry: The judges.
            collector: Told about feedback before it is acknowledged.
            recent: Saves asking the database about recent evaluations.
            requests: The process's log of requests.
        """
        self._storage = storage
        self._registry = registry
        self._collector = collector
        self._recent = recent
        self._requests = requests
        self._listeners: list[Callable[[Sequence[FeedbackRecord]], None]] = []

    def on_recorded(self, listener: Callable[[Sequence[FeedbackRecord]], None]) -> None:
        """Call back with corrections that are on disk; must not block or raise."""
        self._listeners.append(listener)

    async def record(
        self, correction: Correction, *, request_id: str = ""
    ) -> FeedbackRecord:
        """Record a correction and return it once it is on disk.

        Raises:
            InvalidRequestError: It does not fit the evaluation's judge, or the request_id was
                used for another request.
            NotFoundError: There is no such evaluation.
            StorageUnavailableError: Nothing was written.
        """

        async def perform(claim: Claim) -> FeedbackRecord:
            keys = await self._keys([correction])
            key = keys.get(correction.evaluation_id)
            problem = _Checker(self._registry).problem(correction, key)
            if problem is not None:
                raise problem
            record = feedback_record(
                correction,
                feedback_id=new_id(),
                judge_id=keys[correction.evaluation_id].judge_id,
                created_at=datetime.now(UTC),
            )
            await self._write([record], claim=claim, resource_id=record.feedback_id)
            return record

        if not request_id:
            return await run_to_end(perform(_claim_nothing))
        return await self._requests.once(
            request_id,
            method="RecordFeedback",
            fingerprint=corrections_fingerprint([correction]),
            perform=perform,
            recall=self._recall,
        )

    async def record_batch(
        self, corrections: Sequence[Correction], *, request_id: str = ""
    ) -> BatchOutcome:
        """Record up to 10,000 corrections as one unit; items with errors are left out.

        Raises:
            InvalidRequestError: There are none or too many, or the request_id was used for
                another request.
            StorageUnavailableError: Nothing was written.
        """
        if not 1 <= len(corrections) <= MAX_BATCH:
            raise InvalidRequestError(
                [
                    FieldViolation(
                        "feedback", f"has {len(corrections)} items; 1 to {MAX_BATCH}"
                    )
                ]
            )

        async def perform(claim: Claim) -> BatchOutcome:
            return await self._record_all(corrections, claim=claim)

        async def recall(resource_id: str) -> BatchOutcome:
            return await self._recall_batch(corrections, resource_id)

        if not request_id:
            return await run_to_end(perform(_claim_nothing))
        return await self._requests.once(
            request_id,
            method="BatchRecordFeedback",
            fingerprint=corrections_fingerprint(corrections),
            perform=perform,
            recall=recall,
        )

    async def _record_all(
        self, corrections: Sequence[Correction], *, claim: Claim
    ) -> BatchOutcome:
        keys = await self._keys(corrections)
        check = _Checker(self._registry)
        errors: list[ItemError] = []
        for index, correction in enumerate(corrections):
            if index % _SLICE == _SLICE - 1:
                await asyncio.sleep(0)
            problem = check.problem(correction, keys.get(correction.evaluation_id))
            if problem is not None:
                errors.append(ItemError(index, problem))
        failed = {error.index for error in errors}
        wanted = [i for i in range(len(corrections)) if i not in failed]
        # No pause while ids are made: those of a batch must be neighbours.
        ids = [new_id() for _ in wanted]
        resource = BatchResource(
            end=new_id(), count=len(ids), failed=tuple(sorted(failed))
        )
        now = datetime.now(UTC)
        records: list[FeedbackRecord] = []
        for index, feedback_id in zip(wanted, ids, strict=True):
            if len(records) % _SLICE == _SLICE - 1:
                await asyncio.sleep(0)
            correction = corrections[index]
            records.append(
                feedback_record(
                    correction,
                    feedback_id=feedback_id,
                    judge_id=keys[correction.evaluation_id].judge_id,
                    created_at=now,
                )
            )
        await self._write(records, claim=claim, resource_id=resource.to_text())
        return _outcome(ids, errors)

    async def _write(
        self, records: Sequence[FeedbackRecord], *, claim: Claim, resource_id: str
    ) -> None:
        """Write and announce; the caller must see to it that cancellation does not part them."""
        commands: list[Command] = [*records, *claim(resource_id)]
        if commands:
            await commit(self._storage, *commands)
        if records:
            self._collector.notify(records)
            for listener in self._listeners:
                listener(records)

    async def _keys(
        self, corrections: Sequence[Correction]
    ) -> dict[str, EvaluationKey]:
        """Return the evaluations that exist, by id, asking the database at most once."""
        wanted = {c.evaluation_id for c in corrections if c.evaluation_id}
        keys = {e: key for e in wanted if (key := self._recent(e)) is not None}
        missing = [e for e in wanted if e not in keys]
        if missing:
            keys.update(await self._storage.evaluations.existing(missing))
        return keys

    async def _recall(self, feedback_id: str) -> FeedbackRecord:
        return (await self._storage.feedback.get_many([feedback_id]))[feedback_id]

    async def _recall_batch(
        self, corrections: Sequence[Correction], resource_id: str
    ) -> BatchOutcome:
        resource = BatchResource.from_text(resource_id)
        # Ids are made one after the other without a pause, so they are neighbours.
        records = await self._storage.feedback.list(
            FeedbackFilter(), before=resource.end, limit=max(1, resource.count)
        )
        ids = [record.feedback_id for record in reversed(records)]
        keys = await self._keys([corrections[i] for i in resource.failed])
        check = _Checker(self._registry)
        errors = [
            ItemError(
                i,
                check.problem(corrections[i], keys.get(corrections[i].evaluation_id))
                # It is fine by now, but it was not recorded.
                or evaluation_not_found(corrections[i].evaluation_id),
            )
            for i in resource.failed
        ]
        return _outcome(ids[: resource.count], errors)


class _Checker:
    """Checks corrections, reading each judge's rules once."""

    def __init__(self, registry: JudgeRegistry) -> None:
        self._registry = registry
        self._rules: dict[str, LabelRules] = {}

    def problem(
        self, correction: Correction, key: EvaluationKey | None
    ) -> SidejudgeError | None:
        rules = self._rules_of(key) if key is not None else None
        return correction_problem(correction, key=key, rules=rules)

    def _rules_of(self, key: EvaluationKey) -> LabelRules:
        rules = self._rules.get(key.judge_id)
        if rules is None:
            judge = self._registry.find(key.judge_id)
            rules = (
                label_rules(key.judge_id, judge.spec)
                if judge
                else LabelRules(key.judge_id, scores=key.score is not None)
            )
            self._rules[key.judge_id] = rules
        return rules


def _outcome(ids: Sequence[str], errors: Sequence[ItemError]) -> BatchOutcome:
    """Put the ids of recorded items between the errors."""
    failed = {error.index for error in errors}
    remaining = iter(ids)
    return BatchOutcome(
        tuple(
            None if index in failed else next(remaining)
            for index in range(len(ids) + len(failed))
        ),
        tuple(errors),
    )


def _claim_nothing(_: str) -> tuple[()]:
    return ()
