"""From what a caller asked for to what a run will do, with the settings of the server."""

from __future__ import annotations

from typing import Any

from sidejudge_server.config import Settings
from sidejudge_server.judges.kinds import curated_instructions
from sidejudge_server.judges.versions import JudgeVersion
from sidejudge_server.optimization.plan import (
    OptimizationConfig,
    SearchPlan,
    make_plan,
)
from sidejudge_server.training.readiness import TrainingSet

__all__ = ["completed_config", "plan_for"]


def plan_for(
    settings: Settings,
    config: OptimizationConfig,
    version: JudgeVersion,
    training_set: TrainingSet,
) -> SearchPlan:
    """Return the plan of a run that starts from a version, scaled down to the data."""
    task_lm = settings.task_lm
    return make_plan(
        config,
        scores=version.program.scores,
        train_count=training_set.train_count,
        validation_count=training_set.validation_count,
        curated_count=len(curated_instructions(version.program)),
        default_lm_calls=settings.optimization.default_lm_calls,
        local=task_lm.model.startswith("local/"),
        max_concurrency=task_lm.max_concurrency,
        prompt_model=settings.prompt_lm is not None,
    )


def completed_config(config: OptimizationConfig, plan: SearchPlan) -> dict[str, Any]:
    """Return a configuration as JSON object with the defaults filled in."""
    return {
        **config.to_json(),
        "num_trials": plan.num_trials,
        "num_candidates": plan.num_candidates,
        "max_bootstrapped_demos": plan.max_bootstrapped_demos,
        "max_labeled_demos": plan.max_labeled_demos,
        "seed": plan.seed,
        "instruction_source": plan.instruction_source.value,
        "algorithm": plan.algorithm.value,
        "early_stopping": plan.early_stopping,
        "use_synthetic_examples": config.synthetic,
    }
