"""Statistics that SQL aggregates are those that counting row by row gives."""

import asyncio
import math
from collections import Counter, defaultdict
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from sidejudge_storage import (
    FALSE_POSITIVE_VALUE,
    QUALITY_VALUE,
    ExperimentAssignmentRecord,
    ExperimentFailureRecord,
    ExperimentLabelRecord,
    ExperimentOutcomeRecord,
    ShadowJudgmentRecord,
    Storage,
    new_id,
)
from tests.storage.samples import evaluation

START = datetime(2026, 10, 1, tzinfo=UTC)
ARMS = ("old", "new")


@pytest.fixture
def storage(tmp_path):
    opened = Storage.open(tmp_path / "statistics.duckdb")
    yield opened
    opened.close_blocking()


def label(rng, evaluation_id, arm, unit, feedback_id):
    return ExperimentLabelRecord(
        experiment_id="trial",
        evaluation_id=evaluation_id,
        arm_id=arm,
        unit=unit,
        stage=int(rng.integers(0, 2)),
        feedback_id=feedback_id,
        created_at=START,
        quality=float(rng.integers(0, 2)),
        label=float(rng.choice([0.0, 0.5, 1.0])),
        judged=None if rng.random() < 0.1 else float(rng.choice([0.0, 0.5, 1.0])),
        confidence=float(rng.random()),
        answered=bool(rng.random() < 0.7),
    )


def labels(rng, *, both_arms):
    """Return labels of 60 items of 40 units, a quarter of them labelled again, shuffled."""
    rows = []
    for _ in range(60):
        evaluation_id, unit = new_id(), f"u{rng.integers(0, 40)}"
        arms = ARMS if both_arms else [str(rng.choice(ARMS))]
        for _ in range(1 + (rng.random() < 0.25)):
            feedback_id = new_id()
            rows += [label(rng, evaluation_id, a, unit, feedback_id) for a in arms]
    rng.shuffle(rows)
    other = label(rng, new_id(), "old", "u1", new_id())
    return [*rows, type(other)(**{**_fields(other), "experiment_id": "another"})]


def _fields(record):
    return {name: getattr(record, name) for name in record.__dataclass_fields__}


def latest(rows):
    """Return the labels that count, by evaluation and arm, and when each came first."""
    newest, first = {}, {}
    for row in rows:
        if row.experiment_id != "trial":
            continue
        key = row.evaluation_id, row.arm_id
        if key not in newest or newest[key].feedback_id < row.feedback_id:
            newest[key] = row
        first[key] = min(first.get(key, row.feedback_id), row.feedback_id)
    return newest, first


def by_unit(rows, value, condition):
    """Return means by arm and unit, and the order in which units came."""
    newest, first = latest(rows)
    values, arrivals = defaultdict(list), {}
    for key, row in newest.items():
        if condition(row):
            at = row.arm_id, row.unit
            values[at].append(value(row))
            arrivals[at] = min(arrivals.get(at, first[key]), first[key])
    means = {at: math.fsum(found) / len(found) for at, found in values.items()}
    return means, arrivals


def check(found, means, arrivals, *, paired):
    for arm in ARMS:
        mine = [v for (a, _), v in means.items() if a == arm]
        assert found.moments[arm].n == len(mine)
        assert found.moments[arm].mean == pytest.approx(np.mean(mine))
        assert found.moments[arm].variance == pytest.approx(np.var(mine, ddof=1))
        counted = Counter(round(v, 12) for v in mine)
        assert dict(found.values[arm]) == pytest.approx(dict(counted))
    if paired:
        gaps = [
            v - means["old", u] for (a, u), v in means.items() if a == "new" and ("old", u) in means
        ]  # fmt: skip
    else:
        order = {
            arm: sorted((at, u) for (a, u), at in arrivals.items() if a == arm)
            for arm in ARMS
        }
        gaps = [
            means["new", b] - means["old", a]
            for (_, a), (_, b) in zip(order["old"], order["new"], strict=False)
        ]
    counted = Counter(round(gap, 12) for gap in gaps)
    assert dict(found.differences["new"]) == pytest.approx(dict(counted))


