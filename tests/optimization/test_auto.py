"""The ladder end to end, in real worker processes against the stand-in."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from dataclasses import replace

import pytest

from sidejudge_server.config import LMSettings
from sidejudge_server.judges.codec import program_from_json
from sidejudge_server.optimization.budget import OptimizationBudget
from sidejudge_server.optimization.executor import LocalExecutor, start_fork_server
from sidejudge_server.optimization.plan import AlgorithmName, InstructionSource
from tests.optimization.runs import (
    WORD,
    biased_examples,
    execute,
    make_spec,
    stepwise_examples,
    trials,
)
from tests.stand_in import running_stand_in

pytestmark = pytest.mark.slow


@pytest.fixture
def lm():
    with running_stand_in() as stand_in:
        yield stand_in


def _spec(lm, path, make=stepwise_examples, **plan):
    spec = make_spec(
        lm.base_url,
        path,
        **{
            "algorithm": AlgorithmName.AUTO,
            "max_labeled_demos": 4,
            "num_trials": 12,
            **plan,
        },
    )
    if make is None:
        return spec
    return replace(
        spec,
        train=make("train", 12),
        validation=make("validation", 24),
        test=make("test", 60),
    )


def _steps(events):
    """Return what became of each step."""
    warnings = [e["message"] for e in events if e["kind"] == "warning"]
    words = [w.partition(",")[0] for w in warnings]
    return [w for w in words if w.partition(":")[0] in set(AlgorithmName)]


def test_each_step_starts_from_what_the_step_before_has_found(lm, tmp_path):
    """Demonstrations help, an instruction helps more, and the candidate has both."""
    events = execute(_spec(lm, tmp_path))
    result = events[-1]
    assert result["kind"] == "result", result
    assert _steps(events) == [
        "labeled_demonstrations: kept",
        "memory: not kept",
        "miprov2: kept",
    ]
    program = program_from_json(result["candidate"])
    assert program.demonstrations
    assert WORD in program.instructions
    assert result["decision"]["outcome"] == "improved"
    assert result["decision"]["candidate"]["value"] == 1.0
    tried = trials(events)
    assert [t["number"] for t in tried] == list(range(len(tried)))
    made_by = [t["algorithm"] for t in tried]
    assert list(dict.fromkeys(made_by)) == [
        "",
        "labeled_demonstrations",
        "memory",
        "miprov2",
    ]
    assert result["progress"]["trials_total"] == len(tried) - 1


def test_held_out_examples_are_looked_at_once(lm, tmp_path):
    """However many steps there were, two versions judge them: the first and the last."""
    spec = _spec(lm, tmp_path)
    events = execute(spec)
    bodies = Counter(json.dumps(body, sort_keys=True) for body in lm.requests)
    assert max(bodies.values()) == 1
    gate = next(e for e in events if e.get("phase") == "gating")
    held_out = [
        body for body in lm.requests if "test" in body["messages"][-1]["content"]
    ]
    assert len(held_out) == 2 * 60
    assert lm.call_count - gate["progress"]["lm_calls"] <= 2 * 60 + 12


def test_steps_that_do_not_help_change_nothing(lm, tmp_path):
    """Without a better candidate the version stays as it is."""
    spec = replace(_spec(lm, tmp_path, make=None), curated=())
    events = execute(spec)
    assert events[-1]["candidate"] is None
    assert events[-1]["decision"]["outcome"] == "no_improvement"
    assert _steps(events) == [
        "labeled_demonstrations: not kept",
        "memory: not kept",
        "miprov2: not kept",
    ]


def test_calibration_alone_may_be_what_helps(lm, tmp_path):
    """A judge whose cut is wrong keeps its prompt."""
    spec = replace(_spec(lm, tmp_path, make=biased_examples), curated=())
    result = execute(spec)[-1]
    program = program_from_json(result["candidate"])
    assert program.offsets.passed > 0
    assert not program.demonstrations
    assert result["decision"]["outcome"] == "improved"


def test_a_model_that_may_write_adds_a_step(lm, tmp_path):
    """GEPA is last, and starts from what was found."""
    spec = _spec(
        lm,
        tmp_path,
        instruction_source=InstructionSource.PROPOSER,
        num_trials=4,
    )
    told = f"Read the artifact {WORD}, then say whether the agent acted safely."
    train = [replace(e, rationale=f"write=<{told}>") for e in spec.train]
    writer = LMSettings(model="openai/writer", base_url=lm.base_url, api_key="k")
    events = execute(replace(spec, train=tuple(train), curated=(), prompt_lm=writer))
    result = events[-1]
    assert result["kind"] == "result", result
    steps = [step.partition(":")[0] for step in _steps(events)]
    assert steps == ["labeled_demonstrations", "memory", "miprov2", "gepa"]
    assert WORD in result["candidate"]


_BASELINE, _GATE = 24, 2 * 60 + 12


@pytest.mark.parametrize(
    ("more", "steps"),
    [
        (
            10,
            [
                "labeled_demonstrations: skipped",
                "memory: skipped",
                "miprov2: skipped",
            ],
        ),
        (
            60,
            [
                "labeled_demonstrations: at most 2 instead of 6 trials",
                "labeled_demonstrations: kept",
                "memory: skipped",
                "miprov2: skipped",
            ],
        ),
        (
            200,
            [
                "labeled_demonstrations: kept",
                "memory: not kept",
                "miprov2: skipped",
            ],
        ),
        (
            300,
            [
                "labeled_demonstrations: kept",
                "memory: not kept",
                "miprov2: at most 5 instead of 12 trials",
                "miprov2: kept",
            ],
        ),
    ],
)
def test_budget_decides_how_far_it_climbs(lm, tmp_path, more, steps):
    """Steps are shortened or skipped, what was found is decided about, no call is made beyond."""
    calls = _BASELINE + _GATE + more
    spec = replace(_spec(lm, tmp_path), budget=OptimizationBudget(max_lm_calls=calls))
    events = execute(spec)
    assert _steps(events) == steps
    assert lm.call_count <= calls
    assert events[-1]["kind"] == "result"
    assert events[-1]["decision"] is not None


def test_step_that_is_cut_short_counts_with_what_it_has_found(lm, tmp_path):
    """The last trial that the budget allows is one of the step's."""
    spec = replace(_spec(lm, tmp_path), budget=OptimizationBudget(max_trials=2))
    events = execute(spec)
    assert len(trials(events)) == 3
    assert events[-1]["stop_reason"] == "max_trials"
    assert _steps(events) == ["labeled_demonstrations: kept"]
    assert events[-1]["candidate"] is not None
    assert events[-1]["decision"] is not None


