"""Probes for what should not move a judge: length, order of the input, the writer's family."""

from __future__ import annotations

import random
import re
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sidejudge_server.benchmark.agreement import Answer, Figure
from sidejudge_server.judges.types import Verdict

__all__ = ["Probe", "bias_probes", "model_family"]

_RESAMPLES = 1000
_FEWEST_USABLE = 0.8
_FEWEST_ITEMS = 10
_VALUES = {Verdict.PASS: 1.0, Verdict.PARTIAL: 0.5, Verdict.FAIL: 0.0}


@dataclass(frozen=True, slots=True)
class Probe:
    """One bias with its 95 % interval (bootstrap over groups); ``figure`` is None with a reason."""

    name: str
    items: int
    figure: Figure | None
    reading: str


def bias_probes(answers: Sequence[Answer], *, model: str, seed: int = 9) -> list[Probe]:
    """Return the probes for which there is something to look at.

    Args:
        answers: Beside labels; with repeats where the order was turned.
        model: The judge's, whose family is compared with that of the writers.
        seed: Of the resampling.
    """
    probes = [
        _probe(
            "verbosity",
            [a for a in answers if a.length],
            _verbosity,
            "rank correlation of answer and length at equal labels; above 0 long texts are favoured",
            seed=seed,
        )
    ]
    turned = [a for a in answers if len(a.repeats) > 1]
    if turned:
        probes.append(
            _probe(
                "order: swaps",
                turned,
                _swaps,
                "share of items whose verdict (score by more than 0.1) changes when blocks and criteria"
                " are turned round",
                seed=seed,
            )
        )
        probes.append(
            _probe(
                "order: lean",
                turned,
                _lean,
                "mean change of the value when they are; not 0: one order is judged milder",
                seed=seed,
            )
        )
    written = [a for a in answers if a.writer]
    own = model_family(model)
    if written:
        probes.append(
            _probe(
                f"self-preference ({own})",
                written,
                lambda drawn: _self_preference(drawn, own),
                "answer minus label on texts of its own family, less that on others; above 0 it"
                " favours its own",
                seed=seed,
            )
        )
    return probes


def model_family(model: str) -> str:
    """Return the letters that a model's name begins with, such as ``gpt`` or ``qwen``."""
    found = re.match(r"[a-z]+", model.rsplit("/", 1)[-1].lower())
    return found.group() if found else ""


def _value(label: Verdict | float) -> float:
    return _VALUES[label] if isinstance(label, Verdict) else float(label)


def _verbosity(answers: Sequence[Answer]) -> float | None:
    from sidejudge_server.stats.outcome import CannotSay
    from sidejudge_server.stats.partial_rank import partial_rank_correlation

    found = partial_rank_correlation(
        [a.length for a in answers],
        [_value(a.answer) for a in answers],
        [_value(a.label) for a in answers],
    )
    return None if isinstance(found, CannotSay) else found


def _swaps(answers: Sequence[Answer]) -> float | None:
    return statistics.fmean(float(a.swapped) for a in answers)


def _lean(answers: Sequence[Answer]) -> float | None:
    return statistics.fmean(a.repeats[1] - a.repeats[0] for a in answers)


def _self_preference(answers: Sequence[Answer], own: str) -> float | None:
    gaps: dict[bool, list[float]] = {True: [], False: []}
    for a in answers:
        gap = _value(a.answer) - _value(a.label)
        gaps[model_family(a.writer) == own].append(gap)
    if not gaps[True] or not gaps[False]:
        return None
    return statistics.fmean(gaps[True]) - statistics.fmean(gaps[False])


def _probe(
    name: str,
    answers: Sequence[Answer],
    statistic: Callable[[Sequence[Answer]], float | None],
    reading: str,
    *,
    seed: int,
) -> Probe:
    value = statistic(answers) if len(answers) >= _FEWEST_ITEMS else None
    if value is None:
        return Probe(name, len(answers), None, "cannot be said of these answers")
    groups: dict[str, list[Answer]] = {}
    for answer in answers:
        groups.setdefault(answer.group or f"\0{answer.key}", []).append(answer)
    of_group = list(groups.values())
    generator = random.Random(seed)  # noqa: S311 - a reproducible resampling, not a secret
    drawn = []
    for _ in range(_RESAMPLES):
        chosen = generator.choices(of_group, k=len(of_group))
        replicate = statistic([answer for group in chosen for answer in group])
        if replicate is not None:
            drawn.append(replicate)
    if len(of_group) < 2 or len(drawn) < _FEWEST_USABLE * _RESAMPLES:  # noqa: PLR2004 - one group has no spread
        return Probe(name, len(answers), Figure(value, None, None), reading)
    drawn.sort()
    low, high = drawn[int(0.025 * len(drawn))], drawn[int(0.975 * len(drawn)) - 1]
    return Probe(name, len(answers), Figure(value, low, high), reading)
