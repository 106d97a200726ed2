"""Whole runs in real worker processes against the stand-in."""

from __future__ import annotations

import asyncio
import json
import os
import stat
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from sidejudge_server.config import LMSettings
from sidejudge_server.judges.codec import program_from_json, program_to_json
from sidejudge_server.judges.kinds import JudgeSpec, initial_program
from sidejudge_server.judges.types import (
    ArtifactInput,
    Demonstration,
    JudgeKind,
    Verdict,
)
from sidejudge_server.optimization.executor import LocalExecutor, start_fork_server
from sidejudge_server.optimization.plan import InstructionSource
from sidejudge_server.optimization.spec import RunSpec
from tests.optimization.runs import WORD, execute, kinds, make_spec
from tests.stand_in import running_stand_in

pytestmark = pytest.mark.slow


@pytest.fixture
def lm():
    with running_stand_in() as stand_in:
        yield stand_in


def _trials(events):
    return [e["trial"] for e in events if e["kind"] == "trial_completed"]


def _phases(events):
    return [e["phase"] for e in events if e["kind"] == "phase_changed"]


def _combinations(events):
    return [
        (t["instruction_index"], t["demonstration_set_index"], t["score"])
        for t in _trials(events)
    ]


def test_verdict_judge_gets_better_and_nothing_is_paid_twice(lm, tmp_path):
    """Every phase happens, the better instruction wins, the gate says so, calls are all distinct."""
    spec = make_spec(lm.base_url, tmp_path)
    events = execute(spec)
    assert _phases(events) == [
        "baseline",
        "bootstrapping",
        "proposing",
        "searching",
        "refitting",
        "gating",
    ]
    trials = _trials(events)
    assert [t["number"] for t in trials] == list(range(7))
    assert trials[0]["score"] == pytest.approx(0.6)
    assert max(t["score"] for t in trials) == pytest.approx(0.8)
    assert all(t["full_evaluation"] != t["stopped_early"] for t in trials)
    assert all(t["example_count"] == 12 for t in trials if t["full_evaluation"])
    assert not any(t["stopped_early"] for t in trials if t["best"])
    result = events[-1]
    assert result["kind"] == "result"
    assert result["decision"]["outcome"] == "improved"
    assert result["decision"]["baseline"]["value"] == pytest.approx(2 / 3)
    assert result["decision"]["candidate"]["value"] == 1.0
    assert (result["decision"]["wins"], result["decision"]["losses"]) == (20, 0)
    assert WORD in program_from_json(result["candidate"]).instructions
    assert result["metrics"]["test.accuracy"] == 1.0
    bodies = Counter(json.dumps(body, sort_keys=True) for body in lm.requests)
    assert max(bodies.values()) == 1
    assert result["progress"]["lm_calls"] == lm.call_count
    assert result["progress"]["cached_calls"] > 0
    assert result["progress"]["eta_s"] is None
    checks = {check["name"]: check for check in result["decision"]["checks"]}
    assert checks["better_than_one_answer"]["observed"] == 1.0


def test_decision_shows_what_changed(lm, tmp_path):
    """Confusion matrices of both versions, and every example whose verdict is another one."""
    decision = execute(make_spec(lm.base_url, tmp_path))[-1]["decision"]
    assert decision["baseline_confusion"] == [
        {"label": "fail", "verdict": "fail", "count": 20},
        {"label": "fail", "verdict": "pass", "count": 10},
        {"label": "pass", "verdict": "fail", "count": 10},
        {"label": "pass", "verdict": "pass", "count": 20},
    ]
    assert decision["candidate_confusion"] == [
        {"label": "fail", "verdict": "fail", "count": 30},
        {"label": "pass", "verdict": "pass", "count": 30},
    ]
    assert decision["changed_examples"] == [
        {
            "example_id": f"test{index}",
            "baseline_quality": 0.0,
            "candidate_quality": 1.0,
        }
        for index in range(0, 60, 3)
    ]
    assert (decision["stage"], decision["use_count"]) == ("full", 1)
    assert decision["e_value"] > 1000


def test_best_so_far_comes_with_a_program_to_keep(lm, tmp_path):
    """A stopped run leaves a usable version behind."""
    events = execute(make_spec(lm.base_url, tmp_path))
    best = [e for e in events if e["kind"] == "best_improved"]
    assert best
    assert best[-1]["score"] == max(t["score"] for t in _trials(events))
    assert WORD in program_from_json(best[-1]["program"]).instructions


def test_rubric_judge_gets_better(lm, tmp_path):
    """Scores go the same way, by 1 - |error| and a paired t-test."""
    result = execute(make_spec(lm.base_url, tmp_path, scores=True))[-1]
    assert result["kind"] == "result"
    assert result["decision"]["metric"] == "score_accuracy"
    assert result["decision"]["outcome"] == "improved"
    assert result["decision"]["baseline"]["value"] == pytest.approx(0.75, abs=0.01)
    assert result["decision"]["candidate"]["value"] > 0.98
    assert result["decision"]["baseline_confusion"] == []
    changes = [
        c["candidate_quality"] - c["baseline_quality"]
        for c in result["decision"]["changed_examples"]
    ]
    assert len(changes) == 60
    assert changes == sorted(changes, reverse=True)


