"""Analyses of hand-made statistics: every decision, and data that cannot answer."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from sidejudge_server.experiments.analysis import HARM, analyse
from sidejudge_server.experiments.report import GuardrailStatus
from sidejudge_server.experiments.statistics import Statistics
from sidejudge_server.experiments.status import Decision, Status
from sidejudge_server.experiments.types import (
    Arm,
    Direction,
    Experiment,
    Metric,
    MetricKind,
    Mode,
    Role,
    RolloutPlan,
    Stage,
    State,
    StoppingRule,
)
from sidejudge_storage import (
    ArmCalls,
    JudgedSums,
    MetricStatistics,
    StageCounts,
    UnitMoments,
)

NOW = datetime(2026, 11, 2, tzinfo=UTC)
AGREEMENT = Metric("agreement", Role.PRIMARY, MetricKind.SCORE, Direction.HIGHER)
LATENCY = Metric("latency", Role.GUARDRAIL, MetricKind.POSITIVE, Direction.LOWER, 0.5)
ERRORS = Metric("error_rate", Role.GUARDRAIL, MetricKind.BINARY, Direction.LOWER, 0.05)


def experiment(**changes):
    fields = {
        "experiment_id": "trial",
        "judge_id": "safety",
        "mode": Mode.SHADOW,
        "arms": (Arm("baseline", 1, 0.5), Arm("candidate", 2, 0.5)),
        "metrics": (AGREEMENT,),
        "namespace": "judges/safety",
        "salt": "s",
        "state": State.RUNNING,
        "created_at": NOW - timedelta(days=1),
        "updated_at": NOW - timedelta(days=1),
        "started_at": NOW - timedelta(days=1),
        **changes,
    }
    return Experiment(**fields)


def histogram(counts):
    return tuple((value, count) for value, count in sorted(counts.items()) if count)


def pairs(wins, losses, ties, *, arm="candidate"):
    """Return the statistics of binary pairs; all ties are both right."""
    n = wins + losses + ties
    values = {
        "baseline": histogram({0.0: wins, 1.0: losses + ties}),
        arm: histogram({0.0: losses, 1.0: wins + ties}),
    }
    moments = {}
    for name, found in values.items():
        mean = sum(v * c for v, c in found) / n if n else 0.0
        moments[name] = UnitMoments(n, mean, mean * (1 - mean) * n / max(1, n - 1))
    return MetricStatistics(
        moments if n else {},
        values if n else {},
        {arm: histogram({1.0: wins, -1.0: losses, 0.0: ties})} if n else {},
    )


def calls(arm, *, n=1000, failures=0, mean_log=5.0):
    return ArmCalls(
        arm_id=arm,
        evaluations=n,
        failures=failures,
        latency_n=n,
        latency_log_sum=n * mean_log,
        latency_log_squares=n * (mean_log**2 + 0.25),
        latency_ms_p50=150.0,
        cost_n=0,
        cost_log_sum=0.0,
        cost_log_squares=0.0,
        cost_sum=0.0,
        priced=0,
    )


def statistics(metric, **parts):
    return Statistics(
        **{"calls": {}, "metrics": {"agreement": metric}, "judged": {}, **parts}
    )


def look(metric, *, of=None, **parts):
    return analyse(of or experiment(), statistics(metric, **parts), NOW)


def test_enough_evidence_and_improvement_ship():
    found = look(pairs(12, 1, 87))
    assert found.decision is Decision.SHIP
    assert found.winner == "candidate"
    (primary,) = found.comparisons
    assert primary.effect == pytest.approx(0.11)
    assert primary.fixed_interval.low > primary.always_valid_interval.low
    assert primary.anytime_p < 0.05
    assert "12 wins" in found.reason


def test_evidence_without_enough_improvement_goes_on():
    found = look(pairs(40, 8, 952), of=experiment())
    assert (
        found.decision is Decision.FUTILE or "less than the improvement" in found.reason
    )
    smaller = experiment(rule=StoppingRule(min_improvement=0.01))
    assert look(pairs(40, 8, 952), of=smaller).decision is Decision.SHIP


def test_the_same_evidence_the_other_way_rejects():
    assert look(pairs(1, 12, 87)).decision is Decision.REJECT


def test_little_evidence_runs_on_and_says_for_how_long():
    found = look(pairs(7, 1, 32))
    assert found.decision is Decision.RUNNING
    assert found.expected_units_to_decision > 0
    assert any("wide" in warning for warning in found.warnings)


def test_few_units_decide_nothing():
    found = look(pairs(9, 0, 0))
    assert found.decision is Decision.RUNNING
    assert "fewer than 10" in found.reason


def test_an_improvement_that_is_ruled_out_is_futile():
    found = look(pairs(20, 20, 1960))
    assert found.decision is Decision.FUTILE
    assert "ruled out" in found.reason


def test_budgets_of_units_and_time_end_it():
    spent = experiment(rule=StoppingRule(max_units=50))
    assert look(pairs(5, 3, 42), of=spent).decision is Decision.FUTILE
    late = experiment(rule=StoppingRule(max_duration_s=3600.0))
    assert look(pairs(5, 3, 42), of=late).decision is Decision.FUTILE


def test_a_decision_once_made_stays():
    status = Status(
        decision=Decision.SHIP, winner="candidate", reason="before", decided_at=NOW
    )
    found = look(pairs(1, 12, 87), of=experiment(status=status))
    assert found.decision is Decision.SHIP
    assert found.reason == "before"


def test_the_largest_evidence_so_far_counts():
    before = experiment(status=Status(largest={"agreement/candidate/better": 3.2}))
    found = look(pairs(9, 3, 38), of=before)
    assert found.decision is Decision.SHIP
    assert found.comparisons[0].anytime_p == pytest.approx(0.0408, abs=1e-3)
    assert found.largest["agreement/candidate/better"] == 3.2


def test_a_slow_candidate_violates_its_guardrail():
    guarded = experiment(metrics=(AGREEMENT, LATENCY, ERRORS))
    slow = {
        "baseline": calls("baseline"),
        "candidate": calls("candidate", mean_log=6.0),
    }
    found = look(pairs(5, 3, 42), of=guarded, calls=slow)
    assert found.decision is Decision.GUARDRAIL
    by_metric = {c.metric: c for c in found.comparisons}
    assert by_metric["latency"].status is GuardrailStatus.VIOLATED
    assert by_metric["error_rate"].status is GuardrailStatus.OK
    assert by_metric["latency"].asymptotic
    assert by_metric["latency"].adjusted_p >= by_metric["latency"].anytime_p


def test_a_candidate_whose_calls_fail_violates_its_guardrail():
    guarded = experiment(metrics=(AGREEMENT, LATENCY, ERRORS))
    failing = {
        "baseline": calls("baseline", failures=5),
        "candidate": calls("candidate", n=800, failures=200),
    }
    found = look(pairs(5, 3, 42), of=guarded, calls=failing)
    assert found.decision is Decision.GUARDRAIL
    assert "error_rate" in found.reason


def test_a_split_that_is_off_is_invalid_whatever_else_it_says():
    split = experiment(mode=Mode.SPLIT)
    units = [(0, "baseline", 1000), (0, "candidate", 700)]
    found = look(pairs(40, 1, 59), of=split, units=units)
    assert found.decision is Decision.INVALID
    assert found.sample_ratio.alarm
    fair = look(
        pairs(40, 1, 59), of=split, units=[(0, "baseline", 850), (0, "candidate", 850)]
    )
    assert fair.decision is Decision.SHIP
    assert not fair.sample_ratio.alarm


def test_nothing_recorded_says_so_everywhere():
    guarded = experiment(metrics=(AGREEMENT, LATENCY, ERRORS))
    found = look(pairs(0, 0, 0), of=guarded)
    assert found.decision is Decision.RUNNING
    assert all(c.cannot_say for c in found.comparisons)
    assert all(c.log_e is None for c in found.comparisons)
    assert all(arm.labels_only.cannot_say for arm in found.arms)
    assert found.expected_units_to_decision is None
    document = found.to_json()
    assert "e_value" not in document["comparisons"][0]


def test_all_ties_have_no_interval_for_one_look_and_no_evidence():
    (primary,) = look(pairs(0, 0, 40)).comparisons
    assert primary.effect == 0
    assert primary.fixed_interval is None
    assert "no spread" in primary.cannot_say
    assert primary.log_e == pytest.approx(0)
    assert 0 in (primary.always_valid_interval)


def rollout(**changes):
    plan = RolloutPlan(stages=(Stage(0.1, 50, 0.05), Stage(0.5, 100, 0.05)))
    return experiment(mode=Mode.ROLLOUT, rollout=plan, **changes)


def stages(failures_a, failures_b, units=100, stage=0):
    return [
        StageCounts(stage, "baseline", units * 9 // 10, failures_a),
        StageCounts(stage, "candidate", units // 10, failures_b),
    ]


def test_a_rollout_does_not_ship_before_its_last_stage():
    early = look(pairs(30, 1, 169), of=rollout(), stages=stages(20, 1))
    assert early.decision is Decision.RUNNING
    assert "stages first" in early.reason
    assert early.rollout.waiting_for == ""
    last = rollout(status=Status(stage=1))
    found = look(pairs(30, 1, 169), of=last, stages=stages(20, 1, stage=1))
    assert found.decision is Decision.SHIP


def test_a_stage_waits_for_units_and_for_its_interval():
    few = look(pairs(3, 1, 16), of=rollout(), stages=stages(4, 1, units=20))
    assert "30 more labelled units" in few.rollout.waiting_for
    wide = look(pairs(5, 5, 40), of=rollout(), stages=stages(9, 1))
    assert "interval" in wide.rollout.waiting_for


def test_harm_takes_a_rollout_back():
    found = look(pairs(5, 5, 90), of=rollout(), stages=stages(10, 12))
    assert found.decision is Decision.GUARDRAIL
    assert "fails more than 1 times" in found.reason
    assert found.largest[HARM] > 3


def test_three_arms_share_the_error_rate():
    arms = (Arm("a", 1, 0.3), Arm("b", 2, 0.3), Arm("c", 3, 0.4))
    both = pairs(7, 0, 43, arm="b")
    other = pairs(0, 1, 49, arm="c")
    merged = MetricStatistics(
        {"a": both.moments["baseline"], **{k: v for m in (both, other) for k, v in m.moments.items() if k != "baseline"}},
        {"a": both.values["baseline"], **{k: v for m in (both, other) for k, v in m.values.items() if k != "baseline"}},
        both.differences | other.differences,
    )  # fmt: skip
    three = experiment(arms=arms)
    found = look(merged, of=three)
    # 7 of 7 is evidence of 31.9: enough for one candidate (20), not for one of two (40).
    assert found.decision is Decision.RUNNING
    assert look(pairs(7, 0, 43)).decision is Decision.SHIP
    assert {c.arm for c in found.comparisons} == {"b", "c"}


def test_scores_are_compared_by_bets():
    values = {
        "baseline": histogram({0.5: 40, 0.6: 40}),
        "candidate": histogram({0.8: 80}),
    }
    moments = {
        "baseline": UnitMoments(80, 0.55, 0.0025),
        "candidate": UnitMoments(80, 0.8, 0.0001),
    }
    metric = MetricStatistics(
        moments, values, {"candidate": histogram({0.2: 40, 0.3: 40})}
    )
    found = look(metric)
    assert found.decision is Decision.SHIP
    assert found.comparisons[0].method.startswith("betting mixture")


def test_lower_is_better_turns_wins_around():
    metric = replace(AGREEMENT, metric_id="defects", direction=Direction.LOWER)
    named = experiment(judge_id=None, metrics=(metric,))
    parts = Statistics({}, {"defects": pairs(1, 12, 87)}, {})
    found = analyse(named, parts, NOW)
    assert found.decision is Decision.SHIP
    assert found.comparisons[0].wins == 12
    assert found.comparisons[0].effect == pytest.approx(-0.11)


def test_the_judge_helps_to_estimate_an_arm():
    judged = {
        "candidate": JudgedSums(
            "candidate", 40, 30, 30, 28, 28, 26, 400, 290, 290, binary=True
        )
    }
    found = look(pairs(10, 2, 28), judged=judged)
    estimate = found.arms[1].judge_corrected
    assert estimate.judgments == 400
    assert estimate.interval.low < estimate.estimate < estimate.interval.high
    assert found.arms[0].judge_corrected is None
    few = {"candidate": replace(judged["candidate"], binary=False)}
    assert (
        "needs 50 labels"
        in look(pairs(10, 2, 28), judged=few).arms[1].judge_corrected.cannot_say
    )
