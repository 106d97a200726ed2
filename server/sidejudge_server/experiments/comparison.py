"""A candidate against the baseline in one metric: pure functions of sufficient statistics."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from scipy import stats

from sidejudge_server.experiments.report import Comparison
from sidejudge_server.experiments.types import Direction, Metric, Role
from sidejudge_server.stats.betting import (
    betting_interval_of_histogram,
    betting_log_e_of_histogram,
)
from sidejudge_server.stats.confidence_sequences import (
    MixtureTest,
    mean_difference_sequence,
)
from sidejudge_server.stats.evidence import sign_log_e, sign_log_e_new_better
from sidejudge_server.stats.moments import Moments
from sidejudge_server.stats.outcome import CannotSay, Interval
from sidejudge_server.stats.proportions import newcombe
from sidejudge_server.stats.two_bernoulli import (
    rate_difference_interval,
    rate_difference_log_e,
)
from sidejudge_server.stats.two_samples import welch, welch_ratio
from sidejudge_storage import MetricStatistics

__all__ = ["compare_bounded", "compare_positive", "compare_rates"]

Histogram = Sequence[tuple[float, int]]

_EXACT_COUNT = 2_000
"""Discordant pairs up to which the exact whole-number form of the sign e-value is fast."""

_TOLERANCE = 1e-9


def compare_bounded(
    metric: Metric,
    arm: str,
    baseline: str,
    statistics: MetricStatistics,
    *,
    paired: bool,
    alpha: float,
) -> Comparison:
    """Compare a metric in 0..1.

    Evidence and always-valid interval come from pairs: of the two arms on one unit, or of the k-th
    units of both in order of arrival. Differences of -1, 0 and 1 are counted (sign e-value), others
    bet on (betting mixture); both are exact.

    Args:
        metric: What is compared.
        arm: The candidate.
        baseline: The baseline.
        statistics: By arm.
        paired: Whether units have both arms.
        alpha: Of the intervals.
    """
    # "Better" is a positive difference below.
    sign = 1.0 if metric.direction is Direction.HIGHER else -1.0
    differences = statistics.differences.get(arm, ())
    better = [(sign * value, count) for value, count in differences]
    wins = sum(count for value, count in better if value > _TOLERANCE)
    losses = sum(count for value, count in better if value < -_TOLERANCE)
    pairs = sum(count for _, count in better)
    bare = _means(metric, arm, baseline, statistics, paired=paired)
    if not pairs:
        return replace(bare, cannot_say=_nothing_to_compare(statistics, arm, baseline))
    counted = all(
        min(abs(value), abs(abs(value) - 1)) < _TOLERANCE for value, _ in better
    )
    log_e, log_e_worse, method = _evidence(
        metric, better, wins=wins, losses=losses, counted=counted
    )
    always = betting_interval_of_histogram(differences, alpha=alpha)
    fixed, fixed_method = _fixed_interval(
        arm, baseline, statistics, paired=paired, alpha=alpha
    )
    return replace(
        bare,
        units=pairs if paired else bare.units,
        wins=wins,
        losses=losses,
        ties=pairs - wins - losses,
        effect=_mean(differences) if paired else bare.effect,
        fixed_interval=_interval(fixed),
        always_valid_interval=_interval(always),
        log_e=log_e,
        log_e_worse=log_e_worse,
        method=f"{method}; fixed: {fixed_method}",
        cannot_say=f"fixed interval: {fixed.reason}"
        if isinstance(fixed, CannotSay)
        else "",
    )


def compare_positive(
    metric: Metric,
    arm: str,
    *,
    logs: tuple[Moments, Moments],
    signs: Histogram = (),
    paired: bool = False,
    alpha: float,
) -> Comparison:
    """Compare a metric above 0 as the ratio of geometric means.

    Its interval is asymptotic: the confidence sequence of the mean of logarithms. As primary
    metric the evidence is exact: the sign e-value of pairs.

    Args:
        metric: What is compared.
        arm: The candidate.
        logs: Moments of the natural logarithms of baseline and candidate.
        signs: Number of pairs by the sign of candidate minus baseline.
        paired: Whether those pairs are of the same unit.
        alpha: Of the intervals.
    """
    base, candidate = logs
    sign = 1.0 if metric.direction is Direction.HIGHER else -1.0
    wins = sum(count for value, count in signs if sign * value > 0)
    losses = sum(count for value, count in signs if sign * value < 0)
    ties = sum(count for value, count in signs if value == 0)
    bare = Comparison(
        metric=metric.metric_id,
        role=metric.role,
        arm=arm,
        method="asymptotic confidence sequence of logarithms; fixed: Welch on logarithms",
        units=candidate.n,
        baseline_units=base.n,
        paired=paired,
        wins=wins,
        losses=losses,
        ties=ties,
        baseline_mean=math.exp(base.mean) if base.n else None,
        candidate_mean=math.exp(candidate.mean) if candidate.n else None,
        asymptotic=True,
    )
    fixed = welch_ratio(base, candidate, alpha=alpha)
    sequence = mean_difference_sequence(base, candidate, alpha=alpha)
    problems = [
        f"{name}: {found.reason}"
        for name, found in (("fixed", fixed), ("always valid", sequence))
        if isinstance(found, CannotSay)
    ]
    log_e, log_e_worse = _positive_evidence(metric, sequence, wins, losses)
    always = None
    if isinstance(sequence, MixtureTest):
        ends = sequence.interval
        always = Interval(math.expm1(ends.low), math.expm1(ends.high))
    both = base.n and candidate.n
    return replace(
        bare,
        effect=math.expm1(candidate.mean - base.mean) if both else None,
        fixed_interval=None if isinstance(fixed, CannotSay) else fixed.interval,
        always_valid_interval=always,
        log_e=log_e,
        log_e_worse=log_e_worse,
        cannot_say="; ".join(problems),
    )


def compare_rates(
    metric: Metric,
    arm: str,
    *,
    hits: tuple[int, int],
    units: tuple[int, int],
    alpha: float,
) -> Comparison:
    """Compare two rates of something bad by their counts, baseline first; exact."""
    bare = Comparison(
        metric=metric.metric_id,
        role=metric.role,
        arm=arm,
        method="product of uniform mixtures; fixed: Newcombe",
        units=units[1],
        baseline_units=units[0],
        baseline_mean=hits[0] / units[0] if units[0] else None,
        candidate_mean=hits[1] / units[1] if units[1] else None,
    )
    if not units[0] or not units[1]:
        return replace(bare, cannot_say="an arm has no calls")
    counts = hits[0], units[0], hits[1], units[1]
    margin = metric.margin if metric.role is Role.GUARDRAIL else 0.0
    log_e = rate_difference_log_e(*counts, margin=margin)
    if metric.role is not Role.GUARDRAIL:
        other = rate_difference_log_e(hits[1], units[1], hits[0], units[0])
        # Half of the wealth on each side.
        log_e = max(log_e, other) - math.log(2)
    return replace(
        bare,
        effect=hits[1] / units[1] - hits[0] / units[0],
        fixed_interval=_interval(_newcombe(*counts, alpha=alpha)),
        always_valid_interval=_interval(rate_difference_interval(*counts, alpha=alpha)),
        log_e=log_e,
    )


def _evidence(
    metric: Metric, better: Histogram, *, wins: int, losses: int, counted: bool
) -> tuple[float, float | None, str]:
    """Return ln E as the role asks for it, that of "worse" for the primary, and the method."""
    if metric.role is Role.GUARDRAIL:
        worse = [(-value, count) for value, count in better]
        margin = min(metric.margin, 1 - 1e-9)
        log_e = betting_log_e_of_histogram(worse, mean=margin, alternative="greater")
        return log_e, None, "betting mixture against the margin"
    if metric.role is Role.EXPLORATORY:
        if counted:
            return sign_log_e(wins, losses), None, "sign e-value, two-sided"
        return betting_log_e_of_histogram(better), None, "betting mixture, two-sided"
    if counted:
        return (
            _sign_better(wins, losses),
            _sign_better(losses, wins),
            "sign e-value and betting mixture",
        )
    worse = [(-value, count) for value, count in better]
    return (
        betting_log_e_of_histogram(better, alternative="greater"),
        betting_log_e_of_histogram(worse, alternative="greater"),
        "betting mixture",
    )


def _positive_evidence(
    metric: Metric, sequence: MixtureTest | CannotSay, wins: int, losses: int
) -> tuple[float | None, float | None]:
    if metric.role is Role.PRIMARY:
        if not wins + losses:
            return None, None
        return _sign_better(wins, losses), _sign_better(losses, wins)
    if isinstance(sequence, CannotSay):
        return None, None
    if metric.role is Role.EXPLORATORY:
        return sequence.log_e(), None
    tolerated = math.log1p(metric.margin)
    if metric.direction is Direction.LOWER:
        return sequence.log_e_above(tolerated), None
    flipped = replace(sequence, effect=-sequence.effect)
    return flipped.log_e_above(tolerated), None


def _sign_better(wins: int, losses: int) -> float:
    """Return `sign_log_e_new_better`, by the incomplete beta function where counts are large."""
    if wins + losses <= _EXACT_COUNT:
        return sign_log_e_new_better(wins, losses)
    tail = float(stats.beta.logsf(0.5, 1 + wins, 1 + losses))
    return sign_log_e(wins, losses) + math.log(2) + max(tail, -1e6)


def _fixed_interval(
    arm: str, baseline: str, statistics: MetricStatistics, *, paired: bool, alpha: float
) -> tuple[Interval | CannotSay, str]:
    if paired:
        return _t_interval(statistics.differences.get(arm, ()), alpha), "paired t"
    old, new = statistics.values.get(baseline, ()), statistics.values.get(arm, ())
    if all(value in (0.0, 1.0) for value, _ in (*old, *new)):
        counts = (*_hits(old), *_hits(new))
        return _newcombe(*counts, alpha=alpha), "Newcombe"
    found = welch(
        _moments(statistics, baseline), _moments(statistics, arm), alpha=alpha
    )
    return (found if isinstance(found, CannotSay) else found.interval), "Welch"


def _newcombe(
    hits_a: int, n_a: int, hits_b: int, n_b: int, *, alpha: float
) -> Interval | CannotSay:
    found = newcombe(hits_a, n_a, successes_new=hits_b, trials_new=n_b, alpha=alpha)
    return found if isinstance(found, CannotSay) else found.interval


def _t_interval(histogram: Histogram, alpha: float) -> Interval | CannotSay:
    n = sum(count for _, count in histogram)
    if n < 2:  # noqa: PLR2004 - a deviation needs two values
        return CannotSay("one pair has no spread to judge by")
    mean = _mean(histogram)
    spread = math.fsum(count * (value - mean) ** 2 for value, count in histogram)
    if spread <= _TOLERANCE:
        return CannotSay("all pairs are equal: there is no spread to judge by")
    error = math.sqrt(spread / (n - 1) / n)
    half = float(stats.t.ppf(1 - alpha / 2, n - 1)) * error
    return Interval(mean - half, mean + half)


def _means(
    metric: Metric,
    arm: str,
    baseline: str,
    statistics: MetricStatistics,
    *,
    paired: bool,
) -> Comparison:
    old, new = _moments(statistics, baseline), _moments(statistics, arm)
    return Comparison(
        metric=metric.metric_id,
        role=metric.role,
        arm=arm,
        method="",
        units=new.n,
        baseline_units=old.n,
        paired=paired,
        baseline_mean=old.mean if old.n else None,
        candidate_mean=new.mean if new.n else None,
        effect=new.mean - old.mean if old.n and new.n else None,
    )


def _nothing_to_compare(statistics: MetricStatistics, arm: str, baseline: str) -> str:
    missing = [a for a in (baseline, arm) if a not in statistics.moments]
    if missing:
        return f"{' and '.join(missing)} has no units with a value yet"
    return "no unit has a value of both arms yet"


def _moments(statistics: MetricStatistics, arm: str) -> Moments:
    found = statistics.moments.get(arm)
    return (
        Moments(0, 0.0, 0.0)
        if found is None
        else Moments(found.n, found.mean, found.variance)
    )


def _hits(histogram: Histogram) -> tuple[int, int]:
    return (
        sum(count for value, count in histogram if value == 1.0),
        sum(count for _, count in histogram),
    )


def _mean(histogram: Histogram) -> float:
    total = sum(count for _, count in histogram)
    return math.fsum(value * count for value, count in histogram) / total


def _interval(found: Interval | CannotSay) -> Interval | None:
    return None if isinstance(found, CannotSay) else found
