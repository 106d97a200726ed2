"""Records around trust: monitors, what labels say of confidences, juries, and the review queue."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

__all__ = [
    "DeliberationRecord",
    "JuryRecord",
    "MonitorEventRecord",
    "MonitorRecord",
    "ReliabilityRecord",
    "ReviewClaimRecord",
    "ReviewItemRecord",
    "ReviewReleaseRecord",
]


@dataclass(frozen=True, slots=True)
class MonitorRecord:
    """How a judge is watched, and what is known. ``revision`` counts all changes from 1.

    ``settings_json`` is what people set; ``state_json`` belongs to `monitoring.state`.
    """

    judge_id: str
    settings_json: str
    settings_revision: int
    state_json: str
    revision: int
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class MonitorEventRecord:
    """Something that a monitor did; ``sequence`` counts from 1 without gaps within the judge."""

    judge_id: str
    sequence: int
    created_at: datetime
    kind: str
    version: int
    reason: str


@dataclass(frozen=True, slots=True)
class ReliabilityRecord:
    """What audit labels say of a version's confidence with one model; the newest one counts.

    ``labels`` is how many there were, ``fit_json`` belongs to `trust.codec` of the server.
    """

    reliability_id: str
    judge_id: str
    version: int
    model: str
    created_at: datetime
    labels: int
    fit_json: str


@dataclass(frozen=True, slots=True)
class ReviewItemRecord:
    """An evaluation that a round of the review queue has considered: there is one draw for each, for ever.

    ``stream`` is uniform (audit items), ranked, or labelled for those that had a label before, whose
    ``inclusion_probability`` is 1. ``drawn`` says whether it is in the queue and ``place`` where in its
    round, None for those that are not. ``reasons`` are words with commas between them.
    """

    evaluation_id: str
    judge_id: str
    version: int
    round_number: int
    stream: str
    drawn: bool
    place: int | None
    inclusion_probability: float
    worth: float
    reasons: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class ReviewClaimRecord:
    """That an item is kept for an annotator; of one item and annotator the newest row counts."""

    claim_id: str
    evaluation_id: str
    judge_id: str
    annotator: str
    created_at: datetime
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class ReviewReleaseRecord:
    """That a claim was given up before it expired."""

    claim_id: str
    judge_id: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class JuryRecord:
    """Judges that answer together. Never changes; ``members_json`` belongs to `juries.codec`."""

    jury_id: str
    display_name: str
    mode: str
    members_json: str
    audit_share: float
    created_at: datetime


@dataclass(frozen=True, slots=True)
class DeliberationRecord:
    """What a jury said of an item.

    ``evaluations_json`` is a list of the ids of its members' evaluations, ``complete`` says that all
    of them were asked, ``audit_probability`` is set if it was chosen by chance for people to label,
    and ``answer_json`` belongs to `juries.codec`.
    """

    deliberation_id: str
    jury_id: str
    created_at: datetime
    group_key: str
    evaluations_json: str
    complete: bool
    audit_probability: float | None
    answer_json: str