def test_same_seed_same_run_and_zero_is_a_seed(lm, tmp_path):
    """Reproducible to the last score, whatever the number of threads; seed 0 is not 9."""
    runs = {}
    for name, plan in {
        "a": {"seed": 0},
        "b": {"seed": 0, "num_threads": 1},
        "nine": {"seed": 9},
    }.items():
        spec = make_spec(lm.base_url, tmp_path / name, num_trials=8, **plan)
        events = execute(spec)
        runs[name] = (_combinations(events), events[-1]["candidate"])
    assert runs["a"] == runs["b"]
    assert runs["a"][0] != runs["nine"][0]


def test_curated_source_never_asks_a_model_to_write(lm, tmp_path):
    """All calls are judgments of one token."""
    execute(make_spec(lm.base_url, tmp_path))
    assert {body["max_tokens"] for body in lm.requests} == {1}


def test_minibatches_report_full_evaluations_as_trials_of_their_own(lm, tmp_path):
    """Numbers have no gaps although the original's do."""
    spec = make_spec(lm.base_url, tmp_path, minibatch_size=5, num_trials=7)
    events = execute(spec)
    trials = _trials(events)
    assert [t["number"] for t in trials] == list(range(len(trials)))
    assert {(t["full_evaluation"], t["example_count"]) for t in trials} == {
        (True, 12),
        (False, 5),
    }
    assert sum(not t["full_evaluation"] for t in trials) == 7
    assert sum(t["full_evaluation"] for t in trials) >= 2
    assert not any(t["best"] for t in trials if not t["full_evaluation"])
    assert events[-1]["kind"] == "result"


@pytest.mark.parametrize(("bootstrapped", "labeled"), [(0, 2), (0, 0), (1, 0)])
def test_any_number_of_demonstrations_works(lm, tmp_path, bootstrapped, labeled):
    """Zero of a kind means none of it."""
    spec = make_spec(
        lm.base_url,
        tmp_path,
        num_candidates=5,
        max_bootstrapped_demos=bootstrapped,
        max_labeled_demos=labeled,
    )
    events = execute(spec)
    assert events[-1]["kind"] == "result", events[-1]
    most = max(t["demonstration_count"] for t in _trials(events))
    assert most <= bootstrapped + labeled
    assert (most > 0) == (labeled > 0 or bootstrapped > 0)


def test_demonstrations_keep_to_their_size(lm, tmp_path):
    """Examples that would fill the context are no demonstrations, and that is said."""
    events = execute(make_spec(lm.base_url, tmp_path, max_demo_chars=120))
    assert all(t["demonstration_count"] <= 1 for t in _trials(events))
    warnings = [e["message"] for e in events if e["kind"] == "warning"]
    assert any("too long" in message for message in warnings)


def test_serving_demonstrations_stay_in_the_search(lm, tmp_path):
    """The set of the version that serves is one of the candidates."""
    program = initial_program(JudgeSpec(JudgeKind.SAFETY))
    demo = Demonstration(
        ArtifactInput(artifact="The demonstration that serves"), verdict=Verdict.PASS
    )
    spec = replace(
        make_spec(lm.base_url, tmp_path, num_trials=15, num_candidates=2),
        program_json=program_to_json(replace(program, demonstrations=(demo,))),
    )
    events = execute(spec)
    assert _trials(events)[0]["demonstration_count"] == 1
    with_word = [
        body
        for body in lm.requests
        if WORD in body["messages"][0]["content"]
        and any("that serves" in m["content"] for m in body["messages"])
    ]
    assert with_word


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        ("down", "LM_UNAVAILABLE"),
        ("rate-limited", "LM_RATE_LIMITED"),
        ("bad-key", "LM_CREDENTIALS_REJECTED"),
        ("too-long", "LM_REQUEST_REJECTED"),
        ("garbage", "JUDGE_OUTPUT_UNPARSABLE"),
    ],
)
def test_failing_model_ends_the_run_with_the_cause(lm, tmp_path, model, reason):
    """An outage must not look like no improvement."""
    events = execute(make_spec(lm.base_url, tmp_path, model=f"openai/{model}"))
    assert events[-1]["kind"] == "failed"
    assert events[-1]["error"]["reason"] == reason
    assert events[-1]["error"]["metadata"]["model"] == f"openai/{model}"


def test_outage_in_the_middle_ends_the_run(lm, tmp_path):
    """The search stops at once instead of scoring everything 0."""
    lm.fail_after(40)
    events = execute(make_spec(lm.base_url, tmp_path))
    assert events[-1]["kind"] == "failed"
    assert events[-1]["error"]["reason"] == "LM_UNAVAILABLE"
    assert "searching" in _phases(events)
    assert lm.call_count <= 40 + 8
    assert all(t["score"] > 0 for t in _trials(events))


