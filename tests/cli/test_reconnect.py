"""A watch outlives the sidecar that it watches."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import sidejudge
from sidejudge.v1 import optimization_pb2, optimization_service_pb2
from sidejudge_server.cli.connection import Session
from sidejudge_server.cli.failures import CommandError
from sidejudge_server.cli.training import import_examples, read_examples
from sidejudge_server.cli.watching import follow
from tests.cli.commands import verdict_rows, write_rows
from tests.stand_in import running_stand_in
from tests.support.server import server_process

Optimization = optimization_pb2.Optimization


class Recorder:
    """A view that keeps what it was shown."""

    def __init__(self) -> None:
        self.sequences: list[int] = []
        self.notes: list[str] = []
        self.began = threading.Event()

    def show(self, event: optimization_service_pb2.OptimizationEvent) -> None:
        """Keep the place of an event of the log."""
        if event.WhichOneof("event") not in {"snapshot", "heartbeat"}:
            self.sequences.append(event.sequence)
        self.began.set()

    def note(self, text: str) -> None:
        """Keep a line."""
        self.notes.append(text)


def start_run(client: sidejudge.Client, directory: Path) -> str:
    """Teach a judge and start a run that will wait for its LM."""
    examples = read_examples(
        write_rows(directory / "rows.jsonl", verdict_rows(40, prefix="lost"))
    )
    session = Session("", 30, client)
    import_examples(session, "judges/relevance", examples)
    return str(
        client.optimization.CreateOptimization(
            optimization_service_pb2.CreateOptimizationRequest(
                optimization=Optimization(judge="judges/relevance")
            )
        ).optimization.name
    )


@pytest.mark.slow
def test_watch_goes_on_where_it_broke_off_when_the_sidecar_is_killed(
    tmp_path: Path,
) -> None:
    """The run goes on after a crash; the watcher gets the rest of the log, no event twice."""
    view = Recorder()
    slow = {"SIDEJUDGE_LM": "openai/slow"}
    with running_stand_in() as stand_in, ThreadPoolExecutor() as pool:
        with server_process(
            tmp_path, lm_base_url=stand_in.base_url, environment=slow
        ) as first:
            address = first.address
            client = sidejudge.connect(address)
            name = start_run(client, tmp_path)
            watching = pool.submit(follow, Session(address, 30, client), name, view)
            assert view.began.wait(30)
            first.kill()
        again = {**slow, "SIDEJUDGE_ADDRESS": address}
        with server_process(tmp_path, lm_base_url=stand_in.base_url, environment=again):
            stand_in.release()
            run = watching.result(120)
        client.close()
    assert run.state == Optimization.STATE_SUCCEEDED
    assert run.resume_count == 1
    assert view.notes[0].startswith("connection lost")
    assert len(view.notes) == 1
    assert view.sequences == sorted(set(view.sequences))


@pytest.mark.slow
def test_resumed_run_is_followed_to_its_new_end(tmp_path: Path) -> None:
    """What was cancelled and goes on is followed to its new end."""
    view = Recorder()
    with (
        running_stand_in(latency_s=0.02) as stand_in,
        server_process(tmp_path, lm_base_url=stand_in.base_url) as server,
        sidejudge.connect(server.address) as client,
    ):
        name = start_run(client, tmp_path)
        stand_in.wait_for_calls(5, timeout_s=60)
        session = Session(server.address, 30, client)
        client.optimization.CancelOptimization(
            optimization_service_pb2.CancelOptimizationRequest(name=name)
        )
        cancelled = follow(session, name, Recorder())
        client.optimization.ResumeOptimization(
            optimization_service_pb2.ResumeOptimizationRequest(name=name)
        )
        run = follow(session, name, view)
    assert cancelled.state == Optimization.STATE_CANCELLED
    assert run.state == Optimization.STATE_SUCCEEDED


@pytest.mark.slow
def test_sidecar_that_stays_away_ends_the_watch_with_a_way_back(
    tmp_path: Path,
) -> None:
    """Patience ends, and the message says how to go on watching."""
    pauses: list[float] = []
    address = f"unix:{tmp_path}/nobody.sock"
    with (
        sidejudge.connect(address) as client,
        pytest.raises(CommandError, match="optimizations watch optimizations/o"),
    ):
        follow(
            Session(address, 1, client),
            "optimizations/o",
            Recorder(),
            pause=pauses.append,
            patience=1,
        )
    assert pauses == [0.2]
