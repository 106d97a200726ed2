"""Does a rollout's candidate fail more often than the baseline? Valid at every failure.

Given that a unit failed, it was the candidate's with probability s r / (s r + 1 - s), where s is the
candidate's share of the units and r the ratio of the failure rates. That holds whatever makes all
units harder or easier meanwhile, and for shares that change, because only failures are looked at.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

__all__ = ["HARM_RATIOS", "StageFailures", "harm_log_e"]

_SMALLEST, _LARGEST, _COUNT = 1.05, 6.0, 12
HARM_RATIOS: tuple[float, ...] = tuple(
    math.exp(
        math.log(_SMALLEST)
        + (math.log(_LARGEST) - math.log(_SMALLEST)) * i / (_COUNT - 1)
    )
    for i in range(_COUNT)
)
"""Ratios of failure rates that the test is prepared for."""


@dataclass(frozen=True, slots=True)
class StageFailures:
    """Failures of both arms while the candidate had a share of the units, in (0, 1)."""

    baseline: int
    candidate: int
    share: float


def harm_log_e(
    stages: Iterable[StageFailures],
    *,
    max_ratio: float = 1.0,
    ratios: Sequence[float] = HARM_RATIOS,
) -> float:
    """Return ln E against "the candidate fails at most ``max_ratio`` times as often".

    E is the mean over ``ratios`` of the likelihood ratio of which arm each failure was of: a
    function of counts by stage, so order and restarts do not matter.

    Args:
        stages: Failures by share.
        max_ratio: The ratio that is tolerated, at least 1.
        ratios: Alternatives; those at or below ``max_ratio`` bet on nothing and only dilute.

    Returns:
        Natural logarithm; 0 without failures.

    Raises:
        ValueError: A count is negative, a share is not in (0, 1), or the ratio below 1.
    """
    if not max_ratio >= 1:
        raise ValueError(f"the tolerated ratio must be at least 1: {max_ratio}")
    seen = list(stages)
    for stage in seen:
        if min(stage.baseline, stage.candidate) < 0 or not 0 < stage.share < 1:
            raise ValueError(f"impossible failures: {stage}")
    logs = [
        math.fsum(_log_ratio(stage, max(ratio, max_ratio), max_ratio) for stage in seen)
        for ratio in ratios
    ]
    highest = max(logs)
    return highest + math.log(
        math.fsum(math.exp(value - highest) for value in logs) / len(logs)
    )


def _log_ratio(stage: StageFailures, ratio: float, tolerated: float) -> float:
    new, old = (
        _candidate_part(stage.share, ratio),
        _candidate_part(stage.share, tolerated),
    )
    return stage.candidate * math.log(new / old) + stage.baseline * math.log(
        (1 - new) / (1 - old)
    )


def _candidate_part(share: float, ratio: float) -> float:
    return share * ratio / (share * ratio + 1 - share)
