"""The drift detector agrees with the definition, remembers, and alarms as seldom as it promises."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidejudge_server.stats.drift import (
    ALARM_AT,
    DriftDetector,
    DriftState,
    cusum_path,
    drift_alternatives,
    e_cusum_path,
)
from tests.stats.streams import publish
from tests.stats.vectors import load

P0 = 0.85


def paths_to_alarm(draw, *, alternatives, p0, runs, limit):
    """Return the label of each run's alarm, or the limit: a twin of the detector for many runs.

    Args:
        draw: Values of so many runs that have not alarmed, given label and statistic.
        alternatives: Of the detector.
        p0: Of the detector.
        runs: Number of runs.
        limit: Labels after which a run ends without alarm.
    """
    q = np.array(alternatives)[:, None]
    alarm = np.full(runs, limit)
    running = np.arange(runs)
    sums = np.zeros((len(q), runs))
    for label in range(1, limit + 1):
        x = draw(label, sums.mean(axis=0))
        sums = (sums + 1) * (x * (q / p0) + (1 - x) * ((1 - q) / (1 - p0)))
        over = sums.mean(axis=0) >= ALARM_AT
        if over.any():
            alarm[running[over]] = label
            running, sums = running[~over], sums[:, ~over]
            if not len(running):
                break
    return alarm


def test_statistics_agree_with_the_vectors():
    """e-SR, e-CUSUM, CUSUM, and the first label at which the e-SR reaches 100."""
    vectors = load("change_detection")
    for case, expected in vectors.cases:
        detector = DriftDetector(case["p0"], tuple(case["alternatives"]))
        state, path = detector.start(), []
        for agrees in case["agree"]:
            state = detector.update(state, agrees)
            path.append(state.statistic)
        got = {
            "e_sr": path,
            "e_cusum": e_cusum_path(
                case["agree"], p0=case["p0"], alternatives=case["alternatives"]
            ),
            "cusum_llr": cusum_path(case["agree"], p0=case["p0"], p1=case["cusum_p1"]),
        }
        assert expected.keys() == {*got, "first_e_sr_over_100"}
        for key, values in got.items():
            assert values == pytest.approx(expected[key], abs=vectors.tolerance)
        first = next(n for n, value in enumerate(path, start=1) if value >= 100)
        assert first == expected["first_e_sr_over_100"]


def test_default_alternatives_are_those_of_the_vectors_at_85_percent():
    """In proportion at other rates, and always below."""
    assert drift_alternatives(P0) == pytest.approx([0.45, 0.55, 0.65, 0.70, 0.75, 0.80])
    for p0 in (0.01, 0.5, 0.6, 0.8, 0.99):
        assert all(0 < q < p0 for q in DriftDetector(p0).alternatives)


@given(
    st.lists(st.one_of(st.sampled_from([0.0, 1.0]), st.floats(0, 1)), max_size=60),
    st.integers(0, 60),
)
@settings(max_examples=60, deadline=None)
def test_a_restart_from_the_stored_state_changes_nothing(values, cut):
    """Written as JSON after some labels and read again, the rest gives the same numbers, to the bit."""
    detector = DriftDetector(0.9)
    whole = detector.run(detector.start(), values)
    half = detector.run(detector.start(), values[:cut])
    stored = json.dumps([half.labels, half.sums])
    labels, sums = json.loads(stored)
    resumed = detector.run(DriftState(labels, tuple(sums)), values[cut:])
    assert resumed == whole
    assert resumed.labels == len(values)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=80))
@settings(max_examples=60, deadline=None)
def test_e_cusum_is_never_above_the_shiryaev_roberts_statistic(values):
    """So at one threshold it alarms later, or never."""
    detector = DriftDetector(P0)
    path = e_cusum_path(values, p0=P0, alternatives=detector.alternatives)
    assert path[-1] <= detector.run(detector.start(), values).statistic * (1 + 1e-12)


def test_a_broken_judge_stays_a_number():
    """After 20 000 wrong labels the state can still be stored."""
    detector = DriftDetector(P0)
    state = detector.run(detector.start(), [0.0] * 20_000)
    assert detector.alarms(state)
    assert math.isfinite(state.statistic)
    assert json.loads(json.dumps(state.sums)) == list(state.sums)
    assert detector.alarms(DriftState(1, (ALARM_AT,) * 6))
    assert not detector.alarms(detector.start())


@pytest.mark.parametrize("value", [-0.01, 1.01, math.nan])
def test_labels_out_of_range_are_refused(value):
    """And the state before them stays what it was."""
    detector = DriftDetector(P0)
    with pytest.raises(ValueError, match="within"):
        detector.update(detector.start(), value)


@pytest.mark.parametrize(
    "arguments",
    [
        (0.0,),
        (1.0,),
        (math.nan,),
        (0.7, (0.7,)),
        (0.7, (0.9, 0.5)),
        (0.7, (0.0,)),
        (0.7, (0.5,), 0.5),
        (0.7, (0.5,), math.nan),
    ],
)
def test_impossible_detectors_are_refused(arguments):
    """An alternative at or above p0 would alarm about a judge that got better."""
    with pytest.raises(ValueError, match=r"p0|alarm"):
        DriftDetector(*arguments)


def test_a_state_of_another_detector_is_refused():
    """Six sums do not belong to one alternative."""
    with pytest.raises(ValueError, match="alternatives"):
        DriftDetector(0.7, (0.5,)).update(DriftDetector(0.7).start(), 1.0)


def test_twin_of_the_simulations_is_the_detector():
    """The run lengths below are those of `DriftDetector`."""
    rng = np.random.default_rng(3)
    values = (rng.random((20, 600)) < 0.7).astype(float)
    detector = DriftDetector(P0)
    expected = []
    for stream in values:
        state = detector.start()
        while not detector.alarms(state):
            state = detector.update(state, stream[state.labels])
        expected.append(state.labels)
    got = [
        paths_to_alarm(
            lambda label, _, stream=stream: np.array([stream[label - 1]]),
            alternatives=detector.alternatives,
            p0=P0,
            runs=1,
            limit=600,
        )[0]
        for stream in values
    ]
    assert got == expected


def skewed(rng, p0, n):
    """Mostly perfect scores, few disasters, mean p0."""
    return (rng.random(n) < p0).astype(float)


def spread(rng, p0, n):
    """Scores all over the range, mean p0."""
    return rng.beta(4 * p0, 4 * (1 - p0), n)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "p0", "values"),
    [
        ("labels_70", 0.70, skewed),
        ("labels_85", 0.85, skewed),
        ("labels_95", 0.95, skewed),
        ("scores_85", 0.85, spread),
    ],
)
def test_labels_to_a_false_alarm_are_at_least_1000_on_average(
    name, p0, values, record_property
):
    """At the worst rate that is fine, p = p0; runs are cut, which can only make the mean smaller."""
    rng = np.random.default_rng(20266)
    runs, limit = 2000, 10_000
    alarm = paths_to_alarm(
        lambda _, statistic: values(rng, p0, len(statistic)),
        alternatives=drift_alternatives(p0),
        p0=p0,
        runs=runs,
        limit=limit,
    )
    error = float(alarm.std() / math.sqrt(runs))
    publish(
        record_property,
        **{f"run_length_{name}": float(alarm.mean()), f"run_length_{name}_se": error},
    )
    assert alarm.mean() - 3 * error >= ALARM_AT


def test_the_promise_holds_against_a_stream_that_knows_the_statistic(record_property):
    """Constant scores of p0, but a gamble at a high statistic: the mean stays p0 and so does 1000."""
    rng = np.random.default_rng(20267)

    def gamble(_, statistic):
        coins = (rng.random(len(statistic)) < P0).astype(float)
        return np.where(statistic > 300, coins, P0)

    alarm = paths_to_alarm(
        gamble, alternatives=drift_alternatives(P0), p0=P0, runs=2000, limit=10_000
    )
    error = float(alarm.std() / math.sqrt(len(alarm)))
    publish(
        record_property,
        run_length_gamble=float(alarm.mean()),
        run_length_gamble_se=error,
    )
    assert alarm.mean() - 3 * error >= ALARM_AT


def test_constant_scores_at_the_limit_alarm_at_1000_exactly():
    """The bound is tight: every label that is no evidence adds 1."""
    detector = DriftDetector(P0)
    state = detector.run(detector.start(), [P0] * 999)
    assert not detector.alarms(state)
    assert detector.run(state, [P0] * 2).statistic > ALARM_AT


def test_cusum_of_a_wrong_rate_alarms_all_the_time(record_property):
    """Tuned to .90 -> .75 (h = 4.5) and fed with .85, Page's CUSUM waits for some 200 labels."""
    rng = np.random.default_rng(20268)
    runs = []
    for _ in range(150):
        path = cusum_path((rng.random(1500) < 0.85).astype(float), p0=0.90, p1=0.75)
        runs.append(next((n for n, s in enumerate(path, start=1) if s >= 4.5), 1500))
    publish(record_property, run_length_cusum=float(np.mean(runs)))
    assert np.mean(runs) < 400


@pytest.mark.slow
def test_a_judge_that_falls_from_90_to_75_percent_is_noticed_in_time(record_property):
    """Median delay 71, 90 % within 163 after 2000 good labels (STATISTICS, 2000 runs)."""
    rng = np.random.default_rng(20269)
    change, runs, limit = 2000, 2000, 4000
    alarm = paths_to_alarm(
        lambda label, statistic: skewed(
            rng, 0.90 if label <= change else 0.75, len(statistic)
        ),
        alternatives=drift_alternatives(P0),
        p0=P0,
        runs=runs,
        limit=limit,
    )
    delay = alarm[alarm > change] - change
    early = float((alarm <= change).mean())
    publish(
        record_property,
        delay_median=float(np.median(delay)),
        delay_p90=float(np.quantile(delay, 0.9)),
        false_alarms_before=early,
    )
    assert np.median(delay) == pytest.approx(71, abs=6)
    assert np.quantile(delay, 0.9) == pytest.approx(163, abs=20)
    assert early == pytest.approx(0.059, abs=0.02)
