"""TrustService and selection over real gRPC: what labels certify, for which version and model."""

from types import SimpleNamespace

import pytest

from sidejudge.v1 import (
    evaluation_pb2,
    evaluation_service_pb2,
    feedback_pb2,
    feedback_service_pb2,
    judge_pb2,
)
from sidejudge.v1 import trust_service_pb2 as pb
from sidejudge_server.application import _expected_agreement
from tests.stand_in import running_stand_in
from tests.support.calls import artifact, failure, new_uuid, rubric
from tests.support.experiments import CANDIDATE, JUDGE, add_candidate
from tests.support.server import running_server, settings_for
from tests.support.trust import (
    KNOWN,
    TARGET,
    audit,
    drain,
    judge_and_label,
    judged,
)

Calibration, Result = (
    evaluation_pb2.ConfidenceCalibration,
    evaluation_pb2.SelectionResult,
)
VERSION = f"{JUDGE}/versions/1"


@pytest.fixture(scope="module")
def lm():
    with running_stand_in() as running:
        yield running


@pytest.fixture
def server(lm, tmp_path):
    with running_server(settings_for(tmp_path, lm_base_url=lm.base_url)) as running:
        yield running


def calibration(client, name=JUDGE):
    return client.trust.GetConfidenceCalibration(
        pb.GetConfidenceCalibrationRequest(name=name)
    )


def certificate(client, name=JUDGE, **selection):
    selection = evaluation_pb2.Selection(**selection) if selection else TARGET
    return client.trust.CertifySelection(
        pb.CertifySelectionRequest(name=name, selection=selection)
    ).certificate


def test_sure_answers_are_accepted_and_others_are_for_people(server):
    client = server.client
    audit(client, 1.0)
    judge_and_label(server, KNOWN)
    sure, unsure = judged(client, 0.98), judged(client, 0.62)
    assert sure.selection.decision == Result.DECISION_ACCEPTED
    assert unsure.selection.decision == Result.DECISION_NEEDS_REVIEW
    assert sure.selection.threshold == pytest.approx(0.776)
    assert sure.selection.target_agreement == 0.8
    assert sure.selection.assurance == 0.9
    assert sure.selection.audit_labels == 60
    # The walk goes as far as two errors of the unsure ones allow.
    assert sure.selection.accepted_labels == 34
    assert sure.selection.accepted_errors == 2
    assert not sure.selection.HasField("labels_missing")
    assert "below the" in unsure.selection.reason
    # What is raw stays raw, what is calibrated says on what grounds.
    assert sure.judgment.confidence == pytest.approx(0.98)
    assert unsure.calibrated_confidence < sure.calibrated_confidence
    known = sure.calibration
    assert known.method == Calibration.METHOD_TEMPERATURE
    assert known.labels == 60
    assert known.brier_score.low < known.brier_score.value < known.brier_score.high
    assert 0 <= known.low_confidence <= known.high_confidence <= 1
    # It is what is stored, too.
    for evaluation in (sure, unsure):
        request = evaluation_service_pb2.GetEvaluationRequest(name=evaluation.name)
        assert client.evaluation.GetEvaluation(request).evaluation == evaluation
    without = judged(client, 0.98, selection=None)
    assert not without.HasField("selection")
    assert without.calibrated_confidence == sure.calibrated_confidence


def test_a_restart_changes_nothing_and_another_model_inherits_nothing(lm, tmp_path):
    settings = settings_for(tmp_path, lm_base_url=lm.base_url)
    with running_server(settings) as server:
        audit(server.client, 1.0)
        judge_and_label(server, KNOWN)
        before = calibration(server.client), certificate(server.client)
    with running_server(settings) as server:
        drain(server)
        assert (calibration(server.client), certificate(server.client)) == before
    other = settings_for(tmp_path, lm_base_url=lm.base_url, model="stand-in-2")
    with running_server(other) as server:
        known = calibration(server.client)
        assert known.model == "openai/stand-in-2"
        assert known.calibration.labels == 0
        assert "audit labels" in known.calibration.reason
        found = judged(server.client, 0.98)
        assert not found.HasField("calibrated_confidence")
        assert found.selection.decision == Result.DECISION_NEEDS_REVIEW
        assert found.selection.labels_missing > 0


