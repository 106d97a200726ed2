"""What is known of a confidence, between protobuf and records."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any, Final

from sidejudge.v1 import evaluation_pb2
from sidejudge_server.api.convert_common import verdict_value
from sidejudge_server.api.validate import Checker
from sidejudge_server.judges.types import Samples, Verdict
from sidejudge_server.trust.codec import grounds_json, split_trust_json
from sidejudge_server.trust.types import (
    Certificate,
    Decision,
    Figure,
    MapKind,
    Reliability,
    Target,
)
from sidejudge_storage.records import EvaluationRecord

__all__ = [
    "add_trust",
    "calibration_message",
    "certificate_message",
    "decision_value",
    "figure_message",
    "selection_target",
]

DEFAULT_ASSURANCE: Final = 0.9

_Calibration = evaluation_pb2.ConfidenceCalibration
_Result = evaluation_pb2.SelectionResult
_METHODS: Final = {
    MapKind.TEMPERATURE: _Calibration.METHOD_TEMPERATURE,
    MapKind.PLATT: _Calibration.METHOD_PLATT,
    MapKind.BETA: _Calibration.METHOD_BETA,
}
_DECISIONS: Final = {
    Decision.ACCEPTED: _Result.DECISION_ACCEPTED,
    Decision.NEEDS_REVIEW: _Result.DECISION_NEEDS_REVIEW,
}
_FIGURES: Final = {
    "brier_score": "brier_score",
    "raw_brier_score": "raw_brier_score",
    "improvement": "brier_improvement",
    "calibration_error": "calibration_error",
    "auroc": "auroc",
}
"""Field of the message by name in a document."""


def selection_target(
    checker: Checker, field: str, selection: evaluation_pb2.Selection
) -> Target:
    """Read a target."""
    assurance = selection.assurance or DEFAULT_ASSURANCE
    for name, value in (
        ("target_agreement", selection.target_agreement),
        ("assurance", assurance),
    ):
        if not 0.5 < value < 1:  # noqa: PLR2004 - the range of the contract; refuses NaN too
            checker.add(f"{field}.{name}", "must be above 0.5 and below 1")
    return Target(selection.target_agreement, assurance)


def calibration_message(reliability: Reliability | None) -> _Calibration:
    """Return what is known of a version's confidence."""
    if reliability is None:
        return _Calibration(
            reason="fewer than 20 audit labels of this version with this model have come;"
            " label what ListAuditItems shows"
        )
    message = _Calibration()
    message.CopyFrom(_grounds(grounds_json(reliability, None)).calibration)
    message.reason = reliability.reason
    return message


def certificate_message(certificate: Certificate) -> _Result:
    """Return a certificate."""
    return _certificate(asdict(certificate))


def decision_value(
    decision: Decision,
) -> evaluation_pb2.SelectionResult.Decision.ValueType:
    """Return the enum value of a decision."""
    return _DECISIONS[decision]


def figure_message(figure: Figure | None) -> evaluation_pb2.LabelledFigure | None:
    """Return a figure; None for None."""
    return None if figure is None else evaluation_pb2.LabelledFigure(**asdict(figure))


def add_trust(message: evaluation_pb2.Evaluation, record: EvaluationRecord) -> None:
    """Put what was known of an answer's confidence into its message."""
    if record.trust_json is None:
        return
    own, text = split_trust_json(record.trust_json)
    message.injection_reasons.extend(own.get("suspicions", ()))
    message.injection_suspected = bool(message.injection_reasons)
    if "samples" in own:
        message.consistency.CopyFrom(_consistency(own["samples"]))
        return
    grounds = _grounds(text)
    if own.get("calibrated") is not None:
        message.calibrated_confidence = own["calibrated"]
    if grounds.calibration.labels:
        message.calibration.CopyFrom(grounds.calibration)
        if own.get("interval") is not None:
            low, high = own["interval"]
            message.calibration.low_confidence = low
            message.calibration.high_confidence = high
    if own.get("decision") is not None:
        message.selection.CopyFrom(grounds.certificate)
        message.selection.decision = _DECISIONS[Decision(own["decision"])]
        message.selection.reason = own["reason"]


def _consistency(document: Mapping[str, Any]) -> evaluation_pb2.Consistency:
    verdicts = tuple(Verdict(text) for text in document["verdicts"])
    samples = Samples(tuple(document["values"]), verdicts, document["flip_rate"])
    return evaluation_pb2.Consistency(
        n_samples=len(samples.values),
        mean=samples.mean,
        stddev=samples.stddev,
        flip_rate=samples.flip_rate,
        values=samples.values,
        verdicts=[verdict_value(verdict) for verdict in verdicts],
    )


@dataclass(frozen=True, slots=True)
class _Grounds:
    """Messages that many evaluations have in common; to be copied, not changed."""

    calibration: _Calibration
    certificate: _Result


@lru_cache(maxsize=256)
def _grounds(text: str) -> _Grounds:
    document = json.loads(text)
    certificate = document.get("certificate")
    return _Grounds(
        _calibration(document.get("calibration", {}), document["labels"]),
        _Result() if certificate is None else _certificate(certificate),
    )


def _calibration(document: Mapping[str, Any], labels: int) -> _Calibration:
    message = _Calibration(labels=labels)
    if document:
        message.method = _METHODS[MapKind(document["method"])]
        for name, field in _FIGURES.items():
            # Ends that are not known stay unset.
            figure = evaluation_pb2.LabelledFigure(**document[name])
            getattr(message, field).CopyFrom(figure)
    return message


def _certificate(document: Mapping[str, Any]) -> _Result:
    return _Result(
        target_agreement=document["target"]["agreement"],
        assurance=document["target"]["assurance"],
        threshold=document["threshold"],
        coverage=document["coverage"],
        audit_labels=document["labels"],
        accepted_labels=document["accepted"],
        accepted_errors=document["errors"],
        labels_missing=document["labels_missing"],
        reason=document["reason"],
    )
