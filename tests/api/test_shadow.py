"""A candidate that passes on few examples proves itself on corrections, over real gRPC."""

import pytest

import sidejudge
from sidejudge.v1 import (
    evaluation_pb2,
    feedback_pb2,
    feedback_service_pb2,
    judge_pb2,
    judge_service_pb2,
    optimization_pb2,
)
from sidejudge.v1 import optimization_service_pb2 as pb
from sidejudge_server.cli.entry import main
from sidejudge_server.optimization.executor import start_fork_server
from tests.stand_in import running_stand_in
from tests.support.calls import correction, evaluate
from tests.support.server import running_server, server_process, settings_for
from tests.support.training import WORD, create_judge

pytestmark = pytest.mark.slow

Shadow = judge_pb2.ShadowCandidate
CONFIG = optimization_pb2.OptimizationConfig(
    num_trials=4,
    num_candidates=4,
    max_bootstrapped_demos=0,
    max_labeled_demos=0,
    instruction_source=optimization_pb2.OptimizationConfig.INSTRUCTION_SOURCE_CURATED,
    algorithm=optimization_pb2.OptimizationConfig.ALGORITHM_MIPROV2,
)
MOST_CALLS = 5_000
"""How often a test asks before it takes something for not happening."""


@pytest.fixture(scope="module", autouse=True)
def fork_server():
    """Workers are forked from a process without threads, as in `sidejudge serve`."""
    start_fork_server()


def shadowed(client):
    """Run an optimization on 40 examples of which the judge has 3 in 8 wrong."""
    judge = create_judge(client, "shadowed")
    examples = []
    for index in range(40):
        passes = index % 2 == 0
        good, bad = ("0.9", "0.1") if passes else ("0.1", "0.9")
        plain = bad if index % 8 < 3 else good
        text = f"item {index} p(yes)={plain} p(yes|{WORD})={good}"
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
    request = pb.OptimizeRequest(
        optimization=optimization_pb2.Optimization(
            judge=judge, config=CONFIG, deploy_if_better=True
        )
    )
    *_, last = client.optimization.Optimize(request, timeout=120)
    return last.event.finished.optimization


def judged(client, count, *, wrong):
    """Judge new items; their answers are wrong or right, the candidate's always right."""
    plain = "0.9" if wrong else "0.1"
    word = "wrong" if wrong else "right"
    return [
        evaluate(
            client,
            judge="judges/shadowed",
            text=f"new {word} {i} p(yes)={plain} p(yes|{WORD})=0.1",
        ).name
        for i in range(count)
    ]


def correct(client, evaluations):
    for name in evaluations:
        client.feedback.RecordFeedback(correction(name), timeout=30)


def get(client):
    request = judge_service_pb2.GetJudgeRequest(name="judges/shadowed")
    return client.judges.GetJudge(request, timeout=30).judge


def until(client, reached):
    """Ask for the judge until something holds, and return it."""
    for _ in range(MOST_CALLS):
        judge = get(client)
        if reached(judge):
            return judge
        # Whoever asks for the training set waits until feedback has become examples.
        client.feedback.GetTrainingSet(
            feedback_service_pb2.GetTrainingSetRequest(judge=judge.name), timeout=30
        )
    raise AssertionError(judge.shadow)


