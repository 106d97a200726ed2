"""How often people agree with a judge version, from the rounds of the queue that are done.

Within a round people begin with what is worth most, so that the labels of a half-done round are
those of the hardest items, whatever their probabilities say. Only rounds count that have labels for
nine tenths of what their drawn items stand for; there each label stands for one over its probability items (active
statistical inference, `stats.ppi_strata.active_mean`), and what was not drawn counts with the
judge's own confidence, which the labels correct.
"""

from __future__ import annotations

import asyncio
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from sidejudge_server.config import ReviewSettings
from sidejudge_server.errors import FailedPreconditionError
from sidejudge_server.judges.agreement import agreement
from sidejudge_server.judges.registry import JudgeRegistry
from sidejudge_server.review.labels import LabelRule, by_evaluation
from sidejudge_server.review.selection import (
    AgreementProbability,
    Stream,
    stated_agreement,
)
from sidejudge_storage import JudgedItem, Storage

__all__ = [
    "FEWEST_LABELS",
    "AgreementEstimate",
    "AgreementEstimates",
    "WeighedItem",
    "estimated",
    "rounds_done",
]

FEWEST_LABELS = 30
"""Drawn items with a label below which the interval covers too little to be shown."""
_DONE = 0.9
"""Share of what the drawn items of a round stand for that needs a label before the round counts."""


@dataclass(frozen=True, slots=True)
class WeighedItem:
    """An evaluation of the rounds.

    Attributes:
        round_number: Its round.
        stream: How it was considered.
        drawn: Whether people were to label it.
        probability: With which it was drawn.
        judged: Agreement that the judge's confidence promises, 0..1.
        label: Agreement with the label, None without.
    """

    round_number: int
    stream: Stream
    drawn: bool
    probability: float
    judged: float
    label: float | None


@dataclass(frozen=True, slots=True)
class AgreementEstimate:
    """An estimate, or why there is none.

    Attributes:
        estimate: Mean agreement; None if it cannot be said, as the four below.
        standard_error: Its error.
        low: Lower end of the 95 % interval for one look, not below 0.
        high: Upper end, not above 1.
        considered: Evaluations of the rounds that count.
        labelled: Of these, with a label that counts.
        rounds: Rounds that count.
        waiting: Items of the other rounds that wait for a label.
        cannot_say: Why there is no estimate; empty if there is one.
    """

    estimate: float | None
    standard_error: float | None
    low: float | None
    high: float | None
    considered: int
    labelled: int
    rounds: int
    waiting: int
    cannot_say: str = ""


class AgreementEstimates:
    """Estimates of judge versions."""

    def __init__(
        self,
        storage: Storage,
        judges: JudgeRegistry,
        settings: ReviewSettings,
        *,
        agreement: AgreementProbability = stated_agreement,
    ) -> None:
        self._storage = storage
        self._judges = judges
        self._rule = LabelRule.of(settings)
        self._agreement = agreement

    async def estimate(
        self,
        judge_id: str,
        version: int,
        *,
        start: datetime,
        end: datetime,
        weighted: bool,
        uniform_only: bool,
    ) -> AgreementEstimate:
        """Estimate how often people agree with a version.

        Args:
            judge_id: The judge.
            version: Its version.
            start: Only evaluations since then.
            end: Only evaluations before then.
            weighted: Whether labels count by one over their probability.
            uniform_only: Whether to use audit items alone.

        Raises:
            NotFoundError: There is no such judge or version.
            FailedPreconditionError: Labels of items that were chosen for their worth would count all
                alike (BIASED_SAMPLE).
        """
        self._judges.get(judge_id)
        self._judges.get_version(judge_id, version)
        found = await self._storage.review.judged(
            judge_id, version, start=start, end=end
        )
        given = by_evaluation(
            await self._storage.review.labels(judge_id, evaluations_since=start)
        )

        def weighed(item: JudgedItem) -> WeighedItem:
            labels = given.get(item.evaluation_id)
            label = None
            if labels:
                merged = self._rule.merged(labels)
                label = agreement(
                    label_verdict=merged.verdict,
                    label_score=merged.score,
                    verdict=item.verdict,
                    score=item.score,
                )
            return WeighedItem(
                round_number=item.round_number,
                stream=Stream(item.stream),
                drawn=item.drawn,
                probability=item.inclusion_probability,
                judged=self._agreement(judge_id, version, item),
                label=label,
            )

        def work() -> AgreementEstimate:
            items = [weighed(item) for item in found]
            if uniform_only:
                items = [i for i in items if i.stream is Stream.UNIFORM]
            return estimated(items, weighted=weighted)

        return await asyncio.to_thread(work)


