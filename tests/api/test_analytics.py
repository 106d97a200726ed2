"""AnalyticsService over real gRPC: figures, SQL, and what SQL may not do."""

import io
from contextlib import contextmanager
from datetime import timedelta

import grpc
import pytest
from nanoarrow import ArrayStream, ipc

import sidejudge
from sidejudge.v1 import analytics_service_pb2 as pb
from sidejudge.v1 import judge_pb2
from tests.support.calls import artifact, correction, failure, rubric

Query = pb.QueryQualityRequest


@pytest.fixture(scope="module", autouse=True)
def recorded(server):
    """Ten safety evaluations, of which six are labelled, and two scores."""
    names = []
    for number in range(10):
        good = number % 2 == 0
        request = artifact(
            f"Item {number}: p(yes)={0.9 if good else 0.2}",
            labels={"team": "a" if number < 4 else "b"},
        )
        names.append(server.client.evaluation.Evaluate(request).evaluation.name)
    for number, name in enumerate(names[:6]):
        verdict = judge_pb2.VERDICT_PASS if number < 3 else judge_pb2.VERDICT_FAIL
        server.client.feedback.RecordFeedback(correction(name, verdict=verdict))
    for _ in range(2):
        server.client.evaluation.Evaluate(rubric("grade=4.0 fine"))
    return names


def sql(client, text, **fields):
    """Run a query and return its rows as dicts, and its summary."""
    request = pb.ExecuteQueryRequest(sql=text, **fields)
    data, summary = b"", None
    for message in client.analytics.ExecuteQuery(request, timeout=30):
        if message.WhichOneof("content") == "arrow_ipc":
            data += message.arrow_ipc
        else:
            summary = message.summary
    stream = ArrayStream(ipc.InputStream.from_readable(io.BytesIO(data)))
    return list(stream.read_all().iter_py()), summary


@contextmanager
def suppress_limit():
    """Let a query end by its limits, and by nothing else."""
    try:
        yield
    except grpc.RpcError as error:
        reason = sidejudge.SidejudgeError.from_rpc_error(error).reason
        if reason != "QUERY_LIMIT_EXCEEDED":
            raise


def test_quality_by_judge_has_figures_where_there_are_labels(server):
    rows = server.client.analytics.QueryQuality(
        Query(group_by=[Query.DIMENSION_JUDGE])
    ).rows
    by_judge = {row.judge: row for row in rows}
    safety, scores = by_judge["judges/safety"], by_judge["judges/rubric"]
    assert (safety.evaluations, safety.passed, safety.failed) == (10, 5, 5)
    assert safety.labelled == 6
    # Right are the passes 0 and 2 and the fails 3 and 5.
    assert safety.agreement.estimate == pytest.approx(4 / 6)
    assert safety.agreement.low < 4 / 6 < safety.agreement.high
    assert safety.true_positive_rate.estimate == pytest.approx(2 / 3)
    assert safety.true_negative_rate.estimate == pytest.approx(2 / 3)
    assert 0 < safety.brier_score < 1
    assert not safety.HasField("calibration_error")
    assert safety.latency_ms_p50 <= safety.latency_ms_p99
    assert safety.input_tokens > 0
    assert not safety.HasField("mean_score")
    assert scores.mean_score == pytest.approx(0.75)
    assert not scores.HasField("agreement")
    assert not scores.HasField("cost_usd")


def test_quality_by_label_and_day(server):
    rows = server.client.analytics.QueryQuality(
        Query(
            judge="judges/safety",
            bucket=Query.BUCKET_DAY,
            group_by=[Query.DIMENSION_LABEL, Query.DIMENSION_JUDGE_VERSION],
            label_key="team",
        )
    ).rows
    counts = {row.label_value: row.evaluations for row in rows}
    assert counts == {"a": 4, "b": 6}
    assert {row.judge_version for row in rows} == {"judges/safety/versions/1"}
    assert all(row.bucket_time.seconds % 86400 == 0 for row in rows)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"judge": "safety"}, "judge"),
        ({"bucket": 99}, "bucket"),
        ({"group_by": [Query.DIMENSION_LABEL]}, "label_key"),
        ({"label_key": "team"}, "label_key"),
        ({"group_by": [0]}, "group_by[0]"),
    ],
)
def test_wrong_questions_are_refused(server, fields, field):
    error = failure(server.client.analytics.QueryQuality, Query(**fields))
    assert field in {v.field for v in error.violations}


