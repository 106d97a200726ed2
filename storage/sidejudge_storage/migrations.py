"""The schema, as ordered and named migrations.

A migration that was released is never edited; a change of the schema is a new one at the end. Each
runs in a transaction together with the record that it ran, so a failing one leaves nothing behind
and stays pending.

Only small tables have a primary key: DuckDB keeps an index in memory and replays it, while lookups
by a time-sortable id are answered from zone maps in a millisecond without one.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from sidejudge_storage.errors import DatabaseTooNewError
from sidejudge_storage.quality_schema import QUALITY_TABLES, USER_VIEWS

if TYPE_CHECKING:
    import duckdb

__all__ = ["MIGRATIONS", "Migration", "migrate"]


@dataclass(frozen=True, slots=True)
class Migration:
    """A step of the schema. ``name`` is what the database remembers it by."""

    name: str
    statements: tuple[str, ...]


_INITIAL = (
    "CREATE TABLE meta (name VARCHAR PRIMARY KEY, value VARCHAR NOT NULL)",
    "CREATE TABLE commit_log (seq BIGINT NOT NULL, committed_at TIMESTAMP NOT NULL)",
    """CREATE TABLE judges (
        judge_id VARCHAR PRIMARY KEY, kind VARCHAR NOT NULL, display_name VARCHAR NOT NULL,
        description VARCHAR NOT NULL, spec_json VARCHAR NOT NULL, labels_json VARCHAR NOT NULL,
        deployed_version BIGINT NOT NULL, built_in BOOLEAN NOT NULL, deleted BOOLEAN NOT NULL,
        revision BIGINT NOT NULL, created_at TIMESTAMP NOT NULL, updated_at TIMESTAMP NOT NULL
    )""",
    """CREATE TABLE judge_versions (
        judge_id VARCHAR NOT NULL, version BIGINT NOT NULL, program_json VARCHAR NOT NULL,
        origin VARCHAR NOT NULL, parent_version BIGINT, optimization_id VARCHAR,
        data_digest VARCHAR, model VARCHAR, metrics_json VARCHAR NOT NULL,
        created_at TIMESTAMP NOT NULL, PRIMARY KEY (judge_id, version)
    )""",
    """CREATE TABLE deployments (
        judge_id VARCHAR NOT NULL, sequence BIGINT NOT NULL, version BIGINT NOT NULL,
        previous_version BIGINT, verb VARCHAR NOT NULL, author VARCHAR NOT NULL,
        reason VARCHAR NOT NULL, created_at TIMESTAMP NOT NULL, PRIMARY KEY (judge_id, sequence)
    )""",
    """CREATE TABLE evaluations (
        evaluation_id VARCHAR NOT NULL, judge_id VARCHAR NOT NULL, version BIGINT NOT NULL,
        created_at TIMESTAMP NOT NULL, input_json VARCHAR NOT NULL, verdict VARCHAR,
        score DOUBLE, confidence DOUBLE, confidence_source VARCHAR NOT NULL, p_pass DOUBLE,
        p_partial DOUBLE, p_fail DOUBLE, score_stddev DOUBLE, reasoning VARCHAR NOT NULL,
        suggestions_json VARCHAR NOT NULL, criterion_scores_json VARCHAR NOT NULL,
        model VARCHAR NOT NULL, input_tokens BIGINT NOT NULL,
        cached_input_tokens BIGINT NOT NULL, output_tokens BIGINT NOT NULL,
        lm_calls BIGINT NOT NULL, cost_usd DOUBLE, lm_latency_ms DOUBLE NOT NULL,
        subject VARCHAR NOT NULL, group_key VARCHAR NOT NULL, labels_json VARCHAR NOT NULL,
        commit_seq BIGINT, request_id VARCHAR, request_method VARCHAR,
        request_fingerprint VARCHAR
    )""",
    """CREATE TABLE feedback (
        feedback_id VARCHAR NOT NULL, evaluation_id VARCHAR NOT NULL,
        judge_id VARCHAR NOT NULL, created_at TIMESTAMP NOT NULL, source VARCHAR NOT NULL,
        author VARCHAR NOT NULL, verdict VARCHAR, score DOUBLE, comment VARCHAR NOT NULL,
        commit_seq BIGINT, request_id VARCHAR, request_method VARCHAR,
        request_fingerprint VARCHAR
    )""",
    """CREATE TABLE examples (
        example_id VARCHAR NOT NULL, judge_id VARCHAR NOT NULL, created_at TIMESTAMP NOT NULL,
        origin VARCHAR NOT NULL, source VARCHAR NOT NULL, author VARCHAR NOT NULL,
        evaluation_id VARCHAR, feedback_id VARCHAR, group_key VARCHAR NOT NULL,
        content_digest VARCHAR NOT NULL, split VARCHAR, input_json VARCHAR NOT NULL,
        verdict VARCHAR, score DOUBLE, rationale VARCHAR NOT NULL, judged_verdict VARCHAR,
        judged_score DOUBLE, rejection VARCHAR, rejection_detail VARCHAR NOT NULL
    )""",
    """CREATE TABLE optimizations (
        optimization_id VARCHAR PRIMARY KEY, judge_id VARCHAR NOT NULL, state VARCHAR NOT NULL,
        phase VARCHAR NOT NULL, config_json VARCHAR NOT NULL, deploy_if_better BOOLEAN NOT NULL,
        baseline_version BIGINT NOT NULL, candidate_version BIGINT, decision_json VARCHAR,
        error_json VARCHAR, progress_json VARCHAR NOT NULL, dataset_json VARCHAR NOT NULL,
        task_model VARCHAR NOT NULL, prompt_model VARCHAR NOT NULL,
        created_at TIMESTAMP NOT NULL, started_at TIMESTAMP, ended_at TIMESTAMP
    )""",
    """CREATE TABLE optimization_events (
        optimization_id VARCHAR NOT NULL, sequence BIGINT NOT NULL,
        created_at TIMESTAMP NOT NULL, kind VARCHAR NOT NULL, payload_json VARCHAR NOT NULL
    )""",
    """CREATE TABLE requests (
        request_id VARCHAR NOT NULL, method VARCHAR NOT NULL, fingerprint VARCHAR NOT NULL,
        resource_id VARCHAR NOT NULL, created_at TIMESTAMP NOT NULL
    )""",
    # A row that answered a request and was committed alone carries the request itself.
    """CREATE VIEW answered_requests AS
        SELECT request_id, method, fingerprint, resource_id, created_at FROM requests
        UNION ALL
        SELECT request_id, request_method, request_fingerprint, evaluation_id, created_at
        FROM evaluations WHERE request_id IS NOT NULL
        UNION ALL
        SELECT request_id, request_method, request_fingerprint, feedback_id, created_at
        FROM feedback WHERE request_id IS NOT NULL
    """,
    # All commits from the oldest one that the log remembers: a row that was committed alone
    # carries its number itself, which saves such a commit a second table.
    """CREATE VIEW commits AS
        SELECT seq, committed_at FROM commit_log
        UNION ALL
        SELECT commit_seq, created_at FROM evaluations
        WHERE commit_seq > (SELECT coalesce(min(seq), 0) FROM commit_log)
        UNION ALL
        SELECT commit_seq, created_at FROM feedback
        WHERE commit_seq > (SELECT coalesce(min(seq), 0) FROM commit_log)
    """,
)

_RUNS_WITH_BUDGETS = tuple(
    f"ALTER TABLE optimizations ADD COLUMN {column}"
    for column in (
        "budget_json VARCHAR DEFAULT '{}'",
        "estimate_json VARCHAR",
        "outcome VARCHAR DEFAULT ''",
        "stop_reason VARCHAR DEFAULT ''",
        "summary VARCHAR DEFAULT ''",
        "trigger_source VARCHAR DEFAULT 'caller'",
        "trigger_reason VARCHAR DEFAULT ''",
        "resume_count BIGINT DEFAULT 0",
    )
)

_GATE_USES = (
    # No key: a run whose end is stored twice has two rows, which the reader takes for one.
    """CREATE TABLE gate_uses (
        judge_id VARCHAR NOT NULL, optimization_id VARCHAR NOT NULL, use_number BIGINT NOT NULL,
        examples_digest VARCHAR NOT NULL, examples_json VARCHAR NOT NULL, alpha DOUBLE NOT NULL,
        p_value DOUBLE, outcome VARCHAR NOT NULL, wins BIGINT NOT NULL, losses BIGINT NOT NULL,
        pair_count BIGINT NOT NULL, created_at TIMESTAMP NOT NULL
    )""",
)

_INFLUENCES = ("ALTER TABLE evaluations ADD COLUMN influences_json VARCHAR",)

_VERSION_LINEAGE = (
    "ALTER TABLE judge_versions ADD COLUMN lineage_json VARCHAR DEFAULT '{}'",
)
_SHADOW_CANDIDATES = (
    """CREATE TABLE shadow_candidates (
        judge_id VARCHAR NOT NULL, optimization_id VARCHAR NOT NULL, version BIGINT NOT NULL,
        baseline_version BIGINT NOT NULL, deploy BOOLEAN NOT NULL, wins BIGINT NOT NULL,
        losses BIGINT NOT NULL, pairs BIGINT NOT NULL, gate_pairs BIGINT NOT NULL,
        sums_json VARCHAR, e_value DOUBLE NOT NULL, state VARCHAR NOT NULL,
        reason VARCHAR NOT NULL, start_id VARCHAR NOT NULL, last_example_id VARCHAR NOT NULL,
        created_at TIMESTAMP NOT NULL, updated_at TIMESTAMP NOT NULL
    )""",
)

_OPTIMIZATION_POLICIES = (
    """CREATE TABLE optimization_policies (
        judge_id VARCHAR PRIMARY KEY, enabled BOOLEAN NOT NULL,
        min_new_examples BIGINT NOT NULL, min_disagreements BIGINT NOT NULL,
        cool_down_s DOUBLE NOT NULL, daily_budget_json VARCHAR NOT NULL,
        config_json VARCHAR NOT NULL, deploy_if_better BOOLEAN NOT NULL,
        paused BOOLEAN NOT NULL, pause_reason VARCHAR NOT NULL, revision BIGINT NOT NULL,
        created_at TIMESTAMP NOT NULL, updated_at TIMESTAMP NOT NULL
    )""",
)

_EXPERIMENTS = (
    "ALTER TABLE evaluations ADD COLUMN experiment_id VARCHAR",
    "ALTER TABLE evaluations ADD COLUMN arm_id VARCHAR",
    "ALTER TABLE evaluations ADD COLUMN stage BIGINT",
    """CREATE TABLE experiments (
        experiment_id VARCHAR PRIMARY KEY, judge_id VARCHAR, state VARCHAR NOT NULL,
        mode VARCHAR NOT NULL, namespace VARCHAR NOT NULL, slice_low DOUBLE NOT NULL,
        slice_high DOUBLE NOT NULL, spec_json VARCHAR NOT NULL, labels_json VARCHAR NOT NULL,
        status_json VARCHAR NOT NULL, conclusion_json VARCHAR, revision BIGINT NOT NULL,
        created_at TIMESTAMP NOT NULL, updated_at TIMESTAMP NOT NULL, started_at TIMESTAMP,
        ended_at TIMESTAMP
    )""",
    """CREATE TABLE experiment_events (
        experiment_id VARCHAR NOT NULL, sequence BIGINT NOT NULL, created_at TIMESTAMP NOT NULL,
        kind VARCHAR NOT NULL, payload_json VARCHAR NOT NULL
    )""",
    """CREATE TABLE experiment_assignments (
        experiment_id VARCHAR NOT NULL, subject VARCHAR NOT NULL, arm_id VARCHAR NOT NULL,
        stage BIGINT NOT NULL, created_at TIMESTAMP NOT NULL
    )""",
    """CREATE TABLE experiment_outcomes (
        experiment_id VARCHAR NOT NULL, subject VARCHAR NOT NULL, arm_id VARCHAR NOT NULL,
        metric VARCHAR NOT NULL, value DOUBLE NOT NULL, stage BIGINT NOT NULL,
        created_at TIMESTAMP NOT NULL
    )""",
    """CREATE TABLE experiment_failures (
        experiment_id VARCHAR NOT NULL, arm_id VARCHAR NOT NULL, judge_id VARCHAR NOT NULL,
        version BIGINT NOT NULL, created_at TIMESTAMP NOT NULL, reason VARCHAR NOT NULL,
        shadow BOOLEAN NOT NULL, subject VARCHAR NOT NULL, stage BIGINT NOT NULL
    )""",
    """CREATE TABLE experiment_labels (
        experiment_id VARCHAR NOT NULL, evaluation_id VARCHAR NOT NULL, arm_id VARCHAR NOT NULL,
        unit VARCHAR NOT NULL, stage BIGINT NOT NULL, feedback_id VARCHAR NOT NULL,
        created_at TIMESTAMP NOT NULL, quality DOUBLE NOT NULL, label DOUBLE NOT NULL,
        judged DOUBLE, confidence DOUBLE, answered BOOLEAN NOT NULL
    )""",
    """CREATE TABLE shadow_judgments (
        evaluation_id VARCHAR NOT NULL, experiment_id VARCHAR NOT NULL, arm_id VARCHAR NOT NULL,
        judge_id VARCHAR NOT NULL, version BIGINT NOT NULL, created_at TIMESTAMP NOT NULL,
        verdict VARCHAR, score DOUBLE, confidence DOUBLE, model VARCHAR NOT NULL,
        input_tokens BIGINT NOT NULL, cached_input_tokens BIGINT NOT NULL,
        output_tokens BIGINT NOT NULL, lm_calls BIGINT NOT NULL, cost_usd DOUBLE,
        lm_latency_ms DOUBLE NOT NULL
    )""",
)

_ANALYTICS = (
    *QUALITY_TABLES,
    "CREATE SCHEMA v1",
    *(f"CREATE VIEW v1.{name} AS {query}" for name, query in USER_VIEWS.items()),
)

_MONITORING = (
    "ALTER TABLE evaluations ADD COLUMN audit_probability DOUBLE",
    """CREATE TABLE monitors (
        judge_id VARCHAR PRIMARY KEY, settings_json VARCHAR NOT NULL,
        settings_revision BIGINT NOT NULL, state_json VARCHAR NOT NULL,
        revision BIGINT NOT NULL, updated_at TIMESTAMP NOT NULL
    )""",
    """CREATE TABLE monitor_events (
        judge_id VARCHAR NOT NULL, sequence BIGINT NOT NULL, created_at TIMESTAMP NOT NULL,
        kind VARCHAR NOT NULL, version BIGINT NOT NULL, reason VARCHAR NOT NULL
    )""",
    """CREATE VIEW v1.audit_items AS SELECT evaluation_id, judge_id, version, created_at,
        audit_probability FROM main.evaluations WHERE audit_probability IS NOT NULL""",
    """CREATE VIEW v1.monitor_events AS SELECT judge_id, sequence, created_at, kind, version,
        reason FROM main.monitor_events""",
)

_TRUST = (
    # One column: each costs every evaluation 20 to 60 us.
    "ALTER TABLE evaluations ADD COLUMN trust_json VARCHAR",
    """CREATE TABLE reliability (
        reliability_id VARCHAR NOT NULL, judge_id VARCHAR NOT NULL, version BIGINT NOT NULL,
        model VARCHAR NOT NULL, created_at TIMESTAMP NOT NULL, labels BIGINT NOT NULL,
        fit_json VARCHAR NOT NULL
    )""",
    """CREATE VIEW v1.trust AS SELECT evaluation_id, judge_id, version, model, created_at,
        confidence, CAST(trust_json->>'calibrated' AS DOUBLE) AS calibrated_confidence,
        trust_json->>'decision' AS decision, CAST(trust_json AS JSON) AS trust
        FROM main.evaluations WHERE trust_json IS NOT NULL""",
)

_REVIEW = (
    """CREATE TABLE review_items (
        evaluation_id VARCHAR NOT NULL, judge_id VARCHAR NOT NULL, version BIGINT NOT NULL,
        round_number BIGINT NOT NULL, stream VARCHAR NOT NULL, drawn BOOLEAN NOT NULL,
        place BIGINT, inclusion_probability DOUBLE NOT NULL, worth DOUBLE NOT NULL,
        reasons VARCHAR NOT NULL, created_at TIMESTAMP NOT NULL
    )""",
    """CREATE TABLE review_claims (
        claim_id VARCHAR NOT NULL, evaluation_id VARCHAR NOT NULL, judge_id VARCHAR NOT NULL,
        annotator VARCHAR NOT NULL, created_at TIMESTAMP NOT NULL, expires_at TIMESTAMP NOT NULL
    )""",
    """CREATE TABLE review_releases (
        claim_id VARCHAR NOT NULL, judge_id VARCHAR NOT NULL, created_at TIMESTAMP NOT NULL
    )""",
)

_JURIES = (
    """CREATE TABLE juries (
        jury_id VARCHAR NOT NULL, display_name VARCHAR NOT NULL, mode VARCHAR NOT NULL,
        members_json VARCHAR NOT NULL, audit_share DOUBLE NOT NULL, created_at TIMESTAMP NOT NULL
    )""",
    """CREATE TABLE deliberations (
        deliberation_id VARCHAR NOT NULL, jury_id VARCHAR NOT NULL, created_at TIMESTAMP NOT NULL,
        group_key VARCHAR NOT NULL, evaluations_json VARCHAR NOT NULL, complete BOOLEAN NOT NULL,
        audit_probability DOUBLE, answer_json VARCHAR NOT NULL
    )""",
    """CREATE VIEW v1.juries AS SELECT jury_id, display_name, mode,
        CAST(members_json AS JSON) AS members, audit_share, created_at FROM main.juries""",
    """CREATE VIEW v1.deliberations AS SELECT deliberation_id, jury_id, created_at, group_key,
        CAST(evaluations_json AS JSON) AS evaluations, complete, audit_probability,
        CAST(answer_json AS JSON) AS answer FROM main.deliberations""",
)

MIGRATIONS: tuple[Migration, ...] = (
    Migration("0001_initial", _INITIAL),
    Migration("0002_runs_with_budgets", _RUNS_WITH_BUDGETS),
    Migration("0003_gate_uses", _GATE_USES),
    Migration("0004_influences", _INFLUENCES),
    Migration("0005_version_lineage", _VERSION_LINEAGE),
    Migration("0006_optimization_policies", _OPTIMIZATION_POLICIES),
    Migration("0007_shadow_candidates", _SHADOW_CANDIDATES),
    Migration("0008_experiments", _EXPERIMENTS),
    Migration("0009_analytics", _ANALYTICS),
    Migration("0010_monitoring", _MONITORING),
    Migration("0011_trust", _TRUST),
    Migration("0012_review", _REVIEW),
    Migration("0013_juries", _JURIES),
)
"""Every migration in the order in which they apply."""


def migrate(
    connection: duckdb.DuckDBPyConnection,
    migrations: Sequence[Migration] = MIGRATIONS,
) -> list[str]:
    """Apply what is pending and return the names, empty if the schema was up to date.

    Also gives a new database its id.

    Raises:
        DatabaseTooNewError: The database holds a migration that is not in ``migrations``.
        duckdb.Error: A migration failed; those before it stay applied.
    """
    connection.execute(
        "CREATE TABLE IF NOT EXISTS migrations"
        " (name VARCHAR PRIMARY KEY, applied_at TIMESTAMP NOT NULL)"
    ).fetchall()
    rows = connection.execute("SELECT name FROM migrations").fetchall()
    applied = {name for (name,) in rows}
    unknown = sorted(applied - {m.name for m in migrations})
    if unknown:
        raise DatabaseTooNewError(
            f"the database was written by a newer sidejudge: it holds {', '.join(unknown)}."
            " Start that version, or restore a backup made before the upgrade."
        )
    pending = [m for m in migrations if m.name not in applied]
    for migration in pending:
        _apply(connection, migration)
    connection.execute(
        "INSERT INTO meta SELECT 'database_id', ?"
        " WHERE NOT EXISTS (SELECT 1 FROM meta WHERE name = 'database_id')",
        [str(uuid.uuid4())],
    ).fetchall()
    return [m.name for m in pending]


def _apply(connection: duckdb.DuckDBPyConnection, migration: Migration) -> None:
    connection.execute("BEGIN").fetchall()
    try:
        for statement in migration.statements:
            connection.execute(statement).fetchall()
        connection.execute(
            "INSERT INTO migrations VALUES (?, ?)",
            [migration.name, datetime.now(UTC).replace(tzinfo=None)],
        ).fetchall()
    except BaseException:
        connection.execute("ROLLBACK").fetchall()
        raise
    connection.execute("COMMIT").fetchall()
