"""How well answers agree with labels: figures with 95 % intervals beside trivial judges.

All figures here are ratios of sums over examples, or means of such ratios, so that resampling
groups needs only the sums of each group.
"""

from __future__ import annotations

import random
import statistics
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from sidejudge_server.judges.types import Verdict

__all__ = [
    "Answer",
    "Figure",
    "ScoreAgreement",
    "VerdictAgreement",
    "by_source",
    "score_agreement",
    "verdict_agreement",
]

_RESAMPLES = 2000
_LOWER, _UPPER = 0.025, 0.975


@dataclass(frozen=True, slots=True)
class Answer:
    """What a judge answered beside what people said.

    Attributes:
        key: Of the example.
        label: What people said: a verdict, or a score in 0..1.
        answer: What the judge said, of the same type.
        group: Resampling draws groups; empty is a group of its own.
        source: Slice.
        length: Characters of what was judged; 0 if not known.
        writer: The model that wrote it; empty if not known.
        repeats: Values of each time it was judged, the first one in the usual order.
        swapped: Whether the second time gave another verdict, or a score further than 0.1 away.
    """

    key: str
    label: Verdict | float
    answer: Verdict | float
    group: str = ""
    source: str = ""
    length: int = 0
    writer: str = ""
    repeats: tuple[float, ...] = ()
    swapped: bool = False


@dataclass(frozen=True, slots=True)
class Figure:
    """An estimate with its 95 % interval; the interval is None where it cannot be told."""

    value: float
    lower: float | None
    upper: float | None


@dataclass(frozen=True, slots=True)
class VerdictAgreement:
    """Agreement of verdicts.

    Attributes:
        count: Examples.
        accuracy: Share of equal verdicts, with Wilson's interval.
        balanced_accuracy: Mean of the recalls of the labels that occur; interval by bootstrap over
            groups.
        macro_f1: Mean of the F1 of the labels that occur; a label that is never answered has 0.
        majority_accuracy: Accuracy of always answering the most frequent label.
        majority_balanced_accuracy: Its balanced accuracy: 1 / number of labels that occur.
        confusion: Label -> answer -> count, with all labels and answers that occur.
    """

    count: int
    accuracy: Figure
    balanced_accuracy: Figure
    macro_f1: float
    majority_accuracy: float
    majority_balanced_accuracy: float
    confusion: Mapping[str, Mapping[str, int]]


@dataclass(frozen=True, slots=True)
class ScoreAgreement:
    """Agreement of scores.

    Attributes:
        count: Examples.
        mean_absolute_error: 0..1; interval by bootstrap over groups.
        bias: Mean of answer minus label; above 0 the judge is too generous.
        spearman: Rank correlation with ties averaged; None if labels or answers are all equal.
        constant_error: Mean absolute error of the best constant, the median of these labels.
    """

    count: int
    mean_absolute_error: Figure
    bias: float
    spearman: float | None
    constant_error: float


def verdict_agreement(answers: Sequence[Answer], *, seed: int = 9) -> VerdictAgreement:
    """Compare verdicts with labels.

    Raises:
        ValueError: There are no answers.
    """
    if not answers:
        raise ValueError("no answers to compare")
    pairs = [(str(a.label), str(a.answer)) for a in answers]
    labels = Counter(label for label, _ in pairs)
    hits = Counter(label for label, answer in pairs if label == answer)
    answered = Counter(answer for _, answer in pairs)
    f1 = [2 * hits[c] / (labels[c] + answered[c]) for c in labels]
    words = sorted(labels | answered)
    counts = Counter(pairs)
    return VerdictAgreement(
        count=len(pairs),
        accuracy=_wilson(hits.total(), len(pairs)),
        balanced_accuracy=_bootstrap(answers, _recall_sums, _mean_ratio, seed=seed),
        macro_f1=statistics.fmean(f1),
        majority_accuracy=max(labels.values()) / len(pairs),
        majority_balanced_accuracy=1 / len(labels),
        confusion={
            label: {answer: counts[label, answer] for answer in words}
            for label in sorted(labels)
        },
    )


