"""Worker entries for tests of the executor; imported by name in the worker process."""

from __future__ import annotations

import json
import os
import resource
import threading
import time
from multiprocessing.connection import Connection

from sidejudge_server.optimization.child import Channel, child_main


def echo(connection: Connection) -> None:
    """Send the spec back and end."""
    channel = Channel(connection)
    spec = channel.receive_spec()
    channel.send({"kind": "warning", "message": spec["text"]})
    channel.send({"kind": "result", "pid": os.getpid()})
    os._exit(0)


def dies(connection: Connection) -> None:
    """End without a last word."""
    channel = Channel(connection)
    channel.receive_spec()
    channel.send({"kind": "warning", "message": "about to die"})
    os._exit(3)


def talks_nonsense(connection: Connection) -> None:
    """Send the text of the spec, which is no event."""
    spec = Channel(connection).receive_spec()
    connection.send_bytes(spec["text"].encode())
    threading.Event().wait()


def polite(connection: Connection) -> None:
    """Stop when asked to."""
    channel = Channel(connection)
    channel.receive_spec()
    channel.watch()
    stop = threading.Event()
    channel.on_cancel(stop.set)
    channel.send({"kind": "warning", "message": "ready"})
    stop.wait()
    channel.send({"kind": "cancelled"})
    os._exit(0)


def deaf(connection: Connection) -> None:
    """Go on whatever it is asked, but mind the lifeline."""
    channel = Channel(connection)
    channel.receive_spec()
    channel.watch()
    channel.send({"kind": "warning", "message": json.dumps({"pid": os.getpid()})})
    while True:
        time.sleep(60)


def _search(connection: Connection) -> tuple[Channel, str]:
    """Say what a search says until its first improvement; return the improved program."""
    channel = Channel(connection)
    spec = channel.receive_spec()
    channel.watch()
    program = json.loads(spec["program_json"])
    program["instructions"] = "Better instructions of a toy worker."
    better = json.dumps(program, sort_keys=True, separators=(",", ":"))
    progress = {
        "trials_completed": 1,
        "trials_total": 3,
        "best_score": 0.75,
        "lm_calls": 7,
    }
    channel.send({"kind": "phase_changed", "phase": "searching", "progress": progress})
    channel.send(
        {
            "kind": "trial_completed",
            "trial": {"number": 1, "score": 0.75, "best": True},
            "progress": progress,
        }
    )
    channel.send(
        {"kind": "best_improved", "trial": 1, "score": 0.75, "program": better}
    )
    return channel, better


def searches_until_cancelled(connection: Connection) -> None:
    """Improve once, then wait for a cancel."""
    stop = threading.Event()
    channel, _ = _search(connection)
    channel.on_cancel(stop.set)
    stop.wait()
    channel.send({"kind": "cancelled"})
    os._exit(0)


def improves(connection: Connection) -> None:
    """Find something better that passes the gate."""
    _succeed(*_search(connection))


def improves_a_little(connection: Connection) -> None:
    """Find something better on few held-out examples."""
    _succeed(*_search(connection), stage="shadow", wins=5, losses=0, e_value=10.5)


def finishes_when_cancelled(connection: Connection) -> None:
    """Come to a result just when a cancel arrives."""
    stop = threading.Event()
    channel, better = _search(connection)
    channel.on_cancel(stop.set)
    stop.wait()
    _succeed(channel, better)


def tells_its_examples(connection: Connection) -> None:
    """Say how many examples of each split it got, and end as cancelled."""
    channel = Channel(connection)
    spec = channel.receive_spec()
    counts = [len(spec[split]) for split in ("train", "validation", "test")]
    channel.send({"kind": "warning", "message": json.dumps(counts)})
    channel.send({"kind": "cancelled"})
    os._exit(0)


def answers_what_no_judge_can_be(connection: Connection) -> None:
    """Find something better that is no version: it has no instructions."""
    channel, better = _search(connection)
    _succeed(channel, json.dumps({**json.loads(better), "instructions": ""}))


def tells_what_was_shared(connection: Connection) -> None:
    """Find something better; the decision repeats what the spec said of earlier uses."""
    channel = Channel(connection)
    spec = channel.receive_spec()
    channel.watch()
    program = {**json.loads(spec["program_json"]), "instructions": "Better."}
    _succeed(
        channel,
        json.dumps(program, sort_keys=True, separators=(",", ":")),
        shared=spec["shared_with_earlier"],
        pair_count=len(spec["test"]),
        wins=3,
    )


def finds_nothing(connection: Connection) -> None:
    """End without a candidate."""
    channel, _ = _search(connection)
    _succeed(channel, None, outcome="no_improvement")


def _succeed(channel: Channel, better: str | None, **changes: object) -> None:
    estimate = {"value": 0.9, "lower": 0.8, "upper": 1.0}
    decision = {
        "outcome": "improved",
        "summary": "Improved.",
        "deployed": False,
        "checks": [],
        "metric": "accuracy",
        "pair_count": 40,
        "baseline": estimate,
        "candidate": estimate,
        "difference": estimate,
        "p_value": 0.01,
        "wins": 9,
        "losses": 1,
        "additional_examples_needed": 0,
        "use_count": 1,
        "alpha": 0.03,
        "fresh_labels_needed": 0,
        "stage": "full",
        "e_value": 21.0,
        **changes,
    }
    channel.send(
        {
            "kind": "result",
            "candidate": better,
            "decision": decision,
            "metrics": {"test.accuracy": 0.9},
            "progress": {"trials_completed": 3, "trials_total": 3},
        }
    )
    os._exit(0)


def mute(connection: Connection) -> None:
    """Say nothing at all, but mind the lifeline."""
    channel = Channel(connection)
    channel.receive_spec()
    channel.watch()
    while True:
        time.sleep(60)


def takes_memory(connection: Connection) -> None:
    """Improve once, then use as many megabytes as the spec's environment says, and wait."""
    channel, _ = _search(connection)
    hoard = bytearray(os.urandom(1024)) * (300 * 1024)  # 300 MB, all of it used
    channel.send({"kind": "warning", "message": f"took {len(hoard)} bytes"})
    while True:
        time.sleep(60)


def reserves_too_much(connection: Connection) -> None:
    """Run the real worker, with a metric that asks for far more memory than there may be."""
    _with_metric(connection, lambda *_: bytearray(8 * 1024**3))


def has_a_metric_that_raises(connection: Connection) -> None:
    """Run the real worker with a metric that divides by zero."""
    _with_metric(connection, lambda *_: 1 / 0)


def _with_metric(connection: Connection, metric: object) -> None:
    from sidejudge_server.optimization import scoring
    from sidejudge_server.optimization.algorithms import context

    for module in (scoring, context):
        module.soft_judge_metric = metric
    child_main(connection)


def has_a_small_disk(connection: Connection) -> None:
    """Run the real worker; no file may grow beyond 20 kB."""
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    child_main(connection)
