"""A run that is killed again and again ends as if it had never been interrupted."""

from __future__ import annotations

import asyncio
import json
import random
import shutil
import threading
from collections import Counter
from dataclasses import dataclass
from typing import Any

import grpc
import pytest

import sidejudge
from sidejudge.v1 import optimization_pb2
from sidejudge.v1 import optimization_service_pb2 as pb
from sidejudge_server.optimization.executor import start_fork_server
from sidejudge_storage import Storage
from tests.stand_in import running_stand_in
from tests.support.calls import failure, new_uuid
from tests.support.server import running_server, server_process, settings_for
from tests.support.training import teachable_judge

pytestmark = pytest.mark.slow

Optimization = optimization_pb2.Optimization
OptimizationConfig = optimization_pb2.OptimizationConfig
KILLS = 10
WATCHERS = 20
SEED = 9
LATENCY_S = 0.02
CONFIG = OptimizationConfig(
    num_trials=12,
    num_candidates=4,
    max_bootstrapped_demos=1,
    max_labeled_demos=2,
    instruction_source=OptimizationConfig.INSTRUCTION_SOURCE_PROPOSER,
    algorithm=OptimizationConfig.ALGORITHM_MIPROV2,
    seed=0,
)
LIMIT_S = 120


@pytest.fixture(scope="module", autouse=True)
def fork_server():
    """Workers are forked from a process without threads, as in `sidejudge serve`."""
    start_fork_server()


def plain_client(address):
    """Return a client without retries of its own."""
    options = [("grpc.enable_retries", 0)]
    return sidejudge.Client(grpc.insecure_channel(address, options=options))


def start(client, judge, **fields):
    request = pb.CreateOptimizationRequest(
        optimization=Optimization(judge=judge, **{"config": CONFIG, **fields})
    )
    return client.optimization.CreateOptimization(request, timeout=60).optimization


def watch(client, name, token="", *, from_start=False):
    request = pb.WatchOptimizationRequest(
        name=name, resume_token=token, from_start=from_start
    )
    for answer in client.optimization.WatchOptimization(request, timeout=LIMIT_S):
        yield answer.event


