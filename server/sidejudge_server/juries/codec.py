"""Juries and what they said, between records and domain."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from sidejudge_server.judges.codec import canonical_json
from sidejudge_server.judges.types import Verdict
from sidejudge_server.juries.types import (
    Ballot,
    Deliberation,
    Jury,
    JuryMode,
    Member,
    MemberAnswer,
)
from sidejudge_server.trust.types import Certificate, Decision, Target
from sidejudge_storage import DeliberationRecord, JuryRecord, LabelledDeliberation

__all__ = [
    "answers_from_json",
    "ballot_of",
    "deliberation_of",
    "deliberation_record",
    "jury_of",
    "jury_record",
]


def jury_record(jury: Jury) -> JuryRecord:
    """Return a jury as a row."""
    document = {
        "members": [asdict(member) for member in jury.members],
        "scores": jury.scores,
        "binary": jury.binary,
    }
    return JuryRecord(
        jury.jury_id,
        jury.display_name,
        jury.mode.value,
        canonical_json(document),
        jury.audit_share,
        jury.created_at,
    )


def jury_of(record: JuryRecord) -> Jury:
    """Return the jury of a row."""
    document = json.loads(record.members_json)
    return Jury(
        jury_id=record.jury_id,
        display_name=record.display_name,
        mode=JuryMode(record.mode),
        members=tuple(Member(**member) for member in document["members"]),
        audit_share=record.audit_share,
        scores=document["scores"],
        binary=document["binary"],
        created_at=record.created_at,
    )


def deliberation_record(said: Deliberation, *, group: str) -> DeliberationRecord:
    """Return a deliberation as a row."""
    asked = [answer for answer in said.answers if answer is not None]
    document = {
        "answers": [
            None if answer is None else asdict(answer) for answer in said.answers
        ],
        "weights": said.weights,
        "weights_learned": said.weights_learned,
        "verdict": said.verdict,
        "confidence": said.confidence,
        "score": said.score,
        "disagreement": said.disagreement,
        "reasoning": said.reasoning,
        "decision": said.decision,
        "certificate": None if said.certificate is None else asdict(said.certificate),
        "reason": said.reason,
    }
    return DeliberationRecord(
        said.deliberation_id,
        said.jury_id,
        said.created_at,
        group,
        canonical_json([answer.evaluation_id for answer in asked]),
        complete=len(asked) == len(said.answers),
        audit_probability=said.audit_probability,
        answer_json=canonical_json(document),
    )


def deliberation_of(record: DeliberationRecord) -> Deliberation:
    """Return the deliberation of a row."""
    document = json.loads(record.answer_json)
    decision, certificate = document["decision"], document["certificate"]
    return Deliberation(
        deliberation_id=record.deliberation_id,
        jury_id=record.jury_id,
        created_at=record.created_at,
        answers=tuple(map(_answer, document["answers"])),
        weights=tuple(document["weights"]),
        weights_learned=document["weights_learned"],
        verdict=_verdict(document["verdict"]),
        confidence=document["confidence"],
        score=document["score"],
        disagreement=document["disagreement"],
        reasoning=document["reasoning"],
        audit_probability=record.audit_probability,
        decision=None if decision is None else Decision(decision),
        certificate=None if certificate is None else _certificate(certificate),
        reason=document["reason"],
    )


def answers_from_json(text: str) -> tuple[MemberAnswer, ...]:
    """Return the answers of the members that were asked, of an ``answer_json``."""
    found = map(_answer, json.loads(text)["answers"])
    return tuple(answer for answer in found if answer is not None)


def ballot_of(row: LabelledDeliberation) -> Ballot:
    """Return a labelled deliberation; one without a group is a group of its own."""
    return Ballot(
        answers_from_json(row.answer_json),
        _verdict(row.verdict),
        row.score,
        row.group_key or row.deliberation_id,
    )


def _answer(document: Mapping[str, Any] | None) -> MemberAnswer | None:
    if document is None:
        return None
    return MemberAnswer(**{**document, "verdict": _verdict(document["verdict"])})


def _verdict(text: str | None) -> Verdict | None:
    return None if text is None else Verdict(text)


def _certificate(document: Mapping[str, Any]) -> Certificate:
    return Certificate(**{**document, "target": Target(**document["target"])})
