"""Which evaluations people get to label: worth, inclusion probabilities and the draw of a round.

Pure arithmetic without storage or clock. The draw hashes ids, so it can be repeated and nobody who
writes what is judged can steer it. Source of the probabilities: active statistical inference (Zrnic
and Candes, 2024), mixed with uniform sampling because with uncalibrated confidence pure ranking
makes estimates worse than labelling at random (up to 1.2 times as wide in our simulations).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from sidejudge_server.experiments.assignment import hash_to_unit

__all__ = [
    "CANDIDATES_PER_ITEM",
    "AgreementProbability",
    "Answer",
    "Candidate",
    "Considered",
    "Reason",
    "Stream",
    "draw_round",
    "inclusion_probabilities",
    "rarity",
    "stated_agreement",
    "uncertainty",
    "worth",
]

CANDIDATES_PER_ITEM = 10
"""Evaluations that a round considers for each item that it draws: no label stands for many more than 20."""

_TAU = 0.5
"""Share of the ranked stream that is drawn by chance alone."""
_DISAGREEMENT_WEIGHT = 0.25
_RARITY_WEIGHT = 0.25
_UNCERTAIN = 0.4
"""Standard deviation of agreement from which an answer is called uncertain: 20 to 80 % sure."""
_RARE = 0.5


class Stream(StrEnum):
    """How an evaluation was considered."""

    UNIFORM = "uniform"
    RANKED = "ranked"
    LABELLED = "labelled"
    """It had a label before the round; it is counted with certainty and not drawn."""


class Reason(StrEnum):
    """What the label of an item is good for."""

    UNCERTAIN = "uncertain"
    DISAGREEMENT = "disagreement"
    RARE_LABEL = "rare_label"
    AUDIT = "audit"
    CHANCE = "chance"


class Answer(Protocol):
    """What is known of a judge's answer when its confidence is read."""

    @property
    def confidence(self) -> float | None:
        """Of a verdict, 0..1."""

    @property
    def score_stddev(self) -> float | None:
        """Of a score, 0..0.5."""


AgreementProbability = Callable[[str, int, Answer], float]
"""Given judge id, version and answer, returns how far people are expected to agree, 0..1."""


def stated_agreement(judge_id: str, version: int, answer: Answer) -> float:
    """Return the judge's own confidence, uncalibrated; 0.5 if the model gave none.

    For scores 1 minus the standard deviation of the grades.
    """
    del judge_id, version  # a calibrated map looks at them
    if answer.confidence is not None:
        return min(1.0, max(0.0, answer.confidence))
    if answer.score_stddev is not None:
        return min(1.0, max(0.0, 1.0 - answer.score_stddev))
    return 0.5


@dataclass(frozen=True, slots=True)
class Candidate:
    """An evaluation that a round may draw.

    Attributes:
        evaluation_id: Decides the draw.
        agreement: How far people are expected to agree with the judge, 0..1.
        audit: Whether it is an audit item of the monitor, chosen by chance.
        labelled: Whether it has a label already.
        disagreement: Share of other versions' answers that say something else, 0..1.
        rarity: How rare labels like the judge's answer are, 0..1; see `rarity`.
    """

    evaluation_id: str
    agreement: float
    audit: bool = False
    labelled: bool = False
    disagreement: float = 0.0
    rarity: float = 0.0


@dataclass(frozen=True, slots=True)
class Considered:
    """What a round has made of a candidate; ``place`` is its place in the round, None if not drawn."""

    candidate: Candidate
    stream: Stream
    inclusion_probability: float
    worth: float
    drawn: bool
    place: int | None
    reasons: tuple[Reason, ...]


def uncertainty(agreement: float) -> float:
    """Return the standard deviation of agreement, sqrt(f (1 - f)): 0 to 0.5."""
    return math.sqrt(agreement * (1 - agreement))


def rarity(label: str, counts: Mapping[str, int], *, labels: Sequence[str]) -> float:
    """Return how rare a label is among those given: 0 at its fair share or more, to 1.

    1 minus its share (with one pseudo label each) over the fair share.

    Args:
        label: What the judge answered.
        counts: Labels given so far.
        labels: All that there are.
    """
    total = sum(counts.get(name, 0) for name in labels) + len(labels)
    share = (counts.get(label, 0) + 1) / total
    return max(0.0, 1 - share * len(labels))


def worth(candidate: Candidate) -> float:
    """Return what a label is expected to teach, 0..1."""
    return (
        uncertainty(candidate.agreement)
        + _DISAGREEMENT_WEIGHT * candidate.disagreement
        + _RARITY_WEIGHT * candidate.rarity
    )