def test_corrections_drive_a_candidate_from_shadow_to_service(tmp_path, capsys):
    """The run does not deploy; corrections bring the evidence to 20, then it serves."""
    with (
        running_stand_in() as stand_in,
        running_server(settings_for(tmp_path, lm_base_url=stand_in.base_url)) as server,
    ):
        client = server.client
        run = shadowed(client)
        decision = run.decision
        assert decision.outcome == optimization_pb2.GateDecision.OUTCOME_IMPROVED
        assert decision.stage == optimization_pb2.GateDecision.STAGE_SHADOW
        assert not decision.deployed
        assert (decision.use_count, decision.losses) == (1, 0)
        assert decision.alpha == pytest.approx(0.0608, abs=1e-4)
        assert decision.pair_count < 150
        assert 1 < decision.e_value < 20
        assert "goes into shadow first" in decision.summary
        assert "is in shadow; the judge says how it does" in run.summary
        assert len(decision.changed_examples) == decision.wins
        assert sum(c.count for c in decision.baseline_confusion) == decision.pair_count

        judge = get(client)
        assert judge.deployed_version == run.baseline_version
        shadow = judge.shadow
        assert (shadow.state, shadow.bar) == (Shadow.STATE_ACTIVE, 20)
        assert (shadow.version, shadow.optimization) == (
            run.candidate_version,
            run.name,
        )
        assert (shadow.wins, shadow.losses) == (decision.wins, 0)
        assert (shadow.pairs, shadow.later_pairs) == (decision.pair_count, 0)
        assert shadow.e_value == pytest.approx(decision.e_value)

        correct(client, judged(client, 2, wrong=False))
        until(client, lambda j: j.shadow.later_pairs == 2)
        assert main(["judges", "show", "shadowed", "--server", server.address]) == 0
        shown = capsys.readouterr().out
        assert "in shadow" in shown
        assert "2 after the gate" in shown

        correct(client, judged(client, 6, wrong=True))
        judge = until(client, lambda j: j.shadow.state != Shadow.STATE_ACTIVE)
        assert judge.shadow.state == Shadow.STATE_DEPLOYED
        assert judge.shadow.e_value >= 20
        assert judge.deployed_version == run.candidate_version
        assert "in shadow the evidence" in judge.shadow.reason
        listed = client.judges.ListJudges(judge_service_pb2.ListJudgesRequest()).judges
        (again,) = [j for j in listed if j.name == judge.name]
        assert again.shadow.version == judge.shadow.version


def test_a_kill_and_a_dead_model_in_between_count_nothing_twice(tmp_path):
    """Corrections are recorded while the model is down, the server is killed, all count once."""
    with running_stand_in() as stand_in:
        with (
            server_process(tmp_path, lm_base_url=stand_in.base_url) as first,
            sidejudge.connect(first.address) as client,
        ):
            run = shadowed(client)
            names = judged(client, 9, wrong=False)
            correct(client, names[:3])
            until(client, lambda j: j.shadow.later_pairs == 3)
            stand_in.fail_after(0)
            calls = stand_in.call_count
            correct(client, names[3:6])
            until(client, lambda _: stand_in.call_count > calls)
            assert get(client).shadow.later_pairs == 3
            first.kill()
        stand_in.fail_after(None)
        with (
            server_process(tmp_path, lm_base_url=stand_in.base_url) as second,
            sidejudge.connect(second.address) as client,
        ):
            until(client, lambda j: j.shadow.later_pairs == 6)
            correct(client, names[6:])
            judge = until(client, lambda j: j.shadow.later_pairs >= 9)
    assert judge.shadow.later_pairs == 9
    assert judge.shadow.wins == run.decision.wins
    assert judge.shadow.pairs == run.decision.pair_count + 9
    assert judge.deployed_version == run.baseline_version


def test_another_version_deployed_by_hand_ends_the_shadow_at_once(tmp_path):
    """What the candidate was compared with serves no more."""
    with (
        running_stand_in() as stand_in,
        running_server(settings_for(tmp_path, lm_base_url=stand_in.base_url)) as server,
    ):
        run = shadowed(server.client)
        judges = server.client.judges
        version = judges.CreateJudgeVersion(
            judge_service_pb2.CreateJudgeVersionRequest(
                parent=run.judge,
                judge_version=judge_pb2.JudgeVersion(
                    instructions="By hand.", question="Is it good?"
                ),
            )
        ).judge_version
        answer = judges.DeployJudgeVersion(
            judge_service_pb2.DeployJudgeVersionRequest(
                name=version.name, author="ann", reason="I know better"
            )
        )
        assert answer.judge.shadow.state == Shadow.STATE_DROPPED
        assert answer.judge.shadow.reason == "version 3 was deployed"
