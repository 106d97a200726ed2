"""Whatever a run does, doing it again with its answers gives the same: what resuming rests on."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from dataclasses import replace

import pytest

from sidejudge_server.optimization.budget import OptimizationBudget
from sidejudge_server.optimization.executor import LocalExecutor, start_fork_server
from sidejudge_server.optimization.plan import AlgorithmName, InstructionSource
from sidejudge_server.optimization.spec import Progress, spent_before
from tests.optimization.runs import execute, make_spec, stepwise_examples
from tests.stand_in import running_stand_in

pytestmark = pytest.mark.slow

SEED = 9
INTERRUPTIONS = 4
ALGORITHMS = {
    "miprov2": {"instruction_source": InstructionSource.PROPOSER, "seed": 0},
    "miprov2 with curated instructions": {"max_bootstrapped_demos": 2},
    "miprov2 on minibatches": {"minibatch_size": 12, "early_stopping": False},
    "labelled demonstrations": {"algorithm": AlgorithmName.LABELED_DEMONSTRATIONS},
    "memory": {
        "algorithm": AlgorithmName.MEMORY,
        "instruction_source": InstructionSource.PROPOSER,
    },
    "gepa": {
        "algorithm": AlgorithmName.GEPA,
        "instruction_source": InstructionSource.PROPOSER,
    },
    "auto": {
        "algorithm": AlgorithmName.AUTO,
        "instruction_source": InstructionSource.PROPOSER,
    },
    "calibration": {"algorithm": AlgorithmName.CALIBRATION},
    "a model without log probabilities": {"model": "openai/no-logprobs"},
    "a model that leaves them out": {"model": "openai/ignores-logprobs"},
    "scores": {"scores": True, "instruction_source": InstructionSource.PROPOSER},
}


def _spec(lm, path, *, scores=False, model="openai/stand-in", **plan):
    spec = make_spec(
        lm.base_url,
        path,
        scores=scores,
        model=model,
        **{"num_trials": 8, "max_labeled_demos": 4, "num_threads": 8, **plan},
    )
    if scores:
        return spec
    return replace(
        spec,
        train=stepwise_examples("train", 12),
        validation=stepwise_examples("validation", 24),
        test=stepwise_examples("test", 30),
    )


def _execute_with_interruptions(spec, lm, points):
    """Let the worker leave whenever so many calls have been made, and start it again.

    Returns the events of the last life and how many lives were cut short.
    """
    start_fork_server()

    async def life(spec, point):
        executor = LocalExecutor()
        await executor.submit("run", spec.to_json())
        events = executor.events("run")
        seen = []

        async def read():
            seen.extend([dict(event) async for event in events])

        reading = asyncio.create_task(read())
        if point is not None:
            calls = asyncio.create_task(asyncio.to_thread(lm.wait_for_calls, point))
            await asyncio.wait({calls, reading}, return_when=asyncio.FIRST_COMPLETED)
            calls.cancel()
            await executor.close(grace_s=10.0)
        await reading
        return seen

    cut = 0
    for point in points:
        seen = asyncio.run(life(spec, point))
        cut += seen[-1]["kind"] == "crashed"
        progress = [Progress.from_json(e["progress"]) for e in seen if "progress" in e]
        if progress:
            spec = replace(
                spec,
                spent=spent_before(progress[-1]),
                elapsed_s=progress[-1].elapsed_s,
            )
    return asyncio.run(life(spec, None)), cut


def _said(events):
    """What a worker has said, without what tells the time or what was spent."""
    said = []
    for event in events:
        if event["kind"] == "progress":
            continue
        told = {k: v for k, v in event.items() if k != "progress"}
        if event["kind"] == "trial_completed":
            told["trial"] = {k: v for k, v in event["trial"].items() if k != "end_time"}
        said.append(told)
    return said


def _bodies(lm):
    return [json.dumps(body, sort_keys=True) for body in lm.requests]


@pytest.mark.parametrize("name", ALGORITHMS)
def test_interrupted_search_comes_to_the_same_without_asking_twice(name, tmp_path):
    """Candidate, decision and every event are those of a search that was left alone."""
    with running_stand_in(latency_s=0.005) as lm:
        whole = execute(_spec(lm, tmp_path / "whole", **ALGORITHMS[name]))
        expected = _bodies(lm)
        dice = random.Random(SEED)  # noqa: S311 - moments, no secret
        points = sorted(dice.sample(range(1, len(expected)), INTERRUPTIONS))
        points = [len(expected) + point for point in points]
        spec = _spec(lm, tmp_path / "cut", **ALGORITHMS[name])
        events, cut = _execute_with_interruptions(spec, lm, points)
        asked = _bodies(lm)[len(expected) :]

    assert whole[-1]["kind"] == "result", whole[-1]
    assert cut >= INTERRUPTIONS // 2
    assert {b: n for b, n in Counter(asked).items() if n > 1} == {}
    assert _said(events) == _said(whole)
    assert sorted(asked) == sorted(expected)


@pytest.mark.parametrize("calls", [150, 220])
@pytest.mark.parametrize("name", ["auto", "miprov2"])
def test_interrupted_search_stops_where_its_budget_stopped_it(name, calls, tmp_path):
    """What was decided by what was left of the budget is decided once, and the bound holds."""
    budget = OptimizationBudget(max_lm_calls=calls)
    with running_stand_in(latency_s=0.005) as lm:
        spec = replace(_spec(lm, tmp_path / "whole", **ALGORITHMS[name]), budget=budget)
        whole = execute(spec)
        before = len(lm.requests)
        dice = random.Random(SEED + calls)  # noqa: S311 - moments, no secret
        points = sorted(dice.sample(range(1, before), INTERRUPTIONS))
        spec = replace(_spec(lm, tmp_path / "cut", **ALGORITHMS[name]), budget=budget)
        events, _ = _execute_with_interruptions(spec, lm, [before + p for p in points])
        asked = _bodies(lm)[before:]

    assert before <= calls
    assert len(asked) <= calls
    assert {b: n for b, n in Counter(asked).items() if n > 1} == {}
    assert _said(events) == _said(whole)


def test_answers_that_are_there_count_also_when_the_time_is_up(tmp_path):
    """A run whose time ended at its gate comes to where it was, and makes no call."""
    with running_stand_in() as lm:
        spec = _spec(lm, tmp_path, **ALGORITHMS["auto"])
        whole = execute(spec)
        before = len(lm.requests)
        again = execute(replace(spec, elapsed_s=spec.budget.max_duration_s + 1))

    assert _said(again) == _said(whole)
    assert len(lm.requests) == before
