"""Fits what labels say of a version's confidence, and measures it on labels that were left out.

Which map: none below 30 labels; temperature up to 200; from 200 whichever of temperature, Platt and
beta has the smaller cross-validated log loss (chosen by simulation; see `stats.recalibration`). A map
that is no better than the raw confidence on left-out labels is not used.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sidejudge_server.stats.calibration import (
    auroc,
    debiased_squared_error,
    log_loss,
)
from sidejudge_server.stats.group_means import group_mean
from sidejudge_server.stats.outcome import CannotSay
from sidejudge_server.stats.recalibration import (
    BetaMap,
    PlattMap,
    TemperatureMap,
    fit_beta,
    fit_platt,
    fit_temperature,
    venn_abers,
)
from sidejudge_server.trust.certify import risks
from sidejudge_server.trust.types import (
    Calibration,
    ConfidenceMap,
    Figure,
    MapKind,
    Reliability,
    VennAbersTable,
)

__all__ = ["FEWEST_LABELS", "Labelled", "fit_map", "fit_reliability"]

FEWEST_LABELS = 30
"""Below, a fitted map is worse than none."""

_CHOICE_LABELS = 200
_FOLDS = 5
_REPLICATES = 300
_TABLE_SIZE = 64
_SEED = 20260801

_Floats = NDArray[np.float64]
_Statistic = Callable[[Sequence[float], Sequence[int]], "float | CannotSay"]


@dataclass(frozen=True, slots=True)
class Labelled:
    """A labelled answer. Items of one ``group`` are never on both sides of a cross-validation."""

    confidence: float
    agrees: bool
    group: str


def fit_reliability(
    labelled: Sequence[Labelled], unlabelled: Sequence[float]
) -> Reliability:
    """Return all that labels say; at least one is needed.

    Args:
        labelled: Audit items with labels.
        unlabelled: Confidences of other items of the same version and model, for thresholds.
    """
    p = [item.confidence for item in labelled]
    y = [int(item.agrees) for item in labelled]
    calibration = _calibration(labelled)
    return Reliability(
        labels=len(labelled),
        agreed=sum(y),
        calibration=None if isinstance(calibration, CannotSay) else calibration,
        reason=calibration.reason if isinstance(calibration, CannotSay) else "",
        interval=_interval(p, y),
        risks=risks(p, [1 - outcome for outcome in y], unlabelled),
    )


def fit_map(
    kind: MapKind, p: Sequence[float], y: Sequence[int]
) -> ConfidenceMap | CannotSay:
    """Fit one kind of map."""
    fits: dict[MapKind, Callable[..., TemperatureMap | PlattMap | BetaMap | CannotSay]]
    fits = {
        MapKind.TEMPERATURE: fit_temperature,
        MapKind.PLATT: fit_platt,
        MapKind.BETA: fit_beta,
    }
    found = fits[kind](p, y)
    match found:
        case TemperatureMap(temperature):
            return ConfidenceMap(kind, 1 / temperature, 1 / temperature, 0.0)
        case PlattMap(slope, intercept):
            if slope <= 0:
                # Confidence says nothing, or the wrong way round: what is left is the rate.
                rate = (sum(y) + 0.5) / (len(y) + 1)
                return ConfidenceMap(kind, 0.0, 0.0, math.log(rate / (1 - rate)))
            return ConfidenceMap(kind, slope, slope, intercept)
        case BetaMap(a, b, c):
            return ConfidenceMap(kind, a, b, c)
    return found


def _calibration(labelled: Sequence[Labelled]) -> Calibration | CannotSay:
    n = len(labelled)
    if n < FEWEST_LABELS:
        return CannotSay(
            f"there are {n} audit labels; a map takes {FEWEST_LABELS}, so"
            f" {FEWEST_LABELS - n} more are needed"
        )
    p = [item.confidence for item in labelled]
    y = [int(item.agrees) for item in labelled]
    groups = [item.group for item in labelled]
    several = [MapKind.TEMPERATURE, MapKind.PLATT, MapKind.BETA]
    kinds = several if n >= _CHOICE_LABELS else several[:1]
    raw = _loss(p, y)
    found = _best(kinds, p, y, groups)
    if found is None or found.loss >= raw:
        # Platt's map comes to the rescue where no temperature can: of a judge that is right less
        # often than not, or whose confidence says little.
        found = _best([MapKind.PLATT], p, y, groups)
    if found is None:
        return CannotSay(
            f"no map fits {n} audit labels: they all agree, or all disagree"
        )
    if found.loss >= raw:
        return CannotSay(
            f"on left-out ones of {n} audit labels no map is better than the raw confidence"
        )
    fitted, held_out = found.fitted, found.held_out
    outcomes = np.asarray(y, dtype=float)
    before = (np.asarray(p) - outcomes) ** 2
    after = (np.asarray(held_out) - outcomes) ** 2
    return Calibration(
        map=fitted,
        brier_score=_mean(after, groups),
        raw_brier_score=_mean(before, groups),
        improvement=_mean(before - after, groups),
        calibration_error=_figure(debiased_squared_error, held_out, y, groups),
        auroc=_figure(auroc, held_out, y, groups),
    )


class _Fitted(NamedTuple):
    loss: float
    fitted: ConfidenceMap
    held_out: list[float]


def _best(
    kinds: Sequence[MapKind],
    p: Sequence[float],
    y: Sequence[int],
    groups: Sequence[str],
) -> _Fitted | None:
    """Return the map with the smallest log loss on left-out folds; None if none can be fitted."""
    found = []
    for kind in kinds:
        fitted = fit_map(kind, p, y)
        if not isinstance(fitted, CannotSay):
            held_out = _held_out(kind, p, y, groups)
            found.append(_Fitted(_loss(held_out, y), fitted, held_out))
    return min(found, key=lambda one: one.loss, default=None)


def _loss(p: Sequence[float], y: Sequence[int]) -> float:
    loss = log_loss(p, y)
    return float("inf") if isinstance(loss, CannotSay) else loss


def _held_out(
    kind: MapKind, p: Sequence[float], y: Sequence[int], groups: Sequence[str]
) -> list[float]:
    """Return each confidence mapped by a map that was fitted without its fold; raw if none fits."""
    folds = [_fold(group) for group in groups]
    mapped = list(p)
    for fold in range(_FOLDS):
        rest = [i for i, of in enumerate(folds) if of != fold]
        fitted = fit_map(kind, [p[i] for i in rest], [y[i] for i in rest])
        if isinstance(fitted, CannotSay):
            continue
        for i, of in enumerate(folds):
            if of == fold:
                mapped[i] = fitted(p[i])
    return mapped


def _fold(group: str) -> int:
    return hashlib.sha256(group.encode("utf-8", "replace")).digest()[0] % _FOLDS


def _mean(values: _Floats, groups: Sequence[str]) -> Figure:
    return Figure(*group_mean(values, groups, replicates=_REPLICATES))


def _figure(
    statistic: _Statistic, p: Sequence[float], y: Sequence[int], groups: Sequence[str]
) -> Figure:
    """Return any statistic with such an interval."""
    value = statistic(p, y)
    if isinstance(value, CannotSay):
        return Figure(None)
    _, places = np.unique(np.asarray(groups), return_inverse=True)
    members = [np.flatnonzero(places == place) for place in range(places.max() + 1)]
    rng = np.random.default_rng(_SEED)
    ps, ys = np.asarray(p), np.asarray(y)
    drawn = []
    for _ in range(_REPLICATES):
        chosen = rng.integers(0, len(members), len(members))
        picked = np.concatenate([members[i] for i in chosen])
        replicate = statistic(ps[picked].tolist(), ys[picked].tolist())
        if not isinstance(replicate, CannotSay):
            drawn.append(replicate)
    if len(drawn) < _REPLICATES // 2:
        return Figure(value)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Figure(value, float(low), float(high))


def _interval(p: Sequence[float], y: Sequence[int]) -> VennAbersTable:
    """Return Venn-Abers pairs at quantiles of the labelled confidences, and at 0 and 1."""
    inner = np.quantile(np.asarray(p), np.linspace(0, 1, _TABLE_SIZE), method="lower")
    places = sorted({0.0, 1.0, *(float(x) for x in inner)})
    pairs = [venn_abers(p, y, at=place) for place in places]
    lows = [pair.low for pair in pairs if not isinstance(pair, CannotSay)]
    highs = [pair.high for pair in pairs if not isinstance(pair, CannotSay)]
    return VennAbersTable(tuple(places), tuple(lows), tuple(highs))
