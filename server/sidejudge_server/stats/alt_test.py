"""May a judge replace people? The alternative annotator test.

Source: Calderon, Reichart and Dror, ACL 2025. Each annotator in turn is left out, and it is asked who
is nearer to the others on each item, the judge or the one left out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from sidejudge_server.stats.multiple_testing import benjamini_yekutieli
from sidejudge_server.stats.outcome import CannotSay

__all__ = ["AltTest", "alt_test", "matches", "negative_rmse"]

_MIN_ANNOTATORS, _MIN_ITEMS = 2, 30

Score = Callable[[float, Sequence[float]], float]
"""How near a rating is to those of the other annotators; more is nearer."""


@dataclass(frozen=True, slots=True)
class AltTest:
    """What comes out.

    Attributes:
        p_values: Of each annotator, against "the judge is worse by epsilon or more".
        winning_rate: Share of the annotators over whom it wins at a false discovery rate of q.
        advantage: Mean probability that the judge is at least as near to the others.
    """

    p_values: tuple[float, ...]
    winning_rate: float
    advantage: float

    @property
    def may_replace(self) -> bool:
        """Whether the judge wins over half of the annotators."""
        return self.winning_rate >= 0.5  # noqa: PLR2004 - the paper's bar


def matches(rating: float, others: Sequence[float]) -> float:
    """Return the share of the others that say the same."""
    return sum(other == rating for other in others) / len(others)


def negative_rmse(rating: float, others: Sequence[float]) -> float:
    """Return minus the root of the mean squared distance to the others."""
    return -math.sqrt(
        math.fsum((other - rating) ** 2 for other in others) / len(others)
    )


def alt_test(
    annotators: Sequence[Sequence[float]],
    judge: Sequence[float],
    *,
    score: Score = matches,
    epsilon: float = 0.15,
    q: float = 0.05,
) -> AltTest | CannotSay:
    """Test a judge against annotators who have all rated the same items.

    Args:
        annotators: Ratings by annotator.
        judge: The judge's ratings of the same items.
        score: Nearness.
        epsilon: What a judge may be worse because it is cheaper: .2 beside experts, .15 skilled
            annotators, .1 crowd workers.
        q: False discovery rate (Benjamini and Yekutieli).

    Returns:
        The test; `CannotSay` with fewer than two annotators or thirty items. Where all differences
        of an annotator are equal, t is not defined: p is 0 below epsilon, else 1.
    """
    if len(annotators) < _MIN_ANNOTATORS or len(judge) < _MIN_ITEMS:
        return CannotSay(
            f"needs {_MIN_ANNOTATORS} annotators and {_MIN_ITEMS} items; there are"
            f" {len(annotators)} and {len(judge)}"
        )
    p_values, advantages = [], []
    for index, left_out in enumerate(annotators):
        others = [a for i, a in enumerate(annotators) if i != index]
        judged, rated = [], []
        for item, (machine, human) in enumerate(zip(judge, left_out, strict=True)):
            rest = [other[item] for other in others]
            near, nearer = score(machine, rest), score(human, rest)
            judged.append(float(near >= nearer))
            rated.append(float(nearer >= near))
        differences = np.array(rated) - np.array(judged)
        p_values.append(_p_value(differences, epsilon))
        advantages.append(math.fsum(judged) / len(judged))
    won = [p <= q for p in benjamini_yekutieli(p_values)]
    return AltTest(
        tuple(p_values), sum(won) / len(won), math.fsum(advantages) / len(advantages)
    )


def _p_value(differences: object, epsilon: float) -> float:
    values = np.asarray(differences, dtype=float)
    if values.std() == 0:
        return 0.0 if values[0] < epsilon else 1.0
    return float(stats.ttest_1samp(values, epsilon, alternative="less").pvalue)