def test_a_query_reads_the_views(server):
    rows, summary = sql(
        server.client,
        """WITH labelled AS (SELECT evaluation_id, any_value(verdict) AS label FROM feedback
               GROUP BY evaluation_id)
        SELECT e.judge_id, count(*) AS n, count(label) AS labels,
            sum(CASE WHEN label = e.verdict THEN 1 ELSE 0 END) AS right
        FROM v1.evaluations e LEFT JOIN labelled USING (evaluation_id)
        WHERE e.labels->>'team' IS NOT NULL AND lower(e.model) LIKE '%stand%'
        GROUP BY ALL ORDER BY n DESC;""",
    )
    assert rows == [{"judge_id": "safety", "n": 10, "labels": 6, "right": 4}]
    assert summary.rows == 1
    assert not summary.truncated


def test_rows_beyond_the_limit_are_cut_off_and_said(server):
    rows, summary = sql(
        server.client, "SELECT i FROM range(5000) t(i) ORDER BY i", max_rows=10
    )
    assert [row["i"] for row in rows] == list(range(10))
    assert summary.truncated
    rows, summary = sql(server.client, "SELECT i FROM range(7) t(i)", max_rows=7)
    assert len(rows) == summary.rows == 7
    assert not summary.truncated


def test_an_empty_result_has_its_columns(server):
    rows, summary = sql(server.client, "SELECT judge_id FROM evaluations WHERE false")
    assert rows == []
    assert summary.rows == 0


def test_a_big_result_comes_in_pieces(server):
    request = pb.ExecuteQueryRequest(
        sql="SELECT i, repeat_text FROM (SELECT i, lpad('', 100, 'x') AS repeat_text"
        " FROM range(100000) t(i))",
        max_rows=100_000,
    )
    pieces = list(server.client.analytics.ExecuteQuery(request, timeout=60))
    assert len(pieces) > 5
    assert pieces[-1].summary.rows == 100_000


REFUSED = [
    "INSERT INTO evaluations SELECT * FROM evaluations",
    "DELETE FROM main.evaluations",
    "UPDATE main.judges SET kind = 'x'",
    "DROP TABLE main.evaluations",
    "CREATE TABLE t AS SELECT 1",
    "COPY (SELECT 1) TO '/tmp/sidejudge-test-out.csv'",
    "COPY main.judges FROM '/etc/passwd'",
    "EXPORT DATABASE '/tmp/x'",
    "ATTACH '/tmp/x.db'",
    "INSTALL httpfs",
    "LOAD httpfs",
    "SET memory_limit = '100GB'",
    "PRAGMA database_list",
    "CALL pragma_version()",
    "CHECKPOINT",
    "BEGIN",
    "SELECT 1; SELECT 2",
    "SELECT 1; DROP TABLE main.judges",
    "SELECT * FROM '/etc/passwd'",
    "SELECT * FROM 'x.csv'",
    "SELECT * FROM read_csv('/etc/passwd')",
    "SELECT * FROM read_text('/etc/passwd')",
    "SELECT * FROM read_blob('/etc/passwd')",
    "SELECT * FROM read_parquet('x.parquet')",
    "SELECT * FROM glob('/*')",
    "SELECT getenv('HOME')",
    "SELECT current_setting('memory_limit')",
    "SELECT * FROM duckdb_settings()",
    "SELECT * FROM duckdb_tables()",
    "SELECT * FROM duckdb_secrets()",
    "SELECT * FROM information_schema.tables",
    "SELECT * FROM pg_catalog.pg_tables",
    "SELECT * FROM sqlite_master",
    "SELECT * FROM main.evaluations",
    "SELECT * FROM main.requests",
    "SELECT * FROM requests",
    "SELECT * FROM meta",
    "SELECT * FROM memory.main.judges",
    "SELECT * FROM query('SELECT 1')",
    "SELECT * FROM query_table('judges')",
    "SELECT (SELECT content FROM read_text('/etc/passwd'))",
    "SELECT * FROM evaluations WHERE EXISTS (SELECT * FROM read_text('/etc/passwd'))",
    "WITH x AS (SELECT * FROM read_text('/etc/passwd')) SELECT * FROM x",
    "WITH evaluations AS (SELECT * FROM main.requests) SELECT * FROM evaluations",
    "SELECT list_transform([1], x -> getenv('HOME'))",
    "SELECT nextval('s')",
    "DESCRIBE evaluations",
    "SHOW TABLES",
    "FROM duckdb_functions()",
    "SELECT",
    "not sql at all",
]


