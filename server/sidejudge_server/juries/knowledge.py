"""What labels say of each jury: weights and certificates, kept up with the labels."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from sidejudge_server.juries.codec import answers_from_json, ballot_of
from sidejudge_server.juries.types import (
    Ballot,
    Comparison,
    Jury,
    JuryMode,
    MemberAnswer,
    Weights,
)
from sidejudge_server.trust.types import Certificate, Target
from sidejudge_storage import Storage

__all__ = ["JuryKnowledge", "labels_to_look_at"]

_FIRST_LABELS = 20
_GROWTH = 1.25
_MOST_LABELS = 2_000
_MOST_UNLABELLED = 500
_MOST_TARGETS = 64


@dataclass(slots=True)
class _Known:
    """What is known of one jury; made of the same labels until there are a quarter more."""

    ballots: Sequence[Ballot]
    unlabelled: Sequence[tuple[MemberAnswer, ...]]
    weights: Weights
    certificates: dict[Target, tuple[Certificate, ...]] = field(default_factory=dict)


class JuryKnowledge:
    """Reads labels when it is asked for the first time and after it was told of new ones."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._known: dict[str, _Known] = {}
        self._stale: set[str] = set()
        self._locks: dict[str, asyncio.Lock] = {}

    def new_labels(self, jury_ids: Sequence[str]) -> None:
        """Hear that there may be new labels."""
        self._stale.update(jury_ids)

    async def weights(self, jury: Jury) -> Weights:
        """Return what each member counts."""
        return (await self._of(jury)).weights

    async def certificates(self, jury: Jury, target: Target) -> tuple[Certificate, ...]:
        """Return the certificate of each stage of a cascade."""
        known = await self._of(jury)
        found = known.certificates.get(target)
        if found is None:
            found = await asyncio.to_thread(_certify, jury, known, target)
            if len(known.certificates) >= _MOST_TARGETS:
                known.certificates.clear()
            known.certificates[target] = found
        return found

    async def compare(self, jury: Jury) -> Comparison:
        """Put members and juries of them beside each other, by all labels."""
        ballots = await self._ballots(jury)
        return await asyncio.to_thread(_compare, jury, ballots)

    async def _ballots(self, jury: Jury) -> list[Ballot]:
        rows = await self._storage.deliberations.labelled(
            jury.jury_id, limit=_MOST_LABELS
        )
        ballots = [ballot_of(row) for row in rows]
        # Of an evaluation that scores people may say a verdict too.
        return [
            b for b in ballots if (b.score if jury.scores else b.verdict) is not None
        ]

    async def _of(self, jury: Jury) -> _Known:
        lock = self._locks.setdefault(jury.jury_id, asyncio.Lock())
        async with lock:
            known = self._known.get(jury.jury_id)
            if known is not None and jury.jury_id not in self._stale:
                return known
            self._stale.discard(jury.jury_id)
            ballots = await self._ballots(jury)
            looked_at = ballots[: labels_to_look_at(len(ballots))]
            if known is None or len(looked_at) > len(known.ballots):
                others = await self._storage.deliberations.unlabelled(
                    jury.jury_id, limit=_MOST_UNLABELLED
                )
                unlabelled = [answers_from_json(text) for text in others]
                weights = await asyncio.to_thread(_learn, jury, looked_at)
                known = _Known(looked_at, unlabelled, weights)
                self._known[jury.jury_id] = known
            return known


def labels_to_look_at(labels: int) -> int:
    """Return how many of so many labels are looked at: 20, 25, 32 and so on, each a quarter more.

    A certificate is one test: looking after every label would be many, each with its own chance to
    err. Labels are taken in the order in which they came, so a restart looks at the same ones.
    """
    if labels < _FIRST_LABELS:
        return 0
    looked_at = _FIRST_LABELS
    while (more := math.ceil(_GROWTH * looked_at)) <= labels:
        looked_at = more
    return looked_at


# These import numpy and scipy, which takes a second, where labels are: not when the server starts.


def _learn(jury: Jury, ballots: Sequence[Ballot]) -> Weights:
    members = len(jury.members)
    if jury.mode is JuryMode.CASCADE:
        return Weights(
            (1 / members,) * members, learned=False, labels=len(ballots), reason=""
        )
    from sidejudge_server.juries.learning import learn

    return learn(ballots, jury.mode, members=members, binary=jury.binary)


def _certify(jury: Jury, known: _Known, target: Target) -> tuple[Certificate, ...]:
    from sidejudge_server.juries.cascade import certify_stages

    return certify_stages(
        known.ballots, known.unlabelled, target, members=len(jury.members)
    )


def _compare(jury: Jury, ballots: Sequence[Ballot]) -> Comparison:
    from sidejudge_server.juries.learning import compare

    names = [
        f"judges/{member.judge_id}/versions/{member.version}"
        + (f" with {member.model}" if member.model else "")
        for member in jury.members
    ]
    return compare(ballots, names, scores=jury.scores, binary=jury.binary)
