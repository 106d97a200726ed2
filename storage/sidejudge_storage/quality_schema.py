"""Daily sums of evaluations and labels, and the views that people query: statements of a migration.

Days are closed a while after midnight UTC. What is summed up of a closed day is what the raw rows of that
day give; late feedback makes a day dirty, and it is summed up again.
"""

from __future__ import annotations

__all__ = [
    "CALIBRATION_DAYS_SQL",
    "LATENCY_DAYS_SQL",
    "LATENCY_STEPS",
    "QUALITY_DAYS_SQL",
    "QUALITY_SUMS",
    "QUALITY_TABLES",
    "USER_VIEWS",
    "USER_VIEW_NAMES",
    "labels_sql",
]

LATENCY_STEPS = 20
"""Buckets of latency for each factor of e: each is 5 % wide, so that its middle is off by 2.5 %."""

_RIGHT = "CASE WHEN l.score IS NULL THEN CAST(e.verdict = l.verdict AS DOUBLE) ELSE 1 - abs(e.score - l.score) END"

QUALITY_SUMS: dict[str, str] = {
    "evaluations": "count(*)",
    "passed": "count(*) FILTER (e.verdict = 'pass')",
    "partial": "count(*) FILTER (e.verdict = 'partial')",
    "failed": "count(*) FILTER (e.verdict = 'fail')",
    "score_sum": "coalesce(sum(e.score), 0)",
    "scored": "count(e.score)",
    "input_tokens": "sum(e.input_tokens)",
    "cached_input_tokens": "sum(e.cached_input_tokens)",
    "output_tokens": "sum(e.output_tokens)",
    "lm_calls": "sum(e.lm_calls)",
    "cost_sum": "coalesce(sum(e.cost_usd), 0)",
    "priced": "count(e.cost_usd)",
    "labelled": "count(l.evaluation_id)",
    "agreement_sum": f"coalesce(sum({_RIGHT}) FILTER (l.evaluation_id IS NOT NULL), 0)",
    "true_positives": "count(*) FILTER (l.verdict = 'fail' AND e.verdict = 'fail')",
    "positives": "count(*) FILTER (l.verdict = 'fail')",
    "true_negatives": "count(*) FILTER (l.verdict <> 'fail' AND e.verdict <> 'fail')",
    "negatives": "count(*) FILTER (l.verdict <> 'fail')",
}
"""Columns of a day that add up, and how they come from evaluations ``e`` with labels ``l``."""

_DOUBLES = {"score_sum", "cost_sum", "agreement_sum"}

QUALITY_TABLES = (
    "CREATE TABLE quality_days (day DATE NOT NULL, judge_id VARCHAR NOT NULL,"
    " version BIGINT NOT NULL, model VARCHAR NOT NULL, "
    + ", ".join(
        f"{name} {'DOUBLE' if name in _DOUBLES else 'BIGINT'} NOT NULL"
        for name in QUALITY_SUMS
    )
    + ")",
    """CREATE TABLE latency_days (
        day DATE NOT NULL, judge_id VARCHAR NOT NULL, version BIGINT NOT NULL,
        model VARCHAR NOT NULL, step BIGINT NOT NULL, n BIGINT NOT NULL
    )""",
    """CREATE TABLE calibration_days (
        day DATE NOT NULL, judge_id VARCHAR NOT NULL, version BIGINT NOT NULL,
        model VARCHAR NOT NULL, bin BIGINT NOT NULL, n BIGINT NOT NULL,
        confidence_sum DOUBLE NOT NULL, right_sum DOUBLE NOT NULL, squares_sum DOUBLE NOT NULL
    )""",
    # Which days are summed up, and the last feedback that all of them know of.
    "CREATE TABLE quality_progress (day DATE PRIMARY KEY)",
    "CREATE TABLE quality_watermark (feedback_id VARCHAR NOT NULL)",
    "INSERT INTO quality_watermark VALUES ('')",
)


def labels_sql(feedback: str) -> str:
    """Return the query for the labels that count, of a condition on feedback ``f``.

    Of one evaluation the latest correction of the weightiest source.
    """
    return f"""
        SELECT evaluation_id, max_by(verdict, place) AS verdict, max_by(score, place) AS score,
            max_by(source, place) AS source
        FROM (
            SELECT f.evaluation_id, f.verdict, f.score, f.source,
                CASE f.source WHEN 'expert' THEN '2' WHEN 'user' THEN '1' ELSE '0' END
                    || f.feedback_id AS place
            FROM feedback AS f WHERE {feedback}
        ) GROUP BY evaluation_id"""  # noqa: S608 - texts are ours, values are bound


