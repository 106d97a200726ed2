"""Has a judge become worse? Detectors that look after every label and go on until they alarm.

Built on e-values: as long as the expected agreement of the next label, given all before, is at least
p0, the Shiryaev-Roberts e-detector waits for at least 1000 labels on average before a false alarm,
whatever else the stream does. A detector tuned to one assumed rate (`cusum_path`) has no such floor:
at a rate a little below the assumed one it alarms all the time.

Pure Python, because the serving process keeps the state: a few floats, which a JSON number
reproduces exactly. Unlike an e-value of counts it depends on the order of the labels: to go on after
a restart, go on from the state.

Source: Shin, Ramdas and Rinaldo, "E-detectors: a nonparametric framework for sequential change
detection", NEJSDS 2 (2024).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

__all__ = [
    "ALARM_AT",
    "DriftDetector",
    "DriftState",
    "cusum_path",
    "drift_alternatives",
    "e_cusum_path",
]

ALARM_AT = 1000.0
"""Statistic at which to alarm, and so the fewest labels to a false alarm on average."""

_REFERENCE = 0.85
_ALTERNATIVES = (0.45, 0.55, 0.65, 0.70, 0.75, 0.80)

_CEILING = 1e100
"""Where a statistic stops growing, far above any alarm, so that the state stays a number."""


def drift_alternatives(p0: float) -> tuple[float, ...]:
    """Return six rates below p0 to look for: 45 to 80 % for p0 = 85 %, in proportion for others.

    Rates at or above p0 must not be among them: they would bet on getting better. In proportion,
    because with the fixed six a fall from 97 to 90 % at p0 = 95 % is noticed within 345 labels nine
    times in ten, with these within 256 (simulated, 2000 runs each).

    Raises:
        ValueError: p0 is not in (0, 1).
    """
    if not 0 < p0 < 1:
        raise ValueError(f"p0 must be in (0, 1): {p0}")
    return tuple(q * p0 / _REFERENCE for q in _ALTERNATIVES)


@dataclass(frozen=True, slots=True)
class DriftState:
    """What a detector remembers.

    Attributes:
        labels: Labels seen since the start.
        sums: Shiryaev-Roberts statistic of each alternative.
    """

    labels: int
    sums: tuple[float, ...]

    @property
    def statistic(self) -> float:
        """Mean of the sums, at least 0: compare it with `ALARM_AT`."""
        return math.fsum(self.sums) / len(self.sums)


@dataclass(frozen=True, slots=True)
class DriftDetector:
    """The Shiryaev-Roberts e-detector for values in 0..1 whose mean must not fall below p0.

    R_j <- (R_j + 1) L_j(x) with L_j(x) = x q_j / p0 + (1 - x) (1 - q_j) / (1 - p0): the likelihood
    ratio of q_j to p0 for a label that agrees (1) or not (0), and for scores in between a bet of the
    share 1 - q_j/p0 of the wealth on a mean below p0. Both are at most 1 on average while the mean is
    p0 or more.

    Attributes:
        p0: Lowest mean that is fine, in (0, 1).
        alternatives: q_j, each in (0, p0); by default `drift_alternatives`.
        alarm_at: Statistic at which to alarm: average labels to a false alarm are at least this.

    Raises:
        ValueError: p0, an alternative or ``alarm_at`` is out of range.
    """

    p0: float
    alternatives: tuple[float, ...] = ()
    alarm_at: float = ALARM_AT

    def __post_init__(self) -> None:
        """Fill in the alternatives and check them."""
        chosen = tuple(self.alternatives) or drift_alternatives(self.p0)
        _check_rates(self.p0, chosen)
        if not 1 <= self.alarm_at < _CEILING:
            raise ValueError(
                f"alarm_at must be within 1..{_CEILING:g}: {self.alarm_at}"
            )
        object.__setattr__(self, "alternatives", chosen)

    def start(self) -> DriftState:
        """Return the state without labels."""
        return DriftState(0, (0.0,) * len(self.alternatives))

    def update(self, state: DriftState, value: float) -> DriftState:
        """Return the state after one more label.

        Args:
            state: Before it, of a detector with as many alternatives.
            value: 1 for agreement, 0 for none, a score in between.

        Raises:
            ValueError: The value is not within 0..1, or the state is of another detector.
        """
        if len(state.sums) != len(self.alternatives):
            raise ValueError(
                f"a state of {len(state.sums)} sums for {len(self.alternatives)} alternatives"
            )
        ratios = _ratios(value, self.p0, self.alternatives)
        return DriftState(
            state.labels + 1,
            tuple(
                min(_CEILING, (total + 1) * ratio)
                for total, ratio in zip(state.sums, ratios, strict=True)
            ),
        )

    def run(self, state: DriftState, values: Iterable[float]) -> DriftState:
        """Return the state after several labels, in order."""
        for value in values:
            state = self.update(state, value)
        return state

    def alarms(self, state: DriftState) -> bool:
        """Return whether to alarm; a caller that has alarmed starts again."""
        return state.statistic >= self.alarm_at


def e_cusum_path(
    values: Iterable[float], *, p0: float, alternatives: Sequence[float]
) -> list[float]:
    """Return the e-CUSUM after each label: mean of C_j <- max(C_j, 1) L_j(x).

    To compare with: never above the Shiryaev-Roberts statistic, so the same promise holds at the
    same threshold, kept with more reserve and so with later alarms.

    Raises:
        ValueError: A value or rate is out of range.
    """
    _check_rates(p0, alternatives)
    path, peaks = [], [0.0] * len(alternatives)
    for value in values:
        ratios = _ratios(value, p0, alternatives)
        peaks = [
            min(_CEILING, max(peak, 1.0) * ratio)
            for peak, ratio in zip(peaks, ratios, strict=True)
        ]
        path.append(math.fsum(peaks) / len(peaks))
    return path


def cusum_path(values: Iterable[float], *, p0: float, p1: float) -> list[float]:
    """Return Page's CUSUM after each label: S <- max(0, S + ln L(x)) of p1 against p0.

    To compare with: it is optimal if the rate is exactly p0 and then p1, and promises nothing at any
    rate in between.

    Raises:
        ValueError: A value or rate is out of range.
    """
    _check_rates(p0, (p1,))
    path, total = [], 0.0
    for value in values:
        (ratio,) = _ratios(value, p0, (p1,))
        total = max(0.0, total + math.log(ratio))
        path.append(total)
    return path


def _ratios(value: float, p0: float, alternatives: Sequence[float]) -> list[float]:
    if not 0 <= value <= 1:  # also refuses NaN
        raise ValueError(f"a label must be within 0..1: {value}")
    return [value * (q / p0) + (1 - value) * ((1 - q) / (1 - p0)) for q in alternatives]


def _check_rates(p0: float, alternatives: Sequence[float]) -> None:
    if not 0 < p0 < 1:
        raise ValueError(f"p0 must be in (0, 1): {p0}")
    if not alternatives or not all(0 < q < p0 for q in alternatives):
        raise ValueError(
            f"alternatives must lie between 0 and p0 = {p0}: {list(alternatives)}"
        )