@pytest.mark.parametrize("text", REFUSED)
def test_sql_that_does_more_than_read_the_views_is_refused(server, text):
    error = failure(
        server.client.analytics.ExecuteQuery, pb.ExecuteQueryRequest(sql=text)
    )
    assert error.reason == "QUERY_REFUSED", error.message
    assert error.code.name == "INVALID_ARGUMENT"
    assert error.metadata["problem"]


def test_nothing_changed_by_what_was_refused(server, recorded):
    rows, _ = sql(server.client, "SELECT count(*) AS n FROM evaluations")
    assert rows == [{"n": 12}]


@pytest.mark.parametrize(
    "text", ["SELECT nothing FROM evaluations", "SELECT sum(verdict) FROM evaluations"]
)
def test_sql_that_cannot_be_run_says_why(server, text):
    request = pb.ExecuteQueryRequest(sql=text)
    error = failure(server.client.analytics.ExecuteQuery, request)
    assert error.reason == "QUERY_FAILED"
    assert error.message


@pytest.mark.parametrize(
    "text",
    [
        "SELECT count(*) FROM range(10000000000) a(i), range(1000000) b(j) WHERE i + j = 7",
        "WITH RECURSIVE r AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM r) SELECT max(i) FROM r",
        "SELECT sum(i) FROM generate_series(1, 10000000000000) t(i)",
    ],
)
def test_a_query_that_never_ends_is_ended_and_evaluations_go_on(server, text):
    request = pb.ExecuteQueryRequest(sql=text)
    request.timeout.FromTimedelta(timedelta(seconds=0.3))
    error = failure(server.client.analytics.ExecuteQuery, request)
    assert error.reason == "QUERY_LIMIT_EXCEEDED"
    assert error.code.name == "RESOURCE_EXHAUSTED"
    assert server.client.evaluation.Evaluate(artifact("p(yes)=0.9")).evaluation.name


@pytest.mark.slow
def test_a_query_that_wants_all_memory_costs_nobody_a_write(server):
    text = "SELECT count(DISTINCT lpad(i::VARCHAR, 900, 'x')) AS n FROM range(4000000) t(i)"
    request = pb.ExecuteQueryRequest(sql=text)
    request.timeout.FromTimedelta(timedelta(seconds=4))
    stream = server.client.analytics.ExecuteQuery(request, timeout=30)
    for _ in range(20):
        assert server.client.evaluation.Evaluate(artifact("p(yes)=0.9")).evaluation.name
    # It may succeed by spilling to disk; if not, the limit is what ends it.
    with suppress_limit():
        list(stream)
    assert server.client.evaluation.Evaluate(artifact("p(yes)=0.9")).evaluation.name


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"sql": "  "}, "sql"),
        ({"sql": "SELECT 1", "max_rows": -1}, "max_rows"),
        ({"sql": "SELECT 1", "max_rows": 2_000_000}, "max_rows"),
        ({"sql": "x" * 20_001}, "sql"),
    ],
)
def test_wrong_requests_are_refused(server, fields, field):
    request = pb.ExecuteQueryRequest(**fields)
    error = failure(server.client.analytics.ExecuteQuery, request)
    assert field in {v.field for v in error.violations}
