"""The review queue: lists what people should label next and keeps items for those who claim them."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sidejudge_server.config import ReviewSettings
from sidejudge_server.judges.registry import JudgeRegistry
from sidejudge_server.judges.requests import commit
from sidejudge_server.review.claims import REMEMBERED, ClaimBook, ClaimOutcome
from sidejudge_server.review.refusals import (
    claim_expired,
    claim_not_held,
    item_claimed,
    item_labelled,
    item_not_drawn,
)
from sidejudge_server.review.rounds import Rounds
from sidejudge_server.review.selection import AgreementProbability, stated_agreement
from sidejudge_server.training.completion import run_to_end
from sidejudge_storage import (
    EvaluationRecord,
    FeedbackRecord,
    QueuedItem,
    ReviewClaimRecord,
    ReviewReleaseRecord,
    Storage,
    new_id,
)

__all__ = ["ClaimRequest", "ReviewEntry", "ReviewQueue"]

_FEW = 10
"""Fewer items than this make a list draw the next round."""
_MOST_ROUNDS = 5
"""Rounds that one call may draw."""
_PAGE = 200
_MOST_BYTES = 3_000_000
"""Texts of the items of one claim: stays under the 4 MB that gRPC clients accept by default."""


@dataclass(frozen=True, slots=True)
class ReviewEntry:
    """An item of the queue with its evaluation and the claims that hold."""

    queued: QueuedItem
    evaluation: EvaluationRecord
    claims: tuple[ReviewClaimRecord, ...]


@dataclass(frozen=True, slots=True)
class ClaimRequest:
    """What somebody wants to label.

    Attributes:
        judge_id: The judge.
        annotator: Who.
        most: At most so many items.
        duration: How long to keep them; None for the setting.
        annotators_per_item: How many annotators an item is to get.
        evaluation_ids: These and no others; empty for the next ones of the queue.
    """

    judge_id: str
    annotator: str
    most: int = 1
    duration: timedelta | None = None
    annotators_per_item: int = 1
    evaluation_ids: tuple[str, ...] = ()


class ReviewQueue:
    """The queues of all judges. Belongs to one event loop."""

    def __init__(
        self,
        storage: Storage,
        judges: JudgeRegistry,
        settings: ReviewSettings,
        *,
        agreement: AgreementProbability = stated_agreement,
    ) -> None:
        """Make the queues.

        Args:
            storage: Where draws and claims are kept.
            judges: The judges.
            settings: How rounds are drawn and claims kept.
            agreement: How far people are expected to agree with an answer.
        """
        self._storage = storage
        self._judges = judges
        self._settings = settings
        self._rounds = Rounds(storage, judges, settings, agreement)
        self._book = ClaimBook()
        # One draw or claim of a judge at a time: each starts from what the one before has left.
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self.clock: Callable[[], datetime] = lambda: datetime.now(UTC)
        """Tells the time; tests set it."""

    async def start(self) -> None:
        """Read the claims that hold, or did not long ago: their holders learn what became of them."""
        since = self.clock() - REMEMBERED
        self._book.put(await self._storage.review.claims(since=since))

    def hear(self, records: Sequence[FeedbackRecord]) -> None:
        """Hear of feedback that is on disk: it ends its author's claims."""
        now = self.clock()
        for record in records:
            self._book.labelled(record.evaluation_id, record.author, now)

    def outcome(self, evaluation_id: str, author: str) -> ClaimOutcome:
        """Return what feedback that was heard of meant for claims."""
        return self._book.outcome(evaluation_id, author, self.clock())

    async def page(
        self,
        judge_id: str,
        *,
        show_labelled: bool,
        show_claimed: bool,
        after: tuple[int, int] | None,
        limit: int,
    ) -> Sequence[ReviewEntry]:
        """Return items of the queue in order, drawing the next round if few are left.

        Raises:
            NotFoundError: There is no such judge.
        """
        self._judges.get(judge_id)
        now = self.clock()
        if after is None:
            # A draw that was sent is made, also if the caller goes away: no other may begin meanwhile.
            await run_to_end(self._refill(judge_id, now))
        queued = await self._queue(
            judge_id,
            now,
            limit=limit,
            after=after,
            without=() if show_claimed else self._claimed(judge_id, now),
            show_labelled=show_labelled,
        )
        return await self._entries(queued, now)

    async def _refill(self, judge_id: str, now: datetime) -> None:
        """Draw a round if few items wait."""
        async with self._locks[judge_id]:
            waiting = await self._queue(
                judge_id, now, limit=_FEW, without=self._claimed(judge_id, now)
            )
            if len(waiting) < _FEW:
                await self._rounds.draw(judge_id, now)

    async def claim(self, request: ClaimRequest) -> Sequence[ReviewEntry]:
        """Keep items for an annotator and return them once the claims are on disk.

        Raises:
            NotFoundError: There is no such judge, or an item that is named was never drawn.
            FailedPreconditionError: Items that are named have the labels that are wanted.
            ConflictError: Others have claimed items that are named.
            StorageUnavailableError: Nothing was claimed.
        """
        self._judges.get(request.judge_id)
        # Claims that are on disk have to be known here, also if the caller goes away.
        return await run_to_end(self._claim(request))

    async def _claim(self, request: ClaimRequest) -> Sequence[ReviewEntry]:
        judge_id = request.judge_id
        async with self._locks[judge_id]:
            now = self.clock()
            self._book.prune(now)
            if request.evaluation_ids:
                queued = await self._named(request, now)
            else:
                queued = await self._next(request, now)
            entries = _within_size(await self._entries(queued, now))
            duration = request.duration or timedelta(
                minutes=self._settings.claim_minutes
            )
            claims = [
                ReviewClaimRecord(
                    claim_id=new_id(),
                    evaluation_id=entry.queued.item.evaluation_id,
                    judge_id=judge_id,
                    annotator=request.annotator,
                    created_at=now,
                    expires_at=now + duration,
                )
                for entry in entries
            ]
            if claims:
                await commit(self._storage, *claims)
            self._book.put(claims)
        return [
            ReviewEntry(entry.queued, entry.evaluation, self._claims_of(entry, now))
            for entry in entries
        ]

    async def release(
        self, judge_id: str, annotator: str, evaluation_ids: Sequence[str]
    ) -> int:
        """Give claims up, all or none, and return how many.

        Raises:
            NotFoundError: There is no such judge.
            FailedPreconditionError: The annotator does not hold some (CLAIM_NOT_HELD), or they have
                expired (CLAIM_EXPIRED).
            StorageUnavailableError: Nothing was given up.
        """
        self._judges.get(judge_id)
        return await run_to_end(self._release(judge_id, annotator, evaluation_ids))

    async def _release(
        self, judge_id: str, annotator: str, evaluation_ids: Sequence[str]
    ) -> int:
        async with self._locks[judge_id]:
            now = self.clock()
            found = {i: self._book.find(i, annotator) for i in evaluation_ids}
            claims = [
                c for c in found.values() if c is not None and c.judge_id == judge_id
            ]
            missing = set(found) - {c.evaluation_id for c in claims}
            if missing:
                raise claim_not_held(missing, annotator)
            late = [c.evaluation_id for c in claims if c.expires_at <= now]
            if late:
                raise claim_expired(late, annotator)
            ended = [ReviewReleaseRecord(c.claim_id, judge_id, now) for c in claims]
            await commit(self._storage, *ended)
            self._book.drop(claims)
        return len(claims)

    async def _next(self, request: ClaimRequest, now: datetime) -> list[QueuedItem]:
        """Return what the annotator holds and then what is free, drawing rounds if it takes any."""
        own = [
            c.evaluation_id
            for c in self._book.held(request.judge_id, now)
            if c.annotator == request.annotator
        ]
        held = await self._find(request.judge_id, own, now)
        chosen = sorted(held.values(), key=lambda q: q.place)[: request.most]
        for _ in range(_MOST_ROUNDS):
            missing = request.most - len(chosen)
            if missing:
                chosen += await self._free(request, now, missing, without=chosen)
            if len(chosen) >= request.most:
                break
            if not await self._rounds.draw(request.judge_id, now):
                break
        return chosen

    async def _free(
        self,
        request: ClaimRequest,
        now: datetime,
        missing: int,
        *,
        without: Sequence[QueuedItem],
    ) -> list[QueuedItem]:
        """Return up to ``missing`` items in order that the annotator may have."""
        several = request.annotators_per_item > 1
        left_out = {q.item.evaluation_id for q in without}
        if not several:
            left_out |= self._claimed(request.judge_id, now)
        found: list[QueuedItem] = []
        after: tuple[int, int] | None = None
        while len(found) < missing:
            page = await self._queue(
                request.judge_id,
                now,
                limit=_PAGE if several else missing - len(found),
                after=after,
                without=left_out,
                show_labelled=several,
            )
            found += [q for q in page if self._is_free(q, request, now)]
            if not several or len(page) < _PAGE:
                break
            after = page[-1].place
        return found[:missing]

    def _is_free(self, queued: QueuedItem, request: ClaimRequest, now: datetime) -> bool:  # fmt: skip
        claims = self._book.holding(queued.item.evaluation_id, now)
        others = {*queued.labelled_by, *(c.annotator for c in claims)}
        return (
            request.annotator not in others
            and len(others) < request.annotators_per_item
        )

    async def _named(self, request: ClaimRequest, now: datetime) -> list[QueuedItem]:
        """Return the items that are named, all of which must be free."""
        ids = request.evaluation_ids
        found = await self._find(request.judge_id, ids, now)
        missing = [i for i in ids if i not in found]
        if missing:
            raise item_not_drawn(request.judge_id, missing)
        labelled, claimed = [], []
        for evaluation_id, queued in found.items():
            if len(queued.labelled_by) >= request.annotators_per_item or (
                request.annotator in queued.labelled_by
            ):
                labelled.append(evaluation_id)
                continue
            claims = self._book.holding(evaluation_id, now)
            others = {c.annotator for c in claims} - {request.annotator}
            if len(others | {*queued.labelled_by}) >= request.annotators_per_item:
                claimed.append(evaluation_id)
        if labelled:
            raise item_labelled(labelled)
        if claimed:
            raise item_claimed(claimed)
        return [found[i] for i in ids]

    async def _queue(
        self,
        judge_id: str,
        now: datetime,
        *,
        limit: int,
        after: tuple[int, int] | None = None,
        without: Iterable[str] = (),
        show_labelled: bool = False,
    ) -> Sequence[QueuedItem]:
        return await self._storage.review.queue(
            judge_id,
            since=self._since(now),
            limit=limit,
            after=after,
            without=without,
            show_labelled=show_labelled,
        )

    async def _find(
        self, judge_id: str, ids: Sequence[str], now: datetime
    ) -> dict[str, QueuedItem]:
        return await self._storage.review.find(judge_id, ids, since=self._since(now))

    async def _entries(
        self, queued: Sequence[QueuedItem], now: datetime
    ) -> Sequence[ReviewEntry]:
        ids = [q.item.evaluation_id for q in queued]
        evaluations = await self._storage.evaluations.get_many(ids)
        return [
            ReviewEntry(
                q,
                evaluations[q.item.evaluation_id],
                tuple(self._book.holding(q.item.evaluation_id, now)),
            )
            for q in queued
        ]

    def _claims_of(
        self, entry: ReviewEntry, now: datetime
    ) -> tuple[ReviewClaimRecord, ...]:
        return tuple(self._book.holding(entry.queued.item.evaluation_id, now))

    def _claimed(self, judge_id: str, now: datetime) -> set[str]:
        return {c.evaluation_id for c in self._book.held(judge_id, now)}

    def _since(self, now: datetime) -> datetime:
        return now - timedelta(days=self._settings.window_days)


def _within_size(entries: Sequence[ReviewEntry]) -> list[ReviewEntry]:
    """Return the first entries whose texts fit into a message, at least one."""
    fitting: list[ReviewEntry] = []
    size = 0
    for entry in entries:
        size += len(entry.evaluation.input_json.encode())
        size += len(entry.evaluation.reasoning.encode())
        if fitting and size > _MOST_BYTES:
            break
        fitting.append(entry)
    return fitting
