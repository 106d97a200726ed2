"""`sidejudge optimizations logs`: the durable log of a run."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from typing import Any

from google.protobuf.json_format import MessageToDict

from sidejudge.v1 import optimization_service_pb2
from sidejudge_server.cli.connection import Session, connect
from sidejudge_server.cli.names import optimization_name
from sidejudge_server.cli.printing import number, print_json, say
from sidejudge_server.cli.watching import phase_word

__all__ = ["describe", "logs"]

_INSTRUCTION_CHARS = 100


def logs(args: argparse.Namespace) -> int:
    """Print the events of a run so far, or with --follow until its end."""
    name = optimization_name(args.optimization)
    with connect(args) as session:
        events = _events(session, name, follow=args.follow)
        if args.json:
            print_json(
                [
                    MessageToDict(event, preserving_proto_field_name=True)
                    for event in events
                ]
            )
            return 0
        for event in events:
            moment = event.event_time.ToDatetime()
            say(f"{moment:%Y-%m-%d %H:%M:%S} {event.sequence:>5}  {describe(event)}")
    return 0


def describe(event: optimization_service_pb2.OptimizationEvent) -> str:
    """Return an event in one line; kinds that newer servers send are named."""
    kind = event.WhichOneof("event")
    if kind in _WORDS:
        return _WORDS[kind](getattr(event, kind))
    return kind or "an event that this command does not know"


def _proposed(proposed: optimization_service_pb2.InstructionProposed) -> str:
    text = " ".join(proposed.instructions.split())[:_INSTRUCTION_CHARS]
    if proposed.refusal:
        return f"instruction refused ({proposed.refusal}): {text}"
    return f"instruction {proposed.instruction_index}: {text}"


def _trial(completed: optimization_service_pb2.TrialCompleted) -> str:
    trial = completed.trial
    looked = "dropped early after" if trial.stopped_early else "on"
    return (
        f"trial {trial.name.rpartition('/')[2]}: {number(trial.score)} {looked}"
        f" {trial.example_count} examples, instruction {trial.instruction_index},"
        f" {trial.demonstration_count} demonstrations"
    )


def _best(best: optimization_service_pb2.BestImproved) -> str:
    trial = best.trial.rpartition("/")[2]
    return f"best so far: trial {trial} with {number(best.score)}"


def _finished(finished: optimization_service_pb2.Finished) -> str:
    run = finished.optimization
    return f"finished: {run.summary or run.decision.summary or 'no result'}"


_WORDS: dict[str, Callable[[Any], str]] = {
    "phase_changed": lambda changed: f"phase {phase_word(changed.phase)}",
    "instruction_proposed": _proposed,
    "trial_completed": _trial,
    "best_improved": _best,
    "warning": lambda warning: f"warning: {warning.message}",
    "resumed": lambda resumed: (
        f"resumed: {resumed.reason}; {resumed.answers_kept} answers are kept"
    ),
    "finished": _finished,
}


def _events(
    session: Session, name: str, *, follow: bool
) -> Iterator[optimization_service_pb2.OptimizationEvent]:
    """Yield the logged events of a run, those to come too if they are to be followed."""
    last = None if follow else _last_sequence(session, name)
    if last == 0:
        return
    stream = session.client.optimization.WatchOptimization(
        optimization_service_pb2.WatchOptimizationRequest(name=name, from_start=True)
    )
    try:
        for answer in stream:
            if answer.event.WhichOneof("event") != "heartbeat":
                yield answer.event
            if last is not None and answer.event.sequence >= last:
                return
    finally:
        stream.cancel()


def _last_sequence(session: Session, name: str) -> int:
    """Return the position of the last event; a run that has ended sends it after its snapshot."""
    stream = session.client.optimization.WatchOptimization(
        optimization_service_pb2.WatchOptimizationRequest(name=name),
        timeout=session.timeout_s,
    )
    snapshot: optimization_service_pb2.OptimizationEvent = next(iter(stream)).event
    stream.cancel()
    ended = bool(snapshot.snapshot.end_time.ToNanoseconds())
    return snapshot.sequence + (1 if ended else 0)
