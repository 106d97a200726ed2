"""Fit a learned head, and accept it only if it is better beyond doubt. Pure functions of arrays.

A head has very few coefficients: one slope for what the LM says, one for what similar corrections
were labelled, and a bias per label (`judges.head` applies it). They are fitted by penalised maximum
likelihood (scores: least squares), shrunk towards the plain decision rule (slope 1, no votes), so that
without evidence nothing changes. The strength of the shrinkage is chosen by cross-validation inside
each training part.

Everything that decides is out of fold, with whole groups held out, and votes never come from the group
of an item itself; while a fold is held out, its labels do not vote for the others either.

A head is accepted if its mean gain over the refitted rule, example by example and out of fold, is at
least `MIN_GAIN` and `MIN_STANDARD_ERRORS` standard errors, if at least `MIN_GAIN` more answers are
right (being surer of the same verdicts is no gain), on at least `MIN_EXAMPLES` usable answers of
which `MIN_PER_LABEL` have the rarer label. Where the numbers come from is in ADR 0014.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sidejudge_server.judges.head import PROBABILITY_FLOOR
from sidejudge_server.judges.types import (
    LearnedHead,
    ScoreHead,
    Verdict,
    VerdictHead,
    VerdictProbabilities,
)

__all__ = [
    "MIN_EXAMPLES",
    "MIN_GAIN",
    "MIN_PER_LABEL",
    "MIN_STANDARD_ERRORS",
    "NEIGHBOURS",
    "Corpus",
    "HeadFit",
    "RuleResult",
    "fit_score_head",
    "fit_verdict_head",
]

NEIGHBOURS = 8
MIN_EXAMPLES = 24
MIN_PER_LABEL = 6
MIN_GAIN = 0.02
MIN_STANDARD_ERRORS = 2.0

_FOLDS = 5
_STRENGTHS = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
"""Of the penalty, strongest last; ties go to the strongest."""
_BIAS_NATS = 2.0
"""Standard deviation of the biases' prior, as of the decision rule's."""
_NEWTON_STEPS = 50
_LABELS = (Verdict.PASS, Verdict.PARTIAL, Verdict.FAIL)
_FLOOR = 1e-9

_Floats = NDArray[np.float64]
_Ints = NDArray[np.intp]
_Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Corpus:
    """What a memory holds, seen from the items that a head is fitted on.

    Attributes:
        similarity: Of each item (rows) to each remembered example (columns), 0..1.
        groups: Of the remembered examples; those of an item's own group never vote for it.
        verdicts: Labels of the remembered examples; empty for scores.
        scores: Labels of the remembered examples; empty for verdicts.
    """

    similarity: _Floats
    groups: Sequence[str]
    verdicts: Sequence[Verdict] = ()
    scores: Sequence[float] = ()


@dataclass(frozen=True, slots=True)
class RuleResult:
    """Out-of-fold results of the rule or map that a head would replace; see `HeadFit`."""

    worths: Sequence[float]
    right: Sequence[float]


@dataclass(frozen=True, slots=True)
class HeadFit:
    """A fitted head and whether it is better beyond doubt.

    Attributes:
        head: To serve with, if accepted.
        accepted: Whether it is better than the rule or map beyond doubt.
        gain: Mean out-of-fold gain an example, of `worths` over the rule's.
        standard_error: Of the gain, by groups.
        worths: Of each example, out of fold: the mean of right or wrong and P(right label), or
            1 - |error|.
        right: 1 or 0 for each example, out of fold; 1 - |error| for scores.
    """

    head: LearnedHead
    accepted: bool
    gain: float
    standard_error: float
    worths: tuple[float, ...]
    right: tuple[float, ...]


def fit_verdict_head(
    probabilities: Sequence[VerdictProbabilities],
    labels: Sequence[Verdict],
    *,
    groups: Sequence[str],
    corpus: Corpus,
    rule: RuleResult,
    binary: bool,
) -> HeadFit | None:
    """Fit the head of a verdict judge.

    Args:
        probabilities: The LM's, of usable answers, before any rule.
        labels: The right verdicts.
        groups: Of the items; whole groups are held out.
        corpus: What the version remembers.
        rule: What the refitted rule does on the same items.
        binary: True to never answer partial.

    Returns:
        None if there are too few answers or too few of the rarer label.
    """
    truth = np.array([_LABELS.index(label) for label in labels], dtype=np.intp)
    counts = np.bincount(truth, minlength=3)
    present = counts[counts > 0]
    if (
        len(truth) < MIN_EXAMPLES
        or len(present) < 2  # noqa: PLR2004 - one label teaches nothing
        or int(np.sort(present)[-2]) < MIN_PER_LABEL
        or not len(corpus.groups)
    ):
        return None
    voters = np.array([_LABELS.index(v) for v in corpus.verdicts], dtype=np.intp)
    one_hot = np.eye(3)[voters]

    def features(visible: _Mask) -> _Floats:
        similarity = _nearest(np.where(visible, corpus.similarity, 0.0))
        return np.asarray(similarity @ one_hot)

    logits = np.log(
        np.maximum(
            [[p.passed, p.partial, p.failed] for p in probabilities], PROBABILITY_FLOOR
        )
    )
    allowed = np.array([True, not binary, True])
    problem = _VerdictProblem(logits, truth, allowed)
    found = _cross_validate(problem, groups, corpus.groups, features)
    bias_pass, bias_partial, slope, vote = (round(float(c), 6) for c in found.final)
    head = VerdictHead(NEIGHBOURS, bias_pass, bias_partial, slope, vote)
    return _judged(head, found, rule, groups)


def fit_score_head(
    raw_scores: Sequence[float],
    labels: Sequence[float],
    *,
    groups: Sequence[str],
    corpus: Corpus,
    rule: RuleResult,
) -> HeadFit | None:
    """Fit the head of a judge that scores; arguments and result as of `fit_verdict_head`."""
    if len(labels) < MIN_EXAMPLES or not len(corpus.groups):
        return None
    given = np.array(corpus.scores, dtype=np.float64)

    def features(visible: _Mask) -> _Floats:
        similarity = _nearest(np.where(visible, corpus.similarity, 0.0))
        count = np.maximum(visible.sum(axis=1, keepdims=True), 1)
        mean = (visible * given).sum(axis=1, keepdims=True) / count
        weighted = (similarity * (given[None, :] - mean)).sum(axis=1)
        return np.asarray((weighted / (1.0 + similarity.sum(axis=1)))[:, None])

    problem = _ScoreProblem(np.array(raw_scores), np.array(labels))
    found = _cross_validate(problem, groups, corpus.groups, features)
    intercept, slope, deviation = (round(float(c), 6) for c in found.final)
    head = ScoreHead(NEIGHBOURS, intercept, slope, deviation)
    return _judged(head, found, rule, groups)


# --- Cross-validation ---------------------------------------------------------------------------


class _Problem:
    """Items with their labels; features of their neighbours come with every fit."""

    order: _Ints
    """Items sorted by label, to deal groups into folds."""

    def fit(self, features: _Floats, rows: _Ints, strength: float) -> _Floats:
        """Return the coefficients that fit some items."""
        raise NotImplementedError

    def loss(self, features: _Floats, rows: _Ints, coefficients: _Floats) -> _Floats:
        """Return the loss of each item; what shrinkage is chosen by."""
        raise NotImplementedError

    def worth(
        self, features: _Floats, rows: _Ints, coefficients: _Floats
    ) -> tuple[_Floats, _Floats]:
        """Return what the answers are worth, and whether they are right."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class _Found:
    final: _Floats
    worths: _Floats
    right: _Floats


