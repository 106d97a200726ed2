"""Keeps count of what the gate has looked at: read before a run starts, written with its end."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sidejudge_server.judges.codec import content_digest, input_from_json
from sidejudge_server.optimization.spec import RunExample
from sidejudge_server.training.held_out import EarlierUses, held_out_to_json
from sidejudge_storage import GateUseRecord, OptimizationRecord, Storage

__all__ = ["earlier_uses", "gate_use", "held_out_of"]


async def earlier_uses(
    storage: Storage, record: OptimizationRecord, test: Sequence[RunExample]
) -> EarlierUses:
    """Return how far other runs of the judge have used a run's held-out examples.

    The run's own use is left out: one that goes on after an interruption keeps its number.

    Args:
        storage: The database.
        record: The run.
        test: Its held-out examples.
    """
    uses = await storage.gate_uses.of(record.judge_id)
    return EarlierUses.of(uses, _digests(test), leaving_out=record.optimization_id)


def held_out_of(test: Sequence[RunExample]) -> str:
    """Return what tells a run's held-out examples apart, as JSON."""
    return held_out_to_json(_digests(test))


def gate_use(
    record: OptimizationRecord,
    decision: Mapping[str, Any],
    *,
    held_out: str,
    now: datetime,
) -> GateUseRecord:
    """Return the row that says that a run's gate has looked at its held-out examples.

    Args:
        record: The run.
        decision: JSON of its `GateDecision`.
        held_out: From `held_out_of`.
        now: When it was decided.
    """
    return GateUseRecord(
        judge_id=record.judge_id,
        optimization_id=record.optimization_id,
        use_number=decision["use_count"],
        examples_digest=hashlib.sha256(held_out.encode()).hexdigest(),
        examples_json=held_out,
        alpha=decision["alpha"],
        p_value=decision["p_value"],
        outcome=decision["outcome"],
        wins=decision["wins"],
        losses=decision["losses"],
        pair_count=decision["pair_count"],
        created_at=now,
    )


def _digests(test: Sequence[RunExample]) -> set[str]:
    return {content_digest(input_from_json(example.input_json)) for example in test}
