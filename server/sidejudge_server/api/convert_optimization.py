"""Optimizations, their events and trials between protobuf and domain."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2

from sidejudge.v1 import optimization_pb2 as pb
from sidejudge.v1 import optimization_service_pb2
from sidejudge_server.api.convert_budget import (
    budget_bounds,
    budget_message,
    outcome_value,
    stop_reason_value,
)
from sidejudge_server.api.convert_common import timestamp, verdict_value
from sidejudge_server.api.convert_estimate import estimate_message
from sidejudge_server.api.names import (
    example_name,
    judge_name,
    optimization_name,
    trial_name,
    version_name,
)
from sidejudge_server.api.status import DOMAIN
from sidejudge_server.api.validate import Checker
from sidejudge_server.optimization.budget import OptimizationBudget
from sidejudge_server.optimization.new_run import CreateOptimization
from sidejudge_server.optimization.plan import (
    AlgorithmName,
    Auto,
    InstructionSource,
    OptimizationConfig,
)
from sidejudge_server.optimization.resume import ResumeOptimization
from sidejudge_storage import OptimizationFilter
from sidejudge_storage.records import OptimizationEventRecord, OptimizationRecord

__all__ = [
    "config_from",
    "config_message",
    "create_command",
    "optimization_filter",
    "optimization_message",
    "phase_value",
    "progress_message",
    "resume_command",
    "trial_from_record",
    "trial_message",
]

STATES: Final = {
    "queued": pb.Optimization.STATE_QUEUED,
    "running": pb.Optimization.STATE_RUNNING,
    "cancelling": pb.Optimization.STATE_CANCELLING,
    "succeeded": pb.Optimization.STATE_SUCCEEDED,
    "failed": pb.Optimization.STATE_FAILED,
    "cancelled": pb.Optimization.STATE_CANCELLED,
}
_STATE_NAMES: Final[dict[int, str]] = {value: name for name, value in STATES.items()}
_AUTOS: Final = {
    pb.OptimizationConfig.AUTO_LIGHT: Auto.LIGHT,
    pb.OptimizationConfig.AUTO_MEDIUM: Auto.MEDIUM,
    pb.OptimizationConfig.AUTO_HEAVY: Auto.HEAVY,
}
_INSTRUCTION_SOURCES: Final = {
    pb.OptimizationConfig.INSTRUCTION_SOURCE_PROPOSER: InstructionSource.PROPOSER,
    pb.OptimizationConfig.INSTRUCTION_SOURCE_CURATED: InstructionSource.CURATED,
}
_ALGORITHMS: Final = {
    pb.OptimizationConfig.ALGORITHM_CALIBRATION: AlgorithmName.CALIBRATION,
    pb.OptimizationConfig.ALGORITHM_LABELED_DEMONSTRATIONS: AlgorithmName.LABELED_DEMONSTRATIONS,
    pb.OptimizationConfig.ALGORITHM_MEMORY: AlgorithmName.MEMORY,
    pb.OptimizationConfig.ALGORITHM_MIPROV2: AlgorithmName.MIPROV2,
    pb.OptimizationConfig.ALGORITHM_GEPA: AlgorithmName.GEPA,
    pb.OptimizationConfig.ALGORITHM_AUTO: AlgorithmName.AUTO,
}
_NUMBERS: Final = (
    "num_trials",
    "num_candidates",
    "max_bootstrapped_demos",
    "max_labeled_demos",
    "seed",
)


def create_command(
    checker: Checker,
    optimization: pb.Optimization,
    request_id: str,
    *,
    unpriced: Callable[[OptimizationConfig], Sequence[str]],
) -> CreateOptimization:
    """Read what to optimize and how; ranges of numbers are the domain's to check.

    Args:
        checker: Takes the violations.
        optimization: What was asked for.
        request_id: UUID of the request, or "".
        unpriced: Returns the models that a run may ask and whose price is not known.

    Raises:
        InvalidRequestError: Fields are wrong; all violations at once.
    """
    at = checker.within("optimization.")
    judge_id = at.judge("judge", optimization.judge)
    config = config_from(at.within("config."), optimization.config)
    checker.violations.extend(config.violations())
    budget = OptimizationBudget().with_bounds(budget_bounds(optimization.budget))
    checker.violations.extend(budget.violations(unpriced=unpriced(config)))
    identity = checker.last_request_id(request_id)
    return CreateOptimization(
        judge_id=checker.passed(judge_id),
        config=config,
        deploy_if_better=optimization.deploy_if_better,
        request_id=identity,
        budget=budget,
    )


def resume_command(
    checker: Checker,
    request: optimization_service_pb2.ResumeOptimizationRequest,
) -> ResumeOptimization:
    """Read what to go on with; ranges of the bounds are the domain's to check.

    Raises:
        InvalidRequestError: Fields are wrong; all violations at once.
    """
    run_id = checker.resource("name", request.name, "optimizations")
    bounds = budget_bounds(request.budget)
    budget = OptimizationBudget().with_bounds(bounds)
    checker.violations.extend(budget.violations(prefix="budget."))
    request_id = checker.last_request_id(request.request_id)
    return ResumeOptimization(checker.passed(run_id), bounds, request_id)


def config_from(at: Checker, config: pb.OptimizationConfig) -> OptimizationConfig:
    """Read how to search; ranges are the domain's to check."""
    at.enum("auto", config.auto, pb.OptimizationConfig.Auto.DESCRIPTOR)
    at.enum(
        "instruction_source",
        config.instruction_source,
        pb.OptimizationConfig.InstructionSource.DESCRIPTOR,
    )
    at.enum("algorithm", config.algorithm, pb.OptimizationConfig.Algorithm.DESCRIPTOR)
    numbers = {
        name: getattr(config, name) for name in _NUMBERS if config.HasField(name)
    }
    return OptimizationConfig(
        **numbers,
        auto=_AUTOS.get(config.auto),
        instruction_source=_INSTRUCTION_SOURCES.get(config.instruction_source),
        algorithm=_ALGORITHMS.get(config.algorithm),
        early_stopping=(
            config.early_stopping if config.HasField("early_stopping") else None
        ),
        use_synthetic_examples=(
            config.use_synthetic_examples
            if config.HasField("use_synthetic_examples")
            else None
        ),
    )


