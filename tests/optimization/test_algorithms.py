"""Every algorithm end to end, in real worker processes against the stand-in."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace

import pytest

from sidejudge_server.judges.codec import program_from_json
from sidejudge_server.judges.types import LabelOffsets
from sidejudge_server.optimization.plan import AlgorithmName
from tests.optimization.runs import (
    biased_examples,
    execute,
    make_spec,
    phases,
    taught_examples,
    trials,
)
from tests.stand_in import running_stand_in

pytestmark = pytest.mark.slow


@pytest.fixture
def lm():
    with running_stand_in() as stand_in:
        yield stand_in


def _biased(spec):
    """A judge that says fail too often and ranks rightly: only its cut is wrong."""
    return replace(
        spec,
        train=biased_examples("train", 12),
        validation=biased_examples("validation", 20),
        test=biased_examples("test", 60),
    )


def test_calibration_moves_the_cut_without_asking_anything_new(lm, tmp_path):
    """Baseline and gate are all that is paid for, the prompt stays, the decision gets better."""
    spec = _biased(
        make_spec(lm.base_url, tmp_path, algorithm=AlgorithmName.CALIBRATION)
    )
    events = execute(spec)
    result = events[-1]
    old = program_from_json(spec.program_json)
    assert result["kind"] == "result", result
    new = program_from_json(result["candidate"])
    assert new.offsets.passed > 0
    assert replace(new, offsets=LabelOffsets()) == old
    assert result["decision"]["outcome"] == "improved"
    assert result["decision"]["candidate"]["value"] == 1.0
    assert phases(events) == ["baseline", "refitting", "gating"]
    assert [t["number"] for t in trials(events)] == [0]
    assert trials(events)[0]["algorithm"] == ""
    assert lm.call_count == 20 + 60 + 12
    assert result["metrics"]["validation.accuracy"] == 1.0


def test_calibration_keeps_a_cut_that_is_right(lm, tmp_path):
    """Without a better rule out of fold there is no candidate, and the gate says no."""
    spec = make_spec(lm.base_url, tmp_path, algorithm=AlgorithmName.CALIBRATION)
    result = execute(spec)[-1]
    assert result["candidate"] is None
    assert result["decision"]["outcome"] == "no_improvement"


def test_calibration_fits_the_scores_of_a_rubric_judge(lm, tmp_path):
    """A grader that is a grade too harsh gets its map."""
    spec = make_spec(
        lm.base_url, tmp_path, scores=True, algorithm=AlgorithmName.CALIBRATION
    )
    result = execute(spec)[-1]
    assert program_from_json(result["candidate"]).score_map.intercept > 0.2
    assert result["decision"]["outcome"] == "improved"
    assert lm.call_count == 12 + 60 + 12


def test_labelled_demonstrations_are_tried_a_set_a_trial(lm, tmp_path):
    """Sets differ, keep to their size, and nothing but demonstrations changes."""
    spec = make_spec(
        lm.base_url,
        tmp_path,
        algorithm=AlgorithmName.LABELED_DEMONSTRATIONS,
        num_trials=4,
        max_labeled_demos=4,
    )
    events = execute(spec)
    tried = trials(events)
    assert [t["number"] for t in tried] == [0, 1, 2, 3, 4]
    assert [t["demonstration_count"] for t in tried] == [0, 4, 2, 4, 2]
    assert [t["demonstration_set_index"] for t in tried] == [0, 1, 2, 3, 4]
    assert {t["algorithm"] for t in tried[1:]} == {"labeled_demonstrations"}
    assert len({t["instructions"] for t in tried}) == 1
    assert phases(events) == [
        "baseline",
        "bootstrapping",
        "searching",
        "refitting",
        "gating",
    ]
    assert events[-1]["kind"] == "result"
    assert {body["max_tokens"] for body in lm.requests} == {1}


def test_demonstrations_that_teach_the_judge_are_deployed(lm, tmp_path):
    """The stand-in is right once it has seen an example; the gate sees that."""
    spec = make_spec(
        lm.base_url,
        tmp_path,
        algorithm=AlgorithmName.LABELED_DEMONSTRATIONS,
        num_trials=2,
    )
    spec = replace(
        spec,
        train=taught_examples("train", 12, shown=2),
        validation=taught_examples("validation", 12, shown=2),
        test=taught_examples("test", 60, shown=2),
    )
    result = execute(spec)[-1]
    assert result["kind"] == "result"
    assert result["decision"]["outcome"] == "improved"
    assert result["decision"]["candidate"]["value"] == 1.0
    assert program_from_json(result["candidate"]).demonstrations


def test_long_examples_are_no_demonstrations(lm, tmp_path):
    """That is said, and a run without any ends with the refit."""
    events = execute(
        make_spec(
            lm.base_url,
            tmp_path,
            algorithm=AlgorithmName.LABELED_DEMONSTRATIONS,
            max_demo_chars=30,
        )
    )
    warnings = [e["message"] for e in events if e["kind"] == "warning"]
    assert any("12 of 12" in message for message in warnings)
    assert len(trials(events)) == 1
    assert events[-1]["kind"] == "result"


def test_refitting_pays_for_nothing(lm, tmp_path):
    """Whatever the algorithm, the rule is fitted to answers that are there already."""
    for algorithm in (AlgorithmName.LABELED_DEMONSTRATIONS, AlgorithmName.MIPROV2):
        events = execute(
            make_spec(lm.base_url, tmp_path / algorithm, algorithm=algorithm)
        )
        spent = {
            e["phase"]: e["progress"]["lm_calls"]
            for e in events
            if e["kind"] == "phase_changed"
        }
        assert spent["refitting"] == spent["gating"] > 0
    bodies = Counter(json.dumps(body, sort_keys=True) for body in lm.requests)
    assert max(bodies.values()) <= 2  # once a run


def test_same_seed_draws_the_same_demonstrations(lm, tmp_path):
    """Reproducible whatever the number of threads; another seed draws others."""
    found = {}
    for name, plan in {
        "a": {"seed": 0},
        "b": {"seed": 0, "num_threads": 1},
        "other": {"seed": 3},
    }.items():
        before = len(lm.requests)
        events = execute(
            make_spec(
                lm.base_url,
                tmp_path / name,
                algorithm=AlgorithmName.LABELED_DEMONSTRATIONS,
                **plan,
            )
        )
        shown = {json.dumps(r["messages"][:-1]) for r in lm.requests[before:]}
        found[name] = shown, [t["score"] for t in trials(events)]
    assert found["a"] == found["b"]
    assert found["a"][0] != found["other"][0]