def test_model_without_logprobs_is_optimised_by_stated_confidence(lm, tmp_path):
    """The run works and the decision rests on stated probabilities."""
    spec = make_spec(lm.base_url, tmp_path, model="openai/no-logprobs")
    result = execute(spec)[-1]
    assert result["kind"] == "result"
    assert result["decision"]["outcome"] == "improved"


def test_proposals_are_checked_and_replaced(lm, tmp_path):
    """A proposer that repeats itself fills no places; code of ours is never sent."""
    spec = make_spec(
        lm.base_url,
        tmp_path,
        num_candidates=5,
        instruction_source=InstructionSource.PROPOSER,
    )
    spec = replace(
        spec,
        prompt_lm=LMSettings(
            model="openai/writer", base_url=lm.base_url, api_key="secret-key"
        ),
    )
    events = execute(spec)
    assert events[-1]["kind"] == "result"
    proposed = [e for e in events if e["kind"] == "instruction_proposed"]
    accepted = [e for e in proposed if not e["refusal"]]
    refused = [e for e in proposed if e["refusal"]]
    assert [e["instruction_index"] for e in accepted] == list(range(len(accepted)))
    assert all(e["instruction_index"] == -1 for e in refused)
    texts = [e["instructions"] for e in accepted]
    assert len(set(texts)) == len(texts)
    written = [b for b in lm.requests if b["model"] == "writer"]
    assert written
    sent = json.dumps(written)
    assert "def forward" not in sent
    assert "import dspy" not in sent


def test_proposer_that_is_refused_costs_proposals_only(lm, tmp_path):
    """Curated instructions take over when the prompt model cannot be asked at all."""
    spec = make_spec(
        lm.base_url, tmp_path, instruction_source=InstructionSource.PROPOSER
    )
    spec = replace(
        spec,
        prompt_lm=LMSettings(
            model="openai/too-long", base_url=lm.base_url, api_key="k"
        ),
    )
    events = execute(spec)
    assert events[-1]["kind"] == "result"
    texts = [e["instructions"] for e in events if e["kind"] == "instruction_proposed"]
    assert any(WORD in text for text in texts)
    assert any(e["kind"] == "warning" for e in events)


def test_secrets_and_texts_stay_private(lm, tmp_path):
    """The key is in no event and no file; what DSPy prints is for the owner's eyes only."""
    spec = make_spec(lm.base_url, tmp_path)
    events = execute(spec)
    assert "secret-key" not in json.dumps(events)
    work_dir = tmp_path / "run"
    assert stat.S_IMODE(work_dir.stat().st_mode) == 0o700
    log = work_dir / "worker.log"
    assert stat.S_IMODE(log.stat().st_mode) == 0o600
    for path in work_dir.rglob("*"):
        if path.is_file():
            assert b"secret-key" not in path.read_bytes()
    assert "secret-key" not in repr(spec)


def test_spec_survives_the_pipe(tmp_path):
    """JSON there and back gives the same spec."""
    spec = make_spec("http://127.0.0.1:1/v1", tmp_path)
    assert RunSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec


def test_cancel_ends_a_run_that_waits_for_the_model(lm, tmp_path):
    """The worker says so itself, before anybody kills it."""
    start_fork_server()
    spec = make_spec(lm.base_url, tmp_path, model="openai/slow")

    async def scenario():
        executor = LocalExecutor(kill_after_s=20.0)
        await executor.submit("run", spec.to_json())
        async for event in executor.events("run"):
            if event["kind"] == "progress" and lm.call_count:
                await executor.cancel("run")
            last = event
        return last

    last = asyncio.run(scenario())
    lm.release()
    assert last["kind"] == "cancelled"
    assert "progress" in last


_SCRIPT = """
import json, sys
from pathlib import Path
from tests.optimization.runs import execute, make_spec

if __name__ == "__main__":
    print(json.dumps(execute(make_spec(sys.argv[1], Path(sys.argv[2])))))
"""


def test_worker_that_loads_the_optimizer_itself(lm, tmp_path):
    """As in service: nothing is preloaded, and nothing goes out but calls of the model."""
    path = [str(Path(__file__).parents[2]), *sys.path]
    home = tmp_path / "home"
    home.mkdir()
    found = subprocess.run(  # noqa: S603 - our own code in our own interpreter
        [sys.executable, "-c", _SCRIPT, lm.base_url, str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(path),
            "HOME": str(home),
            "HTTPS_PROXY": "http://127.0.0.1:9",
        },
    )
    events = json.loads(found.stdout)
    assert kinds(events).count("result") == 1
    assert kinds(events)[-1] == "result"
    assert found.stderr == ""
    assert list(home.iterdir()) == []
    assert events[-1]["progress"]["lm_calls"] == lm.call_count
