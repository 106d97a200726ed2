"""Plain rows of the database, as the rest of sidejudge sees them.

Times are timezone-aware UTC datetimes. Fields named ``*_json`` hold canonical JSON text;
storage never looks inside. Judge, evaluation, feedback, example and optimization ids are the
last segment of the resource name (``evaluations/{id}``), without the collection.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

__all__ = [
    "DeploymentRecord",
    "EvaluationRecord",
    "ExampleRecord",
    "ExperimentAssignmentRecord",
    "ExperimentEventRecord",
    "ExperimentFailureRecord",
    "ExperimentLabelRecord",
    "ExperimentOutcomeRecord",
    "ExperimentRecord",
    "FeedbackRecord",
    "GateUseRecord",
    "JudgeRecord",
    "JudgeVersionRecord",
    "OptimizationEventRecord",
    "OptimizationPolicyRecord",
    "OptimizationRecord",
    "RequestRecord",
    "ShadowCandidateRecord",
    "ShadowJudgmentRecord",
]


@dataclass(frozen=True, slots=True)
class JudgeRecord:
    """A judge. ``revision`` counts updates from 1 and is what an etag stands for."""

    judge_id: str
    kind: str
    display_name: str
    description: str
    spec_json: str
    labels_json: str
    deployed_version: int
    built_in: bool
    deleted: bool
    revision: int
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class JudgeVersionRecord:
    """An immutable judge version; ``program_json`` holds instructions, demonstrations and maps."""

    judge_id: str
    version: int
    program_json: str
    origin: str
    parent_version: int | None
    optimization_id: str | None
    data_digest: str | None
    model: str | None
    metrics_json: str
    created_at: datetime
    lineage_json: str = "{}"


@dataclass(frozen=True, slots=True)
class DeploymentRecord:
    """One line of a judge's deployment history; ``verb`` is create, deploy, rollback, gate or experiment."""

    judge_id: str
    sequence: int
    version: int
    previous_version: int | None
    verb: str
    author: str
    reason: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class EvaluationRecord:
    """One judged item. ``score`` xor ``verdict`` is set; probabilities are None without logprobs.

    ``influences_json`` is None unless a version with a memory answered. ``arm_id`` is the arm of the
    experiment that it counts for and ``stage`` the stage of its rollout, both None outside of one.
    ``audit_probability`` is set on those that were chosen by chance for people to label.
    ``trust_json`` says what was known of the confidence then, and whether to trust the answer; it belongs
    to `trust.codec` of the server.
    """

    evaluation_id: str
    judge_id: str
    version: int
    created_at: datetime
    input_json: str
    verdict: str | None
    score: float | None
    confidence: float | None
    confidence_source: str
    p_pass: float | None
    p_partial: float | None
    p_fail: float | None
    score_stddev: float | None
    reasoning: str
    suggestions_json: str
    criterion_scores_json: str
    model: str
    input_tokens: int
    cached_input_tokens: int
    output_tokens: int
    lm_calls: int
    cost_usd: float | None
    lm_latency_ms: float
    subject: str
    group_key: str
    labels_json: str
    influences_json: str | None = None
    experiment_id: str | None = None
    arm_id: str | None = None
    stage: int | None = None
    audit_probability: float | None = None
    trust_json: str | None = None


@dataclass(frozen=True, slots=True)
class FeedbackRecord:
    """A correction. ``verdict`` xor ``score`` is set; ``source`` is expert, user or downstream."""

    feedback_id: str
    evaluation_id: str
    judge_id: str
    created_at: datetime
    source: str
    author: str
    verdict: str | None
    score: float | None
    comment: str


@dataclass(frozen=True, slots=True)
class ExampleRecord:
    """A training example, accepted (``rejection`` is None) or not.

    ``content_digest`` is the SHA-256 of the canonical inputs; ``split`` is train, validation or
    test and None when rejected; ``judged_*`` is what the judge had answered, if it had.
    """

    example_id: str
    judge_id: str
    created_at: datetime
    origin: str
    source: str
    author: str
    evaluation_id: str | None
    feedback_id: str | None
    group_key: str
    content_digest: str
    split: str | None
    input_json: str
    verdict: str | None
    score: float | None
    rationale: str
    judged_verdict: str | None
    judged_score: float | None
    rejection: str | None
    rejection_detail: str


@dataclass(frozen=True, slots=True)
class OptimizationRecord:
    """A run; its JSON columns are opaque here.

    ``outcome``, ``stop_reason`` and ``summary`` are "" until it has ended, ``trigger_source`` is
    caller or policy, and ``resume_count`` says how often it went on after an interruption.
    """

    optimization_id: str
    judge_id: str
    state: str
    phase: str
    config_json: str
    deploy_if_better: bool
    baseline_version: int
    candidate_version: int | None
    decision_json: str | None
    error_json: str | None
    progress_json: str
    dataset_json: str
    task_model: str
    prompt_model: str
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    budget_json: str = "{}"
    estimate_json: str | None = None
    outcome: str = ""
    stop_reason: str = ""
    summary: str = ""
    trigger_source: str = "caller"
    trigger_reason: str = ""
    resume_count: int = 0


@dataclass(frozen=True, slots=True)
class OptimizationEventRecord:
    """One event of a run; ``sequence`` counts from 1 without gaps within the run."""

    optimization_id: str
    sequence: int
    created_at: datetime
    kind: str
    payload_json: str


