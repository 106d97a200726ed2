"""Why a run stops searching."""

from __future__ import annotations

from enum import StrEnum

__all__ = ["StopReason"]


class StopReason(StrEnum):
    """Why a run stopped searching; the bounds are those of its budget."""

    COMPLETED = "completed"
    MAX_TRIALS = "max_trials"
    MAX_LM_CALLS = "max_lm_calls"
    MAX_TOKENS = "max_tokens"
    MAX_COST = "max_cost"
    MAX_DURATION = "max_duration"
    CANCELLED = "cancelled"
    FAILED = "failed"
