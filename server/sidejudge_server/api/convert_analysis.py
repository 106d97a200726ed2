"""Analyses of experiments as messages, from the JSON in which they are kept."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from google.protobuf import json_format

from sidejudge.v1 import experiment_pb2 as pb
from sidejudge_server.api.convert_common import timestamp
from sidejudge_server.experiments.splitting import rollout_share
from sidejudge_server.experiments.status import Decision
from sidejudge_server.experiments.types import Experiment

__all__ = [
    "analysis_message",
    "decision_from",
    "decision_value",
    "rollout_status_message",
]

_DECISIONS: Final[Mapping[Decision, pb.Decision.ValueType]] = {
    Decision.RUNNING: pb.DECISION_RUNNING,
    Decision.SHIP: pb.DECISION_SHIP,
    Decision.REJECT: pb.DECISION_REJECT,
    Decision.FUTILE: pb.DECISION_FUTILE,
    Decision.GUARDRAIL: pb.DECISION_GUARDRAIL,
    Decision.INVALID: pb.DECISION_INVALID,
}


def decision_value(decision: str) -> pb.Decision.ValueType:
    """Return the enum value of a decision as it is kept."""
    return _DECISIONS[Decision(decision)]


def decision_from(value: int) -> Decision | None:
    """Return a decision, None for unspecified or unknown."""
    return next((d for d, number in _DECISIONS.items() if number == value), None)


def analysis_message(document: Mapping[str, Any]) -> pb.ExperimentAnalysis:
    """Return an analysis as message.

    Args:
        document: `experiments.report.to_json`: the message's fields by name, enum values without
            prefix in lower case.
    """
    named = {
        **document,
        "decision": f"DECISION_{document['decision'].upper()}",
        "comparisons": [
            {
                **comparison,
                "role": f"ROLE_{comparison['role'].upper()}",
                "status": f"STATUS_{comparison['status'].upper()}",
            }
            for comparison in document["comparisons"]
        ],
    }
    # Analyses of experiments that have ended are kept for ever: fields may have gone since.
    return json_format.ParseDict(
        named, pb.ExperimentAnalysis(), ignore_unknown_fields=True
    )


def rollout_status_message(experiment: Experiment) -> pb.RolloutStatus:
    """Return where a rollout is, without what only an analysis knows."""
    status = experiment.status
    return pb.RolloutStatus(
        stage=status.stage,
        share=rollout_share(experiment),
        stage_start_time=timestamp(status.stage_started_at),
    )
