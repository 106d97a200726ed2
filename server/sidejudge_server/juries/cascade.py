"""Which member of a cascade may answer: each stage certified on what those before it pass on.

With M members each may fail its promise with probability delta / M, so that all keep it with
probability 1 - delta. A threshold that labels chose changes what reaches the next stage; so each stage
has labels of its own, split by group, and those before it are fixed when it is tested.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from sidejudge_server.juries.combining import accepts
from sidejudge_server.juries.types import Ballot, MemberAnswer
from sidejudge_server.trust.certify import certify, risks
from sidejudge_server.trust.types import Certificate, Reliability, Target

__all__ = ["accepting_stage", "certify_stages"]


def certify_stages(
    ballots: Sequence[Ballot],
    unlabelled: Sequence[Sequence[MemberAnswer]],
    target: Target,
    *,
    members: int,
) -> tuple[Certificate, ...]:
    """Return a certificate for each member, in order.

    Args:
        ballots: Labelled deliberations in which all members were asked, drawn by chance.
        unlabelled: Answers of all members to items without labels; they place the thresholds.
        target: Of all that the cascade accepts.
        members: How many there are.

    Each certificate says in ``labels`` how many reached its stage, and in ``coverage`` which share of
    what reaches it is accepted.
    """
    delta = (1 - target.assurance) / members
    of_stage = Target(target.agreement, 1 - delta)
    # These are for people whatever members say, so they reach no stage.
    ballots = [ballot for ballot in ballots if not _suspected(ballot.answers)]
    unlabelled = [answers for answers in unlabelled if not _suspected(answers)]
    found: list[Certificate] = []
    for stage in range(members):
        reach = [
            ballot
            for ballot in ballots
            if _stage_of(ballot.group, members) == stage
            and accepting_stage(ballot.answers, found) is None
            and ballot.answers[stage].confidence is not None
        ]
        others = [
            answers[stage].confidence
            for answers in unlabelled
            if accepting_stage(answers, found) is None
        ]
        sure = [_known(ballot.answers[stage].confidence) for ballot in reach]
        wrong = [int(not ballot.right(stage)) for ballot in reach]
        given = [confidence for confidence in others if confidence is not None]
        counted = risks(sure, wrong, given)
        agreed = len(wrong) - sum(wrong)
        reliability = Reliability(len(wrong), agreed, None, "", None, counted)
        found.append(certify(reliability, of_stage))
    return tuple(found)


def accepting_stage(
    answers: Sequence[MemberAnswer | None], certificates: Sequence[Certificate]
) -> int | None:
    """Return the first member whose answer is accepted; None if none is."""
    pairs = zip(answers, certificates, strict=False)
    return next((place for place, pair in enumerate(pairs) if accepts(*pair)), None)


def _suspected(answers: Sequence[MemberAnswer]) -> bool:
    return any(answer.suspected for answer in answers)


def _known(confidence: float | None) -> float:
    if confidence is None:
        raise ValueError("an answer without a confidence is never accepted")
    return confidence


def _stage_of(group: str, members: int) -> int:
    """Return which stage has the labels of a group; another hash than that of cross-validation."""
    digest = hashlib.sha256(b"stage\0" + group.encode("utf-8", "replace")).digest()
    return int.from_bytes(digest[:8], "big") % members
