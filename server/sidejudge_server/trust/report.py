"""A judge beside people: agreement and its parts, by source and slice, and whether it may replace them."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from sidejudge_server.judges.agreement import agreement, answer_value
from sidejudge_server.stats.agreement import (
    Rate,
    binary_agreement,
    cohen_kappa,
    confusion,
    mean_absolute_error,
    rank_correlations,
)
from sidejudge_server.stats.alt_test import alt_test, matches, negative_rmse
from sidejudge_server.stats.bootstrap import percentile_interval, replicates_of
from sidejudge_server.stats.outcome import CannotSay
from sidejudge_server.stats.proportions import wilson
from sidejudge_server.trust.report_types import (
    Annotators,
    Bin,
    Cell,
    JudgeReport,
    Part,
)
from sidejudge_server.trust.types import Figure
from sidejudge_storage import Annotation, LabelledAnswer

__all__ = ["judge_report"]

_VERDICTS = ("fail", "partial", "pass")
_BINS = 10
_FEWEST_PER_BIN = 10
_MOST_SLICES = 50
_FEWEST_ANNOTATORS = 3
_FEWEST_ITEMS = 30
_SEED = 20260803


def judge_report(
    answers: Sequence[LabelledAnswer],
    annotations: Sequence[Annotation],
    *,
    slice_key: str,
    epsilon: float,
) -> JudgeReport:
    """Return the report.

    Args:
        answers: Labelled items, each once.
        annotations: What single people said of items.
        slice_key: The label of evaluations to split by; "" for no split.
        epsilon: How much worse than a person a judge may be in the alternative annotator test.
    """
    verdicts = [a for a in answers if a.verdict is not None and a.label_verdict]
    scores = [a for a in answers if a.score is not None and a.label_score is not None]
    usable = [*verdicts, *scores]
    by_source = _parts(usable, [a.source for a in usable])
    slices = [_slice(a, slice_key) for a in usable] if slice_key else []
    rates = _rates(verdicts)
    rho, tau = _ranks(scores)
    return JudgeReport(
        items=len(usable),
        agreement=_agreement(usable) if usable else None,
        cells=_cells(verdicts),
        bins=_bins(verdicts),
        mean_absolute_error=_error(scores),
        true_positive_rate=rates.true_positive,
        true_negative_rate=rates.true_negative,
        balanced_accuracy=rates.balanced_accuracy,
        kappa=_kappa(verdicts),
        spearman=rho,
        kendall_tau=tau,
        by_source=by_source,
        by_slice=_parts(usable, slices)[:_MOST_SLICES] if slices else (),
        annotators=_annotators(annotations, epsilon=epsilon),
    )


class _Rates(NamedTuple):
    true_positive: Figure | None = None
    true_negative: Figure | None = None
    balanced_accuracy: Figure | None = None


def _rates(items: Sequence[LabelledAnswer]) -> _Rates:
    if not items:
        return _Rates()
    counts = Counter(
        (item.label_verdict == "fail", item.verdict == "fail") for item in items
    )
    found = binary_agreement(
        counts[True, True],
        counts[True, False],
        counts[False, True],
        counts[False, False],
    )
    balanced = found.balanced_accuracy
    return _Rates(
        _of_rate(found.tpr),
        _of_rate(found.tnr),
        None if balanced is None else Figure(balanced),
    )


def _kappa(items: Sequence[LabelledAnswer]) -> Figure | None:
    table = confusion(
        [_VERDICTS.index(str(item.label_verdict)) for item in items],
        [_VERDICTS.index(str(item.verdict)) for item in items],
        categories=range(len(_VERDICTS)),
    )
    found = cohen_kappa(table)
    if isinstance(found, CannotSay):
        return None
    return Figure(found.estimate, found.interval.low, found.interval.high)


def _of_rate(rate: Rate) -> Figure | None:
    if rate.estimate is None or rate.interval is None:
        return None
    return Figure(rate.estimate, rate.interval.low, rate.interval.high)


def _cells(items: Sequence[LabelledAnswer]) -> tuple[Cell, ...]:
    counts = Counter((str(i.label_verdict), str(i.verdict)) for i in items)
    return tuple(
        Cell(label, verdict, counts[label, verdict])
        for label in _VERDICTS
        for verdict in _VERDICTS
        if counts[label, verdict]
    )


def _bins(items: Sequence[LabelledAnswer]) -> tuple[Bin, ...]:
    """Return bins of equal numbers, ten items or more each."""
    sure = sorted(
        (i for i in items if i.confidence is not None), key=lambda i: i.confidence or 0
    )
    count = min(_BINS, len(sure) // _FEWEST_PER_BIN)
    if not count:
        return ()
    found = []
    for places in np.array_split(np.arange(len(sure)), count):
        chosen = [sure[place] for place in places]
        mean = sum(i.confidence or 0 for i in chosen) / len(chosen)
        found.append(Bin(len(chosen), mean, _agreement(chosen)))
    return tuple(found)


def _error(items: Sequence[LabelledAnswer]) -> Figure | None:
    distances = [abs((i.score or 0) - (i.label_score or 0)) for i in items]
    found = mean_absolute_error(
        [i.label_score or 0 for i in items], [i.score or 0 for i in items]
    )
    return None if isinstance(found, CannotSay) else _mean(distances)


def _ranks(items: Sequence[LabelledAnswer]) -> tuple[float | None, float | None]:
    found = rank_correlations(
        [i.label_score or 0 for i in items], [i.score or 0 for i in items]
    )
    return (None, None) if isinstance(found, CannotSay) else found


def _agreement(items: Sequence[LabelledAnswer]) -> Figure:
    values = [
        agreement(
            label_verdict=i.label_verdict,
            label_score=i.label_score,
            verdict=i.verdict,
            score=i.score,
        )
        for i in items
    ]
    if any(i.score is not None for i in items):
        return _mean(values)
    hits = int(sum(values))
    ends = wilson(hits, len(items))
    if isinstance(ends, CannotSay):
        return Figure(None)
    return Figure(hits / len(items), ends.low, ends.high)


def _mean(values: Sequence[float]) -> Figure:
    """Return a mean with its bootstrap interval."""
    replicates = replicates_of(values, lambda drawn: float(np.mean(drawn)), seed=_SEED)
    ends = percentile_interval(replicates)
    mean = float(np.mean(values))
    if isinstance(ends, CannotSay):
        return Figure(mean)
    return Figure(mean, ends.low, ends.high)


def _parts(items: Sequence[LabelledAnswer], names: Sequence[str]) -> tuple[Part, ...]:
    """Return the parts by name, the largest first."""
    members: defaultdict[str, list[LabelledAnswer]] = defaultdict(list)
    for item, name in zip(items, names, strict=True):
        members[name].append(item)
    ordered = sorted(members.items(), key=lambda part: (-len(part[1]), part[0]))
    return tuple(Part(name, len(of), _agreement(of)) for name, of in ordered)


def _slice(item: LabelledAnswer, key: str) -> str:
    return str(json.loads(item.labels_json).get(key, ""))


def _annotators(annotations: Sequence[Annotation], *, epsilon: float) -> Annotators:
    """Test the judge against the most annotators who share thirty items."""
    by_author: defaultdict[str, dict[str, float]] = defaultdict(dict)
    judged: dict[str, float] = {}
    for note in annotations:
        value = answer_value(note.label_verdict, note.label_score)
        machine = answer_value(note.verdict, note.score)
        if value is not None and machine is not None:
            by_author[note.author][note.evaluation_id] = value
            judged[note.evaluation_id] = machine
    ordered = sorted(by_author, key=lambda author: (-len(by_author[author]), author))
    for count in range(len(ordered), _FEWEST_ANNOTATORS - 1, -1):
        chosen = ordered[:count]
        shared = sorted(_shared(by_author[author] for author in chosen))
        if len(shared) < _FEWEST_ITEMS:
            continue
        scores = any(note.score is not None for note in annotations)
        found = alt_test(
            [[by_author[author][item] for item in shared] for author in chosen],
            [judged[item] for item in shared],
            score=negative_rmse if scores else matches,
            epsilon=epsilon,
        )
        if isinstance(found, CannotSay):
            return Annotators(count, len(shared), None, None, False, found.reason)
        return Annotators(
            count,
            len(shared),
            found.winning_rate,
            found.advantage,
            found.may_replace,
            "",
        )
    shared = sorted(
        _shared(by_author[author] for author in ordered[:_FEWEST_ANNOTATORS])
    )
    reason = (
        f"needs {_FEWEST_ANNOTATORS} named annotators who have labelled the same"
        f" {_FEWEST_ITEMS} items; there are {len(ordered)}, and the busiest share {len(shared)}"
    )
    return Annotators(len(ordered), len(shared), None, None, False, reason)


def _shared(labelled: Iterable[dict[str, float]]) -> set[str]:
    found: set[str] | None = None
    for items in labelled:
        found = set(items) if found is None else found & set(items)
    return found or set()
