"""Faults inside and around a worker: each with its reason, none losing finished trials."""

from __future__ import annotations

import asyncio
import json
import os
from dataclasses import replace

import pytest

from sidejudge_server.config import LMSettings
from sidejudge_server.optimization.executor import LocalExecutor, start_fork_server
from sidejudge_server.optimization.plan import InstructionSource
from sidejudge_server.optimization.queue import CreateOptimization
from sidejudge_server.optimization.spec import EventKind
from sidejudge_server.optimization.watchdog import Cause, Watchdog, WorkerLimits
from tests.optimization import toy_workers
from tests.optimization.runs import execute, make_spec
from tests.optimization.service_setup import running
from tests.stand_in import running_stand_in

_MB = 1024 * 1024


@pytest.fixture
def lm():
    with running_stand_in() as stand_in:
        yield stand_in


def _run(spec, entry, limits=None):
    """Run a spec with a worker of another making; return its events."""
    start_fork_server()

    async def scenario():
        executor = LocalExecutor(entry=entry, limits=limits)
        await executor.submit("run", spec.to_json())
        return [dict(event) async for event in executor.events("run")]

    return asyncio.run(scenario())


class _Clock:
    now = 0.0

    def __call__(self):
        return self.now


def test_silence_is_counted_from_the_last_word():
    """Every word counts; exactly the time allowed is allowed."""
    clock = _Clock()
    watchdog = Watchdog(WorkerLimits(silence_s=60, clock=clock))
    clock.now = 60
    assert watchdog.verdict(1) is None
    watchdog.heard()
    clock.now = 120
    assert watchdog.verdict(1) is None
    clock.now = 120.5
    assert watchdog.verdict(1) is Cause.SILENCE


@pytest.mark.parametrize(
    ("used", "expected"), [(99, None), (100, None), (101, Cause.MEMORY), (None, None)]
)
def test_memory_is_what_the_process_uses(used, expected):
    """A process that has ended uses none; one without an id is not looked at."""
    watchdog = Watchdog(WorkerLimits(memory_bytes=100, resident=lambda _: used))
    assert watchdog.verdict(7) is expected
    assert watchdog.verdict(None) is None


def test_this_process_uses_memory():
    """The system tells it by process id."""
    limits = WorkerLimits(memory_bytes=1)
    assert Watchdog(limits).verdict(os.getpid()) is Cause.MEMORY


@pytest.mark.slow
def test_a_worker_that_says_nothing_is_ended(tmp_path):
    """Its run fails with the reason and the time, and the judge is free again."""

    async def scenario():
        limits = WorkerLimits(silence_s=0.2, look_every_s=0.05)
        async with running(tmp_path, entry=toy_workers.mute, limits=limits) as server:
            await server.train()
            record = await server.service.create(CreateOptimization("safety"))
            ended = (await server.watch_all(record.optimization_id))[-1].record
            again = await server.service.create(CreateOptimization("safety"))
            return ended, again

    ended, again = asyncio.run(scenario())
    error = json.loads(ended.error_json)
    assert (ended.state, ended.outcome) == ("failed", "failed")
    assert error["reason"] == "WORKER_SILENT"
    assert error["metadata"]["silence_s"] == "0.2"
    assert again.state == "running"


@pytest.mark.slow
def test_a_worker_over_its_memory_ends_its_run_and_no_other(tmp_path):
    """The best so far is kept, the other judge's run goes on."""

    async def scenario():
        limits = WorkerLimits(memory_bytes=250 * _MB, look_every_s=0.05)
        async with running(tmp_path, max_workers=2, limits=limits) as server:
            for judge in ("safety", "relevance"):
                await server.train(judge)
            other = await server.service.create(CreateOptimization("relevance"))
            await server.watch_until(other.optimization_id, EventKind.BEST_IMPROVED)
            server.executor._entry = toy_workers.takes_memory
            greedy = await server.service.create(CreateOptimization("safety"))
            ended = (await server.watch_all(greedy.optimization_id))[-1].record
            alive = server.executor.status(other.optimization_id).alive
            trials = await server.service.list_trials(greedy.optimization_id, limit=9)
            return ended, alive, trials

    ended, alive, trials = asyncio.run(scenario())
    error = json.loads(ended.error_json)
    assert error["reason"] == "WORKER_OUT_OF_MEMORY"
    assert error["code"] == "RESOURCE_EXHAUSTED"
    assert error["metadata"]["limit_mb"] == "250"
    assert ended.candidate_version == 2
    assert "worker_memory_mb" in ended.summary
    assert alive
    assert len(trials) == 1