def test_another_version_has_labels_of_its_own(server):
    client = server.client
    audit(client, 1.0)
    judge_and_label(server, KNOWN)
    add_candidate(client)
    assert calibration(client, VERSION).calibration.labels == 60
    assert calibration(client, CANDIDATE).calibration.labels == 0
    found = judged(client, "0.98 p(yes|meticulous)=0.98", judge_version=CANDIDATE)
    assert found.selection.decision == Result.DECISION_NEEDS_REVIEW
    assert "no audit labels" in found.selection.reason


def test_labels_of_items_that_were_not_drawn_by_chance_certify_nothing(server):
    client = server.client
    audit(client, 0.0)
    judge_and_label(server, KNOWN)
    assert calibration(client).calibration.labels == 0
    found = certificate(client)
    assert not found.HasField("threshold")
    assert found.labels_missing > 0
    assert found.decision == Result.DECISION_UNSPECIFIED


def test_labels_that_come_later_are_taken_up(server):
    client = server.client
    audit(client, 1.0)
    judge_and_label(server, KNOWN[:19])
    assert calibration(client).calibration.labels == 0
    judge_and_label(server, KNOWN[:1])
    assert calibration(client).calibration.labels == 20
    judge_and_label(server, KNOWN[:4])
    assert calibration(client).calibration.labels == 20
    judge_and_label(server, KNOWN[:1])
    known = calibration(client)
    assert known.calibration.labels == 25
    assert known.calibration.method == Calibration.METHOD_UNSPECIFIED
    assert "5 more" in known.calibration.reason
    assert known.agreement == 1.0


@pytest.mark.parametrize(
    ("selection", "fields"),
    [
        ({"target_agreement": 0.5}, ["selection.target_agreement"]),
        ({"target_agreement": 1.0}, ["selection.target_agreement"]),
        ({"target_agreement": float("nan")}, ["selection.target_agreement"]),
        (
            {"target_agreement": 0.2, "assurance": 1.0},
            ["selection.assurance", "selection.target_agreement"],
        ),
        ({}, ["selection.target_agreement"]),
    ],
)
def test_targets_out_of_range_are_refused_everywhere(server, selection, fields):
    wrong = evaluation_pb2.Selection(**selection)
    client = server.client
    for method, request in (
        (client.evaluation.Evaluate, artifact(selection=wrong)),
        (
            client.trust.CertifySelection,
            pb.CertifySelectionRequest(name=JUDGE, selection=wrong),
        ),
    ):
        error = failure(method, request)
        assert error.reason == "INVALID_REQUEST"
        assert sorted(v.field for v in error.violations) == fields


def test_scores_have_no_confidence_to_select_by(server):
    error = failure(server.client.evaluation.Evaluate, rubric(selection=TARGET))
    assert error.reason == "INVALID_REQUEST"
    assert [v.field for v in error.violations] == ["selection"]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("judges/nobody", "JUDGE_NOT_FOUND"),
        (f"{JUDGE}/versions/99", "JUDGE_VERSION_NOT_FOUND"),
        ("nonsense", "INVALID_REQUEST"),
        (f"{JUDGE}/versions/x", "INVALID_REQUEST"),
        ("", "INVALID_REQUEST"),
    ],
)
def test_names_that_lead_nowhere_are_refused(server, name, reason):
    trust = server.client.trust
    for method, request in (
        (trust.GetConfidenceCalibration, pb.GetConfidenceCalibrationRequest(name=name)),
        (
            trust.CertifySelection,
            pb.CertifySelectionRequest(name=name, selection=TARGET),
        ),
    ):
        assert failure(method, request).reason == reason


def test_another_target_is_another_request(server):
    client, request_id = server.client, new_uuid()
    first = judged(client, 0.9, request_id=request_id)
    assert judged(client, 0.9, request_id=request_id) == first
    other = artifact("New: p(yes)=0.9", omit_reasoning=True, request_id=request_id)
    other.selection.target_agreement = 0.9
    error = failure(client.evaluation.Evaluate, other)
    assert error.reason == "REQUEST_ID_REUSED"


def consistency(client, name=JUDGE):
    return client.trust.GetJudgeConsistency(pb.GetJudgeConsistencyRequest(name=name))


