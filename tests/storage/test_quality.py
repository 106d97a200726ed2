"""Figures from daily sums and from raw rows are the same, and what a person would count by hand."""

import asyncio
import math
from collections import defaultdict
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from sidejudge_server.analytics.day_sums import DaySums
from sidejudge_storage import (
    FeedbackRecord,
    QualityQuery,
    Storage,
    new_id,
)
from tests.storage.samples import evaluation

START = datetime(2026, 3, 1, tzinfo=UTC)
NOW = datetime(2026, 3, 8, 12, tzinfo=UTC)
SOURCES = ("downstream", "user", "expert")


def id_at(moment):
    """Return an id of a time: as the server makes them, ids and times go together."""
    digits = f"{int(moment.timestamp() * 1000):012x}"
    return f"{digits[:8]}-{digits[8:]}{new_id()[13:]}"


def rows(rng, count):
    """Return evaluations over a week, and feedback on some, several on a few."""
    evaluations, feedback = [], []
    for _ in range(count):
        at = START + timedelta(seconds=float(rng.uniform(0, 7.4 * 86400)))
        verdict = str(rng.choice(["pass", "fail", "partial"], p=[0.6, 0.3, 0.1]))
        record = evaluation(
            evaluation_id=id_at(at),
            judge_id=str(rng.choice(["a", "b"])),
            version=int(rng.integers(1, 3)),
            created_at=at,
            verdict=verdict,
            confidence=float(rng.uniform(0.5, 1)),
            model=str(rng.choice(["m1", "m2"])),
            lm_latency_ms=float(np.exp(rng.normal(5, 1))),
            cost_usd=None if rng.random() < 0.5 else 0.01,
            labels_json='{"team":"x"}' if rng.random() < 0.5 else "{}",
        )
        evaluations.append(record)
        count = int(rng.choice([0, 1, 2], p=[0.6, 0.3, 0.1]))
        feedback += [correction(record, rng, at) for _ in range(count)]
    return evaluations, feedback


def correction(record, rng, at):
    return FeedbackRecord(
        feedback_id=new_id(),
        evaluation_id=record.evaluation_id,
        judge_id=record.judge_id,
        created_at=at,
        source=str(rng.choice(SOURCES)),
        author="",
        verdict=str(rng.choice(["pass", "fail"])),
        score=None,
        comment="",
    )


def by_hand(evaluations, feedback, key):
    """Return sums by key, counted one by one."""
    label = {}
    for record in feedback:
        place = SOURCES.index(record.source), record.feedback_id
        if record.evaluation_id not in label or label[record.evaluation_id][0] < place:
            label[record.evaluation_id] = place, record.verdict
    found = defaultdict(lambda: defaultdict(float))
    for record in evaluations:
        sums = found[key(record)]
        sums["evaluations"] += 1
        sums["failed"] += record.verdict == "fail"
        sums["cost_sum"] += record.cost_usd or 0
        sums["priced"] += record.cost_usd is not None
        if record.evaluation_id in label:
            true = label[record.evaluation_id][1]
            sums["labelled"] += 1
            sums["agreement_sum"] += record.verdict == true
            sums["positives"] += true == "fail"
            sums["true_positives"] += true == record.verdict == "fail"
            sums["negatives"] += true != "fail"
            sums["true_negatives"] += true != "fail" != record.verdict
    return found


@pytest.fixture
def storage(tmp_path):
    opened = Storage.open(tmp_path / "quality.duckdb")
    yield opened
    opened.close_blocking()


