"""How several labels of one item become one."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from sidejudge_server.config import ReviewSettings
from sidejudge_storage import GivenLabel

__all__ = ["LabelRule", "by_evaluation"]

_ORDER = ("downstream", "user", "expert")
"""Of sources that weigh the same the later one here goes first."""


@dataclass(frozen=True, slots=True)
class LabelRule:
    """A rule with the weight of each source.

    Attributes:
        vote: Whether annotators vote; else the latest label of the weightiest source counts, which is
            how figures of quality count labels.
        weights: Weight of a label by source, not negative.
    """

    vote: bool
    weights: Mapping[str, float]

    @classmethod
    def of(cls, settings: ReviewSettings) -> LabelRule:
        """Return the rule of the settings."""
        return cls(
            vote=settings.label_rule == "vote",
            weights={
                "expert": settings.expert_weight,
                "user": settings.user_weight,
                "downstream": settings.downstream_weight,
            },
        )

    def merged(self, labels: Sequence[GivenLabel]) -> GivenLabel:
        """Return the label that counts.

        A vote has one voice for each author, by the latest label, and one for each source without
        author. The verdict with the largest weight wins, of several the one that the weightiest source
        gave last; scores are averaged by weight.

        Args:
            labels: Of one item, oldest first, at least one.
        """
        latest = max(
            labels, key=lambda label: (self._rank(label.source), label.feedback_id)
        )
        if not self.vote:
            return latest
        voices = {(label.author or None, "" if label.author else label.source): label for label in labels}  # fmt: skip
        weights = [self.weights[v.source] for v in voices.values()]
        total = math.fsum(weights)
        if total == 0:
            return latest
        if latest.score is not None:
            scores = [
                w * v.score
                for w, v in zip(weights, voices.values(), strict=True)
                if v.score is not None
            ]
            return _with(latest, None, math.fsum(scores) / total)
        votes: defaultdict[str | None, float] = defaultdict(float)
        for weight, voice in zip(weights, voices.values(), strict=True):
            votes[voice.verdict] += weight
        most = max(votes.values())
        winners = [v for v in voices.values() if math.isclose(votes[v.verdict], most)]
        winner = max(winners, key=lambda v: (self._rank(v.source), v.feedback_id))
        return _with(latest, winner.verdict, None)

    def _rank(self, source: str) -> tuple[float, int]:
        return self.weights[source], _ORDER.index(source)


def by_evaluation(labels: Iterable[GivenLabel]) -> dict[str, list[GivenLabel]]:
    """Return labels by evaluation, in their order."""
    found: dict[str, list[GivenLabel]] = {}
    for label in labels:
        found.setdefault(label.evaluation_id, []).append(label)
    return found


def _with(label: GivenLabel, verdict: str | None, score: float | None) -> GivenLabel:
    return GivenLabel(
        label.evaluation_id,
        label.feedback_id,
        label.source,
        label.author,
        verdict,
        score,
    )
