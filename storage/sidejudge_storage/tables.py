"""Which record lives in which table, and how rows cross the border to DuckDB.

Rows go in as one JSON text parameter per statement, whatever their number: DuckDB 1.5 needs
0.2 ms for every element of a list parameter (256 evaluations: 1.5 s), and ``executemany`` or long
VALUES lists are not much better, while ``from_json`` takes 13-17 ms on 1.5 and on 2.0.
"""

from __future__ import annotations

import json
import types
import typing
from collections.abc import Iterable
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Any, Generic, TypeVar

from sidejudge_storage.commands import Record
from sidejudge_storage.records import (
    DeploymentRecord,
    EvaluationRecord,
    ExampleRecord,
    ExperimentAssignmentRecord,
    ExperimentEventRecord,
    ExperimentFailureRecord,
    ExperimentLabelRecord,
    ExperimentOutcomeRecord,
    ExperimentRecord,
    FeedbackRecord,
    GateUseRecord,
    JudgeRecord,
    JudgeVersionRecord,
    OptimizationEventRecord,
    OptimizationPolicyRecord,
    OptimizationRecord,
    RequestRecord,
    ShadowCandidateRecord,
    ShadowJudgmentRecord,
)
from sidejudge_storage.trust_records import (
    DeliberationRecord,
    JuryRecord,
    MonitorEventRecord,
    MonitorRecord,
    ReliabilityRecord,
    ReviewClaimRecord,
    ReviewItemRecord,
    ReviewReleaseRecord,
)

__all__ = [
    "DELIBERATIONS",
    "DEPLOYMENTS",
    "EVALUATIONS",
    "EXAMPLES",
    "EXPERIMENTS",
    "EXPERIMENT_ASSIGNMENTS",
    "EXPERIMENT_EVENTS",
    "EXPERIMENT_FAILURES",
    "EXPERIMENT_LABELS",
    "EXPERIMENT_OUTCOMES",
    "FEEDBACK",
    "GATE_USES",
    "JUDGES",
    "JUDGE_VERSIONS",
    "JURIES",
    "MONITORS",
    "MONITOR_EVENTS",
    "OPTIMIZATIONS",
    "OPTIMIZATION_EVENTS",
    "OPTIMIZATION_POLICIES",
    "RELIABILITY",
    "REQUESTS",
    "REVIEW_CLAIMS",
    "REVIEW_ITEMS",
    "REVIEW_RELEASES",
    "SHADOW_CANDIDATES",
    "SHADOW_JUDGMENTS",
    "Table",
    "id_list",
    "naive_utc",
    "table_of",
]

_SQL_TYPES: dict[type, str] = {
    str: "VARCHAR",
    int: "BIGINT",
    float: "DOUBLE",
    bool: "BOOLEAN",
    datetime: "TIMESTAMP",
}

_REQUEST_COLUMNS = ("request_id", "request_method", "request_fingerprint")
"""Of tables whose rows carry the request that they answer."""

_CARRIED_TYPES = {"commit_seq": "BIGINT"} | dict.fromkeys(_REQUEST_COLUMNS, "VARCHAR")
"""The same, and the number of the commit."""

R = TypeVar("R")


def naive_utc(moment: datetime) -> datetime:
    """Return a moment as the TIMESTAMP columns hold it: UTC without a zone.

    TIMESTAMPTZ would need the pytz package to be read.

    Raises:
        ValueError: The moment has no zone.
    """
    if moment.tzinfo is None:
        raise ValueError(f"{moment.isoformat()} has no time zone")
    return moment.astimezone(UTC).replace(tzinfo=None)


def _jsonable(value: object) -> str:
    if isinstance(value, datetime):
        return naive_utc(value).isoformat()
    raise TypeError(f"{type(value).__name__} cannot be stored")


_ENCODER = json.JSONEncoder(
    ensure_ascii=False, check_circular=False, separators=(",", ":"), default=_jsonable
)


def id_list(ids: Iterable[str]) -> str:
    """Return ids as the one parameter of ``SELECT unnest(from_json(?, '["VARCHAR"]'))``."""
    return _ENCODER.encode(list(ids))


def _sql_type(hint: Any) -> str:  # noqa: ANN401 - annotations have no common type
    if isinstance(hint, types.UnionType):
        (hint,) = (arm for arm in typing.get_args(hint) if arm is not types.NoneType)
    return _SQL_TYPES[hint]


@dataclass(frozen=True, slots=True)
class _Column:
    name: str
    sql_type: str


