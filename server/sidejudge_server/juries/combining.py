"""One answer of several: weighted votes or means. Light: no numpy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from sidejudge_server.judges.samples import flip_rate
from sidejudge_server.judges.types import Verdict
from sidejudge_server.juries.types import JuryMode, MemberAnswer, Verdicts
from sidejudge_server.trust.types import Certificate

__all__ = ["Combined", "accepts", "combine", "shares_of"]

_WORST_FIRST = (Verdict.FAIL, Verdict.PARTIAL, Verdict.PASS)


@dataclass(frozen=True, slots=True)
class Combined:
    """An answer; see the fields of the same names of `types.Deliberation`."""

    verdict: Verdict | None
    confidence: float | None
    score: float | None
    disagreement: float | None


def shares_of(answer: MemberAnswer, mode: JuryMode, *, binary: bool) -> Verdicts:
    """Return what a member gives to each verdict: all to one in a vote, else its probabilities."""
    if mode is JuryMode.VOTE:
        return {verdict: float(verdict is answer.verdict) for verdict in Verdict}
    return answer.shares(binary=binary)


def combine(
    answers: Sequence[MemberAnswer],
    weights: Sequence[float],
    mode: JuryMode,
    *,
    binary: bool,
) -> Combined:
    """Combine answers of at least one member.

    Args:
        answers: All with a verdict, or all with a score.
        weights: Of the same members; they add up to 1.
        mode: Vote or average. The verdict with the largest sum wins, ties go to the worse one.
        binary: Whether no member answers partial.
    """
    scores = [answer.score for answer in answers if answer.score is not None]
    if scores:
        mean = sum(w * s for w, s in zip(weights, scores, strict=True))
        return Combined(None, None, min(1.0, max(0.0, mean)), _spread(scores))
    votes = [shares_of(answer, mode, binary=binary) for answer in answers]
    sums = {
        verdict: sum(w * vote[verdict] for w, vote in zip(weights, votes, strict=True))
        for verdict in _WORST_FIRST
    }
    verdict = max(_WORST_FIRST, key=lambda label: sums[label])
    # Also after a vote the members' own probabilities count: a narrow yes of all is no sure yes.
    shares = [answer.shares(binary=binary) for answer in answers]
    confidence = sum(w * s[verdict] for w, s in zip(weights, shares, strict=True))
    verdicts = [answer.verdict for answer in answers if answer.verdict is not None]
    disagreement = flip_rate(verdicts) if len(verdicts) > 1 else None
    return Combined(verdict, min(1.0, confidence), None, disagreement)


def accepts(answer: MemberAnswer | None, certificate: Certificate) -> bool:
    """Return whether an answer may be used; what seems to speak to its judge is for people."""
    return (
        answer is not None
        and not answer.suspected
        and answer.confidence is not None
        and certificate.threshold is not None
        and answer.confidence >= certificate.threshold
    )


def _spread(scores: Sequence[float]) -> float | None:
    """Return the standard deviation (n - 1); None of one score."""
    if len(scores) < 2:  # noqa: PLR2004 - one has no spread
        return None
    mean = sum(scores) / len(scores)
    return math.sqrt(sum((s - mean) ** 2 for s in scores) / (len(scores) - 1))
