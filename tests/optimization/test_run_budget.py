"""Whole runs within a budget, seen at the stand-in."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sidejudge_server.config import LMSettings
from sidejudge_server.judges.codec import program_from_json
from sidejudge_server.optimization.budget import OptimizationBudget
from sidejudge_server.optimization.plan import InstructionSource
from sidejudge_server.optimization.spending import Spend
from tests.optimization.runs import WORD, execute, make_spec
from tests.stand_in import running_stand_in

pytestmark = pytest.mark.slow

_GATE = 2 * 60 + 12
_BASELINE = 12


@pytest.fixture
def lm():
    with running_stand_in() as stand_in:
        yield stand_in


def _phases(events):
    return [e["phase"] for e in events if e["kind"] == "phase_changed"]


def _within(spec, **bounds):
    return replace(spec, budget=OptimizationBudget(**bounds))


def _with_proposer(spec, lm, *, retries=0):
    writer = LMSettings(
        model="openai/writer", base_url=lm.base_url, api_key="k", max_retries=retries
    )
    return replace(spec, prompt_lm=writer)


@pytest.mark.parametrize("threads", [1, 8])
@pytest.mark.parametrize("proposer", [False, True])
@pytest.mark.parametrize(
    "calls", [1, 7, _BASELINE, 40, _BASELINE + _GATE, 160, 175, 5_000]
)
def test_a_run_makes_no_call_beyond_its_budget(tmp_path, lm, calls, threads, proposer):
    """Not one request more reaches the model, whatever the number of threads."""
    source = InstructionSource.PROPOSER if proposer else InstructionSource.CURATED
    spec = make_spec(
        lm.base_url, tmp_path, num_threads=threads, instruction_source=source
    )
    if proposer:
        spec = _with_proposer(spec, lm)
    result = execute(_within(spec, max_lm_calls=calls))[-1]
    assert result["kind"] == "result", result
    assert lm.call_count <= calls
    assert result["progress"]["lm_calls"] == lm.call_count
    decided = calls >= _BASELINE + _GATE
    assert (result["decision"] is not None) == decided
    used_up = calls < 5_000
    assert result["stop_reason"] == ("max_lm_calls" if used_up else "completed")


def test_a_search_that_is_out_of_calls_still_ends_with_a_decision(lm, tmp_path):
    """What refit and gate take is kept back from the start."""
    spec = make_spec(lm.base_url, tmp_path)
    events = execute(_within(spec, max_lm_calls=_BASELINE + _GATE + 15))
    assert _phases(events)[-2:] == ["refitting", "gating"]
    result = events[-1]
    assert result["decision"]["outcome"] == "improved"
    assert WORD in program_from_json(result["candidate"]).instructions
    assert result["stop_reason"] == "max_lm_calls"
    assert 0 < result["progress"]["trials_completed"] < spec.plan.num_trials


def test_a_budget_that_does_not_reach_the_gate_keeps_the_best(lm, tmp_path):
    """All of it goes into the search; the result says what is missing."""
    spec = make_spec(lm.base_url, tmp_path)
    events = execute(_within(spec, max_lm_calls=100))
    result = events[-1]
    assert result["decision"] is None
    assert WORD in program_from_json(result["candidate"]).instructions
    assert 0 < result["shortage"]["lm_calls"] <= _GATE
    warnings = [e["message"] for e in events if e["kind"] == "warning"]
    assert any("does not reach the gate" in message for message in warnings)


def test_retries_count(lm, tmp_path):
    """A request that fails and is made again is two of the budget."""
    spec = make_spec(lm.base_url, tmp_path, model="openai/flaky-1")
    task_lm = replace(spec.task_lm, max_retries=2)
    events = execute(_within(replace(spec, task_lm=task_lm), max_lm_calls=9))
    assert lm.call_count == 9
    assert events[-1]["progress"]["lm_calls"] == 9
    assert events[-1]["stop_reason"] == "max_lm_calls"


def test_what_earlier_lives_spent_counts(lm, tmp_path):
    """The budget is for all lives of a run together."""
    spec = make_spec(lm.base_url, tmp_path)
    spec = replace(spec, spent=Spend(lm_calls=95, input_tokens=9_000))
    result = execute(_within(spec, max_lm_calls=100))[-1]
    assert lm.call_count == 5
    assert result["progress"]["lm_calls"] == 100


@pytest.mark.parametrize("threads", [1, 8])
def test_tokens_are_never_exceeded(lm, tmp_path, threads):
    """The most that a call can take is reserved before it is made."""
    spec = make_spec(lm.base_url, tmp_path, num_threads=threads)
    result = execute(_within(spec, max_tokens=9_000))[-1]
    progress = result["progress"]
    assert 4_000 < progress["input_tokens"] + progress["output_tokens"] <= 9_000
    assert result["stop_reason"] == "max_tokens"


def test_money_is_never_exceeded(lm, tmp_path):
    """Priced by the settings of the model."""
    spec = make_spec(lm.base_url, tmp_path)
    priced = replace(spec.task_lm, input_usd_per_mtok=3.0, output_usd_per_mtok=15.0)
    spec = replace(spec, task_lm=priced)
    unbounded = execute(spec)[-1]["progress"]["cost_usd"]
    spec = replace(spec, work_dir=str(tmp_path / "again"))
    result = execute(_within(spec, max_cost_usd=0.8 * unbounded))[-1]
    assert 0 < result["progress"]["cost_usd"] <= 0.8 * unbounded
    assert result["stop_reason"] == "max_cost"


def test_money_of_a_model_without_price_is_not_spent(lm, tmp_path):
    """What cannot be told is not within a bound."""
    spec = make_spec(lm.base_url, tmp_path)
    result = execute(_within(spec, max_cost_usd=10.0))[-1]
    assert lm.call_count == 0
    assert result["stop_reason"] == "max_cost"


@pytest.mark.parametrize(
    ("minibatch", "trials"), [(None, 1), (None, 3), (5, 1), (5, 2), (5, 4)]
)
def test_no_trial_beyond_the_budget(lm, tmp_path, minibatch, trials):
    """Full evaluations between minibatches are trials too; the gate follows all the same."""
    spec = make_spec(lm.base_url, tmp_path, minibatch_size=minibatch)
    result = execute(_within(spec, max_trials=trials))[-1]
    assert result["progress"]["trials_completed"] <= trials
    assert result["decision"] is not None
    assert result["stop_reason"] == "max_trials"


def test_time_ends_a_run_that_waits_for_its_model(lm, tmp_path):
    """A call in flight is given up when the time is over."""
    spec = make_spec(lm.base_url, tmp_path, model="openai/slow")
    events = execute(_within(spec, max_duration_s=1.0))
    lm.release()
    assert events[-1]["kind"] == "result"
    assert events[-1]["decision"] is None
    assert events[-1]["stop_reason"] == "max_duration"
