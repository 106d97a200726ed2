"""How far people agree with each other on the items that several have labelled."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import combinations

from sidejudge_server.judges.agreement import answer_value
from sidejudge_server.judges.registry import JudgeRegistry
from sidejudge_server.review.labels import by_evaluation
from sidejudge_server.training.labels import labels_differ
from sidejudge_storage import GivenLabel, Storage

__all__ = [
    "FEWEST_ITEMS",
    "AnnotatorAgreement",
    "AnnotatorAgreements",
    "annotator_agreement",
]

FEWEST_ITEMS = 10
"""Items with two labels below which agreement is not told."""


@dataclass(frozen=True, slots=True)
class AnnotatorAgreement:
    """Agreement between annotators; None is what cannot be said.

    Attributes:
        items: Items with labels of two or more authors.
        annotators: Authors who labelled such an item.
        labels: Labels of these items, one for each author.
        percent_agreement: Mean over items of the share of pairs that say the same.
        krippendorff_alpha: 1 for perfect agreement, 0 for chance.
        gwet_ac1: For verdicts.
        gwet_ac1_interval: At 95 %.
        cannot_say: What cannot be said and what is missing; empty if nothing is.
    """

    items: int
    annotators: int
    labels: int
    percent_agreement: float | None = None
    krippendorff_alpha: float | None = None
    gwet_ac1: float | None = None
    gwet_ac1_interval: tuple[float, float] | None = None
    cannot_say: str = ""


class AnnotatorAgreements:
    """Agreement between the annotators of judges."""

    def __init__(self, storage: Storage, judges: JudgeRegistry) -> None:
        self._storage = storage
        self._judges = judges

    async def measure(
        self, judge_id: str, *, start: datetime, end: datetime
    ) -> AnnotatorAgreement:
        """Measure it from the feedback between two times; NotFoundError if there is no such judge."""
        spec = self._judges.get(judge_id).spec
        labels = await self._storage.review.shared_labels(
            judge_id, start=start, end=end
        )
        return await asyncio.to_thread(
            annotator_agreement, labels, binary=spec.never_partial
        )


def annotator_agreement(
    labels: Sequence[GivenLabel], *, binary: bool
) -> AnnotatorAgreement:
    """Return the agreement of labels, of which the latest of each author counts.

    Args:
        labels: Oldest first; those without author do not count.
        binary: Whether verdicts are never partial, so that they have no order.
    """
    by_item = [
        {label.author: label for label in given if label.author}
        for given in by_evaluation(labels).values()
    ]
    shared = [list(given.values()) for given in by_item if len(given) > 1]
    items = len(shared)
    annotators = len({label.author for given in shared for label in given})
    count = sum(map(len, shared))
    if items < FEWEST_ITEMS:
        return AnnotatorAgreement(
            items,
            annotators,
            count,
            cannot_say=f"{items} items have labels of two annotators; it takes {FEWEST_ITEMS},"
            f" {FEWEST_ITEMS - items} more (claim with annotators_per_item 2)",
        )
    return _measured(shared, annotators=annotators, binary=binary)


def _measured(
    shared: Sequence[Sequence[GivenLabel]], *, annotators: int, binary: bool
) -> AnnotatorAgreement:
    from sidejudge_server.stats.outcome import CannotSay
    from sidejudge_server.stats.raters import gwet_ac1, krippendorff_alpha

    scores = any(label.score is not None for given in shared for label in given)
    same = [
        math.fsum(
            not labels_differ((a.verdict, a.score), (b.verdict, b.score))
            for a, b in combinations(given, 2)
        )
        / math.comb(len(given), 2)
        for given in shared
    ]
    values = [
        [answer_value(label.verdict, label.score) for label in given]
        for given in shared
    ]
    alpha = krippendorff_alpha(
        values, scale="interval" if scores else "nominal" if binary else "ordinal"
    )
    problems = []
    if isinstance(alpha, CannotSay):
        problems.append(f"Krippendorff's alpha: {alpha.reason}")
    ac1 = None
    if not scores:
        categories = [[round(2 * (v or 0.0)) for v in given] for given in values]
        found = gwet_ac1(categories)
        if isinstance(found, CannotSay):
            problems.append(f"Gwet's AC1: {found.reason}")
        else:
            ac1 = found
    return AnnotatorAgreement(
        items=len(shared),
        annotators=annotators,
        labels=sum(map(len, shared)),
        percent_agreement=math.fsum(same) / len(same),
        krippendorff_alpha=None if isinstance(alpha, CannotSay) else alpha,
        gwet_ac1=ac1.estimate if ac1 else None,
        gwet_ac1_interval=(ac1.interval.low, ac1.interval.high) if ac1 else None,
        cannot_say="; ".join(problems),
    )
