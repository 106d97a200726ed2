"""What is known of the confidence of each version with each model, kept up with the labels.

A version that is asked with another model is another judge: nothing is carried over.
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import structlog

from sidejudge_server.judges.registry import JudgeRegistry
from sidejudge_server.judges.requests import commit
from sidejudge_server.rounds import Rounds
from sidejudge_server.trust.codec import (
    grounds_json,
    reliability_from_json,
    reliability_to_json,
    trust_json,
)
from sidejudge_server.trust.types import (
    Certificate,
    Decision,
    Reliability,
    Target,
)
from sidejudge_storage import (
    Annotation,
    FeedbackRecord,
    LabelledAnswer,
    LabelledConfidence,
    ReliabilityRecord,
    Storage,
)
from sidejudge_storage.ids import new_id

if TYPE_CHECKING:
    from sidejudge_server.trust.consistency import JudgeConsistency
    from sidejudge_server.trust.report_types import JudgeReport

__all__ = ["Reliabilities"]

_log = structlog.get_logger(__name__)

_FIRST_LABELS = 20
"""Below, not even a judge without error can be certified for 90 % agreement."""
_GROWTH = 1.25
"""Labels are looked at again when there are a quarter more. A certificate is one test: looking after
every label would be many, each with its own chance to err."""
_MOST_LABELS = 2_000
_MOST_UNLABELLED = 2_000
_FEWEST_UNLABELLED = 100
_MOST_ANSWERS = 10_000
_MOST_TARGETS = 256

_Key = tuple[str, int, str]


@dataclass(slots=True)
class _Known:
    """A reliability, and what evaluations keep of it by target; made once."""

    reliability: Reliability
    grounds: dict[Target | None, str]
    certificates: dict[Target, Certificate] = field(default_factory=dict)


class Reliabilities:
    """Answers at once from memory; refits in the background. Belongs to one event loop."""

    def __init__(self, storage: Storage, judges: JudgeRegistry, *, model: str) -> None:
        """Take the model that judges answer with."""
        self._storage = storage
        self._judges = judges
        self._model = model
        self._known: dict[_Key, _Known] = {}
        self._unknown = _known(Reliability(0, 0, None, "", None, ()))
        # How many more corrections it takes before there can be enough labels to look at.
        self._missing: dict[str, int] = {}
        self._rounds = Rounds(self._follow)

    async def start(self) -> None:
        """Read what is known, and look at labels that came while nobody did."""
        for record in await self._storage.reliability.latest():
            key = record.judge_id, record.version, record.model
            self._known[key] = _known(reliability_from_json(record.fit_json))
        for judge_id in {key[0] for key in self._known}:
            self._rounds.look_at(judge_id)
        self._judges.on_deployed(self._deployed)
        self._rounds.start()

    async def close(self) -> None:
        """Stop; labels are looked at after the next start."""
        await self._rounds.close()

    async def drain(self) -> None:
        """Wait until all labels that were heard of are looked at."""
        await self._rounds.drain()

    def hear(self, records: Sequence[FeedbackRecord]) -> None:
        """Hear of feedback that is on disk."""
        for judge_id, count in Counter(r.judge_id for r in records).items():
            missing = self._missing.get(judge_id, 0) - count
            self._missing[judge_id] = missing
            if missing <= 0:
                self._rounds.look_at(judge_id)

    def _deployed(self, judge_id: str) -> None:
        self._missing[judge_id] = 0
        self._rounds.look_at(judge_id)

    @property
    def model(self) -> str:
        """The model that judges answer with."""
        return self._model

    def find(self, judge_id: str, version: int) -> Reliability | None:
        """Return what is known of a version with the model that serves; None without labels."""
        known = self._known.get((judge_id, version, self._model))
        return known.reliability if known is not None else None

    def calibrated(
        self, judge_id: str, version: int, confidence: float | None
    ) -> float | None:
        """Return a mapped confidence; None without one or without a map."""
        found = self.find(judge_id, version)
        if confidence is None or found is None or found.calibration is None:
            return None
        return found.calibration.map(confidence)

    async def report(
        self,
        judge_id: str,
        version: int,
        *,
        audit_only: bool,
        slice_key: str,
        epsilon: float,
    ) -> JudgeReport:
        """Put a version beside people; arguments as of `report.judge_report`.

        ``audit_only`` leaves out what people picked to label.
        """
        key = judge_id, version, self._model
        reader = self._storage.reliability
        answers = await reader.answers(*key, audit_only=audit_only, limit=_MOST_ANSWERS)
        annotations = await reader.annotations(*key, limit=_MOST_ANSWERS)
        return await asyncio.to_thread(
            _report, answers, annotations, slice_key=slice_key, epsilon=epsilon
        )

    async def consistency(self, judge_id: str, version: int) -> JudgeConsistency:
        """Return how far a version agrees with itself."""
        documents = await self._storage.reliability.samples(
            judge_id, version, self._model, limit=_MOST_LABELS
        )
        return await asyncio.to_thread(_consistency, documents)

    async def certificate(
        self, judge_id: str, version: int, target: Target
    ) -> Certificate:
        """Return the certificate of a version for a target."""
        known = self._known.get((judge_id, version, self._model), self._unknown)
        return await self._certified(known, target)

    async def assess(
        self,
        judge_id: str,
        version: int,
        confidence: float | None,
        target: Target | None,
        *,
        suspected: bool = False,
    ) -> str | None:
        """Return what an evaluation keeps of what is known of its answer.

        Args:
            judge_id: The judge.
            version: The version that answered, with the model that serves.
            confidence: Its raw confidence; an answer without one needs review.
            target: What accepted answers are to meet.
            suspected: Whether what was judged seems to speak to its judge: then a person is to look.

        Returns:
            `codec.trust_json`; None if nothing is known and no target was asked for.
        """
        known = self._known.get((judge_id, version, self._model))
        if known is None or confidence is None:
            if target is None:
                return None
            known = known or self._unknown
        decision, reason = None, ""
        if target is not None:
            certificate = await self._certified(known, target)
            decision, reason = _decide(certificate, confidence, suspected=suspected)
        reliability = known.reliability
        calibrated = interval = None
        if confidence is not None:
            if reliability.calibration is not None:
                calibrated = reliability.calibration.map(confidence)
            if reliability.interval is not None:
                interval = reliability.interval(confidence)
        return trust_json(
            known.grounds[target],
            calibrated=calibrated,
            interval=interval,
            decision=decision,
            reason=reason,
        )

    async def _certified(self, known: _Known, target: Target) -> Certificate:
        found = known.certificates.get(target)
        if found is None:
            found = await asyncio.to_thread(_certify, known.reliability, target)
            if len(known.certificates) >= _MOST_TARGETS:
                known.certificates.clear()
            known.certificates[target] = found
            known.grounds[target] = grounds_json(known.reliability, found)
        return found

    async def _follow(self, judge_id: str) -> None:
        """Refit the served version of a judge if it has enough new labels."""
        version = self._judges.get(judge_id).deployed_version
        key = judge_id, version, self._model
        known = self._known.get(key)
        labelled = await self._storage.reliability.labelled(*key, limit=_MOST_LABELS)
        seen = known.reliability.labels if known is not None else 0
        wanted = max(_FIRST_LABELS, math.ceil(_GROWTH * seen))
        if len(labelled) < min(wanted, _MOST_LABELS):
            self._missing[judge_id] = wanted - len(labelled)
            return
        self._missing[judge_id] = math.ceil((_GROWTH - 1) * len(labelled))
        others = await self._storage.reliability.confidences(
            *key, limit=_MOST_UNLABELLED
        )
        if len(others) < _FEWEST_UNLABELLED:
            others = []
        fitted = await asyncio.to_thread(_fit, labelled, others)
        await commit(
            self._storage,
            ReliabilityRecord(
                new_id(),
                *key,
                datetime.now(UTC),
                fitted.labels,
                reliability_to_json(fitted),
            ),
        )
        self._known[key] = _known(fitted)
        _log.info(
            "confidence refitted", judge=judge_id, version=version, labels=fitted.labels
        )


def _known(reliability: Reliability) -> _Known:
    return _Known(reliability, {None: grounds_json(reliability, None)})


def _decide(
    certificate: Certificate, confidence: float | None, *, suspected: bool
) -> tuple[Decision, str]:
    """Return what to do with an answer, and why."""
    if suspected:
        return Decision.NEEDS_REVIEW, (
            "what was judged seems to speak to its judge; let a person look, whatever the confidence"
        )
    if certificate.threshold is None:
        return Decision.NEEDS_REVIEW, certificate.reason
    if confidence is None:
        return Decision.NEEDS_REVIEW, (
            "the model gave no confidence, so nothing tells whether to trust the answer"
        )
    if confidence >= certificate.threshold:
        return Decision.ACCEPTED, certificate.reason
    return Decision.NEEDS_REVIEW, (
        f"a confidence of {confidence:.4g} is below the {certificate.threshold:.4g} from which"
        f" answers are accepted; let a person look. {certificate.reason}"
    )


# These import numpy and scipy, which takes a second, where labels are: not when the server starts.


def _report(
    answers: Sequence[LabelledAnswer],
    annotations: Sequence[Annotation],
    *,
    slice_key: str,
    epsilon: float,
) -> JudgeReport:
    from sidejudge_server.trust.report import judge_report

    return judge_report(answers, annotations, slice_key=slice_key, epsilon=epsilon)


def _consistency(documents: Sequence[str]) -> JudgeConsistency:
    from sidejudge_server.trust.consistency import consistency

    return consistency(documents)


def _certify(reliability: Reliability, target: Target) -> Certificate:
    from sidejudge_server.trust.certify import certify

    return certify(reliability, target)


def _fit(
    labelled: Sequence[LabelledConfidence], unlabelled: Sequence[float]
) -> Reliability:
    from sidejudge_server.trust.fit import Labelled, fit_reliability

    items = [
        Labelled(
            item.confidence,
            item.verdict == item.label,
            item.group_key or item.evaluation_id,
        )
        for item in labelled
    ]
    return fit_reliability(items, unlabelled)
