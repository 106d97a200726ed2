"""Figures over a year of evaluations and the analysis of an experiment, beside SQLite on the same rows.

`make bench-analytics` fills a database with 10 million evaluations and 1 million corrections (a few
minutes and some 5 GB of disk with SQLite's copy; `--rows` for less), and times what AnalyticsService and
AnalyzeExperiment do, in this process, without the call. Nothing is asserted.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sidejudge_server.analytics.day_sums import DaySums
from sidejudge_server.analytics.quality import query_quality
from sidejudge_server.experiments.analysis import analyse
from sidejudge_server.experiments.codec import experiment_to_record
from sidejudge_server.experiments.statistics import StatisticsSource
from sidejudge_server.experiments.types import (
    Arm,
    Direction,
    Experiment,
    Metric,
    MetricKind,
    Mode,
    Role,
    State,
)
from sidejudge_storage import (
    FeedbackRecord,
    QualityQuery,
    Storage,
    StorageOptions,
    new_id,
)

YEAR = timedelta(days=365)
END = datetime(2026, 11, 1, tzinfo=UTC)
START = END - YEAR
REPEATS = 9
WRITERS, WRITE_S, WRITE_ROUNDS = 64, 2.0, 5

_ID = "lower(lpad(to_hex({ms}), 12, '0'))"
_SPLIT_ID = "substr({id}, 1, 8) || '-' || substr({id}, 9, 4) || '-7{kind}00-8000-' || lpad(to_hex(i), 12, '0')"
_COLUMNS = (
    "evaluation_id, judge_id, version, created_at, verdict, confidence, model, input_tokens,"
    " cached_input_tokens, output_tokens, lm_calls, cost_usd, lm_latency_ms"
)


def _id(moment: str, kind: str) -> str:
    """Return SQL for an id of a moment (ms since 1970) and row ``i``: ids sort by time."""
    return _SPLIT_ID.format(id=_ID.format(ms=f"CAST({moment} AS BIGINT)"), kind=kind)


def fill(storage: Storage, rows: int) -> None:
    """Write evaluations evenly over the year, corrections of a tenth, and an experiment."""
    start_ms = int(START.timestamp() * 1000)
    step = YEAR.total_seconds() * 1000 / rows
    ms = f"{start_ms} + i * {step}"
    run = storage._database.connection.execute  # noqa: SLF001 - the tables are filled past the writer
    run(
        f"""INSERT INTO evaluations (evaluation_id, judge_id, version, created_at, input_json, verdict,
            confidence, confidence_source, p_pass, p_fail, reasoning, suggestions_json,
            criterion_scores_json, model, input_tokens, cached_input_tokens, output_tokens, lm_calls,
            cost_usd, lm_latency_ms, subject, group_key, labels_json, experiment_id, arm_id, stage)
        SELECT {_id(ms, "a")}, 'judge-' || (i % 5), 1 + (i // 5) % 4, make_timestamp(CAST(({ms}) * 1000 AS BIGINT)),
            '{{"artifact":"an item of some words, number ' || i || '"}}',
            CASE WHEN hash(i) % 10 < 7 THEN 'pass' WHEN hash(i) % 10 < 9 THEN 'fail' ELSE 'partial' END,
            0.5 + (hash(i * 3) % 500) / 1000.0, 'logprob', 0.8, 0.2, 'It follows from what was given.',
            '[]', '[]', 'openai/model-' || (i % 2), 800 + i % 400, 500, 60 + i % 40, 1,
            0.0001 + (i % 100) / 1e6, 200 + exp((hash(i * 7) % 1000) / 150.0), 'task-' || (i // 2), '',
            '{{"team":"t' || (i % 7) || '"}}',
            CASE WHEN i >= {rows} * 9 // 10 THEN 'trial' END,
            CASE WHEN i >= {rows} * 9 // 10 THEN if(i % 2 = 0, 'old', 'new') END,
            CASE WHEN i >= {rows} * 9 // 10 THEN 0 END
        FROM range({rows}) AS t(i)"""
    ).fetchall()
    run(
        f"""INSERT INTO feedback (feedback_id, evaluation_id, judge_id, created_at, source, author, verdict,
            comment)
        SELECT {_id(f"{ms} + 3600000", "b")}, {_id(ms, "a")}, 'judge-' || (i % 5),
            make_timestamp(CAST(({ms} + 3600000) * 1000 AS BIGINT)), 'expert', 'ann',
            if(hash(i * 11) % 10 < 7, 'pass', 'fail'), ''
        FROM range(0, {rows}, 10) AS t(i)"""
    ).fetchall()
    run(
        f"""INSERT INTO experiment_labels
        SELECT 'trial', {_id(ms, "a")}, if(i % 20 = 0, 'old', 'new'), 'task-' || (i // 2), 0,
            {_id(f"{ms} + 3600000", "b")}, make_timestamp(CAST(({ms}) * 1000 AS BIGINT)),
            CAST(hash(i * 13) % 10 < 8 AS DOUBLE), CAST(hash(i * 17) % 10 < 7 AS DOUBLE),
            CAST(hash(i) % 10 < 7 AS DOUBLE), 0.9, true
        FROM range({rows} * 9 // 10, {rows}, 10) AS t(i)"""
    ).fetchall()


def experiment(rows: int) -> Experiment:
    """Return the split that the last tenth of the evaluations belongs to."""
    began = START + YEAR * 0.9 - timedelta(minutes=1)
    return Experiment(
        experiment_id="trial",
        judge_id="judge-0",
        mode=Mode.SPLIT,
        arms=(Arm("old", 1, 0.5), Arm("new", 2, 0.5)),
        metrics=(
            Metric("agreement", Role.PRIMARY, MetricKind.SCORE, Direction.HIGHER),
            Metric(
                "latency", Role.GUARDRAIL, MetricKind.POSITIVE, Direction.LOWER, 0.5
            ),
            Metric("cost", Role.GUARDRAIL, MetricKind.POSITIVE, Direction.LOWER, 0.5),
            Metric("error_rate", Role.GUARDRAIL, MetricKind.BINARY, Direction.LOWER),
            Metric(
                "false_positive_rate",
                Role.GUARDRAIL,
                MetricKind.BINARY,
                Direction.LOWER,
            ),
        ),
        namespace="bench",
        salt="s",
        state=State.RUNNING,
        created_at=began,
        updated_at=began,
        started_at=began,
        slice_high=1.0,
        description=f"{rows} rows",
    )


def fill_sqlite(storage: Storage, path: Path) -> sqlite3.Connection:
    """Copy the columns that the questions need, with the indexes that they need."""
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode = OFF")
    connection.execute("PRAGMA synchronous = OFF")
    connection.execute("PRAGMA cache_size = -500000")
    connection.execute(
        "CREATE TABLE evaluations (evaluation_id TEXT, judge_id TEXT, version INTEGER, created_at TEXT,"
        " verdict TEXT, confidence REAL, model TEXT, input_tokens INTEGER, cached_input_tokens INTEGER,"
        " output_tokens INTEGER, lm_calls INTEGER, cost_usd REAL, lm_latency_ms REAL)"
    )
    connection.execute(
        "CREATE TABLE feedback (feedback_id TEXT, evaluation_id TEXT, verdict TEXT)"
    )
    for table, columns, marks in (
        ("evaluations", _COLUMNS, 13),
        ("feedback", "feedback_id, evaluation_id, verdict", 3),
    ):
        sql = f"INSERT INTO {table} VALUES ({', '.join('?' * marks)})"
        for batch in _batches(storage, f"SELECT {columns} FROM {table}"):
            connection.executemany(sql, batch)
    connection.execute("CREATE INDEX by_time ON evaluations (created_at)")
    connection.execute("CREATE INDEX by_evaluation ON feedback (evaluation_id)")
    connection.commit()
    return connection


def _batches(storage: Storage, sql: str) -> Iterator[list[tuple[Any, ...]]]:
    cursor = storage._database.cursor()  # noqa: SLF001 - see `fill`
    sql = sql.replace(" created_at,", " strftime(created_at, '%Y-%m-%dT%H:%M:%S'),")
    cursor.execute(sql)
    while batch := cursor.fetchmany(50_000):
        yield batch
    cursor.close()


_SQLITE = """
    SELECT e.judge_id, e.version, count(*), sum(e.verdict = 'pass'), sum(e.verdict = 'fail'),
        sum(e.input_tokens), sum(e.output_tokens), sum(e.cost_usd), count(f.verdict),
        sum(f.verdict = e.verdict), sum(f.verdict = 'fail'), avg(e.lm_latency_ms)
    FROM evaluations AS e LEFT JOIN feedback AS f USING (evaluation_id)
    WHERE e.created_at >= ? AND e.created_at < ? GROUP BY e.judge_id, e.version"""
"""The same sums without percentiles, which SQLite does not have."""


async def timed(work: Callable[[], Awaitable[object]], repeats: int = REPEATS) -> float:
    """Return the median time of some work in ms, after one run that does not count."""
    await work()
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        await work()
        times.append(1000 * (time.perf_counter() - began))
    return statistics.median(times)


async def write_rate(
    storage: Storage, evaluation_id: str, beside: Callable[[], Awaitable[object]] | None
) -> tuple[float, int]:
    """Return durable corrections a second of 64 writers, and how often ``beside`` ran meanwhile."""
    until = time.perf_counter() + WRITE_S
    done = ran = 0

    async def write() -> None:
        nonlocal done
        while time.perf_counter() < until:
            record = FeedbackRecord(
                new_id(), evaluation_id, "other", datetime.now(UTC), "user", "", "pass", None, ""
            )  # fmt: skip
            await storage.write(record)
            done += 1

    async def query() -> None:
        nonlocal ran
        while beside is not None and time.perf_counter() < until:
            await beside()
            ran += 1

    await asyncio.gather(*(write() for _ in range(WRITERS)), query())
    return done / WRITE_S, ran


async def write_rates(
    storage: Storage, evaluation_id: str, beside: Callable[[], Awaitable[object]]
) -> dict[str, float]:
    """Return write rates alone and beside a query, and the median ratio of neighbouring rounds.

    In turns, because other tenants of the machine slow down whole seconds of either.
    """
    alone, both, queries = [], [], 0
    for _ in range(WRITE_ROUNDS):
        alone.append((await write_rate(storage, evaluation_id, None))[0])
        rate, ran = await write_rate(storage, evaluation_id, beside)
        both.append(rate)
        queries += ran
    ratios = [b / a for a, b in zip(alone, both, strict=True)]
    return {
        "writes_alone": statistics.median(alone),
        "writes_beside": statistics.median(both),
        "write_ratio": statistics.median(ratios),
        "write_ratio_min": min(ratios),
        "write_ratio_max": max(ratios),
        "queries_beside": queries,
    }


async def measure(rows: int, directory: Path, *, sqlite: bool) -> dict[str, float]:
    """Fill the databases and return all figures."""
    path = directory / "bench.duckdb"
    storage = Storage.open(path, StorageOptions())
    figures: dict[str, float] = {"rows": rows, "load": os.getloadavg()[0]}
    try:
        began = time.perf_counter()
        await asyncio.to_thread(fill, storage, rows)
        figures["fill_s"] = time.perf_counter() - began
        split = experiment(rows)
        await storage.write(experiment_to_record(split))
        by = ("judge_id", "version")
        month = QualityQuery(END - timedelta(days=30), END, group_by=by)
        year = QualityQuery(START, END, group_by=by)
        daily = QualityQuery(START, END, bucket="day", group_by=by)
        figures["year_raw_ms"] = await timed(lambda: query_quality(storage, year), 2)
        began = time.perf_counter()
        figures["days"] = await DaySums(storage).sum_up(now=END + timedelta(hours=1))
        figures["sum_up_s"] = time.perf_counter() - began
        figures["month_ms"] = await timed(lambda: query_quality(storage, month))
        figures["year_ms"] = await timed(lambda: query_quality(storage, year))
        figures["year_by_day_ms"] = await timed(
            lambda: query_quality(storage, daily), 3
        )

        source = StatisticsSource(storage.experiment_statistics)

        async def look() -> None:
            found = await source.gather(split)
            await asyncio.to_thread(analyse, split, found, END)

        began = time.perf_counter()
        await look()
        figures["first_analysis_ms"] = 1000 * (time.perf_counter() - began)
        figures["analysis_ms"] = await timed(look)
        evaluation = (
            await storage.evaluations.latest("judge-0", model="openai/model-0", limit=1)
        )[0]
        figures |= await write_rates(
            storage, evaluation.evaluation_id, lambda: query_quality(storage, year)
        )
        figures["disk_mb"] = path.stat().st_size / 1e6
        if sqlite:
            began = time.perf_counter()
            other = await asyncio.to_thread(_sqlite, storage, directory)
            figures |= other
            figures["sqlite_s"] = time.perf_counter() - began
    finally:
        storage.close_blocking()
    return figures


def _sqlite(storage: Storage, directory: Path) -> dict[str, float]:
    path = directory / "bench.sqlite"
    connection = fill_sqlite(storage, path)
    figures = {}
    for name, start in (("month", END - timedelta(days=30)), ("year", START)):
        times = []
        for _ in range(3 if name == "month" else 1):
            began = time.perf_counter()
            connection.execute(
                _SQLITE, (start.strftime("%Y-%m-%dT%H:%M:%S"), "2027")
            ).fetchall()
            times.append(1000 * (time.perf_counter() - began))
        figures[f"sqlite_{name}_ms"] = statistics.median(times)
    figures["sqlite_disk_mb"] = path.stat().st_size / 1e6
    connection.close()
    return figures


def report(f: dict[str, float]) -> Iterator[str]:
    """Yield the lines of the table."""
    yield (
        f"{f['rows']:,.0f} evaluations, {f['rows'] / 10:,.0f} corrections,"
        f" experiment of {f['rows'] / 10:,.0f} evaluations; load {f['load']:.2f};"
        f" filled in {f['fill_s']:.0f} s, {f['days']:.0f} days summed up in {f['sum_up_s']:.0f} s,"
        f" {f['disk_mb']:,.0f} MB"
    )
    lines = [
        ("QueryQuality, 30 days by judge and version", f["month_ms"], "<= 150 ms", f.get("sqlite_month_ms")),
        ("QueryQuality, a year by judge and version", f["year_ms"], "<= 500 ms", f.get("sqlite_year_ms")),
        ("QueryQuality, a year by day, judge and version", f["year_by_day_ms"], "", None),
        ("  the year without daily sums", f["year_raw_ms"], "", None),
        ("analysis of the experiment", f["analysis_ms"], "<= 50 ms", None),
        ("  the first one, and after 1 % more traffic", f["first_analysis_ms"], "", None),
    ]  # fmt: skip
    for name, value, bound, other in lines:
        beside = "" if other is None else f"   SQLite {other:,.0f} ms"
        yield f"{name:<50} {value:9.1f} ms  {bound:<10}{beside}"
    seconds = WRITE_ROUNDS * WRITE_S
    yield (
        f"durable corrections a second, 64 writers: {f['writes_alone']:,.0f} alone,"
        f" {f['writes_beside']:,.0f} beside {f['queries_beside']:.0f} queries over the year in"
        f" {seconds:.0f} s: {1 - f['write_ratio']:+.1%} slower (<= 20 %), median of"
        f" {WRITE_ROUNDS} rounds in turns, {1 - f['write_ratio_max']:+.1%}"
        f" to {1 - f['write_ratio_min']:+.1%}"
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--no-sqlite", action="store_true")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        figures = asyncio.run(
            measure(arguments.rows, Path(directory), sqlite=not arguments.no_sqlite)
        )
    for line in report(figures):
        print(line)
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