def test_judging_several_times_answers_with_the_mean_and_says_how_far_they_agree(
    server,
):
    client = server.client
    evaluation = judged(client, 0.8, selection=None, n_samples=3)
    assert evaluation.usage.lm_calls == 3
    assert evaluation.judgment.verdict == judge_pb2.VERDICT_PASS
    assert (
        evaluation.judgment.confidence_source
        == evaluation_pb2.CONFIDENCE_SOURCE_SAMPLED
    )
    assert evaluation.judgment.confidence == pytest.approx(0.8)
    known = evaluation.consistency
    assert known.n_samples == 3
    assert known.mean == pytest.approx(0.8)
    assert known.stddev == pytest.approx(0)
    assert known.flip_rate == 0
    assert list(known.verdicts) == [judge_pb2.VERDICT_PASS] * 3
    request = evaluation_service_pb2.GetEvaluationRequest(name=evaluation.name)
    assert client.evaluation.GetEvaluation(request).evaluation == evaluation
    once = judged(client, 0.8, selection=None, n_samples=1)
    assert not once.HasField("consistency")
    assert once.usage.lm_calls == 1


def test_scores_that_repeat_have_a_spread_and_no_flip_rate(server):
    request = rubric(n_samples=2, omit_reasoning=True)
    evaluation = server.client.evaluation.Evaluate(request, timeout=30).evaluation
    assert evaluation.consistency.n_samples == 2
    assert not evaluation.consistency.HasField("flip_rate")
    assert evaluation.rubric.score == pytest.approx(evaluation.consistency.mean)


def test_the_share_of_noise_takes_ten_items(server):
    client = server.client
    for number in range(9):
        judged(client, 0.5 + number / 20, selection=None, n_samples=2)
    judged(client, 0.9, selection=None)
    found = consistency(client)
    assert (found.evaluations, found.samples) == (9, 18)
    assert "10 are needed" in found.reason
    assert not found.HasField("noise_share")
    judged(client, 0.2, selection=None, n_samples=4)
    found = consistency(client)
    assert (found.evaluations, found.samples) == (10, 22)
    assert found.reason == ""
    assert found.noise_share.value == pytest.approx(0)
    assert found.flip_rate.value == 0
    assert found.within_item_variance.high == pytest.approx(0)


def test_means_of_several_judgments_certify_nothing_of_single_ones(server):
    client = server.client
    audit(client, 1.0)
    for number in range(25):
        evaluation = judged(client, 0.9 + number / 500, selection=None, n_samples=2)
        client.feedback.RecordFeedback(
            feedback_service_pb2.RecordFeedbackRequest(
                feedback=feedback_pb2.Feedback(
                    evaluation=evaluation.name, verdict=judge_pb2.VERDICT_PASS
                )
            )
        )
    drain(server)
    assert calibration(client).calibration.labels == 0


@pytest.mark.parametrize(
    ("fields", "violation"),
    [
        ({"n_samples": -1}, "n_samples"),
        ({"n_samples": 17}, "n_samples"),
        ({"n_samples": 2, "selection": TARGET}, "selection"),
    ],
)
def test_samples_out_of_range_are_refused(server, fields, violation):
    error = failure(server.client.evaluation.Evaluate, artifact(**fields))
    assert error.reason == "INVALID_REQUEST"
    assert [v.field for v in error.violations] == [violation]


def report(client, **fields):
    return client.trust.GetJudgeReport(pb.GetJudgeReportRequest(name=JUDGE, **fields))


def label(client, evaluation, *, passed, author="", source="SOURCE_EXPERT"):
    client.feedback.RecordFeedback(
        feedback_service_pb2.RecordFeedbackRequest(
            feedback=feedback_pb2.Feedback(
                evaluation=evaluation.name,
                verdict=judge_pb2.VERDICT_PASS if passed else judge_pb2.VERDICT_FAIL,
                author=author,
                source=feedback_pb2.Feedback.Source.Value(source),
            )
        )
    )


