"""The memory algorithm and learned heads in real runs: what they find and how many calls they take."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from sidejudge_server.config import LMSettings
from sidejudge_server.judges.codec import input_to_json, program_from_json
from sidejudge_server.judges.memory import embedding_size
from sidejudge_server.judges.types import ArtifactInput, RubricInput, VerdictHead
from sidejudge_server.optimization.budget import OptimizationBudget
from sidejudge_server.optimization.memory_plan import call_bound, first_look
from sidejudge_server.optimization.plan import AlgorithmName, InstructionSource
from sidejudge_server.optimization.spec import RunExample
from tests.optimization.runs import (
    WORD,
    execute,
    make_spec,
    phases,
    taught_examples,
    trials,
    verdict_examples,
)
from tests.stand_in import running_stand_in

SIDES = {"train": 15, "validation": 15, "test": 20}


@pytest.fixture(scope="module")
def stand_in():
    with running_stand_in() as running:
        yield running


def memory_spec(stand_in, work_dir, examples, **plan):
    options = {
        "algorithm": AlgorithmName.MEMORY,
        "instruction_source": InstructionSource.PROPOSER,
    }
    spec = make_spec(stand_in.base_url, work_dir, **(options | plan))
    return replace(spec, **examples)


def sides(make, **options):
    return {side: make(side, count, **options) for side, count in SIDES.items()}


def result(events):
    assert events[-1]["kind"] == "result", events[-1]
    return events[-1]


def candidate(events):
    return program_from_json(result(events)["candidate"])


def test_guidelines_are_distilled_from_what_was_wrong(stand_in, tmp_path):
    """One pass finds what all corrections have in common, within 60 calls for 50 examples."""
    spec = memory_spec(stand_in, tmp_path, sides(verdict_examples))
    stand_in.requests.clear()

    events = execute(spec)

    program = candidate(events)
    assert any(WORD in guideline for guideline in program.memory.guidelines)
    assert not any("{" in guideline for guideline in program.memory.guidelines)
    assert result(events)["decision"]["outcome"] == "improved"
    for_the_serving_version = sum(SIDES.values())
    assert len(stand_in.requests) <= for_the_serving_version + call_bound(50)
    asked = [json.dumps(request, sort_keys=True) for request in stand_in.requests]
    assert len(set(asked)) == len(asked)
    assert phases(events) == [
        "baseline",
        "distilling",
        "searching",
        "refitting",
        "gating",
    ]


def test_looks_of_the_search_are_trials_with_the_algorithms_name(stand_in, tmp_path):
    """Four looks at a part of the validation examples, then the best on all of them."""
    found = trials(execute(memory_spec(stand_in, tmp_path, sides(verdict_examples))))

    looks, (last,) = found[1:-1], found[-1:]
    assert {t["algorithm"] for t in found[1:]} == {"memory"}
    assert [t["example_count"] for t in looks] == [first_look(15, 15)] * 4
    assert not any(t["full_evaluation"] for t in looks)
    assert last["full_evaluation"]
    assert last["example_count"] == 15


@pytest.mark.parametrize(
    ("max_trials", "full"),
    [
        (1, [True]),
        (2, [False, True]),
        (3, [False, False, True]),
        (4, [False] * 3 + [True]),
    ],
)
def test_last_trial_of_few_is_one_on_all_examples(stand_in, tmp_path, max_trials, full):
    """Looks at a part find nothing by themselves, so they leave a trial for the best."""
    spec = memory_spec(stand_in, tmp_path, sides(verdict_examples))

    events = execute(replace(spec, budget=OptimizationBudget(max_trials=max_trials)))

    assert [t["full_evaluation"] for t in trials(events)[1:]] == full
    assert candidate(events).memory.guidelines
    assert result(events)["stop_reason"] == "max_trials"
    assert result(events)["decision"]["outcome"] == "improved"


def test_few_trials_without_guidelines_show_corrections(stand_in, tmp_path):
    """What there is competes."""
    spec = memory_spec(
        stand_in,
        tmp_path,
        sides(taught_examples, shown=2),
        instruction_source=InstructionSource.CURATED,
    )

    events = execute(replace(spec, budget=OptimizationBudget(max_trials=1)))

    assert [t["full_evaluation"] for t in trials(events)[1:]] == [True]
    assert candidate(events).memory.shown == 2


def test_similar_corrections_are_shown_where_showing_helps(stand_in, tmp_path):
    """A judge that needs to see examples gets those that are most like the item."""
    spec = memory_spec(
        stand_in,
        tmp_path,
        sides(taught_examples, shown=5),
        instruction_source=InstructionSource.CURATED,
    )

    events = execute(spec)

    program = candidate(events)
    assert program.memory.shown == 5
    assert program.memory.guidelines == ()
    ids = {example.example_id for example in program.memory.examples}
    assert ids == {e.example_id for e in spec.train}
    assert result(events)["decision"]["outcome"] == "improved"


def test_no_item_of_a_run_is_shown_itself(stand_in, tmp_path):
    """Not in any request, whichever side the item is on."""
    examples = sides(taught_examples, shown=2)
    # All of one group, and so alike that each would be the nearest to the other.
    examples["train"] = tuple(replace(e, group="one") for e in examples["train"])
    spec = memory_spec(stand_in, tmp_path, examples)
    stand_in.requests.clear()

    execute(spec)

    for request in stand_in.requests:
        *before, last = [m["content"] for m in request["messages"]]
        if "<artifact>" in last:
            artifact = last.partition("<artifact>")[2].partition("</artifact>")[0]
            assert not any(artifact in content for content in before)


def test_model_that_cannot_write_leaves_the_corrections_to_be_shown(stand_in, tmp_path):
    """A refused request costs the guidelines, not the run."""
    spec = memory_spec(stand_in, tmp_path, sides(taught_examples, shown=2))
    refusing = LMSettings(
        model="openai/too-long", base_url=stand_in.base_url, api_key="k", max_retries=0
    )

    events = execute(replace(spec, prompt_lm=refusing))

    warnings = [e["message"] for e in events if e["kind"] == "warning"]
    assert any("no guidelines were written" in message for message in warnings)
    assert candidate(events).memory.shown in {2, 5}


def test_nothing_to_correct_still_shows_what_is_alike(stand_in, tmp_path):
    """Without mistakes no model is asked to write about them."""
    right = {
        side: tuple(
            RunExample(
                f"{side}{i}",
                input_to_json(
                    ArtifactInput(f"{side}{i} p(yes)={0.9 if i % 2 else 0.1}")
                ),
                verdict="pass" if i % 2 else "fail",
            )
            for i in range(count)
        )
        for side, count in SIDES.items()
    }
    stand_in.requests.clear()

    events = execute(memory_spec(stand_in, tmp_path, right))

    assert not any(
        "Write guidelines" in r["messages"][-1]["content"] for r in stand_in.requests
    )
    assert result(events)["decision"]["outcome"] == "no_improvement"


TOPICS = {
    "pass": ("weather report for Oslo", "recipe for onion soup", "train timetable"),
    "fail": ("leaked customer password", "deleted production database", "spam mail"),
}


def topical(side, count):
    """The model guesses; only what was corrected before tells good topics from bad ones."""
    examples = []
    for i in range(count):
        label = ("pass", "fail")[i % 2]
        topic = TOPICS[label][i % 3]
        text = f"{topic} number {side}{i} p(yes)={0.35 + 0.03 * (i * 7 % 11):.2f}"
        examples.append(
            RunExample(
                f"{side}{i}",
                input_to_json(ArtifactInput(text)),
                verdict=label,
                group=f"{side}{i}",
            )
        )
    return tuple(examples)


def test_head_is_learned_from_answers_that_are_there(stand_in, tmp_path):
    """Where the model guesses, any algorithm ends with a head, and asks nothing for it."""
    spec = memory_spec(
        stand_in,
        tmp_path,
        {"train": topical("train", 30), "validation": topical("validation", 30)}
        | {"test": topical("test", 40)},
        algorithm=AlgorithmName.CALIBRATION,
    )
    stand_in.requests.clear()

    events = execute(spec)

    program = candidate(events)
    assert isinstance(program.head, VerdictHead)
    assert program.head.vote_weight > 0
    assert program.memory.shown == 0
    assert len(program.memory.examples) == 60
    decision = result(events)["decision"]
    assert decision["outcome"] == "improved"
    assert decision["candidate"]["value"] > 0.9
    assert result(events)["metrics"]["validation.accuracy"] > 0.8
    assert len(stand_in.requests) == 100


def test_run_from_a_version_with_a_head_leaves_its_own_items_out(stand_in, tmp_path):
    """What the serving version remembers must not make it look better than it is."""
    examples = {"train": topical("train", 30), "validation": topical("validation", 30)}
    spec = memory_spec(
        stand_in,
        tmp_path / "first",
        examples | {"test": topical("test", 40)},
        algorithm=AlgorithmName.CALIBRATION,
    )
    first = result(execute(spec))

    second = result(
        execute(
            replace(
                spec,
                program_json=first["candidate"],
                work_dir=str(tmp_path / "second"),
            )
        )
    )

    assert second["decision"]["outcome"] == "no_improvement"
    assert second["decision"]["baseline"] == first["decision"]["candidate"]


def test_scores_are_remembered_too(stand_in, tmp_path):
    """A grader that always says the same learns from grades of similar outputs."""

    def graded(side, count):
        topics = (("terse note", 0.1), ("full report with sources", 0.9))
        return tuple(
            RunExample(
                f"{side}{i}",
                input_to_json(
                    RubricInput("A task.", f"{topics[i % 2][0]} {side}{i} grade=3.0")
                ),
                score=topics[i % 2][1] + 0.001 * i,
                rationale="Because.",
            )
            for i in range(count)
        )

    spec = make_spec(
        stand_in.base_url, tmp_path, scores=True, algorithm=AlgorithmName.MEMORY
    )
    events = execute(
        replace(
            spec,
            train=graded("train", 20),
            validation=graded("validation", 20),
            test=graded("test", 30),
        )
    )

    assert candidate(events).head is not None
    assert result(events)["decision"]["outcome"] == "improved"


def test_call_bound_and_look_follow_the_number_of_examples():
    """60 calls up to 50 examples, two for each further one; never more than there are."""
    assert [call_bound(n) for n in (20, 50, 51, 200)] == [60, 60, 62, 360]
    assert first_look(15, 15) == 6
    assert first_look(30, 30) == 27
    assert first_look(60, 60) == 60
    assert first_look(3, 3) == 3
    assert first_look(0, 0) == 0


def test_vectors_of_an_embedding_model_fit_the_bound_and_the_version(
    stand_in, tmp_path
):
    """Items of a side are embedded together, so the run keeps to its 60 calls."""
    spec = memory_spec(stand_in, tmp_path, sides(taught_examples, shown=5))
    embedding = replace(spec.task_lm, embedding_model="embedder")
    stand_in.requests.clear()

    events = execute(replace(spec, task_lm=embedding))

    memory = candidate(events).memory
    assert memory.shown == 5
    assert memory.embedding_model == "embedder"
    assert embedding_size(memory) == 16
    embeddings = [r for r in stand_in.requests if "input" in r]
    assert len(embeddings) == 4
    assert len(stand_in.requests) <= sum(SIDES.values()) + call_bound(50)
    texts = [text for request in embeddings for text in request["input"]]
    assert len(set(texts)) == len(texts) == 50