def optimization_filter(
    checker: Checker, request: optimization_service_pb2.ListOptimizationsRequest
) -> OptimizationFilter:
    """Read the filters of a list of runs."""
    judge_id = checker.judge("judge", request.judge, required=False)
    state = checker.enum("state", request.state, pb.Optimization.State.DESCRIPTOR)
    return OptimizationFilter(judge_id=judge_id, state=_STATE_NAMES.get(state))


def optimization_message(record: OptimizationRecord) -> pb.Optimization:
    """Return a run as message."""
    message = pb.Optimization(
        name=optimization_name(record.optimization_id),
        judge=judge_name(record.judge_id),
        config=config_message(json.loads(record.config_json)),
        deploy_if_better=record.deploy_if_better,
        state=STATES[record.state],
        phase=phase_value(record.phase),
        progress=progress_message(json.loads(record.progress_json)),
        baseline_version=version_name(record.judge_id, record.baseline_version),
        dataset=pb.DatasetSummary(**json.loads(record.dataset_json)),
        create_time=timestamp(record.created_at),
        start_time=timestamp(record.started_at),
        end_time=timestamp(record.ended_at),
        task_model=record.task_model,
        prompt_model=record.prompt_model,
        budget=budget_message(json.loads(record.budget_json)),
        outcome=outcome_value(record.outcome),
        stop_reason=stop_reason_value(record.stop_reason),
        summary=record.summary,
        resume_count=record.resume_count,
        trigger=pb.OptimizationTrigger(
            source=pb.OptimizationTrigger.Source.Value(
                f"SOURCE_{record.trigger_source.upper()}"
            ),
            reason=record.trigger_reason,
        ),
    )
    if record.candidate_version is not None:
        message.candidate_version = version_name(
            record.judge_id, record.candidate_version
        )
    if record.estimate_json is not None:
        message.estimate.CopyFrom(estimate_message(json.loads(record.estimate_json)))
    if record.decision_json is not None:
        message.decision.CopyFrom(_decision(json.loads(record.decision_json)))
    if record.error_json is not None:
        message.error.CopyFrom(_error(json.loads(record.error_json)))
    return message


def config_message(config: Mapping[str, Any]) -> pb.OptimizationConfig:
    """Return the numbers that a run uses: those asked for, completed by the defaults."""
    message = pb.OptimizationConfig(
        **{name: config[name] for name in _NUMBERS if config.get(name) is not None}
    )
    for auto, value in _AUTOS.items():
        if config.get("auto") == value.value:
            message.auto = auto
    for source, origin in _INSTRUCTION_SOURCES.items():
        if config.get("instruction_source") == origin.value:
            message.instruction_source = source
    message.algorithm = _algorithm(config.get("algorithm"))
    if config.get("early_stopping") is not None:
        message.early_stopping = config["early_stopping"]
    if config.get("use_synthetic_examples") is not None:
        message.use_synthetic_examples = config["use_synthetic_examples"]
    return message


def _algorithm(name: str | None) -> pb.OptimizationConfig.Algorithm.ValueType:
    """Return the enum value of a name; unspecified for none, as in runs of older servers."""
    return next(
        (value for value, known in _ALGORITHMS.items() if known.value == name),
        pb.OptimizationConfig.ALGORITHM_UNSPECIFIED,
    )