@pytest.mark.slow
def test_an_allocation_that_fails_ends_the_run_with_its_reason(lm, tmp_path):
    """The limit inside the process is hit at once; an optimizer would have scored it 0."""
    limits = WorkerLimits(memory_bytes=400 * _MB, resident=lambda _: 0)
    spec = make_spec(lm.base_url, tmp_path)
    events = _run(spec, toy_workers.reserves_too_much, limits)
    assert events[-1]["kind"] == "failed"
    assert events[-1]["error"]["reason"] == "WORKER_OUT_OF_MEMORY"
    assert "progress" in events[-1]


@pytest.mark.slow
def test_a_metric_that_raises_ends_the_run_and_is_named(lm, tmp_path):
    """It is a fault, and no score of 0."""
    spec = make_spec(lm.base_url, tmp_path)
    events = _run(spec, toy_workers.has_a_metric_that_raises)
    error = events[-1]["error"]
    assert error["reason"] == "METRIC_FAILED"
    assert error["metadata"] == {"exception": "ZeroDivisionError"}
    assert not any(e["kind"] == "trial_completed" for e in events)


@pytest.mark.slow
def test_a_full_disk_ends_the_run_and_keeps_its_trials(lm, tmp_path):
    """Answers that cannot be kept would be paid for again: the run stops and says why."""
    events = _run(make_spec(lm.base_url, tmp_path), toy_workers.has_a_small_disk)
    assert events[-1]["kind"] == "failed"
    error = events[-1]["error"]
    assert (error["code"], error["reason"]) == ("UNAVAILABLE", "WORK_DIR_UNAVAILABLE")
    assert error["metadata"]["cause"] == "file too large"
    trials = [e["trial"] for e in events if e["kind"] == "trial_completed"]
    assert trials
    assert all(trial["score"] > 0 for trial in trials)


@pytest.mark.slow
def test_a_work_directory_that_cannot_be_made_is_the_reason(lm, tmp_path):
    """Nothing has been asked by then."""
    spec = make_spec(lm.base_url, tmp_path)
    (tmp_path / "run").write_text("a file where the directory should be")
    last = execute(spec)[-1]
    assert last["error"]["reason"] == "WORK_DIR_UNAVAILABLE"
    assert lm.call_count == 0


@pytest.mark.slow
@pytest.mark.parametrize("name", ["spend.bin", "task.jsonl"])
def test_a_file_of_the_run_that_cannot_be_opened_is_the_reason(lm, tmp_path, name):
    """No call is made that could not be counted or kept."""
    spec = make_spec(lm.base_url, tmp_path)
    (tmp_path / "run" / name).mkdir(parents=True)
    last = execute(spec)[-1]
    assert last["error"]["reason"] == "WORK_DIR_UNAVAILABLE"
    assert last["error"]["metadata"]["cause"] == "is a directory"
    assert lm.call_count == 0


@pytest.mark.slow
def test_an_unknown_model_ends_the_run_at_once(lm, tmp_path):
    """However patient the run is with models that are down."""
    spec = make_spec(lm.base_url, tmp_path, model="openai/unknown-model")
    last = execute(replace(spec, lm_outage_s=900.0))[-1]
    assert last["error"]["reason"] == "LM_REQUEST_REJECTED"
    assert "model_not_found" in last["error"]["message"]


@pytest.mark.slow
def test_a_proposer_without_anything_usable_costs_its_calls_only(lm, tmp_path):
    """Curated instructions stand in, the refusals are told, the gate decides."""
    spec = make_spec(
        lm.base_url, tmp_path, instruction_source=InstructionSource.PROPOSER
    )
    writer = LMSettings(model="openai/garbage", base_url=lm.base_url, api_key="k")
    events = execute(replace(spec, prompt_lm=writer))
    assert events[-1]["kind"] == "result"
    assert events[-1]["decision"]["outcome"] == "improved"
    proposed = [e for e in events if e["kind"] == "instruction_proposed"]
    assert {e["instructions"] for e in proposed if not e["refusal"]} >= set(
        spec.curated
    )