_Features = Callable[[_Mask], _Floats]


def _cross_validate(
    problem: _Problem,
    groups: Sequence[str],
    corpus_groups: Sequence[str],
    features: _Features,
) -> _Found:
    """Return out-of-fold results and the coefficients of a fit to everything."""
    names = {name: i for i, name in enumerate(dict.fromkeys((*groups, *corpus_groups)))}
    of_items = np.array([names[g] for g in groups], dtype=np.intp)
    of_corpus = np.array([names[g] for g in corpus_groups], dtype=np.intp)
    others = of_items[:, None] != of_corpus[None, :]
    everything = np.arange(len(of_items))
    folds = _group_folds(problem.order, of_items)
    worths, right = np.zeros(len(of_items)), np.zeros(len(of_items))
    for fold in folds:
        held = np.isin(of_corpus, of_items[fold])
        seen = features(others & ~held[None, :])
        rest = np.setdiff1d(everything, fold)
        coefficients = _fit_tuned(problem, seen, rest, of_items)
        worths[fold], right[fold] = problem.worth(seen, fold, coefficients)
    final = _fit_tuned(problem, features(others), everything, of_items)
    return _Found(final, worths, right)


def _fit_tuned(
    problem: _Problem, features: _Floats, rows: _Ints, groups: _Ints
) -> _Floats:
    """Return the fit to some items with the shrinkage that does best within them."""
    order = problem.order[np.isin(problem.order, rows)]
    inner = _group_folds(order, groups)
    losses = []
    for strength in _STRENGTHS:
        total = 0.0
        for fold in inner:
            rest = np.setdiff1d(rows, fold)
            fitted = problem.fit(features, rest if len(rest) else fold, strength)
            total += float(problem.loss(features, fold, fitted).sum())
        losses.append(total)
    best = min(range(len(losses)), key=lambda i: (round(losses[i], 9), -i))
    return problem.fit(features, rows, _STRENGTHS[best])