def score_agreement(answers: Sequence[Answer], *, seed: int = 9) -> ScoreAgreement:
    """Compare scores with labels.

    Raises:
        ValueError: There are no answers.
    """
    if not answers:
        raise ValueError("no answers to compare")
    labels = [float(a.label) for a in answers]
    given = [float(a.answer) for a in answers]
    middle = statistics.median(labels)
    return ScoreAgreement(
        count=len(answers),
        mean_absolute_error=_bootstrap(answers, _error_sums, _mean_ratio, seed=seed),
        bias=statistics.fmean(g - w for g, w in zip(given, labels, strict=True)),
        spearman=_spearman(labels, given),
        constant_error=statistics.fmean(abs(label - middle) for label in labels),
    )


def by_source(answers: Sequence[Answer]) -> dict[str, list[Answer]]:
    """Return the answers of each source by its name; those without one are left out."""
    slices: dict[str, list[Answer]] = defaultdict(list)
    for answer in answers:
        if answer.source:
            slices[answer.source].append(answer)
    return dict(sorted(slices.items()))


# Numerator and denominator of each ratio, by the ratio's name.
_Sums = dict[str, tuple[float, float]]


def _recall_sums(answer: Answer) -> _Sums:
    return {str(answer.label): (float(answer.label == answer.answer), 1.0)}


def _error_sums(answer: Answer) -> _Sums:
    return {"": (abs(float(answer.answer) - float(answer.label)), 1.0)}


def _mean_ratio(sums: _Sums) -> float:
    return statistics.fmean(top / bottom for top, bottom in sums.values())


def _bootstrap(
    answers: Sequence[Answer],
    sums_of: Callable[[Answer], _Sums],
    figure: Callable[[_Sums], float],
    *,
    seed: int,
) -> Figure:
    """Return a figure with its percentile interval over resampled groups.

    Source: Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter 13; groups are
    drawn instead of examples since examples of one group are not independent. With one group there
    is no interval. A resample that misses a label averages over those it has.
    """
    groups: dict[str, _Sums] = {}
    for answer in answers:
        total = groups.setdefault(answer.group or f"\0{answer.key}", {})
        _add(total, sums_of(answer))
    value = figure(_total(list(groups.values())))
    if len(groups) == 1:
        return Figure(value, None, None)
    generator = random.Random(seed)  # noqa: S311 - a reproducible resampling, not a secret
    drawn = list(groups.values())
    values = sorted(
        figure(_total(generator.choices(drawn, k=len(drawn))))
        for _ in range(_RESAMPLES)
    )
    return Figure(
        value,
        values[int(_LOWER * _RESAMPLES)],
        values[int(_UPPER * _RESAMPLES) - 1],
    )


def _total(parts: Sequence[_Sums]) -> _Sums:
    total: _Sums = {}
    for part in parts:
        _add(total, part)
    return total


def _add(total: _Sums, part: _Sums) -> None:
    for name, (top, bottom) in part.items():
        have_top, have_bottom = total.get(name, (0.0, 0.0))
        total[name] = (have_top + top, have_bottom + bottom)


def _wilson(successes: int, trials: int) -> Figure:
    from sidejudge_server.stats.outcome import CannotSay
    from sidejudge_server.stats.proportions import wilson

    interval = wilson(successes, trials)
    value = successes / trials
    if isinstance(interval, CannotSay):
        return Figure(value, None, None)
    return Figure(value, interval.low, interval.high)


def _spearman(left: Sequence[float], right: Sequence[float]) -> float | None:
    ranks = _ranks(left), _ranks(right)
    if len(set(left)) == 1 or len(set(right)) == 1:
        return None
    return statistics.correlation(*ranks)


def _ranks(values: Sequence[float]) -> list[float]:
    """Return ranks from 1, equal values sharing the mean of theirs."""
    places: dict[float, list[int]] = defaultdict(list)
    for rank, value in enumerate(sorted(values), start=1):
        places[value].append(rank)
    return [statistics.fmean(places[value]) for value in values]