class Table(Generic[R]):
    """A table whose columns are the fields of a record, in order."""

    def __init__(
        self,
        name: str,
        record_type: type[R],
        *,
        key: tuple[str, ...],
        computed: dict[str, str] | None = None,
        carries_commit: bool = False,
        view: str | None = None,
    ) -> None:
        """Describe the table.

        Args:
            name: Its name in the database.
            record_type: The dataclass of its rows.
            key: The columns that name one row.
            computed: SQL to read instead of a column.
            carries_commit: Whether rows that are committed without others hold the commit's number
                and the requests that they answer.
            view: Read instead of the table.
        """
        hints = typing.get_type_hints(record_type)
        self.name = name
        self.source = f"{view} AS {name}" if view else name
        self.key = key
        self.columns = tuple(
            _Column(f.name, _sql_type(hints[f.name]))
            for f in fields(record_type)  # type: ignore[arg-type] # R is one of the record dataclasses
        )
        self._record_type = record_type
        self._times = tuple(
            i for i, c in enumerate(self.columns) if c.sql_type == "TIMESTAMP"
        )
        names = [c.name for c in self.columns]
        self.select = ", ".join((computed or {}).get(n, f"{name}.{n}") for n in names)
        carried = _CARRIED_TYPES if carries_commit else {}
        types_by_name = {c.name: c.sql_type for c in self.columns}
        shape = json.dumps([types_by_name | carried])
        rows = f"(SELECT unnest(from_json(?, '{shape}')) AS r)"
        # Statements are made of the names above and bind every value.
        many = [*names, *carried]
        self.insert_sql = (
            f"INSERT INTO {name} ({', '.join(many)})"  # noqa: S608 - see above
            f" SELECT {', '.join(f'r.{n}' for n in many)} FROM {rows}"
        )
        self.insert_one_sql = (
            f"INSERT INTO {name} ({', '.join(names)})"  # noqa: S608 - see above
            f" VALUES ({', '.join('?' * len(names))})"
        )
        alone = [*names, *_CARRIED_TYPES]
        self.insert_alone_sql = (
            f"INSERT INTO {name} ({', '.join(alone)})"  # noqa: S608 - see above
            f" VALUES ({', '.join('?' * len(alone))})"
            if carries_commit
            else None
        )
        changed = ", ".join(f"{n} = u.r.{n}" for n in names if n not in key)
        same_row = " AND ".join(f"{name}.{k} = u.r.{k}" for k in key)
        self.replace_sql = (
            f"UPDATE {name} SET {changed} FROM {rows} AS u WHERE {same_row}"  # noqa: S608 - see above
        )

    def encode(self, record: Record) -> str:
        """Return a record as a JSON object.

        Raises:
            ValueError: A text is not Unicode (it holds a lone surrogate) or a time has no zone.
        """
        row = _ENCODER.encode({c.name: getattr(record, c.name) for c in self.columns})
        row.encode()  # a lone surrogate would fail every row of the flush, so find it here
        return row

    def with_request(self, row: str, request: RequestRecord) -> str:
        """Return a row of a table that carries requests with the request that it answers.

        Raises:
            ValueError: A text is not Unicode.
        """
        values = (request.request_id, request.method, request.fingerprint)
        asked = _ENCODER.encode(dict(zip(_REQUEST_COLUMNS, values, strict=True)))
        asked.encode()  # as in `encode`
        return f"{row[:-1]},{asked[1:]}"

    def with_commit(self, row: str, commit: int) -> str:
        """Return a row of a table that carries commits with the commit's number."""
        return f'{row[:-1]},"commit_seq":{commit}}}'

    def values(self, record: Record) -> list[object]:
        """Return a record as the parameters of ``insert_one_sql``."""
        values = [getattr(record, c.name) for c in self.columns]
        for i in self._times:
            if values[i] is not None:
                values[i] = naive_utc(values[i])
        return values

    def decode(self, row: tuple[Any, ...]) -> R:
        """Return the record of a row that was read with ``select``."""
        values = list(row)
        for i in self._times:
            if values[i] is not None:
                values[i] = values[i].replace(tzinfo=UTC)
        return self._record_type(*values)