def _group_folds(order: _Ints, groups: _Ints) -> list[_Ints]:
    """Deal whole groups into folds, in the order of labels: nearly stratified, deterministic."""
    first = dict.fromkeys(groups[order].tolist())
    fold_of = {group: i % _FOLDS for i, group in enumerate(first)}
    dealt = np.array([fold_of[group] for group in groups[order].tolist()])
    folds = (np.sort(order[dealt == i]) for i in range(_FOLDS))
    return [fold for fold in folds if len(fold)]


def _nearest(similarity: _Floats) -> _Floats:
    """Keep the `NEIGHBOURS` largest of each row, earlier ones first among equals."""
    if similarity.shape[1] <= NEIGHBOURS:
        return similarity
    ranked = np.argsort(-similarity, axis=1, kind="stable")[:, :NEIGHBOURS]
    kept = np.zeros_like(similarity)
    rows = np.arange(len(similarity))[:, None]
    kept[rows, ranked] = similarity[rows, ranked]
    return kept


def _judged(
    head: LearnedHead,
    found: _Found,
    rule: RuleResult,
    groups: Sequence[str],
) -> HeadFit:
    """Accept a head or not."""
    differences = found.worths - np.array(rule.worths)
    more_right = float((found.right - np.array(rule.right)).mean())
    gain = float(differences.mean())
    error = _standard_error(differences, groups)
    return HeadFit(
        head,
        accepted=min(gain, more_right) >= MIN_GAIN
        and gain >= MIN_STANDARD_ERRORS * error,
        gain=gain,
        standard_error=error,
        worths=tuple(found.worths.tolist()),
        right=tuple(found.right.tolist()),
    )


def _standard_error(values: _Floats, groups: Sequence[str]) -> float:
    """Return the standard error of a mean of grouped values; inf with fewer than two groups."""
    sums: dict[str, float] = {}
    for group, value in zip(groups, (values - values.mean()).tolist(), strict=True):
        sums[group] = sums.get(group, 0.0) + value
    count = len(sums)
    if count < 2:  # noqa: PLR2004 - a spread needs two values
        return math.inf
    total = math.fsum(s * s for s in sums.values())
    return math.sqrt(total * count / (count - 1)) / len(values)


# --- Verdicts -----------------------------------------------------------------------------------


