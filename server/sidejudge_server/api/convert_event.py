"""Events of a run as messages, with their resume tokens."""

from __future__ import annotations

from sidejudge.v1 import optimization_service_pb2 as pb
from sidejudge_server.api.convert_common import timestamp
from sidejudge_server.api.convert_optimization import (
    optimization_message,
    phase_value,
    progress_message,
    trial_message,
)
from sidejudge_server.api.names import optimization_name, trial_name
from sidejudge_server.api.tokens import TokenCodec
from sidejudge_server.optimization.run_log import WatchEvent
from sidejudge_server.optimization.spec import EventKind

__all__ = ["event_message"]


def event_message(
    event: WatchEvent, optimization_id: str, tokens: TokenCodec
) -> pb.OptimizationEvent:
    """Return an event as message."""
    scope = optimization_name(optimization_id)
    message = pb.OptimizationEvent(
        resume_token=tokens.resume(scope, str(event.sequence)),
        sequence=event.sequence,
        event_time=timestamp(event.created_at),
    )
    _fill(message, event, optimization_id)
    return message


def _fill(
    message: pb.OptimizationEvent, event: WatchEvent, optimization_id: str
) -> None:
    payload = event.payload
    match event.kind:
        case EventKind.SNAPSHOT if event.record:
            message.snapshot.CopyFrom(optimization_message(event.record))
        case EventKind.FINISHED if event.record:
            message.finished.optimization.CopyFrom(optimization_message(event.record))
        case EventKind.PHASE_CHANGED:
            message.phase_changed.phase = phase_value(payload["phase"])
            message.phase_changed.progress.CopyFrom(
                progress_message(payload["progress"])
            )
        case EventKind.INSTRUCTION_PROPOSED:
            message.instruction_proposed.instruction_index = payload[
                "instruction_index"
            ]
            message.instruction_proposed.instructions = payload["instructions"]
            message.instruction_proposed.refusal = payload["refusal"]
        case EventKind.TRIAL_COMPLETED:
            message.trial_completed.trial.CopyFrom(
                trial_message(optimization_id, payload["trial"])
            )
            message.trial_completed.progress.CopyFrom(
                progress_message(payload["progress"])
            )
        case EventKind.BEST_IMPROVED:
            message.best_improved.trial = trial_name(optimization_id, payload["trial"])
            message.best_improved.score = payload["score"]
        case EventKind.WARNING:
            message.warning.message = payload["message"]
        case EventKind.RESUMED:
            message.resumed.reason = payload["reason"]
            message.resumed.resume_count = payload["resume_count"]
            message.resumed.answers_kept = payload["answers_kept"]
        case EventKind.HEARTBEAT:
            message.heartbeat.progress.CopyFrom(progress_message(payload["progress"]))
        case _:
            raise ValueError(f"{event.kind} is not for watchers")
