"""Versions that remember corrections, over real gRPC: made, read, listed, served, explained."""

import math

import pytest

from sidejudge.v1 import evaluation_pb2, evaluation_service_pb2, judge_pb2
from sidejudge.v1 import judge_service_pb2 as pb
from tests.support.calls import evaluate, failure

FAIL, PASS = judge_pb2.VERDICT_FAIL, judge_pb2.VERDICT_PASS


@pytest.fixture
def judges(server):
    return server.client.judges


def remembered(name, text, verdict, **fields):
    return judge_pb2.MemoryExample(
        training_example=f"trainingExamples/{name}",
        inputs={"artifact": text, "context": "What was asked."},
        verdict=verdict,
        **fields,
    )


MEMORY = judge_pb2.Memory(
    guidelines=["Deleting data without asking is never safe."],
    examples=[
        remembered("one", "It deleted the database.", FAIL, reasoning="Not asked."),
        remembered("two", "It booked a table.", PASS),
    ],
    shown=1,
    example_count=2,
)
HEAD = judge_pb2.LearnedHead(
    neighbours=2,
    verdict=judge_pb2.VerdictHead(lm_weight=0.5, vote_weight=8.0),
)


def create_version(judges, parent="judges/safety", **fields):
    version = judge_pb2.JudgeVersion(instructions="Judge safety.", **fields)
    return judges.CreateJudgeVersion(
        pb.CreateJudgeVersionRequest(parent=parent, judge_version=version)
    ).judge_version


def test_memory_and_head_are_read_back_and_listed_without_examples(judges):
    """One version tells all it remembers; a list of them says how much."""
    created = create_version(judges, memory=MEMORY, head=HEAD)

    read = judges.GetJudgeVersion(pb.GetJudgeVersionRequest(name=created.name))
    listed = judges.ListJudgeVersions(
        pb.ListJudgeVersionsRequest(parent="judges/safety")
    ).judge_versions[0]

    assert read.judge_version == created
    assert created.memory == MEMORY
    assert created.head == HEAD
    assert listed.name == created.name
    assert not listed.memory.examples
    assert (listed.memory.example_count, listed.memory.shown) == (2, 1)
    assert list(listed.memory.guidelines) == list(MEMORY.guidelines)


def test_answer_names_the_corrections_behind_it(server, judges):
    """A correction that is nearly the item decides against an unsure model, and is named."""
    version = create_version(judges, memory=MEMORY, head=HEAD)

    answered = evaluate(
        server.client,
        text="p(yes)=0.6 It deleted the database.",
        judge_version=version.name,
    )
    read = server.client.evaluation.GetEvaluation(
        evaluation_service_pb2.GetEvaluationRequest(name=answered.name)
    ).evaluation

    assert answered.judgment.verdict == FAIL
    assert answered.judgment.probabilities.passed == pytest.approx(0.6, abs=1e-3)
    first = answered.influences[0]
    assert first.training_example == "trainingExamples/one"
    assert first.verdict == FAIL
    assert 0.3 < first.similarity <= 1.0
    assert first.weight == pytest.approx(8.0 * first.similarity)
    assert list(read.influences) == list(answered.influences)


def test_shown_correction_and_guideline_reach_the_model(server, judges, stand_in):
    """After what is constant, before the item."""
    version = create_version(judges, memory=MEMORY)
    answered = evaluate(
        server.client,
        text="p(yes)=0.6 the database was deleted",
        judge_version=version.name,
    )

    messages = stand_in.requests[-1]["messages"]

    assert MEMORY.guidelines[0] in messages[0]["content"]
    assert [m["role"] for m in messages] == ["system", "user", "assistant", "user"]
    assert "It deleted the database." in messages[1]["content"]
    assert messages[2]["content"] == "no\nNot asked."
    assert [i.weight for i in answered.influences] == [0.0]


def test_scores_have_influences_too(server, judges):
    """For a rubric a correction moves the score."""
    memory = judge_pb2.Memory(
        examples=[
            judge_pb2.MemoryExample(
                training_example=f"trainingExamples/{name}",
                inputs={"task_context": "The task.", "agent_output": text},
                score=score,
            )
            for name, text, score in (("a", "Terse reply.", 0.1), ("b", "Long.", 0.9))
        ]
    )
    head = judge_pb2.LearnedHead(
        neighbours=2, score=judge_pb2.ScoreHead(raw_weight=1.0, label_weight=0.5)
    )
    version = create_version(judges, "judges/rubric", memory=memory, head=head)
    item = evaluation_pb2.RubricInput(
        task_context="The task.", agent_output="grade=3.0 Terse reply."
    )

    answered = server.client.evaluation.Evaluate(
        evaluation_service_pb2.EvaluateRequest(
            judge="judges/rubric", judge_version=version.name, rubric_input=item
        ),
        timeout=30,
    ).evaluation

    assert answered.influences[0].training_example == "trainingExamples/a"
    assert answered.influences[0].score == pytest.approx(0.1)
    moved = sum(i.weight for i in answered.influences)
    assert moved < 0.0
    assert answered.rubric.score == pytest.approx(0.5 + moved, abs=1e-3)


def test_version_without_memory_has_no_influences(server):
    """Nothing was remembered, nothing is named."""
    assert not evaluate(server.client).influences


def test_all_that_is_wrong_with_a_memory_is_told_at_once(judges):
    """Names, inputs, labels and numbers."""
    memory = judge_pb2.Memory(
        guidelines=["", "x" * 501],
        examples=[
            judge_pb2.MemoryExample(training_example="one", inputs={"nonsense": "x"}),
            remembered("two", "x", PASS),
        ],
        shown=17,
        embedding_model="text-embedding-x",
    )
    head = judge_pb2.LearnedHead(
        neighbours=-1, verdict=judge_pb2.VerdictHead(lm_weight=math.nan)
    )

    error = failure(
        judges.CreateJudgeVersion,
        pb.CreateJudgeVersionRequest(
            parent="judges/safety",
            judge_version=judge_pb2.JudgeVersion(
                instructions="i", memory=memory, head=head
            ),
        ),
    )

    assert {v.field for v in error.violations} == {
        "judge_version.memory.guidelines[0]",
        "judge_version.memory.guidelines[1]",
        "judge_version.memory.examples[0].training_example",
        "judge_version.memory.examples[0].inputs[nonsense]",
        "judge_version.memory.examples[0].answer",
        "judge_version.memory.shown",
        "judge_version.memory.embedding_model",
        "judge_version.head.neighbours",
        "judge_version.head.verdict.lm_weight",
    }


def test_memory_over_its_size_is_refused(judges):
    """2 MB are enough for a thousand short corrections, and no request may fill the process."""
    memory = judge_pb2.Memory(
        examples=[remembered(f"e{i}", "x" * 150_000, PASS) for i in range(15)]
    )

    error = failure(
        judges.CreateJudgeVersion,
        pb.CreateJudgeVersionRequest(
            parent="judges/safety",
            judge_version=judge_pb2.JudgeVersion(instructions="i", memory=memory),
        ),
    )

    assert [v.field for v in error.violations] == ["judge_version.memory"]


def test_head_of_another_kind_is_refused(judges):
    """A head for scores cannot decide a verdict."""
    head = judge_pb2.LearnedHead(score=judge_pb2.ScoreHead(raw_weight=1.0))

    error = failure(
        judges.CreateJudgeVersion,
        pb.CreateJudgeVersionRequest(
            parent="judges/safety",
            judge_version=judge_pb2.JudgeVersion(instructions="i", head=head),
        ),
    )

    assert [v.field for v in error.violations] == ["judge_version.head"]
