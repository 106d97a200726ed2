"""What can be written: new rows, and the few changes of existing ones."""

from __future__ import annotations

from dataclasses import dataclass

from sidejudge_storage.quality_days import ReplaceQualityDays
from sidejudge_storage.records import (
    DeploymentRecord,
    EvaluationRecord,
    ExampleRecord,
    ExperimentAssignmentRecord,
    ExperimentEventRecord,
    ExperimentFailureRecord,
    ExperimentLabelRecord,
    ExperimentOutcomeRecord,
    ExperimentRecord,
    FeedbackRecord,
    GateUseRecord,
    JudgeRecord,
    JudgeVersionRecord,
    OptimizationEventRecord,
    OptimizationPolicyRecord,
    OptimizationRecord,
    RequestRecord,
    ShadowCandidateRecord,
    ShadowJudgmentRecord,
)
from sidejudge_storage.trust_records import (
    DeliberationRecord,
    JuryRecord,
    MonitorEventRecord,
    MonitorRecord,
    ReliabilityRecord,
    ReviewClaimRecord,
    ReviewItemRecord,
    ReviewReleaseRecord,
)

__all__ = [
    "Change",
    "Command",
    "Record",
    "RejectExample",
    "ReplaceExperiment",
    "ReplaceJudge",
    "ReplaceMonitor",
    "ReplaceOptimization",
    "ReplaceOptimizationPolicy",
    "ReplaceShadowCandidate",
]


@dataclass(frozen=True, slots=True)
class ReplaceJudge:
    """Replace a judge if its stored revision is ``expected_revision``."""

    record: JudgeRecord
    expected_revision: int


@dataclass(frozen=True, slots=True)
class ReplaceExperiment:
    """Replace an experiment if its stored revision is ``expected_revision``."""

    record: ExperimentRecord
    expected_revision: int


@dataclass(frozen=True, slots=True)
class ReplaceOptimization:
    """Replace an optimization, which must exist."""

    record: OptimizationRecord


@dataclass(frozen=True, slots=True)
class ReplaceOptimizationPolicy:
    """Replace a policy if its stored revision is ``expected_revision``."""

    record: OptimizationPolicyRecord
    expected_revision: int


@dataclass(frozen=True, slots=True)
class ReplaceMonitor:
    """Replace a monitor if its stored revision is ``expected_revision``."""

    record: MonitorRecord
    expected_revision: int


@dataclass(frozen=True, slots=True)
class ReplaceShadowCandidate:
    """Replace the candidate in shadow of an optimization, which must exist."""

    record: ShadowCandidateRecord


@dataclass(frozen=True, slots=True)
class RejectExample:
    """Take an example, which must exist, out of the training set.

    Its group keeps the side of the split it had, see ``ExampleReader.group_splits``.
    """

    example_id: str
    rejection: str
    detail: str


Record = (
    JudgeRecord
    | JudgeVersionRecord
    | DeploymentRecord
    | EvaluationRecord
    | FeedbackRecord
    | ExampleRecord
    | OptimizationRecord
    | OptimizationEventRecord
    | GateUseRecord
    | OptimizationPolicyRecord
    | ShadowCandidateRecord
    | ExperimentRecord
    | ExperimentEventRecord
    | ExperimentAssignmentRecord
    | ExperimentOutcomeRecord
    | ExperimentFailureRecord
    | ExperimentLabelRecord
    | ShadowJudgmentRecord
    | MonitorRecord
    | MonitorEventRecord
    | ReliabilityRecord
    | JuryRecord
    | DeliberationRecord
    | ReviewItemRecord
    | ReviewClaimRecord
    | ReviewReleaseRecord
    | RequestRecord
)
"""A new row."""

Change = (
    ReplaceJudge
    | ReplaceExperiment
    | ReplaceOptimization
    | ReplaceOptimizationPolicy
    | ReplaceShadowCandidate
    | ReplaceQualityDays
    | ReplaceMonitor
    | RejectExample
)
"""A change of an existing row."""

Command = Record | Change
"""One step of a write unit."""
