"""Reliability and assessments as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from sidejudge_server.judges.codec import canonical_json
from sidejudge_server.judges.types import Samples
from sidejudge_server.trust.types import (
    Calibration,
    Certificate,
    ConfidenceMap,
    Decision,
    Figure,
    MapKind,
    Reliability,
    Risk,
    VennAbersTable,
)

__all__ = [
    "grounds_json",
    "noting_suspicions",
    "reliability_from_json",
    "reliability_to_json",
    "samples_json",
    "split_trust_json",
    "trust_json",
]

_GROUNDS = '"grounds":'
_FIGURES = (
    "brier_score",
    "raw_brier_score",
    "improvement",
    "calibration_error",
    "auroc",
)


def reliability_to_json(reliability: Reliability) -> str:
    """Return a reliability as JSON text."""
    return canonical_json(asdict(reliability))


def reliability_from_json(text: str) -> Reliability:
    """Return what `reliability_to_json` was made of."""
    document: dict[str, Any] = json.loads(text)
    calibration, interval = document["calibration"], document["interval"]
    return Reliability(
        labels=document["labels"],
        agreed=document["agreed"],
        calibration=None if calibration is None else _calibration(calibration),
        reason=document["reason"],
        interval=None
        if interval is None
        else VennAbersTable(**{name: tuple(v) for name, v in interval.items()}),
        risks=tuple(Risk(**risk) for risk in document["risks"]),
    )


def grounds_json(reliability: Reliability, certificate: Certificate | None) -> str:
    """Return what many evaluations have in common: the map's method and figures, the certificate."""
    grounds: dict[str, Any] = {"labels": reliability.labels}
    calibration = reliability.calibration
    if calibration is not None:
        figures = {name: asdict(getattr(calibration, name)) for name in _FIGURES}
        grounds["calibration"] = {"method": calibration.map.kind.value, **figures}
    if certificate is not None:
        grounds["certificate"] = asdict(certificate)
    return canonical_json(grounds)


def trust_json(
    grounds: str,
    *,
    calibrated: float | None,
    interval: tuple[float, float] | None,
    decision: Decision | None,
    reason: str,
) -> str:
    """Return what an evaluation keeps, with the text of `grounds_json` at its end.

    Args:
        grounds: What it rests on.
        calibrated: The mapped confidence; None without a map or a confidence.
        interval: Venn-Abers probabilities; None without labels or a confidence.
        decision: None if no target was asked for.
        reason: Why it was decided so.
    """
    own = {
        "calibrated": calibrated,
        "interval": interval,
        "decision": decision,
        "reason": reason,
    }
    return f"{canonical_json(own)[:-1]},{_GROUNDS}{grounds}}}"


def samples_json(samples: Samples) -> str:
    """Return what an evaluation keeps of several judgments, in the form of `trust_json`."""
    own = {
        "samples": {
            "values": samples.values,
            "verdicts": [verdict.value for verdict in samples.verdicts],
            "flip_rate": samples.flip_rate,
        }
    }
    return f'{canonical_json(own)[:-1]},{_GROUNDS}{{"labels":0}}}}'


def noting_suspicions(text: str | None, seen: Sequence[str]) -> str:
    """Return a `trust_json`, or a new one for None, with what seems to speak to the judge."""
    own = f'{{"suspicions":{canonical_json(list(seen))},'
    return own + (f'{_GROUNDS}{{"labels":0}}}}' if text is None else text[1:])


def split_trust_json(text: str) -> tuple[dict[str, Any], str]:
    """Return the own part of `trust_json`, and the text of its grounds."""
    # Within strings the quotes of the key would be escaped.
    own, _, rest = text.partition(f",{_GROUNDS}")
    document: dict[str, Any] = json.loads(f"{own}}}")
    return document, rest[:-1]


def _calibration(document: Mapping[str, Any]) -> Calibration:
    mapped = document["map"]
    return Calibration(
        map=ConfidenceMap(
            MapKind(mapped["kind"]), mapped["a"], mapped["b"], mapped["c"]
        ),
        **{name: Figure(**document[name]) for name in _FIGURES},
    )
