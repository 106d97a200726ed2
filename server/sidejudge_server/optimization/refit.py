"""Refit the operating point of candidates on validation answers that are already paid for.

Demonstrations move the label prior of a model: eight of them took a judge's accuracy from .71 to .51
at the old cut while its ranking (AUC) rose from .78 to .82. So the decision rule or score map of every
fully scored candidate is fitted again before candidates are compared, and the starting version
competes with its own refit too ("same prompt, better cut").

Fitting is kept modest, because validation sets are small:

* What counts is out-of-fold quality in 5 deterministic stratified folds, never the fit itself.
* The old rule stays unless a refit is better out of fold.
* Offsets carry a Gaussian prior of 2 nats around 0, so that few examples move them little.
* Among offsets with the same accuracy the one with the smallest log-loss wins.

Candidates are ranked by the mean of out-of-fold accuracy and out-of-fold P(right label): accuracy is
what the gate measures, but on 30 to 60 examples it is coarse, and P(right label) is far less noisy.
Scores are ranked by out-of-fold 1 - |error|.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sidejudge_server.judges.types import (
    LabelOffsets,
    ScoreMap,
    Verdict,
    VerdictProbabilities,
)

__all__ = ["OffsetFit", "ScoreFit", "fit_offsets", "fit_score_map"]

FOLDS = 5
MIN_EXAMPLES = 10
"""With fewer usable answers the old rule stays."""

_PRIOR_NATS = 2.0
_LIMIT_NATS = 5.0
_COARSE_NATS = 0.25
_FINE_NATS = 0.025
_FLOOR = 1e-6
_LABELS = (Verdict.PASS, Verdict.PARTIAL, Verdict.FAIL)

_Floats = NDArray[np.float64]
_Ints = NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class OffsetFit:
    """A decision rule and what it is worth.

    Attributes:
        offsets: The rule to serve with.
        accuracy: Out of fold, over all examples; an unusable answer counts as wrong.
        soft: Mean out-of-fold P(right label), unusable answers as 0.
        log_loss: Mean out-of-fold log-loss in nats over usable answers; inf without any.
        kept: True if the old rule stays.
        worths: Of each usable example, out of fold: the mean of right or wrong and P(right label).
        right: 1 or 0 for each usable example, out of fold.
    """

    offsets: LabelOffsets
    accuracy: float
    soft: float
    log_loss: float
    kept: bool
    worths: tuple[float, ...] = ()
    right: tuple[float, ...] = ()

    @property
    def quality(self) -> float:
        """What candidates are ranked by, 0..1."""
        return (self.accuracy + self.soft) / 2


@dataclass(frozen=True, slots=True)
class ScoreFit:
    """A score map and its out-of-fold mean of 1 - |error|, unusable answers as 0.

    ``worths`` are the single values of usable examples.
    """

    score_map: ScoreMap
    quality: float
    kept: bool
    worths: tuple[float, ...] = ()


def fit_offsets(
    probabilities: Sequence[VerdictProbabilities | None],
    labels: Sequence[Verdict],
    *,
    binary: bool,
    old: LabelOffsets,
) -> OffsetFit:
    """Fit the decision rule of a verdict judge.

    Args:
        probabilities: The LM's, before any rule; None for an unusable answer.
        labels: The right verdicts.
        binary: True to never answer partial.
        old: The rule that stays if nothing is better out of fold.

    Raises:
        ValueError: Answers and labels are not pairs.
    """
    usable = [
        (p, label)
        for p, label in zip(probabilities, labels, strict=True)
        if p is not None
    ]
    if not usable:
        return OffsetFit(old, 0.0, 0.0, float("inf"), kept=True)
    share = len(usable) / len(labels)
    truth = np.array([_LABELS.index(label) for _, label in usable], dtype=np.intp)
    logits = _logits([p for p, _ in usable], binary=binary)
    old_row = np.array([[old.passed, old.partial, 0.0]])
    kept = _Table.of(old_row, logits, truth)
    rows = {"old": np.zeros(len(truth), dtype=np.intp)}
    tables = {"old": kept}
    if len(truth) >= MIN_EXAMPLES and len(set(truth.tolist())) > 1:
        coarse = _grid(_LIMIT_NATS, _COARSE_NATS, centre=np.zeros(3), binary=binary)
        table = _Table.of(coarse, logits, truth)
        for name, choose in (("accuracy", _by_accuracy), ("loss", _by_loss)):
            rows[name] = _out_of_fold(table, truth, choose)
            tables[name] = table
    measured = {name: tables[name].measure(rows[name]) for name in rows}
    best = max(measured, key=lambda n: (measured[n][0], -measured[n][2], n == "old"))
    if measured[best][0] <= measured["old"][0]:
        best = "old"
    accuracy, soft, loss = measured[best]
    offsets = old
    if best != "old":
        choose = _by_accuracy if best == "accuracy" else _by_loss
        offsets = _refine(choose, tables[best], logits, truth, binary=binary)
    return OffsetFit(
        offsets,
        accuracy * share,
        soft * share,
        loss,
        kept=offsets == old,
        worths=tables[best].worths(rows[best]),
        right=tables[best].rights(rows[best]),
    )


def fit_score_map(
    raw_scores: Sequence[float | None], labels: Sequence[float], *, old: ScoreMap
) -> ScoreFit:
    """Fit the score map of a rubric judge by least squares, slope not negative, clipped to 0..1.

    A shift alone (slope 1) and a full line compete with the old map out of fold.

    Args:
        raw_scores: The LM's, before any map; None for an unusable answer.
        labels: The right scores, 0..1.
        old: The map that stays if nothing is better out of fold.

    Raises:
        ValueError: Answers and labels are not pairs.
    """
    usable = [(r, y) for r, y in zip(raw_scores, labels, strict=True) if r is not None]
    if not usable:
        return ScoreFit(old, 0.0, kept=True)
    share = len(usable) / len(labels)
    raw, truth = (np.array(column, dtype=float) for column in zip(*usable, strict=True))
    folds = _folds(np.argsort(truth, kind="stable").astype(np.intp))
    fits: dict[str, Callable[[_Floats, _Floats], ScoreMap]] = {"old": lambda _, __: old}
    if len(truth) >= MIN_EXAMPLES:
        fits |= {"shift": _shift, "line": _line}
    quality: dict[str, float] = {}
    worths: dict[str, tuple[float, ...]] = {}
    for name, fit in fits.items():
        errors = np.empty(len(truth))
        for fold in folds:
            rest = np.setdiff1d(np.arange(len(truth)), fold)
            if not len(rest):
                rest = fold
            score_map = fit(raw[rest], truth[rest])
            errors[fold] = np.abs(_mapped(score_map, raw[fold]) - truth[fold])
        quality[name] = float(1 - errors.mean())
        worths[name] = tuple((1 - errors).tolist())
    best = max(quality, key=lambda n: quality[n])
    if quality[best] <= quality["old"]:
        best = "old"
    return ScoreFit(
        fits[best](raw, truth),
        quality[best] * share,
        kept=best == "old",
        worths=worths[best],
    )


@dataclass(frozen=True, slots=True)
class _Table:
    """How each rule of a grid (rows) does on each example (columns)."""

    grid: _Floats
    right: _Floats
    soft: _Floats
    loss: _Floats
    prior: _Floats

    @classmethod
    def of(cls, grid: _Floats, logits: _Floats, truth: _Ints) -> _Table:
        shifted = logits[None, :, :] + grid[:, None, :]
        top = shifted.max(axis=2, keepdims=True)
        weights = np.exp(shifted - top)
        soft = np.take_along_axis(weights, truth[None, :, None], axis=2)[
            :, :, 0
        ] / weights.sum(axis=2)
        # The decoder gives ties to the worse verdict: look from fail to pass.
        chosen = 2 - shifted[:, :, ::-1].argmax(axis=2)
        return cls(
            grid=grid,
            right=(chosen == truth[None, :]).astype(float),
            soft=soft,
            loss=-np.log(np.maximum(soft, _FLOOR)),
            prior=(grid**2).sum(axis=1) / (2 * _PRIOR_NATS**2),
        )

    def measure(self, rows: _Ints) -> tuple[float, float, float]:
        """Return accuracy, soft score and log-loss with one rule per example."""
        columns = np.arange(len(rows))
        return (
            float(self.right[rows, columns].mean()),
            float(self.soft[rows, columns].mean()),
            float(self.loss[rows, columns].mean()),
        )

    def worths(self, rows: _Ints) -> tuple[float, ...]:
        """Return the mean of accuracy and soft score of each example."""
        columns = np.arange(len(rows))
        both = (self.right[rows, columns] + self.soft[rows, columns]) / 2
        return tuple(float(value) for value in both)

    def rights(self, rows: _Ints) -> tuple[float, ...]:
        """Return 1 or 0 for each example."""
        found = self.right[rows, np.arange(len(rows))]
        return tuple(float(value) for value in found)


_Choose = Callable[[_Table, _Ints], int]


def _penalised_loss(table: _Table, columns: _Ints) -> _Floats:
    return np.asarray(table.loss[:, columns].mean(axis=1) + table.prior / len(columns))


def _by_loss(table: _Table, columns: _Ints) -> int:
    return int(_penalised_loss(table, columns).argmin())


def _by_accuracy(table: _Table, columns: _Ints) -> int:
    """Return the rule with most right answers; of equals the one with the smallest loss."""
    right = table.right[:, columns].sum(axis=1)
    loss = _penalised_loss(table, columns)
    return int(np.where(right >= right.max() - 0.5, loss, np.inf).argmin())


def _out_of_fold(table: _Table, truth: _Ints, choose: _Choose) -> _Ints:
    """Return for each example the rule chosen without its fold."""
    rows = np.zeros(len(truth), dtype=np.intp)
    for fold in _folds(np.argsort(truth, kind="stable").astype(np.intp)):
        rest = np.setdiff1d(np.arange(len(truth)), fold)
        rows[fold] = choose(table, rest)
    return rows


def _refine(
    choose: _Choose, table: _Table, logits: _Floats, truth: _Ints, *, binary: bool
) -> LabelOffsets:
    """Return the chosen rule on all examples, to a fortieth of a nat."""
    everything = np.arange(len(truth))
    centre = table.grid[choose(table, everything)]
    fine = _grid(_COARSE_NATS, _FINE_NATS, centre=centre, binary=binary)
    refined = _Table.of(fine, logits, truth)
    row = refined.grid[choose(refined, everything)]
    return LabelOffsets(round(float(row[0]), 6), round(float(row[1]), 6))


def _grid(half: float, step: float, *, centre: _Floats, binary: bool) -> _Floats:
    count = round(2 * half / step) + 1
    line = np.linspace(-half, half, count)
    passed, partial = np.meshgrid(line, [0.0] if binary else line, indexing="ij")
    grid = np.stack([passed.ravel(), partial.ravel(), np.zeros(passed.size)], axis=1)
    return np.asarray(grid + centre[None, :])


def _logits(probabilities: Sequence[VerdictProbabilities], *, binary: bool) -> _Floats:
    values = np.array([[p.passed, p.partial, p.failed] for p in probabilities])
    logits = np.log(np.maximum(values, 1e-12))
    if binary:
        logits[:, 1] = -np.inf
    return np.asarray(logits)


def _folds(order: _Ints) -> list[_Ints]:
    """Deal sorted examples into folds one by one: stratified and deterministic."""
    return [order[start::FOLDS] for start in range(min(FOLDS, len(order)))]


def _shift(raw: _Floats, truth: _Floats) -> ScoreMap:
    return ScoreMap(1.0, round(float((truth - raw).mean()), 6))


def _line(raw: _Floats, truth: _Floats) -> ScoreMap:
    spread = float(((raw - raw.mean()) ** 2).sum())
    slope = 0.0
    if spread > _FLOOR:
        slope = float(((raw - raw.mean()) * (truth - truth.mean())).sum()) / spread
    slope = max(0.0, slope)
    return ScoreMap(round(slope, 6), round(float(truth.mean() - slope * raw.mean()), 6))


def _mapped(score_map: ScoreMap, raw: _Floats) -> _Floats:
    return np.clip(score_map.intercept + score_map.slope * raw, 0.0, 1.0)