class _VerdictProblem(_Problem):
    """Coefficients are bias of pass, bias of partial, slope of the LM, weight of votes."""

    def __init__(self, logits: _Floats, truth: _Ints, allowed: _Mask) -> None:
        self._logits = logits
        self._truth = truth
        self._allowed = allowed
        self.order = np.argsort(truth, kind="stable").astype(np.intp)

    def fit(self, features: _Floats, rows: _Ints, strength: float) -> _Floats:
        """Minimise the penalised log-loss by Newton's method; it is convex."""
        design, truth = self._design(features, rows), self._truth[rows]
        votes = features[rows]
        scale = max(float(np.sqrt((votes**2).sum(axis=1).mean())), _FLOOR)
        prior = np.array([0.0, 0.0, 1.0, 0.0])
        weights = np.array(
            [_BIAS_NATS**-2, _BIAS_NATS**-2, strength, strength * scale**2]
        )
        target = design[np.arange(len(rows)), truth]
        coefficients = prior.copy()
        for _ in range(_NEWTON_STEPS):
            chances = self._softmax(design @ coefficients)
            expected = (chances[:, :, None] * design).sum(axis=1)
            slope = (expected - target).sum(axis=0) + weights * (coefficients - prior)
            spread = design - expected[:, None, :]
            curvature = np.einsum("nl,nlc,nld->cd", chances, spread, spread)
            step = np.linalg.solve(curvature + np.diag(weights), slope)
            # A long step from a flat start could overshoot: the logits move by a few nats at most.
            coefficients -= step * min(
                1.0, 3.0 / max(float(np.abs(step).max()), _FLOOR)
            )
            if float(np.abs(step).max()) < 1e-8:  # noqa: PLR2004 - converged
                break
        return coefficients

    def loss(self, features: _Floats, rows: _Ints, coefficients: _Floats) -> _Floats:
        """Return log-losses."""
        chances = self._softmax(self._design(features, rows) @ coefficients)
        own = chances[np.arange(len(rows)), self._truth[rows]]
        return np.asarray(-np.log(np.maximum(own, _FLOOR)))

    def worth(
        self, features: _Floats, rows: _Ints, coefficients: _Floats
    ) -> tuple[_Floats, _Floats]:
        """Return the mean of right or wrong and P(right label); ties go to the worse verdict."""
        chances = self._softmax(self._design(features, rows) @ coefficients)
        chosen = 2 - chances[:, ::-1].argmax(axis=1)
        right = (chosen == self._truth[rows]).astype(np.float64)
        soft = chances[np.arange(len(rows)), self._truth[rows]]
        return np.asarray((right + soft) / 2), right

    def _design(self, features: _Floats, rows: _Ints) -> _Floats:
        """Return what each coefficient multiplies: items by labels by coefficients."""
        biases = np.zeros((len(rows), 3, 2))
        biases[:, 0, 0] = biases[:, 1, 1] = 1.0
        parts = (self._logits[rows, :, None], features[rows][:, :, None])
        return np.concatenate((biases, *parts), axis=2)

    def _softmax(self, logits: _Floats) -> _Floats:
        logits = np.where(self._allowed, logits, -np.inf)
        weights = np.exp(logits - logits.max(axis=1, keepdims=True))
        return np.asarray(weights / weights.sum(axis=1, keepdims=True))


# --- Scores -------------------------------------------------------------------------------------


class _ScoreProblem(_Problem):
    """Coefficients are intercept, slope of the raw score, weight of the neighbours' deviation."""

    def __init__(self, raw: _Floats, truth: _Floats) -> None:
        self._raw = raw
        self._truth = truth
        self.order = np.argsort(truth, kind="stable").astype(np.intp)

    def fit(self, features: _Floats, rows: _Ints, strength: float) -> _Floats:
        """Minimise penalised squares around slope 1 and no deviation; the intercept is free."""
        design, target = self._design(features, rows), self._truth[rows]
        prior = np.array([0.0, 1.0, 0.0])
        scale = design.std(axis=0)
        weights = strength * np.array(
            [0.0, scale[1] ** 2 + _FLOOR, scale[2] ** 2 + _FLOOR]
        )
        matrix = design.T @ design + np.diag(weights)
        return np.asarray(np.linalg.solve(matrix, design.T @ target + weights * prior))

    def loss(self, features: _Floats, rows: _Ints, coefficients: _Floats) -> _Floats:
        """Return squared errors."""
        return np.asarray(
            (self._scores(features, rows, coefficients) - self._truth[rows]) ** 2
        )

    def worth(
        self, features: _Floats, rows: _Ints, coefficients: _Floats
    ) -> tuple[_Floats, _Floats]:
        """Return 1 - |error|, twice."""
        errors = np.abs(self._scores(features, rows, coefficients) - self._truth[rows])
        return 1.0 - errors, 1.0 - errors

    def _design(self, features: _Floats, rows: _Ints) -> _Floats:
        ones = np.ones(len(rows))
        return np.stack((ones, self._raw[rows], features[rows, 0]), axis=1)

    def _scores(self, features: _Floats, rows: _Ints, coefficients: _Floats) -> _Floats:
        return np.clip(self._design(features, rows) @ coefficients, 0.0, 1.0)