def test_daily_sums_and_raw_rows_say_what_counting_says(storage):
    rng = np.random.default_rng(4)
    evaluations, feedback = rows(rng, 900)

    async def run():
        await storage.write(*evaluations, *feedback)
        query = QualityQuery(
            START + timedelta(hours=7), NOW, group_by=("judge_id", "version")
        )
        raw = await storage.quality.query(query)
        inside = [e for e in evaluations if query.start <= e.created_at < query.end]
        counted = by_hand(inside, feedback, lambda e: (e.judge_id, e.version))
        assert {(k.judge_id, k.version) for k in raw} == set(counted)
        for key, sums in raw.items():
            wanted = counted[key.judge_id, key.version]
            for name, value in wanted.items():
                assert sums.sums[name] == pytest.approx(value), name
            latency = sorted(
                e.lm_latency_ms
                for e in inside
                if (e.judge_id, e.version) == (key.judge_id, key.version)
            )
            for quantile, value in sums.latency_ms.items():
                exact = latency[math.ceil(quantile * len(latency)) - 1]
                assert value == pytest.approx(exact, rel=0.026)
        assert await DaySums(storage).sum_up(now=NOW) == 7
        assert await storage.quality.query(query) == approx(raw)
        assert await DaySums(storage).sum_up(now=NOW) == 0
        # Late feedback is in the figures at once, and again after its day was summed up anew.
        late = [correction(e, rng, NOW) for e in evaluations[:40]]
        await storage.write(*late)
        at_once = await storage.quality.query(query)
        counted = by_hand(inside, feedback + late, lambda e: (e.judge_id, e.version))
        for key, sums in at_once.items():
            wanted = counted[key.judge_id, key.version]
            assert sums.sums["agreement_sum"] == wanted["agreement_sum"]
            assert sums.sums["labelled"] == wanted["labelled"]
        assert 0 < await DaySums(storage).sum_up(now=NOW) <= 7
        assert await storage.quality.query(query) == approx(at_once)

    asyncio.run(run())


def approx(found):
    return {
        key: type(sums)(
            {name: pytest.approx(v) for name, v in sums.sums.items()},
            {q: pytest.approx(v) for q, v in sums.latency_ms.items()},
            tuple(
                type(b)(
                    b.n,
                    *map(pytest.approx, (b.confidence_sum, b.right_sum, b.squares_sum)),
                )
                for b in sums.bins
            ),
        )
        for key, sums in found.items()
    }


@pytest.mark.parametrize("bucket", ["hour", "day", "week", "month"])
def test_buckets_split_time_alike_with_and_without_sums(storage, bucket):
    rng = np.random.default_rng(5)
    evaluations, feedback = rows(rng, 300)

    async def run():
        await storage.write(*evaluations, *feedback)
        query = QualityQuery(START, NOW, bucket=bucket, group_by=("model",))
        raw = await storage.quality.query(query)
        assert sum(s.sums["evaluations"] for s in raw.values()) == 300
        assert list(raw) == sorted(raw, key=lambda k: (k.bucket, k.model))
        await DaySums(storage).sum_up(now=NOW)
        assert await storage.quality.query(query) == approx(raw)

    asyncio.run(run())


def test_labels_filter_and_split(storage):
    rng = np.random.default_rng(6)
    evaluations, feedback = rows(rng, 200)

    async def run():
        await storage.write(*evaluations, *feedback)
        split = await storage.quality.query(
            QualityQuery(START, NOW, group_by=("label",), label_key="team")
        )
        counts = {k.label: s.sums["evaluations"] for k, s in split.items()}
        tagged = sum(e.labels_json != "{}" for e in evaluations)
        assert counts == {"": 200 - tagged, "x": tagged}
        only = await storage.quality.query(
            QualityQuery(START, NOW, labels={"team": "x"}, judge_id="a", version=1)
        )
        ((_, sums),) = only.items()
        assert sums.sums["evaluations"] == sum(
            e.labels_json != "{}" and e.judge_id == "a" and e.version == 1
            for e in evaluations
        )

    asyncio.run(run())


def test_nothing_recorded_is_no_rows(storage):
    async def run():
        assert await storage.quality.query(QualityQuery(START, NOW)) == {}
        assert await DaySums(storage).sum_up(now=NOW) == 0

    asyncio.run(run())


def test_queries_beside_writes_rest_as_long_as_they_ran(storage, monkeypatch):
    rests = []
    real_sleep = asyncio.sleep

    async def rest(seconds):
        rests.append(seconds)
        await real_sleep(0)

    monkeypatch.setattr("sidejudge_storage.readers.quality.asyncio.sleep", rest)
    query = storage._database.query

    async def run():
        loop = asyncio.get_running_loop()
        wanted = QualityQuery(START, NOW)
        await storage.write(evaluation(created_at=START))
        alone = await storage.quality.query(wanted)
        assert rests == []

        def beside_a_write(sql, params):
            rows = query(sql, params)
            written = storage.write(evaluation(evaluation_id=new_id()))
            asyncio.run_coroutine_threadsafe(written, loop).result()
            return rows

        monkeypatch.setattr(storage._database, "query", beside_a_write)
        beside = await storage.quality.query(wanted)
        assert {k.judge_id for k in beside} == {k.judge_id for k in alone}
        # Progress, feedback since, and the three of figures.
        assert len(rests) == 5
        assert all(0 < seconds <= 0.25 for seconds in rests)

    asyncio.run(run())
