"""Draws rounds of the review queue from the newest evaluations and writes every draw down."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from sidejudge_server.config import ReviewSettings
from sidejudge_server.judges.registry import JudgeRegistry
from sidejudge_server.judges.requests import commit
from sidejudge_server.review.selection import (
    CANDIDATES_PER_ITEM,
    AgreementProbability,
    Candidate,
    draw_round,
    rarity,
)
from sidejudge_server.training.labels import FIFTHS, label_key
from sidejudge_storage import ReviewItemRecord, Storage, UndrawnItem

__all__ = ["Rounds"]


class Rounds:
    """The rounds of all judges. The caller sees to it that a judge has one draw at a time."""

    def __init__(
        self,
        storage: Storage,
        judges: JudgeRegistry,
        settings: ReviewSettings,
        agreement: AgreementProbability,
    ) -> None:
        self._storage = storage
        self._judges = judges
        self._settings = settings
        self._agreement = agreement

    async def draw(self, judge_id: str, now: datetime) -> int:
        """Draw the next round and return how many evaluations it has considered, 0 if none are left.

        Every one that it considers is written, whether it was drawn or not: the rest of the round is
        what the drawn ones stand for, and a second chance would change their probabilities.
        """
        settings = self._settings
        since = now - timedelta(days=settings.window_days)
        found = await self._storage.review.undrawn(
            judge_id,
            since=since,
            window=settings.window_items,
            limit=settings.round_items * CANDIDATES_PER_ITEM,
        )
        if not found:
            return 0
        counts = await self._label_counts(judge_id, since)
        number = await self._storage.review.last_round(judge_id) + 1
        records = self._records(judge_id, found, counts, number=number, now=now)
        await commit(self._storage, *records)
        return len(records)

    def _records(
        self,
        judge_id: str,
        found: Sequence[UndrawnItem],
        counts: Mapping[str, int],
        *,
        number: int,
        now: datetime,
    ) -> list[ReviewItemRecord]:
        spec = self._judges.get(judge_id).spec
        labels: Sequence[str] = ("pass", "partial", "fail")
        if spec.answers_score:
            labels = FIFTHS
        elif spec.never_partial:
            labels = ("pass", "fail")
        candidates = [
            Candidate(
                evaluation_id=item.evaluation_id,
                agreement=self._agreement(judge_id, item.version, item),
                audit=item.audit_probability is not None,
                labelled=item.labelled,
                disagreement=item.other_verdicts / max(1, item.other_answers),
                rarity=rarity(
                    label_key(item.verdict, item.score), counts, labels=labels
                ),
            )
            for item in found
        ]
        considered = draw_round(
            candidates,
            items=self._settings.round_items,
            audit_share=self._settings.audit_share,
        )
        return [
            ReviewItemRecord(
                evaluation_id=item.evaluation_id,
                judge_id=judge_id,
                version=item.version,
                round_number=number,
                stream=draw.stream.value,
                drawn=draw.drawn,
                place=draw.place,
                inclusion_probability=draw.inclusion_probability,
                worth=draw.worth,
                reasons=",".join(draw.reasons),
                created_at=now,
            )
            for item, draw in zip(found, considered, strict=True)
        ]

    async def _label_counts(self, judge_id: str, since: datetime) -> dict[str, int]:
        counted = await self._storage.review.label_counts(judge_id, since=since)
        by_label: dict[str, int] = {}
        for (verdict, fifth), count in counted.items():
            if verdict is not None:
                by_label[verdict] = count
            elif fifth is not None:
                by_label[FIFTHS[fifth]] = count
        return by_label
