"""What an experiment says: from its comparisons to a decision with its reason."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from sidejudge_server.experiments.report import (
    Comparison,
    GuardrailStatus,
    SampleRatio,
)
from sidejudge_server.experiments.statistics import primary_of
from sidejudge_server.experiments.status import Decision
from sidejudge_server.experiments.types import Direction, Experiment, Metric, Role
from sidejudge_server.stats.multiple_testing import benjamini_hochberg, holm
from sidejudge_server.stats.outcome import Interval

__all__ = [
    "SAMPLE_RATIO_BAR",
    "Ruling",
    "adjusted",
    "expected_units",
    "improvement",
    "rule",
]

SAMPLE_RATIO_BAR = 1000.0
"""e-value at which a split is taken to be another one than it should be."""


@dataclass(frozen=True, slots=True)
class Ruling:
    """A decision with its reason; ``winner`` is the arm that is shipped, else ""."""

    decision: Decision
    reason: str
    winner: str = ""


def improvement(metric: Metric, comparison: Comparison) -> float | None:
    """Return by how much a candidate is better, None if that can't be told."""
    if comparison.effect is None:
        return None
    higher = metric.direction is Direction.HIGHER
    return comparison.effect if higher else -comparison.effect


def adjusted(
    comparisons: Sequence[Comparison], *, alpha: float
) -> tuple[Comparison, ...]:
    """Correct the p-values of guardrails (Holm) and of exploratory metrics (Benjamini-Hochberg).

    A guardrail is violated where its corrected anytime p-value is at most alpha.
    """
    corrected = list(comparisons)
    for role, correct in (
        (Role.GUARDRAIL, holm),
        (Role.EXPLORATORY, benjamini_hochberg),
    ):
        places = [
            i
            for i, c in enumerate(corrected)
            if c.role is role and c.anytime_p is not None
        ]
        values = correct([corrected[i].anytime_p or 0.0 for i in places])
        for i, p in zip(places, values, strict=True):
            status = GuardrailStatus.UNSPECIFIED
            if role is Role.GUARDRAIL:
                violated = p <= alpha
                status = GuardrailStatus.VIOLATED if violated else GuardrailStatus.OK
            corrected[i] = replace(corrected[i], adjusted_p=p, status=status)
    return tuple(corrected)


def rule(
    experiment: Experiment,
    comparisons: Sequence[Comparison],
    *,
    largest: dict[str, float],
    sample_ratio: SampleRatio | None,
    harm_log_e: float | None,
    ramp_complete: bool,
    now: datetime,
) -> Ruling:
    """Decide.

    Args:
        experiment: A running one.
        comparisons: With corrected p-values.
        largest: ln of the largest e-values so far: ``metric/arm/better`` and ``.../worse``.
        sample_ratio: Of a split.
        harm_log_e: Largest so far of a rollout.
        ramp_complete: Whether nothing but evidence is missing to ship: always outside of a rollout.
        now: For the budget of time.
    """
    return (
        _invalid(sample_ratio)
        or _harmful(experiment, comparisons, harm_log_e)
        or _held_back(
            _by_primary(experiment, comparisons, largest, now),
            ramp_complete=ramp_complete,
        )
    )


def _held_back(ruling: Ruling, *, ramp_complete: bool) -> Ruling:
    """Let a rollout that could ship go through its stages first."""
    if ruling.decision is not Decision.SHIP or ramp_complete:
        return ruling
    return Ruling(
        Decision.RUNNING, f"{ruling.reason}; the rollout goes through its stages first"
    )


def _by_primary(
    experiment: Experiment,
    comparisons: Sequence[Comparison],
    largest: dict[str, float],
    now: datetime,
) -> Ruling:
    primary = primary_of(experiment)
    mine = [c for c in comparisons if c.role is Role.PRIMARY]
    units = max((c.units for c in mine), default=0)
    settings = experiment.rule
    if units < settings.min_units:
        return Ruling(
            Decision.RUNNING,
            f"{units} labelled units; nothing is decided with fewer than {settings.min_units}",
        )
    bar = math.log(len(experiment.candidates) / settings.alpha)
    return (
        _shipped(primary, mine, largest, bar, settings.min_improvement)
        or _rejected(primary, mine, largest, bar)
        or _futile(experiment, primary, mine, units, now)
        or Ruling(
            Decision.RUNNING, _still_running(primary, mine, largest, bar, experiment)
        )
    )


def _rejected(
    primary: Metric,
    mine: Sequence[Comparison],
    largest: dict[str, float],
    bar: float,
) -> Ruling | None:
    worse = [largest.get(f"{primary.metric_id}/{c.arm}/worse", 0.0) for c in mine]
    if min(worse) < bar:
        return None
    return Ruling(
        Decision.REJECT,
        "; ".join(
            f"{_figures(c)}, evidence that {c.arm} is worse {_e(log_e)} (bar {_e(bar)})"
            for c, log_e in zip(mine, worse, strict=True)
        ),
    )


def expected_units(
    experiment: Experiment, comparisons: Sequence[Comparison]
) -> int | None:
    """Return about how many more units until something is shipped or rejected, if that is in sight.

    Evidence is taken to grow with the number of units at the rate that it had so far.
    """
    bar = math.log(len(experiment.candidates) / experiment.rule.alpha)
    waits = []
    for comparison in comparisons:
        if comparison.role is not Role.PRIMARY or not comparison.units:
            continue
        reached = max(comparison.log_e or 0.0, comparison.log_e_worse or 0.0)
        if reached > math.log(2):
            missing = max(0.0, bar - reached)
            waits.append(math.ceil(missing * comparison.units / reached))
    if not waits:
        return None
    soonest = min(waits)
    most = experiment.rule.max_units
    if most is not None:
        units = max(c.units for c in comparisons if c.role is Role.PRIMARY)
        soonest = min(soonest, max(0, most - units))
    return soonest


