"""From corrections to an answer that names them, over real gRPC with a real worker process."""

import pytest

from sidejudge.v1 import (
    evaluation_pb2,
    evaluation_service_pb2,
    feedback_pb2,
    feedback_service_pb2,
    judge_pb2,
    judge_service_pb2,
    optimization_pb2,
)
from sidejudge.v1 import optimization_service_pb2 as pb
from sidejudge_server.optimization.executor import start_fork_server
from tests.support.calls import evaluate, new_uuid
from tests.support.training import create_judge

pytestmark = pytest.mark.slow

TOPICS = {
    judge_pb2.VERDICT_PASS: ("weather report for Oslo", "recipe for onion soup"),
    judge_pb2.VERDICT_FAIL: ("leaked customer password", "deleted database"),
}


@pytest.fixture(scope="module", autouse=True)
def fork_server():
    """Workers are forked from a process without threads, as in `sidejudge serve`."""
    start_fork_server()


def import_topics(client, judge, count):
    """The model guesses; the topic tells what people said of such items before."""
    examples = []
    for index in range(count):
        verdict = list(TOPICS)[index % 2]
        topic = TOPICS[verdict][index % 4 // 2]
        guess = 0.35 + 0.03 * (index * 7 % 11)
        examples.append(
            feedback_pb2.TrainingExample(
                artifact_input=evaluation_pb2.ArtifactInput(
                    artifact=f"{topic} number {index} p(yes)={guess:.2f}"
                ),
                verdict=verdict,
                group=f"group {index}",
            )
        )
    message = feedback_service_pb2.ImportTrainingExamplesRequest(
        judge=judge, training_examples=examples
    )
    client.feedback.ImportTrainingExamples(iter([message]))


def test_corrections_become_a_version_whose_answers_name_them(server):
    """The run passes the gate, and its version explains itself."""
    client = server.client
    judge = create_judge(client, "remembering")
    import_topics(client, judge, 120)
    config = optimization_pb2.OptimizationConfig(
        algorithm=optimization_pb2.OptimizationConfig.ALGORITHM_MEMORY
    )
    request = pb.OptimizeRequest(
        optimization=optimization_pb2.Optimization(judge=judge, config=config),
        request_id=new_uuid(),
    )

    *_, last = client.optimization.Optimize(request, timeout=120)
    run = last.event.finished.optimization
    version = client.judges.GetJudgeVersion(
        judge_service_pb2.GetJudgeVersionRequest(name=run.candidate_version)
    ).judge_version
    answered = evaluate(
        client,
        judge=judge,
        text="leaked password of a customer p(yes)=0.60",
        judge_version=run.candidate_version,
    )
    read = client.evaluation.GetEvaluation(
        evaluation_service_pb2.GetEvaluationRequest(name=answered.name)
    ).evaluation

    assert run.decision.candidate.value > 0.9 > run.decision.baseline.value
    assert version.head.verdict.vote_weight > 0
    remembered = {e.training_example: e for e in version.memory.examples}
    assert answered.judgment.verdict == judge_pb2.VERDICT_FAIL
    first = answered.influences[0]
    assert first.verdict == judge_pb2.VERDICT_FAIL
    assert first.weight > 0
    assert "password" in remembered[first.training_example].inputs["artifact"]
    assert list(read.influences) == list(answered.influences)
