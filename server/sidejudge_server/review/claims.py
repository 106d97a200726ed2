"""Who has which item: the claims that count now, in memory; rows of the database are behind them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from sidejudge_storage import ReviewClaimRecord

__all__ = ["REMEMBERED", "ClaimBook", "ClaimOutcome"]

REMEMBERED = timedelta(days=1)
"""How long a claim is remembered after it has expired, so that its holder learns what became of it."""


class ClaimOutcome(StrEnum):
    """What became of the claim of somebody who labels an item."""

    NONE = "none"
    HELD = "held"
    EXPIRED = "expired"
    HELD_BY_ANOTHER = "held_by_another"


@dataclass(slots=True)
class _Entry:
    claim: ReviewClaimRecord
    outcome: ClaimOutcome | None = None
    """How it ended by a label; None before."""

    def holds(self, now: datetime) -> bool:
        return self.outcome is None and now < self.claim.expires_at


class ClaimBook:
    """Claims by item and annotator, one each. Belongs to one event loop.

    Recording a label must not cost a query, so what a label means for claims is answered from here.
    """

    def __init__(self) -> None:
        self._entries: dict[str, dict[str, _Entry]] = {}

    def put(self, claims: Iterable[ReviewClaimRecord]) -> None:
        """Add claims that are on disk; a newer one of the same item and annotator replaces the older."""
        for claim in claims:
            by_annotator = self._entries.setdefault(claim.evaluation_id, {})
            by_annotator[claim.annotator] = _Entry(claim)

    def holding(self, evaluation_id: str, now: datetime) -> list[ReviewClaimRecord]:
        """Return the claims of an item that hold."""
        entries = self._entries.get(evaluation_id, {})
        return [entry.claim for entry in entries.values() if entry.holds(now)]

    def held(self, judge_id: str, now: datetime) -> Iterator[ReviewClaimRecord]:
        """Return all claims of a judge that hold."""
        for entries in self._entries.values():
            for entry in entries.values():
                if entry.claim.judge_id == judge_id and entry.holds(now):
                    yield entry.claim

    def find(self, evaluation_id: str, annotator: str) -> ReviewClaimRecord | None:
        """Return an annotator's claim unless it is done or forgotten; it may have expired."""
        entry = self._entries.get(evaluation_id, {}).get(annotator)
        return entry.claim if entry is not None and entry.outcome is None else None

    def drop(self, claims: Iterable[ReviewClaimRecord]) -> None:
        """Forget claims that were given up."""
        for claim in claims:
            entries = self._entries.get(claim.evaluation_id, {})
            entries.pop(claim.annotator, None)
            if not entries:
                self._entries.pop(claim.evaluation_id, None)

    def labelled(self, evaluation_id: str, author: str, now: datetime) -> None:
        """Note that somebody has labelled an item."""
        entry = self._entries.get(evaluation_id, {}).get(author)
        if entry is not None and entry.outcome is None:
            entry.outcome = (
                ClaimOutcome.HELD if entry.holds(now) else ClaimOutcome.EXPIRED
            )

    def outcome(self, evaluation_id: str, author: str, now: datetime) -> ClaimOutcome:
        """Return what the label of an author, who has given it, meant for claims."""
        entries = self._entries.get(evaluation_id)
        if not entries or not author:
            return ClaimOutcome.NONE
        own = entries.get(author)
        if own is not None and own.outcome is not None:
            return own.outcome
        others = any(e.holds(now) for name, e in entries.items() if name != author)
        return ClaimOutcome.HELD_BY_ANOTHER if others else ClaimOutcome.NONE

    def prune(self, now: datetime) -> None:
        """Forget claims that expired long ago."""
        old = [
            entry.claim
            for entries in self._entries.values()
            for entry in entries.values()
            if entry.claim.expires_at + REMEMBERED < now
        ]
        self.drop(old)