@dataclass(frozen=True, slots=True)
class GateUseRecord:
    """One look of a run's gate at a judge's held-out examples.

    ``use_number`` counts uses of the same examples from 1, ``examples_json`` holds what tells the
    examples apart and ``examples_digest`` is its SHA-256; ``alpha`` is the bar of ``p_value``, which
    is None if it could not be told.
    """

    judge_id: str
    optimization_id: str
    use_number: int
    examples_digest: str
    examples_json: str
    alpha: float
    p_value: float | None
    outcome: str
    wins: int
    losses: int
    pair_count: int
    created_at: datetime


@dataclass(frozen=True, slots=True)
class OptimizationPolicyRecord:
    """When a judge is optimized by itself. ``revision`` counts changes from 1.

    What it has started is read from the optimizations with ``trigger_source`` policy.
    """

    judge_id: str
    enabled: bool
    min_new_examples: int
    min_disagreements: int
    cool_down_s: float
    daily_budget_json: str
    config_json: str
    deploy_if_better: bool
    paused: bool
    pause_reason: str
    revision: int
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class ShadowCandidateRecord:
    """A version that has to prove itself on later corrections.

    ``wins``, ``losses`` and ``pairs`` are of all pairs, ``gate_pairs`` of which the gate had seen;
    ``sums_json`` is what more the evidence of scores needs, None for verdicts. ``state`` is active,
    deployed, proven or dropped. Only examples with ids after ``start_id`` count;
    ``last_example_id`` is the last one that did.
    """

    judge_id: str
    optimization_id: str
    version: int
    baseline_version: int
    deploy: bool
    wins: int
    losses: int
    pairs: int
    gate_pairs: int
    sums_json: str | None
    e_value: float
    state: str
    reason: str
    start_id: str
    last_example_id: str
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class ExperimentRecord:
    """An experiment. ``revision`` counts changes from 1 and is what an etag stands for.

    ``judge_id`` is None if the caller names the arms. From its start to its end it holds the subjects
    of its namespace whose hash is in [``slice_low``, ``slice_high``). ``status_json`` is what changes
    while it runs (stage of a rollout, decision, largest e-values), ``conclusion_json`` None before the
    end.
    """

    experiment_id: str
    judge_id: str | None
    state: str
    mode: str
    namespace: str
    slice_low: float
    slice_high: float
    spec_json: str
    labels_json: str
    status_json: str
    conclusion_json: str | None
    revision: int
    created_at: datetime
    updated_at: datetime
    started_at: datetime | None
    ended_at: datetime | None


@dataclass(frozen=True, slots=True)
class ExperimentEventRecord:
    """One event of an experiment; ``sequence`` counts from 1 without gaps within it."""

    experiment_id: str
    sequence: int
    created_at: datetime
    kind: str
    payload_json: str


@dataclass(frozen=True, slots=True)
class ExperimentAssignmentRecord:
    """The first time that a subject asked for its arm, and again when a growing stage moved it."""

    experiment_id: str
    subject: str
    arm_id: str
    stage: int
    created_at: datetime


@dataclass(frozen=True, slots=True)
class ExperimentOutcomeRecord:
    """One value that the caller measured for a subject."""

    experiment_id: str
    subject: str
    arm_id: str
    metric: str
    value: float
    stage: int
    created_at: datetime


@dataclass(frozen=True, slots=True)
class ShadowJudgmentRecord:
    """What a version that did not answer says of an evaluated item; columns as of `EvaluationRecord`.

    ``experiment_id`` is empty for judgments of the monitor, whose ``arm_id`` then says what for.
    """

    evaluation_id: str
    experiment_id: str
    arm_id: str
    judge_id: str
    version: int
    created_at: datetime
    verdict: str | None
    score: float | None
    confidence: float | None
    model: str
    input_tokens: int
    cached_input_tokens: int
    output_tokens: int
    lm_calls: int
    cost_usd: float | None
    lm_latency_ms: float


@dataclass(frozen=True, slots=True)
class ExperimentFailureRecord:
    """A call of an arm that gave no usable answer; ``shadow`` if it was not to answer the caller."""

    experiment_id: str
    arm_id: str
    judge_id: str
    version: int
    created_at: datetime
    reason: str
    shadow: bool
    subject: str
    stage: int


@dataclass(frozen=True, slots=True)
class ExperimentLabelRecord:
    """How good an arm was on an evaluation, as the label says that counts now.

    There is a row for each arm that judged the item, and new rows when the label changes: of one
    evaluation and arm the one with the largest ``feedback_id`` counts. ``unit`` is the subject, or the
    evaluation where there was none. ``quality`` is agreement with the label (arms that are judge
    versions) or what the label says of the arm's work (arms of the caller), 0..1; ``judged`` is
    the judge's own answer as a number in 0..1, None without one; ``answered`` says whether the arm's
    answer went to the caller.
    """

    experiment_id: str
    evaluation_id: str
    arm_id: str
    unit: str
    stage: int
    feedback_id: str
    created_at: datetime
    quality: float
    label: float
    judged: float | None
    confidence: float | None
    answered: bool


@dataclass(frozen=True, slots=True)
class RequestRecord:
    """What a request_id was answered with. ``fingerprint`` is a digest of the request."""

    request_id: str
    method: str
    fingerprint: str
    resource_id: str
    created_at: datetime
