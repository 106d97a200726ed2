"""Weights of members from labels, and juries beside single members on labels that were left out.

Votes weigh ln(a (K - 1) / (1 - a)) with a the member's agreement with people (one added to right and
wrong) among K verdicts: the best weights of members that err independently (weighted majority, Nitzan
and Paroush 1982). Means weigh by stacked regression with weights of 0 or more (Breiman 1996), pulled
to equal ones. Weights that are not better than equal ones on left-out labels are not used.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from sidejudge_server.judges.types import Verdict
from sidejudge_server.juries.combining import combine, shares_of
from sidejudge_server.juries.types import (
    Ballot,
    Compared,
    Comparison,
    JuryMode,
    Weights,
)
from sidejudge_server.stats.group_means import group_mean
from sidejudge_server.trust.types import Figure

__all__ = ["FEWEST_LABELS", "compare", "fit_weights", "learn"]

FEWEST_LABELS = 30
_FOLDS = 5
_PULL = 20.0
"""Labelled items that equal weights are worth against what labels say of means."""

_Floats = NDArray[np.float64]
_MODES = (JuryMode.VOTE, JuryMode.AVERAGE)


def learn(
    ballots: Sequence[Ballot], mode: JuryMode, *, members: int, binary: bool
) -> Weights:
    """Return the weights to use: learned ones where left-out labels are in favour of them.

    Args:
        ballots: Labelled deliberations, drawn by chance.
        mode: Vote or average.
        members: How many there are, at least one.
        binary: Whether no member answers partial.
    """
    equal, n = _equal(members), len(ballots)
    if n < FEWEST_LABELS:
        reason = f"{n} of the {FEWEST_LABELS} labels that weights take have come"
        return Weights(equal, learned=False, labels=n, reason=reason)
    held_out = _held_out(ballots, mode, binary=binary)
    learned = _loss(ballots, held_out, mode, binary=binary)
    before = _loss(ballots, [equal] * n, mode, binary=binary)
    if learned >= before:
        reason = f"on left-out ones of {n} labels learned weights are not better"
        return Weights(equal, learned=False, labels=n, reason=reason)
    fitted = fit_weights(ballots, mode, binary=binary)
    return Weights(fitted, learned=True, labels=n, reason="")


def fit_weights(
    ballots: Sequence[Ballot], mode: JuryMode, *, binary: bool
) -> tuple[float, ...]:
    """Fit weights to at least one ballot, whether they are of use or not."""
    members = len(ballots[0].answers)
    if mode is JuryMode.VOTE:
        return _normal([_log_odds(ballots, i, binary=binary) for i in range(members)])
    columns = [
        [_values(ballot, i, mode, binary=binary) for ballot in ballots]
        for i in range(members)
    ]
    given = np.array(columns, dtype=float).reshape(members, -1).T
    wanted = np.concatenate([_wanted(ballot) for ballot in ballots])
    # Of the size that the values of so many items have.
    pull = math.sqrt(_PULL * float((given**2).sum()) / (members * len(ballots)))
    solution, _ = nnls(
        np.vstack([given, pull * np.eye(members)]),
        np.concatenate([wanted, np.full(members, pull / members)]),
    )
    return _normal(solution.tolist())


def compare(
    ballots: Sequence[Ballot], names: Sequence[str], *, scores: bool, binary: bool
) -> Comparison:
    """Put members, equal and learned juries beside the best single member, cross-validated by group.

    Args:
        ballots: Labelled deliberations, drawn by chance.
        names: Of the members.
        scores: Whether members answer scores: they cannot vote.
        binary: Whether no member answers partial.
    """
    n = len(ballots)
    if n < FEWEST_LABELS:
        missing = FEWEST_LABELS - n
        return Comparison(
            n, (), f"there are {n} labels; label {missing} more deliberations"
        )
    groups = [ballot.group for ballot in ballots]
    single = np.array(
        [[_agreement_of(b, i) for b in ballots] for i in range(len(names))]
    )
    best = _best_single(ballots, single)
    rows = [
        Compared(name, _figure(single[i], groups), None) for i, name in enumerate(names)
    ]
    rows.append(Compared("best member", _figure(best, groups), None))
    equal = [_equal(len(names))] * n
    for mode in _MODES[1:] if scores else _MODES:
        held_out = _held_out(ballots, mode, binary=binary)
        for kind, weights in (("equal", equal), ("learned", held_out)):
            values = np.array(
                [
                    _agreement(ballot, w, mode, binary=binary)
                    for ballot, w in zip(ballots, weights, strict=True)
                ]
            )
            rows.append(
                Compared(
                    f"{mode.value}, {kind} weights",
                    _figure(values, groups),
                    _figure(values - best, groups),
                )
            )
    return Comparison(n, tuple(rows), "")


def _best_single(ballots: Sequence[Ballot], single: _Floats) -> _Floats:
    """Return the agreement of the member that is best on the other folds, item by item."""
    folds = np.array([_fold(ballot.group) for ballot in ballots])
    best: _Floats = single[0].copy()
    for fold in range(_FOLDS):
        rest = folds != fold
        if rest.any():
            chosen = int(np.argmax(single[:, rest].mean(axis=1)))
            best[~rest] = single[chosen, ~rest]
    return best


def _held_out(
    ballots: Sequence[Ballot], mode: JuryMode, *, binary: bool
) -> list[tuple[float, ...]]:
    """Return for each ballot the weights that were fitted without its fold."""
    folds = [_fold(ballot.group) for ballot in ballots]
    weights = [_equal(len(ballots[0].answers))] * len(ballots)
    for fold in set(folds):
        rest = [b for b, of in zip(ballots, folds, strict=True) if of != fold]
        if not rest:
            continue
        fitted = fit_weights(rest, mode, binary=binary)
        weights = [
            fitted if of == fold else w for w, of in zip(weights, folds, strict=True)
        ]
    return weights


def _loss(
    ballots: Sequence[Ballot],
    weights: Sequence[Sequence[float]],
    mode: JuryMode,
    *,
    binary: bool,
) -> float:
    """Return the share of wrong votes, or the mean squared error of means."""
    if mode is JuryMode.VOTE:
        rights = [
            _agreement(b, w, mode, binary=binary)
            for b, w in zip(ballots, weights, strict=True)
        ]
        return 1.0 - sum(rights) / len(rights)
    squares = 0.0
    for ballot, w in zip(ballots, weights, strict=True):
        each = [
            _values(ballot, i, mode, binary=binary) for i in range(len(ballot.answers))
        ]
        mean = np.asarray(w) @ np.asarray(each)
        squares += float(((mean - _wanted(ballot)) ** 2).sum())
    return squares / len(ballots)


def _agreement(
    ballot: Ballot, weights: Sequence[float], mode: JuryMode, *, binary: bool
) -> float:
    found = combine(ballot.answers, weights, mode, binary=binary)
    if found.score is not None and ballot.score is not None:
        return 1.0 - abs(found.score - ballot.score)
    return float(found.verdict is ballot.verdict)


def _agreement_of(ballot: Ballot, place: int) -> float:
    score = ballot.answers[place].score
    if score is not None and ballot.score is not None:
        return 1.0 - abs(score - ballot.score)
    return float(ballot.right(place))


def _log_odds(ballots: Sequence[Ballot], place: int, *, binary: bool) -> float:
    right = sum(ballot.right(place) for ballot in ballots)
    agreement = (right + 1) / (len(ballots) + 2)
    others = 1 if binary else 2
    return max(0.0, math.log(agreement * others / (1 - agreement)))


def _values(ballot: Ballot, place: int, mode: JuryMode, *, binary: bool) -> list[float]:
    """Return what a member gives to each verdict, or its score."""
    answer = ballot.answers[place]
    if answer.score is not None:
        return [answer.score]
    shares = shares_of(answer, mode, binary=binary)
    return [shares[verdict] for verdict in Verdict]


def _wanted(ballot: Ballot) -> _Floats:
    if ballot.score is not None:
        return np.array([ballot.score])
    return np.array([float(verdict is ballot.verdict) for verdict in Verdict])


def _equal(members: int) -> tuple[float, ...]:
    return (1.0 / members,) * members


def _normal(weights: Sequence[float]) -> tuple[float, ...]:
    """Return weights that add up to 1; equal ones if there is nothing to add up."""
    total = sum(weights)
    return tuple(w / total for w in weights) if total > 0 else _equal(len(weights))


def _fold(group: str) -> int:
    return hashlib.sha256(group.encode("utf-8", "replace")).digest()[0] % _FOLDS


def _figure(values: _Floats, groups: Sequence[str]) -> Figure:
    return Figure(*group_mean(values, groups))