def inclusion_probabilities(
    worths: Sequence[float], *, items: float, tau: float = _TAU
) -> list[float]:
    """Return min(1, (1 - tau) n u / sum(u) + tau n / N) of each unit.

    Args:
        worths: u, not negative.
        items: n: how many to draw on average, if no probability has to be cut to 1.
        tau: Share that is drawn whatever the worth; all of it if nothing is worth anything.

    Raises:
        ValueError: A worth is negative or not finite.
    """
    if any(not (math.isfinite(u) and u >= 0) for u in worths):
        raise ValueError("worths must be finite and not negative")
    total = math.fsum(worths)
    if not worths:
        return []
    by_chance = items / len(worths)
    if total == 0:
        return [min(1.0, by_chance)] * len(worths)
    return [min(1.0, (1 - tau) * items * (u / total) + tau * by_chance) for u in worths]


def draw_round(
    candidates: Sequence[Candidate], *, items: int, audit_share: float
) -> list[Considered]:
    """Draw a round: each candidate by itself with its probability (Poisson sampling).

    Audit items are drawn by chance alone and never for their worth: what monitors promise rests on
    that. They make up ``audit_share`` of the round; where there are too few of one kind the other
    fills up.

    Args:
        candidates: What to draw from; each is considered once, for ever.
        items: How many to draw on average.
        audit_share: Share of audit items, 0..1.

    Returns:
        All candidates in their order.
    """
    known = [c for c in candidates if c.labelled]
    audits = [c for c in candidates if c.audit and not c.labelled]
    others = [c for c in candidates if not c.audit and not c.labelled]
    wanted = min(len(audits), max(items * audit_share, items - len(others)))
    uniform = [wanted / len(audits)] * len(audits) if audits else []
    ranked = inclusion_probabilities([worth(c) for c in others], items=items - wanted)
    considered = [Considered(c, Stream.LABELLED, 1.0, worth(c), False, None, ()) for c in known]  # fmt: skip
    considered += _drawn(audits, uniform, Stream.UNIFORM)
    considered += _drawn(others, ranked, Stream.RANKED)
    by_id = {c.candidate.evaluation_id: c for c in _placed(considered)}
    return [by_id[c.evaluation_id] for c in candidates]


def _drawn(
    candidates: Sequence[Candidate], probabilities: Sequence[float], stream: Stream
) -> list[Considered]:
    return [
        Considered(
            candidate,
            stream,
            probability,
            worth(candidate),
            # 0 is never drawn, and 1 always: the hash is below 1.
            hash_to_unit("review", candidate.evaluation_id) < probability,
            None,
            _reasons(candidate),
        )
        for candidate, probability in zip(candidates, probabilities, strict=True)
    ]


def _placed(considered: Sequence[Considered]) -> list[Considered]:
    """Give drawn items places: by worth, with audit items in random order spread evenly."""
    drawn = [c for c in considered if c.drawn]
    ranked = sorted(
        (c for c in drawn if c.stream is Stream.RANKED),
        key=lambda c: (-c.worth, c.candidate.evaluation_id),
    )
    uniform = sorted(
        (c for c in drawn if c.stream is Stream.UNIFORM),
        key=lambda c: hash_to_unit("review place", c.candidate.evaluation_id),
    )
    spread = [
        ((index + 0.5) / len(stream), c)
        for stream in (uniform, ranked)
        for index, c in enumerate(stream)
    ]
    spread.sort(key=lambda pair: pair[0])
    places = {
        c.candidate.evaluation_id: place for place, (_, c) in enumerate(spread, 1)
    }
    return [
        Considered(
            c.candidate,
            c.stream,
            c.inclusion_probability,
            c.worth,
            c.drawn,
            places.get(c.candidate.evaluation_id),
            c.reasons,
        )
        for c in considered
    ]


def _reasons(candidate: Candidate) -> tuple[Reason, ...]:
    found = [
        (uncertainty(candidate.agreement), _UNCERTAIN, Reason.UNCERTAIN),
        (
            _DISAGREEMENT_WEIGHT * candidate.disagreement,
            math.ulp(0.0),
            Reason.DISAGREEMENT,
        ),
        (_RARITY_WEIGHT * candidate.rarity, _RARITY_WEIGHT * _RARE, Reason.RARE_LABEL),
    ]
    found.sort(key=lambda entry: -entry[0])
    reasons = [reason for value, least, reason in found if value >= least]
    if candidate.audit:
        reasons.insert(0, Reason.AUDIT)
    return tuple(reasons or [Reason.CHANCE])