def test_a_judge_is_put_beside_people(server):
    """Of 12 failing items the judge finds 9, of 8 others it passes 6."""
    client = server.client
    audit(client, 1.0)
    outcomes = [(False, False)] * 9 + [(False, True)] * 3
    outcomes += [(True, True)] * 6 + [(True, False)] * 2
    for number, (truth, answer) in enumerate(outcomes):
        evaluation = judged(
            client, 0.9 if answer else 0.1, selection=None,
            labels={"team": "a" if number % 2 else "b"},
        )  # fmt: skip
        source = "SOURCE_EXPERT" if number < 12 else "SOURCE_USER"
        label(client, evaluation, passed=truth, source=source)
    found = report(client, slice_label="team")
    assert found.items == 20
    assert found.agreement.value == pytest.approx(15 / 20)
    assert found.true_positive_rate.value == pytest.approx(9 / 12)
    assert found.true_negative_rate.value == pytest.approx(6 / 8)
    assert found.balanced_accuracy.value == pytest.approx(0.75)
    # p_o = 0.75, p_e = 0.6 * 0.55 + 0.4 * 0.45.
    assert found.kappa.value == pytest.approx((0.75 - 0.51) / 0.49)
    assert found.kappa.low < found.kappa.value < found.kappa.high
    counts = {(c.label, c.verdict): c.count for c in found.confusion}
    passed, failed = judge_pb2.VERDICT_PASS, judge_pb2.VERDICT_FAIL
    assert counts == {
        (failed, failed): 9,
        (failed, passed): 3,
        (passed, failed): 2,
        (passed, passed): 6,
    }
    assert [(p.name, p.items) for p in found.by_source] == [("expert", 12), ("user", 8)]
    assert found.by_source[0].agreement.value == pytest.approx(0.75)
    assert {(p.name, p.items) for p in found.by_slice} == {("a", 10), ("b", 10)}
    assert sum(b.items for b in found.confidence_bins) == 20
    assert not found.HasField("mean_absolute_error")
    assert "3 named annotators" in found.annotator_test.reason


def test_picked_items_are_counted_only_if_asked_for(server):
    client = server.client
    audit(client, 0.0)
    label(client, judged(client, 0.9, selection=None), passed=False)
    assert report(client).items == 0
    assert "include_picked" in report(client).reason
    found = report(client, include_picked=True)
    assert (found.items, found.agreement.value) == (1, 0.0)


def test_a_judge_as_good_as_the_annotators_may_replace_them(server):
    """Each annotator errs on items of its own, the judge on fewer."""
    client = server.client
    for number in range(40):
        truth = number % 2 == 0
        right = number % 20 != 0
        evaluation = judged(client, 0.9 if truth == right else 0.1, selection=None)
        for place, author in enumerate(("ann", "bea", "cem")):
            errs = number % 8 == place + 1
            label(client, evaluation, passed=truth != errs, author=author)
    test = report(client, include_picked=True).annotator_test
    assert (test.annotators, test.items) == (3, 40)
    assert test.reason == ""
    assert test.winning_rate == 1.0
    assert test.may_replace
    assert test.advantage > 0.8


def test_reports_of_scores_have_errors_instead_of_rates(server):
    client = server.client
    for grade, truth in ((5.0, 1.0), (3.0, 0.25), (1.0, 0.0), (4.0, 0.5)):
        request = rubric(f"grade={grade} fine", omit_reasoning=True)
        evaluation = client.evaluation.Evaluate(request, timeout=30).evaluation
        client.feedback.RecordFeedback(
            feedback_service_pb2.RecordFeedbackRequest(
                feedback=feedback_pb2.Feedback(evaluation=evaluation.name, score=truth)
            )
        )
    found = client.trust.GetJudgeReport(
        pb.GetJudgeReportRequest(name="judges/rubric", include_picked=True)
    )
    assert found.items == 4
    assert found.mean_absolute_error.value == pytest.approx(0.125)
    assert found.spearman == pytest.approx(1.0)
    assert found.kendall_tau == pytest.approx(1.0)
    assert found.agreement.value == pytest.approx(0.875)
    assert not found.HasField("kappa")
    assert not found.confusion


def test_an_epsilon_out_of_range_is_refused(server):
    error = failure(
        server.client.trust.GetJudgeReport,
        pb.GetJudgeReportRequest(name="nonsense", epsilon=1.0),
    )
    assert sorted(v.field for v in error.violations) == ["epsilon", "name"]


def test_the_review_queue_is_told_calibrated_confidences(server):
    client = server.client
    audit(client, 1.0)
    judge_and_label(server, KNOWN)
    evaluation = judged(client, 0.98)
    reliabilities = server.application.reliabilities
    expected = _expected_agreement(reliabilities)
    answer = SimpleNamespace(
        confidence=evaluation.judgment.confidence, score_stddev=None
    )
    assert expected("safety", 1, answer) == evaluation.calibrated_confidence
    assert expected("safety", 2, answer) == evaluation.judgment.confidence
    assert (
        expected("safety", 1, SimpleNamespace(confidence=None, score_stddev=None))
        == 0.5
    )