class Sidecar:
    """The server that runs at the moment, for watchers that have to find the next one."""

    def __init__(self):
        self._address = None
        self._changed = threading.Condition()

    def serve(self, address):
        """Point the watchers to a server, None for none."""
        with self._changed:
            self._address = address
            self._changed.notify_all()

    def address(self):
        """Wait for a server and return its address."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._address, LIMIT_S):
                raise TimeoutError
            return self._address


class Watcher(threading.Thread):
    """Follows a run from its first event, cutting its stream whenever its dice say so."""

    def __init__(self, number, sidecar, name):
        super().__init__(name=f"watcher-{number}", daemon=True)
        self._dice = random.Random(SEED + number)  # noqa: S311 - moments, no secret
        self._sidecar = sidecar
        self._run = name
        self.events = []
        self.cuts = 0
        self.faults = []

    def run(self):
        """Follow until the run has ended."""
        while not self.events or not self.events[-1].HasField("finished"):
            try:
                with plain_client(self._sidecar.address()) as client:
                    self._follow(client)
            except (grpc.RpcError, ValueError) as error:
                if not _gone(error):
                    self.faults.append(error)
                    return
            self.cuts += 1

    def _follow(self, client):
        left = self._dice.randrange(1, 8)
        token = self.events[-1].resume_token if self.events else ""
        stream = watch(client, self._run, token, from_start=not token)
        for event in stream:
            if event.WhichOneof("event") not in {"heartbeat", "snapshot"}:
                self.events.append(event)
                left -= 1
            if not left:
                break
        stream.close()


def _gone(error):
    passing = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}
    return isinstance(error, grpc.Call) and error.code() in passing


@dataclass
class Ended:
    """What is left of a run."""

    run: Any
    program_json: str
    events: list[Any]
    bodies: list[str]


def _program(directory, run):
    """Return the canonical program of a run's candidate, as the database has it."""

    async def read():
        storage = Storage.open(directory / "sidejudge.duckdb")
        try:
            versions = await storage.judges.all_versions()
        finally:
            await storage.close()
        name = run.candidate_version
        return next(
            v.program_json
            for v in versions
            if name == f"judges/{v.judge_id}/versions/{v.version}"
        )

    return asyncio.run(read())


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A database with a judge and its examples, to start equal runs from."""
    directory = tmp_path_factory.mktemp("data")
    with (
        server_process(directory, lm_base_url="http://127.0.0.1:9/v1") as server,
        sidejudge.connect(server.address) as client,
    ):
        judge = teachable_judge(client, "teachable", examples=120)
        server.terminate()
    return directory, judge


def _copy(data, tmp_path_factory):
    directory = tmp_path_factory.mktemp("run") / "copy"
    shutil.copytree(data[0], directory)
    return directory, data[1]


@pytest.fixture(scope="module")
def uninterrupted(data, tmp_path_factory):
    """A run that nothing happens to."""
    directory, judge = _copy(data, tmp_path_factory)
    with running_stand_in(latency_s=LATENCY_S) as stand_in:
        with (
            server_process(directory, lm_base_url=stand_in.base_url) as server,
            sidejudge.connect(server.address) as client,
        ):
            name = start(client, judge).name
            events = list(watch(client, name, from_start=True))
            server.terminate()
        bodies = [json.dumps(body) for body in stand_in.requests]
    run = events[-1].finished.optimization
    return Ended(run, _program(directory, run), events, bodies)


@pytest.fixture(scope="module")
def killed(data, uninterrupted, tmp_path_factory):
    """The same run on servers of which ten are killed and one is stopped, and its watchers."""
    directory, judge = _copy(data, tmp_path_factory)
    dice = random.Random(SEED)  # noqa: S311 - moments of kills, no secret
    calls = len(uninterrupted.bodies)
    points = sorted(dice.sample(range(1, calls - 10), KILLS + 1))
    sidecar = Sidecar()
    watchers, name = [], ""
    with running_stand_in(latency_s=LATENCY_S) as stand_in:
        for point in points:
            with server_process(directory, lm_base_url=stand_in.base_url) as server:
                if not name:
                    with sidejudge.connect(server.address) as client:
                        name = start(client, judge).name
                    watchers = [Watcher(n, sidecar, name) for n in range(WATCHERS)]
                    for watcher in watchers:
                        watcher.start()
                sidecar.serve(server.address)
                stand_in.wait_for_calls(point, timeout_s=LIMIT_S)
                if point == points[KILLS // 2]:
                    assert server.terminate() == 0
                else:
                    server.kill()
                sidecar.serve(None)
        with server_process(directory, lm_base_url=stand_in.base_url) as server:
            sidecar.serve(server.address)
            for watcher in watchers:
                watcher.join(LIMIT_S)
            with sidejudge.connect(server.address) as client:
                events = list(watch(client, name, from_start=True))
            server.terminate()
        bodies = [json.dumps(body) for body in stand_in.requests]
    run = events[-1].finished.optimization
    return Ended(run, _program(directory, run), events, bodies), watchers


def test_ten_kills_ask_nothing_twice_and_change_nothing(uninterrupted, killed):
    """The run goes on by itself each time, and its version is that of the uninterrupted run."""
    ended, _ = killed
    repeated = {b: n for b, n in Counter(ended.bodies).items() if n > 1}
    assert repeated == {}
    assert ended.run.state == Optimization.STATE_SUCCEEDED
    assert ended.run.resume_count == KILLS + 1
    assert ended.program_json == uninterrupted.program_json
    assert ended.run.decision == uninterrupted.run.decision
    assert sorted(ended.bodies) == sorted(uninterrupted.bodies)


def test_spend_goes_on_over_all_kills(uninterrupted, killed):
    """Calls, tokens and trials are those of the uninterrupted run, seen at the model too."""
    ended, _ = killed
    progress, expected = ended.run.progress, uninterrupted.run.progress
    for name in (
        "trials_completed",
        "lm_calls",
        "cached_calls",
        "input_tokens",
        "output_tokens",
    ):
        assert getattr(progress, name) == getattr(expected, name), name
    assert progress.lm_calls == len(ended.bodies)
    calls = [
        getattr(e, e.WhichOneof("event")).progress.lm_calls
        for e in ended.events
        if e.WhichOneof("event") in {"phase_changed", "trial_completed"}
    ]
    assert calls == sorted(calls)


def test_events_are_those_of_the_uninterrupted_run(uninterrupted, killed):
    """Between them only `resumed`, each with the answers that were kept."""
    ended, _ = killed
    kinds = [e.WhichOneof("event") for e in ended.events]
    expected = [e.WhichOneof("event") for e in uninterrupted.events]
    assert [k for k in kinds if k != "resumed"] == expected
    resumed = [e.resumed for e in ended.events if e.HasField("resumed")]
    assert [r.resume_count for r in resumed] == list(range(1, KILLS + 2))
    kept = [r.answers_kept for r in resumed]
    assert kept == sorted(kept)
    assert {r.reason for r in resumed} == {"the server was restarted"}


def test_twenty_watchers_that_cut_their_streams_miss_nothing(killed):
    """No gap, no repeat, no other order, whenever each stream was cut and the server killed."""
    ended, watchers = killed
    expected = [event.SerializeToString() for event in ended.events]
    for watcher in watchers:
        assert not watcher.is_alive()
        assert watcher.faults == []
        assert [e.sequence for e in watcher.events] == list(range(1, len(expected) + 1))
        assert [e.SerializeToString() for e in watcher.events] == expected
    assert sum(w.cuts for w in watchers) > WATCHERS * KILLS


@pytest.fixture
def sidecar(tmp_path):
    """A server in this process and its model, which answers after a moment."""
    with running_stand_in(latency_s=LATENCY_S) as stand_in:
        settings = settings_for(
            tmp_path, lm_base_url=stand_in.base_url, optimization={"lm_outage_s": 0.0}
        )
        with running_server(settings) as server:
            yield server.client, stand_in


def resume(client, name, **fields):
    request = pb.ResumeOptimizationRequest(name=name, **fields)
    return client.optimization.ResumeOptimization(request, timeout=60).optimization


def test_cancelled_run_goes_on_after_its_end(sidecar):
    """A token of its `finished` gets what follows; nothing is asked twice; once only."""
    client, stand_in = sidecar
    name = start(client, teachable_judge(client, "cancelled")).name
    stand_in.wait_for_calls(40, timeout_s=LIMIT_S)
    client.optimization.CancelOptimization(pb.CancelOptimizationRequest(name=name))
    cancelled = list(watch(client, name, from_start=True))
    request_id = new_uuid()
    running = resume(client, name, request_id=request_id)
    assert resume(client, name, request_id=request_id).resume_count == 1
    rest = list(watch(client, name, cancelled[-1].resume_token))
    assert running.state == Optimization.STATE_RUNNING
    assert not running.HasField("end_time")
    assert rest[0].resumed.reason == "it was asked to go on"
    assert rest[0].resumed.answers_kept >= 40
    sequences = [e.sequence for e in cancelled + rest]
    assert sequences == list(range(1, len(sequences) + 1))
    whole = list(watch(client, name, from_start=True))
    assert whole == cancelled + rest
    ends = [e.finished.optimization.state for e in whole if e.HasField("finished")]
    assert ends == [Optimization.STATE_CANCELLED, Optimization.STATE_SUCCEEDED]
    bodies = [json.dumps(body) for body in stand_in.requests]
    assert len(set(bodies)) == len(bodies)
    assert rest[-1].finished.optimization.progress.lm_calls == len(bodies)
    error = failure(
        client.optimization.ResumeOptimization, pb.ResumeOptimizationRequest(name=name)
    )
    assert (error.code.name, error.reason) == (
        "FAILED_PRECONDITION",
        "OPTIMIZATION_NOT_RESUMABLE",
    )
    assert error.metadata == {"optimization": name, "cause": "it has succeeded"}


def test_run_whose_model_was_down_goes_on_when_it_is_back(sidecar):
    """Only what was not answered is asked again."""
    client, stand_in = sidecar
    stand_in.fail_after(50)
    name = start(client, teachable_judge(client, "failed")).name
    failed = list(watch(client, name))[-1].finished.optimization
    answered = {json.dumps(body) for body in stand_in.requests[:50]}
    asked = len(stand_in.requests)
    stand_in.fail_after(None)
    resume(client, name)
    ended = list(watch(client, name))[-1].finished.optimization
    again = {json.dumps(body) for body in stand_in.requests[asked:]}
    assert failed.state == Optimization.STATE_FAILED
    assert failed.outcome == Optimization.OUTCOME_FAILED
    assert ended.state == Optimization.STATE_SUCCEEDED
    assert not ended.HasField("error")
    assert again & answered == set()


def test_run_that_ran_out_of_its_budget_goes_on_with_a_larger_one(sidecar):
    """Bounds count what was spent before; bounds that are not given stay."""
    client, stand_in = sidecar
    budget = optimization_pb2.OptimizationBudget(max_lm_calls=60, max_trials=20)
    name = start(client, teachable_judge(client, "poor"), budget=budget).name
    poor = list(watch(client, name))[-1].finished.optimization
    spent = len(stand_in.requests)
    refused = failure(
        client.optimization.ResumeOptimization,
        pb.ResumeOptimizationRequest(
            name=name,
            budget=optimization_pb2.OptimizationBudget(max_lm_calls=0),
            request_id="x",
        ),
    )
    larger = optimization_pb2.OptimizationBudget(max_lm_calls=2_000)
    running = resume(client, name, budget=larger)
    rest = list(watch(client, name, from_start=True))
    ended = rest[-1].finished.optimization
    assert poor.outcome == Optimization.OUTCOME_BUDGET
    assert spent <= 60
    assert {v.field for v in refused.violations} == {
        "budget.max_lm_calls",
        "request_id",
    }
    assert (running.budget.max_lm_calls, running.budget.max_trials) == (2_000, 20)
    assert running.outcome == Optimization.OUTCOME_UNSPECIFIED
    assert ended.decision.pair_count > 0
    assert ended.progress.lm_calls == len(stand_in.requests)
    bodies = [json.dumps(body) for body in stand_in.requests]
    assert len(set(bodies)) == len(bodies)
    # It comes to the gate after it has gone on.
    kinds = [e.WhichOneof("event") for e in rest]
    gating = [
        i
        for i, e in enumerate(rest)
        if e.phase_changed.phase == Optimization.PHASE_GATING
    ]
    assert gating[-1] > kinds.index("resumed")


def test_names_of_no_run_are_refused(sidecar):
    """Malformed and unknown ones."""
    client, _ = sidecar
    method = client.optimization.ResumeOptimization
    wrong = failure(method, pb.ResumeOptimizationRequest(name="optimizations"))
    unknown = failure(method, pb.ResumeOptimizationRequest(name="optimizations/no"))
    assert [v.field for v in wrong.violations] == ["name"]
    assert unknown.reason == "OPTIMIZATION_NOT_FOUND"
