"""A run that begins: what was asked for, its row, and its journal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from sidejudge_server.config import Settings
from sidejudge_server.errors import ConflictError, FailedPreconditionError
from sidejudge_server.judges.codec import canonical_json, program_to_json
from sidejudge_server.judges.kinds import curated_instructions
from sidejudge_server.judges.versions import Judge, JudgeVersion
from sidejudge_server.optimization.budget import OptimizationBudget
from sidejudge_server.optimization.estimate import RunEstimate
from sidejudge_server.optimization.journal import Journal
from sidejudge_server.optimization.plan import (
    InstructionSource,
    OptimizationConfig,
    SearchPlan,
)
from sidejudge_server.optimization.planning import completed_config
from sidejudge_server.optimization.spec import Phase, RunExample, RunSpec
from sidejudge_server.training.origins import SYNTHETIC
from sidejudge_server.training.readiness import Readiness, TrainingSet
from sidejudge_server.training.service import TrainingData
from sidejudge_storage import ExampleRecord, OptimizationRecord
from sidejudge_storage.ids import new_id

__all__ = [
    "CreateOptimization",
    "check_ready",
    "in_progress",
    "new_journal",
    "new_record",
]


@dataclass(frozen=True, slots=True)
class CreateOptimization:
    """A run to start.

    Attributes:
        judge_id: The judge.
        config: How to search.
        deploy_if_better: True to deploy a candidate that the gate says is better.
        request_id: UUID of the request, or "".
        budget: What it may spend.
        trigger_source: caller or policy.
        trigger_reason: Why a policy starts it, with figures; "" for a caller.
    """

    judge_id: str
    config: OptimizationConfig = field(default_factory=OptimizationConfig)
    deploy_if_better: bool = False
    request_id: str = ""
    budget: OptimizationBudget = field(default_factory=OptimizationBudget)
    trigger_source: str = "caller"
    trigger_reason: str = ""


def new_record(
    settings: Settings,
    command: CreateOptimization,
    version: JudgeVersion,
    training_set: TrainingSet,
    *,
    plan: SearchPlan,
    estimate: RunEstimate,
    waiting: bool,
) -> OptimizationRecord:
    """Return the row of a run that begins.

    Args:
        settings: Of the server.
        command: What was asked for.
        version: Where it starts.
        training_set: What it learns from.
        plan: Numbers of the search.
        estimate: What it is expected to take.
        waiting: True if it has to wait for a worker.
    """
    prompt_lm = settings.prompt_lm or settings.task_lm
    proposes = plan.instruction_source is InstructionSource.PROPOSER
    now = datetime.now(UTC)
    return OptimizationRecord(
        optimization_id=new_id(),
        judge_id=command.judge_id,
        state="queued" if waiting else "running",
        phase="" if waiting else Phase.PREPARING.value,
        config_json=canonical_json(completed_config(command.config, plan)),
        deploy_if_better=command.deploy_if_better,
        baseline_version=version.version,
        candidate_version=None,
        decision_json=None,
        error_json=None,
        progress_json="{}",
        dataset_json=canonical_json(
            {
                "train_count": training_set.train_count,
                "validation_count": training_set.validation_count,
                "test_count": training_set.test_count,
                "digest": training_set.digest,
                "synthetic_count": training_set.synthetic_count,
            }
        ),
        task_model=settings.task_lm.model,
        prompt_model=prompt_lm.model if proposes else "",
        created_at=now,
        started_at=None if waiting else now,
        ended_at=None,
        estimate_json=canonical_json(estimate.to_json()),
        budget_json=canonical_json(command.budget.to_json()),
        trigger_source=command.trigger_source,
        trigger_reason=command.trigger_reason,
    )


def new_journal(
    settings: Settings,
    record: OptimizationRecord,
    version: JudgeVersion,
    *,
    plan: SearchPlan,
    data: TrainingData,
) -> Journal:
    """Return the journal of a run that begins.

    Args:
        settings: Of the server.
        record: The run's row.
        version: Where it starts.
        plan: Numbers of the search.
        data: The examples as they are now; later ones do not change the run.
    """
    run_id = record.optimization_id
    spec = RunSpec(
        optimization_id=run_id,
        program_json=program_to_json(version.program),
        train=_examples(data.examples, "train"),
        validation=_examples(data.examples, "validation"),
        test=_examples(data.examples, "test"),
        plan=plan,
        curated=tuple(curated_instructions(version.program)),
        task_lm=settings.task_lm,
        prompt_lm=settings.prompt_lm,
        model_dir=str(settings.model_dir),
        work_dir="",  # the worker gets it when it starts
    )
    training_set = data.training_set
    return Journal(spec, training_set.digest, tuple(training_set.warnings))


def _examples(records: Sequence[ExampleRecord], split: str) -> tuple[RunExample, ...]:
    return tuple(
        RunExample(
            r.example_id,
            r.input_json,
            r.verdict,
            r.score,
            r.rationale,
            synthetic=r.origin == SYNTHETIC,
            group=r.group_key,
        )
        for r in records
        if r.split == split
    )


def check_ready(training_set: TrainingSet, need: int) -> None:
    """Refuse data that cannot teach a judge.

    Raises:
        FailedPreconditionError: TRAINING_SET_TOO_SMALL or TRAINING_SET_NOT_READY.
    """
    have = training_set.example_count
    if have < need:
        raise FailedPreconditionError(
            f"there are {have} training examples, {need} are needed; record feedback or import more",
            reason="TRAINING_SET_TOO_SMALL",
            metadata={"have": str(have), "need": str(need)},
        )
    if training_set.readiness is Readiness.NOT_READY:
        problems = "; ".join(training_set.problems)
        raise FailedPreconditionError(
            f"the training examples cannot teach this judge: {problems}",
            reason="TRAINING_SET_NOT_READY",
            metadata={"problems": problems},
        )


def in_progress(judge: Judge, run_id: str) -> ConflictError:
    """Return what somebody hears who wants a second run of a judge."""
    name = f"optimizations/{run_id}"
    return ConflictError(
        f"{judge.name} is being optimized by {name}; watch that one or cancel it first",
        reason="OPTIMIZATION_IN_PROGRESS",
        metadata={"optimization": name},
    )