@pytest.mark.parametrize("paired", [True, False])
@pytest.mark.parametrize("seed", range(3))
def test_label_metrics_are_what_counting_says(storage, paired, seed):
    rng = np.random.default_rng(seed)
    rows = labels(rng, both_arms=paired)
    reader = storage.experiment_statistics

    async def run():
        await storage.write(*rows)
        quality = await reader.label_metric(
            "trial", QUALITY_VALUE, baseline="old", paired=paired
        )
        means, arrivals = by_unit(rows, lambda r: r.quality, lambda r: True)
        check(quality, means, arrivals, paired=paired)
        wrong = await reader.label_metric(
            "trial", FALSE_POSITIVE_VALUE, baseline="old", paired=paired
        )
        means, arrivals = by_unit(
            rows,
            lambda r: float(r.judged < 0.5),
            lambda r: r.label >= 0.5 and r.judged is not None,
        )
        check(wrong, means, arrivals, paired=paired)
        counts = await reader.stages("trial", None)
        newest, _ = latest(rows)
        units = defaultdict(list)
        for row in newest.values():
            if row.answered:
                units[row.stage, row.arm_id, row.unit].append(row.quality)
        for count in counts:
            mine = [
                np.mean(v)
                for (s, a, _), v in units.items()
                if (s, a) == (count.stage, count.arm_id)
            ]
            assert count.units == len(mine)
            assert count.failures == sum(v < 0.5 for v in mine)

    asyncio.run(run())


def test_outcomes_calls_and_units_are_what_counting_says(storage):
    rng = np.random.default_rng(9)
    reader = storage.experiment_statistics
    outcomes, assigned, evaluations, shadows, failures = [], [], [], [], []
    for number in range(50):
        arm, subject = str(rng.choice(ARMS)), f"s{number}"
        at = START + timedelta(seconds=number)
        assigned.append(ExperimentAssignmentRecord("trial", subject, arm, 0, at))
        outcomes.append(
            ExperimentOutcomeRecord(
                "trial", subject, arm, "seconds", float(np.exp(rng.normal())), 0, at
            )
        )
        record = evaluation(
            evaluation_id=new_id(),
            created_at=at,
            experiment_id="trial",
            arm_id=arm,
            stage=0,
            subject=subject if number % 2 else "",
            lm_latency_ms=float(rng.uniform(1, 9)),
            cost_usd=0.01 if number % 3 else None,
        )
        evaluations.append(record)
        shadows.append(
            ShadowJudgmentRecord(
                evaluation_id=record.evaluation_id,
                experiment_id="trial",
                arm_id="old",
                judge_id="brevity",
                version=2,
                created_at=at,
                verdict="pass",
                score=None,
                confidence=0.5,
                model="m",
                input_tokens=1,
                cached_input_tokens=0,
                output_tokens=1,
                lm_calls=1,
                cost_usd=None,
                lm_latency_ms=5.0,
            )
        )
    failures.append(
        ExperimentFailureRecord(
            "trial", "new", "brevity", 2, START, "JUDGE_OUTPUT_UNPARSABLE", False, "", 0
        )
    )
    before = evaluation(
        created_at=START - timedelta(days=1), experiment_id="trial", arm_id="old"
    )

    async def run():
        await storage.write(
            *outcomes, *assigned, *evaluations, *shadows, *failures, before
        )
        found = await reader.outcome_metric(
            "trial", "seconds", baseline="old", paired=False, positive=True
        )
        for arm in ARMS:
            logs = [math.log(o.value) for o in outcomes if o.arm_id == arm]
            assert found.moments[arm].mean == pytest.approx(np.mean(logs))
            assert found.moments[arm].variance == pytest.approx(np.var(logs, ddof=1))
        assert found.values == {}
        assert {value for value, _ in found.differences["new"]} <= {-1.0, 0.0, 1.0}
        calls = {c.arm_id: c for c in await reader.calls("trial", since=START)}
        old = [e for e in evaluations if e.arm_id == "old"]
        assert calls["old"].evaluations == len(old) + len(shadows)
        assert calls["new"].failures == 1
        logs = [math.log(e.lm_latency_ms) for e in old] + [math.log(5.0)] * len(shadows)
        assert calls["old"].latency_log_sum == pytest.approx(math.fsum(logs))
        assert calls["old"].priced == sum(e.cost_usd is not None for e in old)
        own = {
            (s, a): n
            for s, a, n in await reader.units("trial", since=START, own_arms=True)
        }
        assert own == Counter((0, r.arm_id) for r in assigned)
        units = await reader.units("trial", since=START, own_arms=False)
        counted = Counter(e.arm_id for e in evaluations)
        counted["new"] += 1
        assert {a: n for _, a, n in units} == counted
        assert await reader.size("trial", since=START) == (50 + 50 + 1 + 50, 50)

    asyncio.run(run())


def test_an_experiment_without_rows_has_empty_statistics(storage):
    reader = storage.experiment_statistics

    async def run():
        found = await reader.label_metric(
            "none", QUALITY_VALUE, baseline="old", paired=True
        )
        assert (found.moments, found.values, found.differences) == ({}, {}, {})
        assert await reader.calls("none", since=START) == []
        assert await reader.judged("none", since=START, own_arms=True) == []
        assert await reader.stages("none", "x") == []

    asyncio.run(run())
