"""What a run would take, between protobuf and domain."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from google.protobuf.duration_pb2 import Duration

from sidejudge.v1 import optimization_pb2

__all__ = ["estimate_message"]


def estimate_message(
    estimate: Mapping[str, Any],
) -> optimization_pb2.OptimizationEstimate:
    """Return an estimate, as `optimization.estimate.RunEstimate` describes it, as message."""
    duration = Duration()
    duration.FromMilliseconds(round(estimate["duration_s"] * 1000))
    return optimization_pb2.OptimizationEstimate(
        lm_calls=estimate["lm_calls"],
        input_tokens=estimate["input_tokens"],
        output_tokens=estimate["output_tokens"],
        cost_usd=estimate["cost_usd"],
        duration=duration,
        trials=estimate["trials"],
        basis=estimate["basis"],
    )
