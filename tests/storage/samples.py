"""Records to store. Every field can be overridden."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sidejudge_storage import (
    DeploymentRecord,
    EvaluationRecord,
    ExampleRecord,
    FeedbackRecord,
    GateUseRecord,
    JudgeRecord,
    JudgeVersionRecord,
    OptimizationEventRecord,
    OptimizationPolicyRecord,
    OptimizationRecord,
    RequestRecord,
    ShadowCandidateRecord,
    new_id,
)

NOW = datetime(2026, 8, 20, 12, 30, 15, 123456, tzinfo=UTC)


def judge(**changes: Any) -> JudgeRecord:
    fields: dict[str, Any] = {
        "judge_id": "brevity",
        "kind": "custom",
        "display_name": "Brevity",
        "description": "Is it short?",
        "spec_json": "{}",
        "labels_json": '{"team":"docs"}',
        "deployed_version": 1,
        "built_in": False,
        "deleted": False,
        "revision": 1,
        "created_at": NOW,
        "updated_at": NOW,
    }
    return JudgeRecord(**(fields | changes))


def version(**changes: Any) -> JudgeVersionRecord:
    fields: dict[str, Any] = {
        "judge_id": "brevity",
        "version": 1,
        "program_json": '{"instructions":"Be strict."}',
        "origin": "initial",
        "parent_version": None,
        "optimization_id": None,
        "data_digest": None,
        "model": None,
        "metrics_json": "{}",
        "created_at": NOW,
    }
    return JudgeVersionRecord(**(fields | changes))


def deployment(**changes: Any) -> DeploymentRecord:
    fields: dict[str, Any] = {
        "judge_id": "brevity",
        "sequence": 1,
        "version": 1,
        "previous_version": None,
        "verb": "create",
        "author": "ann",
        "reason": "",
        "created_at": NOW,
    }
    return DeploymentRecord(**(fields | changes))


def evaluation(**changes: Any) -> EvaluationRecord:
    fields: dict[str, Any] = {
        "evaluation_id": new_id(),
        "judge_id": "brevity",
        "version": 1,
        "created_at": NOW,
        "input_json": '{"output":"42"}',
        "verdict": "pass",
        "score": None,
        "confidence": 0.9,
        "confidence_source": "logprobs",
        "p_pass": 0.9,
        "p_partial": None,
        "p_fail": 0.1,
        "score_stddev": None,
        "reasoning": "It is short.",
        "suggestions_json": "[]",
        "criterion_scores_json": "[]",
        "model": "stand-in",
        "input_tokens": 300,
        "cached_input_tokens": 200,
        "output_tokens": 20,
        "lm_calls": 1,
        "cost_usd": None,
        "lm_latency_ms": 12.5,
        "subject": "agents/a",
        "group_key": "session-1",
        "labels_json": '{"env":"prod"}',
    }
    return EvaluationRecord(**(fields | changes))


def feedback(**changes: Any) -> FeedbackRecord:
    fields: dict[str, Any] = {
        "feedback_id": new_id(),
        "evaluation_id": "e1",
        "judge_id": "brevity",
        "created_at": NOW,
        "source": "expert",
        "author": "ann",
        "verdict": "fail",
        "score": None,
        "comment": "Too long.",
    }
    return FeedbackRecord(**(fields | changes))


def example(**changes: Any) -> ExampleRecord:
    fields: dict[str, Any] = {
        "example_id": new_id(),
        "judge_id": "brevity",
        "created_at": NOW,
        "origin": "feedback",
        "source": "expert",
        "author": "ann",
        "evaluation_id": None,
        "feedback_id": None,
        "group_key": "session-1",
        "content_digest": "d1",
        "split": "train",
        "input_json": "{}",
        "verdict": "fail",
        "score": None,
        "rationale": "",
        "judged_verdict": "pass",
        "judged_score": None,
        "rejection": None,
        "rejection_detail": "",
    }
    return ExampleRecord(**(fields | changes))


def optimization(**changes: Any) -> OptimizationRecord:
    fields: dict[str, Any] = {
        "optimization_id": new_id(),
        "judge_id": "brevity",
        "state": "queued",
        "phase": "preparing",
        "config_json": "{}",
        "deploy_if_better": True,
        "baseline_version": 1,
        "candidate_version": None,
        "decision_json": None,
        "error_json": None,
        "progress_json": "{}",
        "dataset_json": "{}",
        "task_model": "stand-in",
        "prompt_model": "stand-in",
        "created_at": NOW,
        "started_at": None,
        "ended_at": None,
    }
    return OptimizationRecord(**(fields | changes))


def event(**changes: Any) -> OptimizationEventRecord:
    fields: dict[str, Any] = {
        "optimization_id": "o1",
        "sequence": 1,
        "created_at": NOW,
        "kind": "trial",
        "payload_json": "{}",
    }
    return OptimizationEventRecord(**(fields | changes))


def gate_use(**changes: Any) -> GateUseRecord:
    fields: dict[str, Any] = {
        "judge_id": "brevity",
        "optimization_id": "o1",
        "use_number": 1,
        "examples_digest": "d1",
        "examples_json": '["a","b"]',
        "alpha": 0.03,
        "p_value": None,
        "outcome": "improved",
        "wins": 3,
        "losses": 1,
        "pair_count": 20,
        "created_at": NOW,
    }
    return GateUseRecord(**(fields | changes))


def policy(**changes: Any) -> OptimizationPolicyRecord:
    fields: dict[str, Any] = {
        "judge_id": "brevity",
        "enabled": True,
        "min_new_examples": 50,
        "min_disagreements": 5,
        "cool_down_s": 21_600.0,
        "daily_budget_json": "{}",
        "config_json": "{}",
        "deploy_if_better": False,
        "paused": False,
        "pause_reason": "",
        "revision": 1,
        "created_at": NOW,
        "updated_at": NOW,
    }
    return OptimizationPolicyRecord(**(fields | changes))


def shadow(**changes: Any) -> ShadowCandidateRecord:
    fields: dict[str, Any] = {
        "judge_id": "brevity",
        "optimization_id": "o1",
        "version": 2,
        "baseline_version": 1,
        "deploy": True,
        "wins": 5,
        "losses": 0,
        "pairs": 20,
        "gate_pairs": 20,
        "sums_json": None,
        "e_value": 10.5,
        "state": "active",
        "reason": "",
        "start_id": "s1",
        "last_example_id": "s1",
        "created_at": NOW,
        "updated_at": NOW,
    }
    return ShadowCandidateRecord(**(fields | changes))


def request(**changes: Any) -> RequestRecord:
    fields: dict[str, Any] = {
        "request_id": "r1",
        "method": "Evaluate",
        "fingerprint": "f1",
        "resource_id": "e1",
        "created_at": NOW,
    }
    return RequestRecord(**(fields | changes))
