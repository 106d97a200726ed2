"""DuckDB storage of sidejudge: records, migrations, one writer, many readers."""

from sidejudge_storage.commands import (
    Command,
    RejectExample,
    ReplaceExperiment,
    ReplaceJudge,
    ReplaceOptimization,
    ReplaceOptimizationPolicy,
    ReplaceShadowCandidate,
)
from sidejudge_storage.database import RepairReport, StorageOptions
from sidejudge_storage.errors import (
    AcknowledgedRowsMissingError,
    CommitGap,
    DatabaseLockedError,
    DatabaseTooNewError,
    DuplicateKeyError,
    RevisionConflictError,
    RowMissingError,
    StorageError,
    WriteFailedError,
)
from sidejudge_storage.ids import new_id
from sidejudge_storage.readers.enrolments import Enrolled, EnrolmentReader
from sidejudge_storage.readers.evaluations import (
    EvaluationFilter,
    EvaluationKey,
    EvaluationReader,
)
from sidejudge_storage.readers.examples import (
    ExampleFilter,
    ExampleReader,
    NewExamples,
)
from sidejudge_storage.readers.experiment_statistics import (
    FALSE_POSITIVE_VALUE,
    QUALITY_VALUE,
    ArmCalls,
    ExperimentStatisticsReader,
    JudgedSums,
    LabelRate,
    MetricStatistics,
    StageCounts,
    UnitMoments,
)
from sidejudge_storage.readers.experiments import (
    ExperimentFilter,
    ExperimentReader,
)
from sidejudge_storage.readers.feedback import FeedbackFilter, FeedbackReader
from sidejudge_storage.readers.gate_uses import GateUseReader
from sidejudge_storage.readers.judges import JudgeReader
from sidejudge_storage.readers.optimizations import (
    OptimizationFilter,
    OptimizationReader,
)
from sidejudge_storage.readers.policies import OptimizationPolicyReader
from sidejudge_storage.readers.requests import RequestReader
from sidejudge_storage.readers.shadow_candidates import ShadowCandidateReader
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
from sidejudge_storage.storage import Storage

__all__ = [
    "FALSE_POSITIVE_VALUE",
    "QUALITY_VALUE",
    "AcknowledgedRowsMissingError",
    "ArmCalls",
    "Command",
    "CommitGap",
    "DatabaseLockedError",
    "DatabaseTooNewError",
    "DeploymentRecord",
    "DuplicateKeyError",
    "Enrolled",
    "EnrolmentReader",
    "EvaluationFilter",
    "EvaluationKey",
    "EvaluationReader",
    "EvaluationRecord",
    "ExampleFilter",
    "ExampleReader",
    "ExampleRecord",
    "ExperimentAssignmentRecord",
    "ExperimentEventRecord",
    "ExperimentFailureRecord",
    "ExperimentFilter",
    "ExperimentLabelRecord",
    "ExperimentOutcomeRecord",
    "ExperimentReader",
    "ExperimentRecord",
    "ExperimentStatisticsReader",
    "FeedbackFilter",
    "FeedbackReader",
    "FeedbackRecord",
    "GateUseReader",
    "GateUseRecord",
    "JudgeReader",
    "JudgeRecord",
    "JudgeVersionRecord",
    "JudgedSums",
    "LabelRate",
    "MetricStatistics",
    "NewExamples",
    "OptimizationEventRecord",
    "OptimizationFilter",
    "OptimizationPolicyReader",
    "OptimizationPolicyRecord",
    "OptimizationReader",
    "OptimizationRecord",
    "RejectExample",
    "RepairReport",
    "ReplaceExperiment",
    "ReplaceJudge",
    "ReplaceOptimization",
    "ReplaceOptimizationPolicy",
    "ReplaceShadowCandidate",
    "RequestReader",
    "RequestRecord",
    "RevisionConflictError",
    "RowMissingError",
    "ShadowCandidateReader",
    "ShadowCandidateRecord",
    "ShadowJudgmentRecord",
    "StageCounts",
    "Storage",
    "StorageError",
    "StorageOptions",
    "UnitMoments",
    "WriteFailedError",
    "new_id",
]