_KEYS = "e.judge_id, e.version, e.model"

QUALITY_DAYS_SQL = (
    f"SELECT {{key}}, {_KEYS}, "  # noqa: S608 - texts are ours, values are bound
    + ", ".join(f"{sql} AS {name}" for name, sql in QUALITY_SUMS.items())
    + " FROM evaluations AS e LEFT JOIN labels AS l USING (evaluation_id)"
    " WHERE {condition} GROUP BY ALL"
)
"""Sums of the evaluations of a condition, by ``key``; needs a CTE ``labels``."""

LATENCY_DAYS_SQL = (
    f"SELECT {{key}}, {_KEYS},"  # noqa: S608 - texts are ours, values are bound
    f" CAST(floor(ln(greatest(e.lm_latency_ms, 0.001)) * {LATENCY_STEPS}) AS BIGINT) AS step,"
    " count(*) AS n FROM evaluations AS e WHERE {condition} GROUP BY ALL"
)

CALIBRATION_DAYS_SQL = (
    f"SELECT {{key}}, {_KEYS},"  # noqa: S608 - texts are ours, values are bound
    " CAST(least(floor(e.confidence * 10), 9) AS BIGINT) AS bin, count(*) AS n,"
    " sum(e.confidence) AS confidence_sum, sum(CAST(e.verdict = l.verdict AS DOUBLE)) AS right_sum,"
    " sum((e.confidence - CAST(e.verdict = l.verdict AS DOUBLE)) ** 2) AS squares_sum"
    " FROM evaluations AS e JOIN labels AS l USING (evaluation_id)"
    " WHERE {condition} AND e.confidence IS NOT NULL AND l.verdict IS NOT NULL GROUP BY ALL"
)

USER_VIEWS: dict[str, str] = {
    "evaluations": """SELECT evaluation_id, judge_id, version, created_at, verdict, score,
        confidence, confidence_source, p_pass, p_partial, p_fail, reasoning, model, input_tokens,
        cached_input_tokens, output_tokens, lm_calls, cost_usd, lm_latency_ms, subject,
        group_key, CAST(labels_json AS JSON) AS labels, CAST(input_json AS JSON) AS input,
        experiment_id, arm_id, stage FROM main.evaluations""",
    "feedback": """SELECT feedback_id, evaluation_id, judge_id, created_at, source, author, verdict,
        score, comment FROM main.feedback""",
    "judges": """SELECT judge_id, kind, display_name, description, deployed_version, built_in, deleted,
        created_at, updated_at FROM main.judges""",
    "judge_versions": """SELECT judge_id, version, origin, parent_version, optimization_id, model,
        CAST(metrics_json AS JSON) AS metrics, created_at FROM main.judge_versions""",
    "deployments": """SELECT judge_id, sequence, version, previous_version, verb, author, reason,
        created_at FROM main.deployments""",
    "training_examples": """SELECT example_id, judge_id, created_at, origin, source, author,
        evaluation_id, feedback_id, group_key, CASE WHEN rejection IS NULL THEN split END AS split,
        CAST(input_json AS JSON) AS input, verdict, score, rationale, rejection
        FROM main.examples""",
    "optimizations": """SELECT optimization_id, judge_id, state, outcome, stop_reason, summary,
        baseline_version, candidate_version, trigger_source, task_model, created_at, started_at,
        ended_at FROM main.optimizations""",
    "experiments": """SELECT experiment_id, judge_id, state, mode, namespace,
        CAST(spec_json AS JSON) AS spec, CAST(status_json AS JSON) AS status,
        CAST(conclusion_json AS JSON) AS conclusion, created_at, started_at, ended_at
        FROM main.experiments""",
    "experiment_labels": """SELECT experiment_id, evaluation_id, arm_id, unit, stage, feedback_id,
        created_at, quality, label, judged, confidence, answered FROM main.experiment_labels""",
    "experiment_outcomes": """SELECT experiment_id, subject, arm_id, metric, value, stage, created_at
        FROM main.experiment_outcomes""",
    "shadow_judgments": """SELECT evaluation_id, experiment_id, arm_id, judge_id, version, created_at,
        verdict, score, confidence, model, cost_usd, lm_latency_ms FROM main.shadow_judgments""",
}
"""What people may query, by name: the names and columns stay, whatever becomes of the tables."""

USER_VIEW_NAMES = frozenset(
    {*USER_VIEWS, "audit_items", "deliberations", "juries", "monitor_events", "trust"}
)
"""All views: those above and those that later migrations have added."""