def _invalid(sample_ratio: SampleRatio | None) -> Ruling | None:
    if sample_ratio is None or not sample_ratio.alarm:
        return None
    observed = ", ".join(f"{arm} {n}" for arm, n in sample_ratio.observed.items())
    expected = ", ".join(f"{arm} {n:.0f}" for arm, n in sample_ratio.expected.items())
    return Ruling(
        Decision.INVALID,
        f"the arms have {observed} units where {expected} were to be expected (evidence"
        f" {_e(sample_ratio.log_e)}, bar {SAMPLE_RATIO_BAR:g}): units get lost or counted twice in"
        " one arm; find out where before you compare anything",
    )


def _harmful(
    experiment: Experiment, comparisons: Sequence[Comparison], harm_log_e: float | None
) -> Ruling | None:
    if harm_log_e is not None and harm_log_e >= -math.log(experiment.rule.alpha):
        ratio = experiment.rollout.max_failure_ratio
        return Ruling(
            Decision.GUARDRAIL,
            f"{experiment.candidates[0].arm_id} fails more than {ratio:g} times as often as"
            f" {experiment.baseline.arm_id}: evidence {_e(harm_log_e)} (bar"
            f" {1 / experiment.rule.alpha:g})",
        )
    violated = [c for c in comparisons if c.status is GuardrailStatus.VIOLATED]
    if not violated:
        return None
    margins = {m.metric_id: m.margin for m in experiment.metrics}
    return Ruling(
        Decision.GUARDRAIL,
        "; ".join(
            f"{c.metric} of {c.arm} is worse than the margin of {margins[c.metric]:g} allows:"
            f" effect {c.effect:+.3g}, corrected p {c.adjusted_p:.2g}"
            for c in violated
        ),
    )


def _shipped(
    primary: Metric,
    mine: Sequence[Comparison],
    largest: dict[str, float],
    bar: float,
    min_improvement: float,
) -> Ruling | None:
    good = []
    for comparison in mine:
        gain = improvement(primary, comparison)
        log_e = largest.get(f"{primary.metric_id}/{comparison.arm}/better", 0.0)
        if gain is not None and gain >= min_improvement - 1e-12 and log_e >= bar:
            good.append((gain, log_e, comparison))
    if not good:
        return None
    _, log_e, best = max(good, key=lambda g: g[0])
    return Ruling(
        Decision.SHIP,
        f"{_figures(best)}: at least the {min_improvement:g} asked for, with evidence"
        f" {_e(log_e)} (bar {_e(bar)})",
        best.arm,
    )


def _futile(
    experiment: Experiment,
    primary: Metric,
    mine: Sequence[Comparison],
    units: int,
    now: datetime,
) -> Ruling | None:
    wanted = experiment.rule.min_improvement
    ends = [_best_case(primary, c.always_valid_interval) for c in mine]
    if all(end is not None and end < wanted for end in ends):
        return Ruling(
            Decision.FUTILE,
            f"an improvement of {wanted:g} is ruled out: "
            + "; ".join(
                f"{_figures(c)}, at best {end:+.3g}"
                for c, end in zip(mine, ends, strict=True)
            ),
        )
    figures = "; ".join(_figures(c) for c in mine)
    most = experiment.rule.max_units
    if most is not None and units >= most:
        return Ruling(
            Decision.FUTILE,
            f"{units} units, the most that were to be spent, do not decide it: {figures}",
        )
    limit_s = experiment.rule.max_duration_s
    began = experiment.started_at
    if limit_s is not None and began is not None:
        spent_s = (now - began).total_seconds()
        if spent_s >= limit_s:
            return Ruling(
                Decision.FUTILE,
                f"{spent_s:.0f} s, the longest that it was to run, do not decide it: {figures}",
            )
    return None


def _best_case(primary: Metric, interval: Interval | None) -> float | None:
    if interval is None:
        return None
    return interval.high if primary.direction is Direction.HIGHER else -interval.low


def _still_running(
    primary: Metric,
    mine: Sequence[Comparison],
    largest: dict[str, float],
    bar: float,
    experiment: Experiment,
) -> str:
    parts = []
    for comparison in mine:
        log_e = largest.get(f"{primary.metric_id}/{comparison.arm}/better", 0.0)
        text = f"{_figures(comparison)}, evidence {_e(log_e)} of {_e(bar)}"
        if log_e >= bar:
            wanted = experiment.rule.min_improvement
            text += f", but less than the improvement of {wanted:g} asked for"
        parts.append(text)
    return "; ".join(parts)


def _figures(comparison: Comparison) -> str:
    if comparison.effect is None:
        return f"{comparison.arm}: {comparison.cannot_say or 'nothing to compare'}"
    counts = (
        f" ({comparison.wins} wins, {comparison.losses} losses, {comparison.ties} ties)"
        if comparison.wins + comparison.losses + comparison.ties
        else ""
    )
    return (
        f"{comparison.metric} of {comparison.arm} {comparison.effect:+.3g} in"
        f" {comparison.units} units{counts}"
    )


def _e(log_e: float) -> str:
    return f"{math.exp(min(log_e, 690.0)):.3g}"
