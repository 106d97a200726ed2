"""`sidejudge trust` and the options of `sidejudge evaluate` that have to do with it."""

import json

import pytest

import sidejudge
from sidejudge.v1 import judge_pb2
from sidejudge.v1 import monitoring_service_pb2 as monitoring
from sidejudge.v1 import trust_service_pb2 as pb
from sidejudge_server.cli.entry import main
from tests.stand_in import running_stand_in
from tests.support.calls import artifact, correction
from tests.support.server import server_process

JUDGE = "judges/safety"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A sidecar with 45 audit labels: sure answers are right, unsure ones half the time."""
    with (
        running_stand_in() as lm,
        server_process(
            tmp_path_factory.mktemp("server"), lm_base_url=lm.base_url
        ) as process,
        sidejudge.connect(process.address) as client,
    ):
        settings = monitoring.Monitor(name=f"{JUDGE}/monitor", audit_share=1.0)
        update = monitoring.UpdateMonitorRequest(monitor=settings)
        update.update_mask.paths.append("audit_share")
        client.monitoring.UpdateMonitor(update)
        for number in range(45):
            sure = number % 3 > 0
            p = 0.95 if sure else 0.6
            right = sure or number % 2 == 0
            verdict = judge_pb2.VERDICT_PASS if right else judge_pb2.VERDICT_FAIL
            request = artifact(f"Item {number}: p(yes)={p}", omit_reasoning=True)
            evaluation = client.evaluation.Evaluate(request).evaluation
            client.feedback.RecordFeedback(correction(evaluation.name, verdict=verdict))
        yield process.address, client


@pytest.fixture
def run(server, capsys):
    address, client = server
    known = 0
    while known < 30:  # labels are looked at in the background
        request = pb.GetConfidenceCalibrationRequest(name=JUDGE)
        answer = client.trust.GetConfidenceCalibration(request)
        known = answer.calibration.labels

    def command(*arguments, code=0):
        got = main([*arguments, "--server", address])
        printed = capsys.readouterr()
        assert got == code, printed.err
        return printed.out if code == 0 else printed.err

    return command


def test_what_labels_say_is_shown(run):
    shown = run("trust", "show", "safety")
    assert "temperature" in shown
    assert "Brier score" in shown
    assert "AUROC" in shown
    nothing = run("trust", "show", "relevance")
    assert "no map because" in nothing
    known = json.loads(run("trust", "show", "safety", "--version", "1", "--json"))
    assert known["judge_version"] == f"{JUDGE}/versions/1"


def test_a_certificate_or_what_is_missing(run):
    held = run("trust", "certify", "safety", "--target-agreement", "0.8")
    assert "accepts from" in held
    assert "coverage" in held
    missing = run("trust", "certify", "safety", "--target-agreement", "0.99")
    assert "no threshold can be certified" in missing
    assert "target_agreement" in run(
        "trust", "certify", "safety", "--target-agreement", "1.5", code=1
    )


def test_an_answer_says_whether_it_needs_a_person(run):
    options = ("--no-reasoning", "--target-agreement", "0.8")
    sure = run("evaluate", "safety", "--artifact", "p(yes)=0.95 fine", *options)
    assert "accepted" in sure
    assert "calibrated" in sure
    unsure = run("evaluate", "safety", "--artifact", "p(yes)=0.55 well", *options)
    assert "needs review" in unsure
    assert "below the" in unsure


def test_several_judgments_and_the_noise_of_a_judge(run):
    text = run(
        *("evaluate", "safety", "--artifact", "p(yes)=0.7 fine"),
        *("--no-reasoning", "--samples", "3"),
    )
    assert "3 times" in text
    assert "flip rate 0.00" in text
    assert "10 are needed" in run("trust", "consistency", "safety")


def test_a_judge_beside_people(run):
    shown = run("trust", "report", "safety")
    assert "kappa" in shown
    assert "people say" in shown
    assert "named annotators" in shown
    assert "include_picked" in run("trust", "report", "relevance")