JUDGES = Table("judges", JudgeRecord, key=("judge_id",))
JUDGE_VERSIONS = Table(
    "judge_versions", JudgeVersionRecord, key=("judge_id", "version")
)
DEPLOYMENTS = Table("deployments", DeploymentRecord, key=("judge_id", "sequence"))
EVALUATIONS = Table(
    "evaluations", EvaluationRecord, key=("evaluation_id",), carries_commit=True
)
FEEDBACK = Table("feedback", FeedbackRecord, key=("feedback_id",), carries_commit=True)
EXAMPLES = Table(
    "examples",
    ExampleRecord,
    key=("example_id",),
    # The column keeps the side a rejected example was on, so that its group stays there.
    computed={"split": "CASE WHEN examples.rejection IS NULL THEN examples.split END"},
)
OPTIMIZATIONS = Table("optimizations", OptimizationRecord, key=("optimization_id",))
OPTIMIZATION_EVENTS = Table(
    "optimization_events",
    OptimizationEventRecord,
    key=("optimization_id", "sequence"),
)
GATE_USES = Table("gate_uses", GateUseRecord, key=("optimization_id",))
OPTIMIZATION_POLICIES = Table(
    "optimization_policies", OptimizationPolicyRecord, key=("judge_id",)
)
SHADOW_CANDIDATES = Table(
    "shadow_candidates", ShadowCandidateRecord, key=("optimization_id",)
)
EXPERIMENTS = Table("experiments", ExperimentRecord, key=("experiment_id",))
EXPERIMENT_EVENTS = Table(
    "experiment_events", ExperimentEventRecord, key=("experiment_id", "sequence")
)
EXPERIMENT_ASSIGNMENTS = Table(
    "experiment_assignments",
    ExperimentAssignmentRecord,
    key=("experiment_id", "subject"),
)
EXPERIMENT_OUTCOMES = Table(
    "experiment_outcomes",
    ExperimentOutcomeRecord,
    key=("experiment_id", "subject", "arm_id", "metric"),
)
EXPERIMENT_FAILURES = Table(
    "experiment_failures", ExperimentFailureRecord, key=("experiment_id", "arm_id")
)
EXPERIMENT_LABELS = Table(
    "experiment_labels",
    ExperimentLabelRecord,
    key=("experiment_id", "evaluation_id", "arm_id", "feedback_id"),
)
MONITORS = Table("monitors", MonitorRecord, key=("judge_id",))
MONITOR_EVENTS = Table(
    "monitor_events", MonitorEventRecord, key=("judge_id", "sequence")
)
SHADOW_JUDGMENTS = Table(
    "shadow_judgments",
    ShadowJudgmentRecord,
    key=("evaluation_id", "experiment_id", "arm_id"),
)
JURIES = Table("juries", JuryRecord, key=("jury_id",))
DELIBERATIONS = Table("deliberations", DeliberationRecord, key=("deliberation_id",))
RELIABILITY = Table("reliability", ReliabilityRecord, key=("reliability_id",))
REVIEW_ITEMS = Table("review_items", ReviewItemRecord, key=("evaluation_id",))
REVIEW_CLAIMS = Table("review_claims", ReviewClaimRecord, key=("claim_id",))
REVIEW_RELEASES = Table("review_releases", ReviewReleaseRecord, key=("claim_id",))
REQUESTS = Table(
    "requests", RequestRecord, key=("request_id",), view="answered_requests"
)

_BY_TYPE: dict[type, Table[Any]] = {
    JudgeRecord: JUDGES,
    JudgeVersionRecord: JUDGE_VERSIONS,
    DeploymentRecord: DEPLOYMENTS,
    EvaluationRecord: EVALUATIONS,
    FeedbackRecord: FEEDBACK,
    ExampleRecord: EXAMPLES,
    OptimizationRecord: OPTIMIZATIONS,
    OptimizationEventRecord: OPTIMIZATION_EVENTS,
    GateUseRecord: GATE_USES,
    OptimizationPolicyRecord: OPTIMIZATION_POLICIES,
    ShadowCandidateRecord: SHADOW_CANDIDATES,
    ExperimentRecord: EXPERIMENTS,
    ExperimentEventRecord: EXPERIMENT_EVENTS,
    ExperimentAssignmentRecord: EXPERIMENT_ASSIGNMENTS,
    ExperimentOutcomeRecord: EXPERIMENT_OUTCOMES,
    ExperimentFailureRecord: EXPERIMENT_FAILURES,
    ExperimentLabelRecord: EXPERIMENT_LABELS,
    ShadowJudgmentRecord: SHADOW_JUDGMENTS,
    MonitorRecord: MONITORS,
    MonitorEventRecord: MONITOR_EVENTS,
    ReliabilityRecord: RELIABILITY,
    JuryRecord: JURIES,
    DeliberationRecord: DELIBERATIONS,
    ReviewItemRecord: REVIEW_ITEMS,
    ReviewClaimRecord: REVIEW_CLAIMS,
    ReviewReleaseRecord: REVIEW_RELEASES,
    RequestRecord: REQUESTS,
}


def table_of(record: Record) -> Table[Any]:
    """Return the table of a record.

    Raises:
        TypeError: It is not a record.
    """
    try:
        return _BY_TYPE[type(record)]
    except KeyError:
        raise TypeError(f"{type(record).__name__} cannot be stored") from None
