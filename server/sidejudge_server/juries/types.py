"""The nouns of juries. Pure data, no I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from sidejudge_server.judges.decision import stated_probabilities
from sidejudge_server.judges.types import JudgeInput, Verdict
from sidejudge_server.trust.types import Certificate, Decision, Figure, Target

__all__ = [
    "Ballot",
    "Compared",
    "Comparison",
    "DeliberateCommand",
    "Deliberation",
    "Jury",
    "JuryMode",
    "Member",
    "MemberAnswer",
    "Verdicts",
    "Weights",
]


class JuryMode(StrEnum):
    """How the answers of members become one."""

    VOTE = "vote"
    AVERAGE = "average"
    CASCADE = "cascade"


@dataclass(frozen=True, slots=True)
class Member:
    """A judge version with a model; "" for the model that serves."""

    judge_id: str
    version: int
    model: str = ""


@dataclass(frozen=True, slots=True)
class Jury:
    """Members in order; a cascade asks them in it. Never changes.

    ``scores`` says that members answer scores, ``binary`` that none of them answers partial.
    ``audit_share`` is the probability with which a deliberation is for people to label.
    """

    jury_id: str
    display_name: str
    mode: JuryMode
    members: tuple[Member, ...]
    audit_share: float
    scores: bool
    binary: bool
    created_at: datetime


@dataclass(frozen=True, slots=True)
class MemberAnswer:
    """What one member said: a verdict with its confidence, or a score.

    ``suspected`` says that what was judged seems to speak to its judge.
    """

    evaluation_id: str
    verdict: Verdict | None
    confidence: float | None
    score: float | None
    suspected: bool = False

    def shares(self, *, binary: bool) -> Verdicts:
        """Return its probabilities of the verdicts; a bare verdict is certain."""
        if self.verdict is None:
            raise ValueError("a score has no verdict")
        if self.confidence is None:
            return {verdict: float(verdict is self.verdict) for verdict in Verdict}
        p = stated_probabilities(self.verdict, self.confidence, binary=binary)
        return {
            Verdict.PASS: p.passed,
            Verdict.PARTIAL: p.partial,
            Verdict.FAIL: p.failed,
        }


Verdicts = Mapping[Verdict, float]
"""A number of each verdict."""


@dataclass(frozen=True, slots=True)
class Ballot:
    """A deliberation in which all members answered, and what people say: a verdict or a score.

    Ballots of one ``group`` are never on both sides of a split.
    """

    answers: tuple[MemberAnswer, ...]
    verdict: Verdict | None
    score: float | None
    group: str

    def right(self, place: int) -> bool:
        """Return whether a member's verdict is that of people."""
        return self.answers[place].verdict is self.verdict


@dataclass(frozen=True, slots=True)
class Weights:
    """What each member counts; they add up to 1.

    Attributes:
        values: In the order of members.
        learned: Whether they come from labels; else all are equal.
        labels: How many labelled deliberations there were.
        reason: Why they are equal, "" if learned.
    """

    values: tuple[float, ...]
    learned: bool
    labels: int
    reason: str


@dataclass(frozen=True, slots=True)
class Compared:
    """How one way to answer agrees with people, on labels that it was not fitted to.

    ``agreement`` is the share of the same verdicts, or 1 minus the mean distance of scores;
    ``difference`` is by how much it is higher than that of the best single member, on the same items.
    """

    name: str
    agreement: Figure
    difference: Figure | None


@dataclass(frozen=True, slots=True)
class Comparison:
    """Members and juries beside each other; no rows where labels cannot say, and why."""

    labels: int
    rows: tuple[Compared, ...]
    reason: str


@dataclass(frozen=True, slots=True)
class DeliberateCommand:
    """One item for a jury; fields as of `judges.service.EvaluateCommand`."""

    jury_id: str
    input: JudgeInput
    explain: bool = True
    subject: str = ""
    group: str = ""
    labels: Mapping[str, str] | None = None
    request_id: str = ""
    timeout_s: float | None = None
    target: Target | None = None


@dataclass(frozen=True, slots=True)
class Deliberation:
    """What a jury said.

    Attributes:
        deliberation_id: Sorts by time.
        jury_id: The jury.
        created_at: When.
        answers: Of the members, None for those that a cascade did not ask.
        weights: What each member counted; 1 for the one whose answer a cascade takes.
        weights_learned: Whether labels decided them.
        verdict: The answer of judges that answer verdicts.
        confidence: Mean probability of that verdict over the members, by weight: it falls when
            members disagree. That of the one member in a cascade.
        score: The answer of judges that answer scores.
        disagreement: Probability that two of the members that were asked differ in verdict, or the
            standard deviation of their scores; None if only one was asked.
        reasoning: Of the weightiest member with this answer.
        audit_probability: Set if it was chosen by chance for people to label.
        decision: In a cascade, whether it may be used unseen.
        certificate: What that rests on: of the member that is accepted, else of the last one asked.
        reason: The same in words.
    """

    deliberation_id: str
    jury_id: str
    created_at: datetime
    answers: tuple[MemberAnswer | None, ...]
    weights: tuple[float, ...]
    weights_learned: bool
    verdict: Verdict | None
    confidence: float | None
    score: float | None
    disagreement: float | None
    reasoning: str
    audit_probability: float | None
    decision: Decision | None = None
    certificate: Certificate | None = None
    reason: str = ""
