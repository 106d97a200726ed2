"""Events of experiments as messages, with their resume tokens."""

from __future__ import annotations

from sidejudge.v1 import experiment_pb2 as pb
from sidejudge_server.api.convert_analysis import analysis_message, decision_value
from sidejudge_server.api.convert_common import timestamp
from sidejudge_server.api.convert_experiment import experiment_message
from sidejudge_server.api.names import experiment_name
from sidejudge_server.api.tokens import TokenCodec
from sidejudge_server.experiments.event_log import EventKind, WatchEvent
from sidejudge_server.experiments.types import Experiment

__all__ = ["event_message"]


def event_message(
    event: WatchEvent, experiment: Experiment, tokens: TokenCodec
) -> pb.ExperimentEvent:
    """Return an event as message.

    Args:
        event: The event.
        experiment: The experiment as it is now, for snapshots and the end.
        tokens: Writes the token.
    """
    unnumbered = event.kind in (EventKind.SNAPSHOT, EventKind.HEARTBEAT)
    scope = experiment_name(experiment.experiment_id)
    message = pb.ExperimentEvent(
        resume_token=tokens.resume(scope, str(event.sequence)),
        sequence=0 if unnumbered else event.sequence,
        create_time=timestamp(event.created_at),
    )
    payload = event.payload
    match event.kind:
        case EventKind.SNAPSHOT:
            message.snapshot.experiment.CopyFrom(experiment_message(experiment))
            if "analysis" in payload:
                message.snapshot.analysis.CopyFrom(
                    analysis_message(payload["analysis"])
                )
        case EventKind.STARTED:
            message.started.CopyFrom(pb.ExperimentStarted(**payload))
        case EventKind.ANALYSIS:
            message.analysis.CopyFrom(analysis_message(payload))
        case EventKind.STAGE_CHANGED:
            message.stage_changed.CopyFrom(pb.RolloutStageChanged(**payload))
        case EventKind.WARNING:
            message.warning.CopyFrom(pb.ExperimentWarning(**payload))
        case EventKind.DECIDED:
            message.decided.CopyFrom(
                pb.ExperimentDecided(
                    **{**payload, "decision": decision_value(payload["decision"])}
                )
            )
        case EventKind.CONCLUDED:
            message.concluded.CopyFrom(experiment_message(experiment))
        case EventKind.HEARTBEAT:
            message.heartbeat.SetInParent()
    return message
