"""Training data with which a judge gets better for a known reason."""

from __future__ import annotations

import sidejudge
from sidejudge.v1 import (
    evaluation_pb2,
    feedback_pb2,
    feedback_service_pb2,
    judge_pb2,
    judge_service_pb2,
)

__all__ = ["create_judge", "import_examples", "teachable_judge"]

WORD = "requirement"
"""In most of the instructions shipped for custom judges, and not in those of the judge below."""


def create_judge(client: sidejudge.Client, judge_id: str) -> str:
    """Create a custom judge and return its name."""
    spec = judge_pb2.CustomSpec(
        instructions="Look at the reply.", question="Is the reply good?", binary=True
    )
    request = judge_service_pb2.CreateJudgeRequest(
        judge_id=judge_id, judge=judge_pb2.Judge(custom=spec)
    )
    return str(client.judges.CreateJudge(request).judge.name)


def import_examples(
    client: sidejudge.Client, judge: str, count: int, *, one_label: bool = False
) -> None:
    """Import examples that the stand-in gets right only if the instructions say WORD."""
    examples = []
    for index in range(count):
        passes = one_label or index % 2 == 0
        good, bad = ("0.9", "0.1") if passes else ("0.1", "0.9")
        wrong = index % 5 < 3
        text = f"item {index} p(yes)={bad if wrong else good} p(yes|{WORD})={good}"
        examples.append(
            feedback_pb2.TrainingExample(
                artifact_input=evaluation_pb2.ArtifactInput(artifact=text),
                verdict=judge_pb2.VERDICT_PASS if passes else judge_pb2.VERDICT_FAIL,
                group=f"group {index}",
            )
        )
    message = feedback_service_pb2.ImportTrainingExamplesRequest(
        judge=judge, training_examples=examples
    )
    client.feedback.ImportTrainingExamples(iter([message]))


def teachable_judge(
    client: sidejudge.Client, judge_id: str, *, examples: int = 100
) -> str:
    """Create a judge that an optimization can make better, and return its name."""
    judge = create_judge(client, judge_id)
    import_examples(client, judge, examples)
    return judge