def rounds_done(items: Sequence[WeighedItem]) -> dict[int, float]:
    """Return the rounds that count, with the share of their drawn items that have a label.

    Shares are of what drawn items stand for, one over their probability: what is left to the end of a
    round is worth least and stands for most.
    """
    drawn: defaultdict[int, float] = defaultdict(float)
    labelled: defaultdict[int, float] = defaultdict(float)
    for item in items:
        weight = 1 / item.probability if item.drawn else 0.0
        drawn[item.round_number] += weight
        labelled[item.round_number] += weight if item.label is not None else 0.0
    shares = {n: labelled[n] / total if total else 1.0 for n, total in drawn.items()}
    return {number: share for number, share in shares.items() if share >= _DONE}


def estimated(items: Sequence[WeighedItem], *, weighted: bool) -> AgreementEstimate:
    """Estimate the mean agreement of all items from those with labels.

    The few drawn items of a done round that have no label are taken to be like the others: the
    probabilities of its round shrink by the share that has one. Labels of items that were not drawn
    count for nothing, because they came for reasons of their own.

    Raises:
        FailedPreconditionError: Unweighted, and labels are of items that were not chosen by chance
            alone (BIASED_SAMPLE).
    """
    # scipy takes a second and tens of megabytes: only where somebody asks.
    from sidejudge_server.stats.outcome import CannotSay
    from sidejudge_server.stats.ppi_strata import active_mean
    from sidejudge_server.stats.proportions import wilson

    done = rounds_done(items)
    counted = [i for i in items if i.round_number in done]
    sampled = [i for i in counted if i.drawn and i.label is not None]
    known = [i for i in counted if i.stream is Stream.LABELLED and i.label is not None]
    waiting = sum(
        i.drawn and i.label is None for i in items if i.round_number not in done
    )
    if not weighted:
        _refuse_bias([*sampled, *known])
    blank = AgreementEstimate(
        None,
        None,
        None,
        None,
        considered=len(counted),
        labelled=len(sampled) + len(known),
        rounds=len(done),
        waiting=waiting,
    )
    missing = FEWEST_LABELS - len(sampled)
    if missing > 0:
        text = (
            f"{len(sampled)} drawn items of rounds that are done have a label; an interval takes"
            f" {FEWEST_LABELS}, {missing} more"
        )
        if waiting:
            text += f" ({waiting} items of the other rounds wait for one)"
        return replace(blank, cannot_say=text)
    units = counted if weighted else sampled
    probabilities = [_probability(i, done) if weighted else 1.0 for i in units]
    labels = [
        i.label if probability is not None else None
        for i, probability in zip(units, probabilities, strict=True)
    ]
    found = active_mean([i.judged for i in units], labels, probabilities)
    if isinstance(found, CannotSay):
        return replace(blank, cannot_say=found.reason)
    low, high = found.interval.low, found.interval.high
    if len({i.label for i in sampled}) == 1:
        # Labels that all say the same have no spread, which does not make the estimate exact.
        weights = [1 / p for i, p in zip(units, probabilities, strict=True) if i.drawn and p]  # fmt: skip
        size = int(math.fsum(weights) ** 2 / math.fsum(w * w for w in weights))
        least = wilson(round((sampled[0].label or 0.0) * size), size)
        if not isinstance(least, CannotSay):
            low, high = min(low, least.low), max(high, least.high)
    return replace(
        blank,
        estimate=_clipped(found.estimate),
        standard_error=found.standard_error,
        low=_clipped(low),
        high=_clipped(high),
    )


def _probability(item: WeighedItem, done: dict[int, float]) -> float | None:
    """Return the probability with which an item's label is there, None if it does not count."""
    if item.label is None:
        return None
    if item.stream is Stream.LABELLED:
        return 1.0
    return item.probability * done[item.round_number] if item.drawn else None


def _refuse_bias(labelled: Sequence[WeighedItem]) -> None:
    uniform = sum(i.stream is Stream.UNIFORM for i in labelled)
    others = len(labelled) - uniform
    if not others:
        return
    raise FailedPreconditionError(
        f"{others} of {len(labelled)} labels are of items that were chosen for their worth, or"
        " labelled for reasons of their own, and would mislead if all counted alike: weigh them by"
        " inverse probability, or use audit items alone (uniform_only)",
        reason="BIASED_SAMPLE",
        metadata={"ranked": str(others), "uniform": str(uniform)},
    )


def _clipped(value: float) -> float:
    return min(1.0, max(0.0, value))
