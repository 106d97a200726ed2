"""What a jury says, of what its members said."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from sidejudge_server.judges.types import Verdict
from sidejudge_server.juries.asking import Asked
from sidejudge_server.juries.combining import accepts, combine
from sidejudge_server.juries.types import (
    Deliberation,
    Jury,
    JuryMode,
    Weights,
)
from sidejudge_server.trust.types import Certificate, Decision

__all__ = ["of_cascade", "of_jury"]


def of_jury(
    jury: Jury,
    asked: Asked,
    weights: Weights,
    deliberation_id: str,
    audit_probability: float | None,
) -> Deliberation:
    """Return the answer of all members together."""
    answers = [answer for answer in asked.answers if answer is not None]
    found = combine(answers, weights.values, jury.mode, binary=jury.binary)
    return Deliberation(
        deliberation_id=deliberation_id,
        jury_id=jury.jury_id,
        created_at=datetime.now(UTC),
        answers=asked.answers,
        weights=weights.values,
        weights_learned=weights.learned,
        verdict=found.verdict,
        confidence=found.confidence,
        score=found.score,
        disagreement=found.disagreement,
        reasoning=_reasons_for(found.verdict, asked, weights.values),
        audit_probability=audit_probability,
    )


def of_cascade(
    jury: Jury,
    asked: Asked,
    certificates: Sequence[Certificate],
    deliberation_id: str,
    audit_probability: float | None,
) -> Deliberation:
    """Return the answer of the first member that is accepted, else of the last one asked."""
    places = [place for place, answer in enumerate(asked.answers) if answer is not None]
    suspected = any(answer.suspected for answer in asked.answers if answer is not None)
    accepted = next(
        (p for p in places if accepts(asked.answers[p], certificates[p])), None
    )
    chosen = places[-1] if accepted is None or suspected else accepted
    answer = asked.answers[chosen]
    if answer is None:
        raise AssertionError("a member that was asked has answered")
    reason = certificates[chosen].reason
    if suspected:
        reason = "what was judged seems to speak to its judge; let a person look, whatever the confidence"
    elif accepted is None:
        reason = f"no member is sure enough; let a person look. {reason}"
    verdicts = [a for a in asked.answers if a is not None]
    equal = (1 / len(verdicts),) * len(verdicts)
    combined = combine(verdicts, equal, JuryMode.VOTE, binary=jury.binary)
    return Deliberation(
        deliberation_id=deliberation_id,
        jury_id=jury.jury_id,
        created_at=datetime.now(UTC),
        answers=asked.answers,
        weights=tuple(float(p == chosen) for p in range(len(asked.answers))),
        weights_learned=False,
        verdict=answer.verdict,
        confidence=answer.confidence,
        score=None,
        disagreement=combined.disagreement,
        reasoning=asked.reasons[chosen],
        audit_probability=audit_probability,
        decision=Decision.NEEDS_REVIEW
        if accepted is None or suspected
        else Decision.ACCEPTED,
        certificate=certificates[chosen],
        reason=reason,
    )


def _reasons_for(
    verdict: Verdict | None, asked: Asked, weights: Sequence[float]
) -> str:
    """Return the reasons of the weightiest member that gave this answer; any for scores."""
    order = sorted(range(len(weights)), key=lambda place: -weights[place])
    for place in order:
        answer = asked.answers[place]
        if answer is not None and (verdict is None or answer.verdict is verdict):
            return asked.reasons[place]
    return ""