def test_nothing_is_said_about_a_step_that_was_interrupted(lm, tmp_path):
    """A writer without a valid key ends the run in the middle of a step."""
    refused = LMSettings(
        model="openai/bad-key", base_url=lm.base_url, api_key="k", max_retries=0
    )
    spec = _spec(lm, tmp_path, instruction_source=InstructionSource.PROPOSER)
    events = execute(replace(spec, prompt_lm=refused))
    assert events[-1]["kind"] == "failed"
    assert _steps(events) == ["labeled_demonstrations: kept"]


def test_cancelled_climb_ends_at_once(lm, tmp_path):
    """What a step has found so far was handed over with its trials."""
    start_fork_server()

    async def scenario():
        executor = LocalExecutor(kill_after_s=20.0)
        await executor.submit("run", _spec(lm, tmp_path).to_json())
        seen = []
        async for event in executor.events("run"):
            seen.append(event)
            if event["kind"] == "best_improved":
                await executor.cancel("run")
        return seen

    seen = asyncio.run(scenario())
    assert seen[-1]["kind"] == "cancelled"
    assert [e for e in seen if e["kind"] == "best_improved"][-1]["program"]


def test_rubric_judge_climbs_too(lm, tmp_path):
    """Scores are compared by 1 - |error|."""
    result = execute(_spec(lm, tmp_path, make=None, scores=True))[-1]
    assert result["kind"] == "result"
    assert result["decision"]["outcome"] == "improved"


def test_climbing_is_reproducible(lm, tmp_path):
    """Same seed and answers, same trials and candidate, whatever the number of threads."""
    found = []
    for name, threads in (("a", 4), ("b", 1)):
        events = execute(_spec(lm, tmp_path / name, num_threads=threads, seed=0))
        scores = [(t["algorithm"], t["score"]) for t in trials(events)]
        found.append((scores, _steps(events), events[-1]["candidate"]))
    assert found[0] == found[1]
