"""The one door into the training data: validates candidates against what is stored and writes."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace

from sidejudge_server.judges.requests import commit
from sidejudge_server.training.completion import run_to_end
from sidejudge_server.training.examples import Candidate
from sidejudge_server.training.labels import LabelRules
from sidejudge_server.training.origins import SYNTHETIC
from sidejudge_server.training.splits import Split
from sidejudge_server.training.validator import ExampleValidator, Rejection
from sidejudge_storage import Command, ExampleRecord, RejectExample, Storage

__all__ = ["ExampleIntake"]


class ExampleIntake:
    """Admits candidates; one at a time for each judge, because decisions build on each other."""

    def __init__(self, storage: Storage, *, max_text_chars: int) -> None:
        """Make an intake.

        Args:
            storage: Where examples are kept.
            max_text_chars: Largest text field, in characters.
        """
        self._storage = storage
        self._max_text_chars = max_text_chars
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def admit(
        self,
        rules: LabelRules,
        candidates: Sequence[Candidate],
        *,
        refused: Sequence[ExampleRecord] = (),
    ) -> tuple[ExampleRecord, ...]:
        """Validate candidates and write them, accepted or rejected, as one unit.

        A candidate whose feedback has an example already is left out, so that repeating a chunk
        after a failure does no harm.

        Args:
            rules: The judge's.
            candidates: Oldest first.
            refused: Rejected examples to write along, which have nothing to validate.

        Returns:
            What was written for the candidates that were not left out, in their order.

        Raises:
            StorageUnavailableError: Nothing was written.
        """
        # Cancelled while it writes, it must still hold the lock until the write is done.
        return await run_to_end(self._admit(rules, candidates, refused=refused))

    async def admit_synthetic(
        self, rules: LabelRules, candidates: Sequence[Candidate], *, at_most: int
    ) -> tuple[ExampleRecord, ...]:
        """Validate synthetic candidates and write them, accepted or rejected, as one unit.

        They touch nothing that is there: one whose input is known already is a duplicate, whatever
        its label, and one whose group is not on the train side is refused.

        Args:
            rules: The judge's.
            candidates: In the order in which they count.
            at_most: Accept no more; the rest is left out.

        Returns:
            What was written, in the order of the candidates.

        Raises:
            StorageUnavailableError: Nothing was written.
        """
        return await run_to_end(
            self._admit_synthetic(rules, candidates, at_most=at_most)
        )

    async def _admit_synthetic(
        self, rules: LabelRules, candidates: Sequence[Candidate], *, at_most: int
    ) -> tuple[ExampleRecord, ...]:
        async with self._locks[rules.judge_id]:
            examples = self._storage.examples
            records = [candidate.record for candidate in candidates]
            known = {
                e.content_digest: e
                for e in await examples.by_digests(
                    rules.judge_id, [r.content_digest for r in records]
                )
            }
            sides = await examples.group_splits(
                rules.judge_id, [r.group_key for r in records]
            )
            validator = ExampleValidator(rules, max_text_chars=self._max_text_chars)
            written: list[ExampleRecord] = []
            for candidate in candidates:
                record = _refused(candidate.record, known, sides)
                if record is None:
                    validation = validator.validate(
                        [candidate], existing=(), group_splits=sides, split_counts={}
                    )
                    record = validation.records[0]
                if record.rejection is None:
                    if at_most < 1:
                        continue
                    at_most -= 1
                    known[record.content_digest] = record
                written.append(record)
            if written:
                await commit(self._storage, *written)
            return tuple(written)

    async def _admit(
        self,
        rules: LabelRules,
        candidates: Sequence[Candidate],
        *,
        refused: Sequence[ExampleRecord],
    ) -> tuple[ExampleRecord, ...]:
        async with self._locks[rules.judge_id]:
            examples = self._storage.examples
            judge_id = rules.judge_id
            records = [candidate.record for candidate in candidates]
            existing = await examples.by_digests(
                judge_id, list({r.content_digest for r in records})
            )
            evaluations = {
                r.evaluation_id
                for r in (*records, *refused)
                if r.evaluation_id is not None
            }
            if evaluations:
                existing = [
                    *existing,
                    *await examples.by_evaluations(judge_id, list(evaluations)),
                ]
            known = {e.feedback_id for e in existing} - {None}
            # Nobody's label is no vote; a real example takes the place of a synthetic one.
            synthetic = [e for e in existing if e.origin == SYNTHETIC]
            existing = [e for e in existing if e.origin != SYNTHETIC]
            validation = ExampleValidator(
                rules, max_text_chars=self._max_text_chars
            ).validate(
                [c for c in candidates if c.record.feedback_id not in known],
                existing=existing,
                group_splits=await examples.group_splits(
                    judge_id, list({r.group_key for r in records})
                ),
                split_counts=await examples.split_counts(judge_id),
            )
            commands: list[Command] = [
                *validation.records,
                *(r for r in refused if r.feedback_id not in known),
                *(
                    RejectExample(d.example_id, d.rejection.value, d.detail)
                    for d in validation.demotions
                ),
                *_replaced(synthetic, by=validation.records),
            ]
            if commands:
                await commit(self._storage, *commands)
            return validation.records


def _refused(
    record: ExampleRecord,
    known: Mapping[str, ExampleRecord],
    sides: Mapping[str, str],
) -> ExampleRecord | None:
    """Return a synthetic record as rejected, None if nothing stands in its way."""
    if record.content_digest in known:
        other = known[record.content_digest].example_id
        return replace(
            record,
            rejection=Rejection.DUPLICATE,
            rejection_detail=f"same input as trainingExamples/{other}",
        )
    if sides.get(record.group_key) != Split.TRAIN:
        return replace(
            record,
            rejection=Rejection.GROUP_LEAKAGE,
            rejection_detail="its group is not on the train side",
        )
    return None


def _replaced(
    synthetic: Sequence[ExampleRecord], *, by: Sequence[ExampleRecord]
) -> list[RejectExample]:
    """Take synthetic examples down whose input a real example brings."""
    real = {r.content_digest: r.example_id for r in by if r.rejection is None}
    return [
        RejectExample(
            e.example_id,
            Rejection.SUPERSEDED.value,
            f"replaced by a real example of the same input, trainingExamples/"
            f"{real[e.content_digest]}",
        )
        for e in synthetic
        if e.rejection is None and e.content_digest in real
    ]
