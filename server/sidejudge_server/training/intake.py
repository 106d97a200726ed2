"""The one door into the training data: validates candidates against what is stored and writes."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence

from sidejudge_server.judges.requests import commit
from sidejudge_server.training.completion import run_to_end
from sidejudge_server.training.examples import Candidate
from sidejudge_server.training.labels import LabelRules
from sidejudge_server.training.validator import ExampleValidator
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
            ]
            if commands:
                await commit(self._storage, *commands)
            return validation.records