def phase_value(phase: str) -> pb.Optimization.Phase.ValueType:
    """Return the enum value of a phase; unspecified for ""."""
    return pb.Optimization.Phase.Value(f"PHASE_{phase.upper() or 'UNSPECIFIED'}")


def progress_message(progress: Mapping[str, Any]) -> pb.OptimizationProgress:
    """Return progress as message; what is not known is unset."""
    message = pb.OptimizationProgress(
        trials_completed=progress.get("trials_completed", 0),
        trials_total=progress.get("trials_total", 0),
        baseline_score=progress.get("baseline_score"),
        best_score=progress.get("best_score"),
        lm_calls=progress.get("lm_calls", 0),
        cached_calls=progress.get("cached_calls", 0),
        input_tokens=progress.get("input_tokens", 0),
        output_tokens=progress.get("output_tokens", 0),
        cost_usd=progress.get("cost_usd"),
        elapsed=_duration(progress.get("elapsed_s", 0.0)),
        waiting_for=progress.get("waiting_for", ""),
    )
    if progress.get("eta_s") is not None:
        message.eta.CopyFrom(_duration(progress["eta_s"]))
    return message


def _duration(seconds: float) -> Duration:
    message = Duration()
    message.FromMilliseconds(round(seconds * 1000))
    return message


def _decision(decision: Mapping[str, Any]) -> pb.GateDecision:
    outcome = f"OUTCOME_{decision['outcome'].upper()}"
    stage = decision.get("stage", "").upper() or "UNSPECIFIED"
    return pb.GateDecision(
        outcome=pb.GateDecision.Outcome.Value(outcome),
        summary=decision["summary"],
        deployed=decision["deployed"],
        checks=[pb.GateCheck(**check) for check in decision["checks"]],
        metric=decision["metric"],
        pair_count=decision["pair_count"],
        baseline=pb.Estimate(**decision["baseline"]),
        candidate=pb.Estimate(**decision["candidate"]),
        difference=pb.Estimate(**decision["difference"]),
        p_value=decision["p_value"],
        wins=decision["wins"],
        losses=decision["losses"],
        additional_examples_needed=decision["additional_examples_needed"],
        use_count=decision.get("use_count", 0),
        alpha=decision.get("alpha", 0.0),
        fresh_labels_needed=decision.get("fresh_labels_needed", 0),
        stage=pb.GateDecision.Stage.Value(f"STAGE_{stage}"),
        e_value=decision.get("e_value"),
        baseline_confusion=_confusion(decision.get("baseline_confusion", ())),
        candidate_confusion=_confusion(decision.get("candidate_confusion", ())),
        changed_examples=[
            pb.ChangedExample(
                training_example=example_name(changed["example_id"]),
                baseline_quality=changed["baseline_quality"],
                candidate_quality=changed["candidate_quality"],
            )
            for changed in decision.get("changed_examples", ())
        ],
    )


def _confusion(cells: Sequence[Mapping[str, Any]]) -> list[pb.ConfusionCell]:
    return [
        pb.ConfusionCell(
            label=verdict_value(cell["label"]),
            verdict=verdict_value(cell["verdict"] or None),
            count=cell["count"],
        )
        for cell in cells
    ]


def _error(error: Mapping[str, Any]) -> status_pb2.Status:
    """Return why a run failed, with the details that a failed call would have."""
    status = status_pb2.Status(
        code=grpc.StatusCode[error["code"]].value[0], message=error["message"]
    )
    packed = AnyMessage()
    packed.Pack(
        error_details_pb2.ErrorInfo(
            reason=error["reason"], domain=DOMAIN, metadata=error["metadata"]
        )
    )
    status.details.append(packed)
    return status


def trial_message(optimization_id: str, trial: Mapping[str, Any]) -> pb.Trial:
    """Return a trial, as `optimization.reporter` describes it, as message."""
    return pb.Trial(
        name=trial_name(optimization_id, trial["number"]),
        score=trial["score"],
        example_count=trial["example_count"],
        full_evaluation=trial["full_evaluation"],
        instruction_index=trial["instruction_index"],
        demonstration_set_index=trial["demonstration_set_index"],
        instructions=trial["instructions"],
        demonstration_count=trial["demonstration_count"],
        best=trial["best"],
        end_time=timestamp(datetime.fromisoformat(trial["end_time"])),
        algorithm=_algorithm(trial.get("algorithm")),
        stopped_early=trial.get("stopped_early", False),
    )


def trial_from_record(event: OptimizationEventRecord) -> pb.Trial:
    """Return the trial of a stored ``trial_completed`` event."""
    payload = json.loads(event.payload_json)
    return trial_message(event.optimization_id, payload["trial"])
