"""How much the held-out examples of a judge can still prove.

Every run that comes to a candidate asks the same test examples, so each use may spend less of the
error rate than the one before, see `sidejudge_server.stats.spending`. Examples are told apart by
what is judged: a new label for the same input does not make it fresh, because earlier answers to it
have been looked at.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from sidejudge_server.judges.codec import canonical_json
from sidejudge_server.stats.spending import (
    best_mean_p,
    best_sign_p,
    fresh_pairs_needed,
    spending_share,
    use_number,
)
from sidejudge_server.training.splits import SHARES, Split
from sidejudge_storage import GateUseRecord

__all__ = [
    "ASSUMED_DISCORDANCE",
    "ASSUMED_SPREAD",
    "FULL_PAIRS",
    "EarlierUses",
    "gate_bar",
    "held_out_to_json",
    "labels_for",
]

ALPHA = 0.05
SHADOW_ALPHA = 0.10
FULL_PAIRS = 150
"""Held-out examples from which the gate alone may let a candidate serve. With fewer it lets more
through, but only into shadow: 50 examples and p < 0.05 find one in four that are 8 points better."""
ASSUMED_DISCORDANCE = 0.2
ASSUMED_SPREAD = 0.25
"""Used to plan when nothing, or less, was seen."""
_BEST_EFFECT = 0.1
"""Mean difference of scores that is called plausible when a smaller one was seen."""
_KEPT = 16
"""Hexadecimal digits of an input's digest that are kept: 64 bits tell millions apart."""


def gate_bar(pairs: int, use: int) -> float:
    """Return below what the one-sided p-value has to be, by number of pairs and of the use."""
    alpha = ALPHA if pairs >= FULL_PAIRS else SHADOW_ALPHA
    return alpha * spending_share(use)


def labels_for(test_examples: int) -> int:
    """Return about how many new labels bring so many test examples."""
    return math.ceil(test_examples / SHARES[Split.TEST] - 1e-9)


def held_out_to_json(digests: Collection[str]) -> str:
    """Return what is kept of the held-out examples of a use.

    Args:
        digests: Content digests of their inputs.
    """
    return canonical_json(sorted({digest[:_KEPT] for digest in digests}))


@dataclass(frozen=True, slots=True)
class EarlierUses:
    """What earlier runs of a judge have looked at, seen from the held-out examples it has now.

    Attributes:
        shared: For each earlier use, oldest first, how many of the examples it looked at.
        discordance: Share of pairs on which the versions of the last use that counts differed;
            None without one.
    """

    shared: tuple[int, ...] = ()
    discordance: float | None = None

    @classmethod
    def of(
        cls,
        uses: Sequence[GateUseRecord],
        digests: Collection[str],
        *,
        leaving_out: str = "",
    ) -> EarlierUses:
        """Compare earlier uses with the examples there are now.

        Args:
            uses: Of the judge, oldest first.
            digests: Content digests of the inputs that are held out now.
            leaving_out: An optimization whose own use does not count, because it goes on.
        """
        now = {digest[:_KEPT] for digest in digests}
        shared: list[int] = []
        discordance = None
        for use in uses:
            if use.optimization_id == leaving_out:
                continue
            common = len(now.intersection(json.loads(use.examples_json)))
            shared.append(common)
            if use_number(len(now), [common]) > 1 and use.pair_count:
                discordance = (use.wins + use.losses) / use.pair_count
        return cls(tuple(shared), discordance)

    def fresh_labels_needed(self, pairs: int, *, scores: bool) -> int:
        """Return how many new labels it takes until the next use could pass; 0 if none.

        0 also when nothing was spent yet: then there are just few examples.

        Args:
            pairs: Held-out examples there are now.
            scores: True for a judge that answers scores.
        """
        return fresh_labels_needed(
            pairs, self.shared, scores=scores, discordance=self.discordance
        )


def fresh_labels_needed(
    pairs: int,
    shared: Sequence[int],
    *,
    scores: bool,
    discordance: float | None = None,
    difference: float | None = None,
    spread: float | None = None,
) -> int:
    """Return how many new labels it takes until the next use of held-out examples could pass.

    It could if its p-value were below the bar in the best plausible case: the candidate wins every
    pair on which the two versions differ, or scores are nearer by the difference seen, at least by
    10 points.

    Args:
        pairs: Held-out examples there are now.
        shared: For each earlier use, how many of them it looked at.
        scores: True for a judge that answers scores.
        discordance: Share of pairs that differed, where it was seen; 0.2 is assumed if it was less.
        difference: Mean difference of scores seen.
        spread: Standard deviation of differences of scores seen; 0.25 if not.

    Returns:
        0 if the examples there are could do, or were not used before.
    """
    if use_number(pairs, shared) == 1:
        return 0
    best_p = (
        best_mean_p(max(difference or 0.0, _BEST_EFFECT), spread or ASSUMED_SPREAD)
        if scores
        else best_sign_p(max(discordance or 0.0, ASSUMED_DISCORDANCE))
    )
    return labels_for(fresh_pairs_needed(pairs, shared, bar=gate_bar, best_p=best_p))
