"""A judge and its versions as the domain sees them, and their rows."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime

from sidejudge_server.errors import FieldViolation, InvalidRequestError
from sidejudge_server.judges.codec import (
    canonical_json,
    memory_size_bytes,
    program_from_json,
    program_to_json,
    spec_from_json,
    spec_to_json,
)
from sidejudge_server.judges.kinds import JudgeSpec, initial_program
from sidejudge_server.judges.memory import (
    MAX_MEMORY_BYTES,
    label_problem,
    memory_problems,
)
from sidejudge_server.judges.types import JudgeProgram
from sidejudge_storage import (
    Command,
    DeploymentRecord,
    JudgeRecord,
    JudgeVersionRecord,
)

__all__ = [
    "Judge",
    "JudgeEntry",
    "JudgeVersion",
    "Lineage",
    "check_program",
    "judge_from_record",
    "judge_to_record",
    "new_entry",
    "served_before",
    "version_from_record",
    "version_to_record",
]


@dataclass(frozen=True, slots=True)
class Judge:
    """A named evaluator. ``revision`` counts changes from 1."""

    judge_id: str
    spec: JudgeSpec
    display_name: str
    description: str
    labels: Mapping[str, str]
    deployed_version: int
    built_in: bool
    deleted: bool
    revision: int
    created_at: datetime
    updated_at: datetime

    @property
    def name(self) -> str:
        """The resource name."""
        return f"judges/{self.judge_id}"

    @property
    def etag(self) -> str:
        """Opaque text that changes with every change."""
        judge = hashlib.sha256(self.judge_id.encode()).hexdigest()[:8]
        return f"{self.revision:08x}{judge}"


@dataclass(frozen=True, slots=True)
class Lineage:
    """What else a version was made from.

    Attributes:
        split_seed: What keyed the hash that split its examples: the id of the judge that
            collected them; "" if it was made from none.
        seed: Of the optimization; None without one.
        imported_from: Resource name at the place that it was exported from, or "".
        import_digest: SHA-256 of the document that it was read from, hexadecimal, or "".
    """

    split_seed: str = ""
    seed: int | None = None
    imported_from: str = ""
    import_digest: str = ""


@dataclass(frozen=True, slots=True)
class JudgeVersion:
    """An immutable state of a judge.

    Attributes:
        origin: initial, manual, optimization or import.
        optimization_id: Of this database; an imported version has none.
        metrics: Measurements taken when it was made.
        lineage: What else it was made from.
    """

    judge_id: str
    version: int
    program: JudgeProgram
    origin: str
    parent_version: int | None
    optimization_id: str | None
    data_digest: str | None
    model: str | None
    created_at: datetime
    metrics: Mapping[str, float] = field(default_factory=dict)
    lineage: Lineage = Lineage()

    @property
    def name(self) -> str:
        """The resource name."""
        return f"judges/{self.judge_id}/versions/{self.version}"


def judge_to_record(judge: Judge) -> JudgeRecord:
    """Return the row of a judge."""
    return JudgeRecord(
        judge_id=judge.judge_id,
        kind=judge.spec.kind.value,
        display_name=judge.display_name,
        description=judge.description,
        spec_json=spec_to_json(judge.spec),
        labels_json=canonical_json(dict(judge.labels)),
        deployed_version=judge.deployed_version,
        built_in=judge.built_in,
        deleted=judge.deleted,
        revision=judge.revision,
        created_at=judge.created_at,
        updated_at=judge.updated_at,
    )


def judge_from_record(record: JudgeRecord) -> Judge:
    """Return the judge of a row; CodecError if its spec is not readable."""
    return Judge(
        judge_id=record.judge_id,
        spec=spec_from_json(record.spec_json),
        display_name=record.display_name,
        description=record.description,
        labels=json.loads(record.labels_json),
        deployed_version=record.deployed_version,
        built_in=record.built_in,
        deleted=record.deleted,
        revision=record.revision,
        created_at=record.created_at,
        updated_at=record.updated_at,
    )


def version_to_record(version: JudgeVersion) -> JudgeVersionRecord:
    """Return the row of a version."""
    return JudgeVersionRecord(
        judge_id=version.judge_id,
        version=version.version,
        program_json=program_to_json(version.program),
        origin=version.origin,
        parent_version=version.parent_version,
        optimization_id=version.optimization_id,
        data_digest=version.data_digest,
        model=version.model,
        metrics_json=canonical_json(dict(version.metrics)),
        created_at=version.created_at,
        lineage_json=canonical_json(asdict(version.lineage)),
    )


def version_from_record(record: JudgeVersionRecord) -> JudgeVersion:
    """Return the version of a row; CodecError if its program is not readable."""
    return JudgeVersion(
        judge_id=record.judge_id,
        version=record.version,
        program=program_from_json(record.program_json),
        origin=record.origin,
        parent_version=record.parent_version,
        optimization_id=record.optimization_id,
        data_digest=record.data_digest,
        model=record.model,
        created_at=record.created_at,
        metrics=json.loads(record.metrics_json),
        lineage=Lineage(**json.loads(record.lineage_json)),
    )


@dataclass(slots=True)
class JudgeEntry:
    """All that is known of one judge. Replaced parts are immutable."""

    judge: Judge
    versions: dict[int, JudgeVersion] = field(default_factory=dict)
    history: list[DeploymentRecord] = field(default_factory=list)

    def rows(self) -> list[Command]:
        """Return all rows, for a judge that is written for the first time."""
        return [
            judge_to_record(self.judge),
            *(version_to_record(version) for version in self.versions.values()),
            *self.history,
        ]


def new_entry(
    judge_id: str,
    spec: JudgeSpec,
    *,
    display_name: str,
    description: str,
    labels: Mapping[str, str] | None = None,
    instructions: str = "",
    author: str = "",
    built_in: bool = False,
) -> JudgeEntry:
    """Return a new judge with version 1, which serves."""
    now = datetime.now(UTC)
    judge = Judge(
        judge_id=judge_id,
        spec=spec,
        display_name=display_name,
        description=description,
        labels=dict(labels or {}),
        deployed_version=1,
        built_in=built_in,
        deleted=False,
        revision=1,
        created_at=now,
        updated_at=now,
    )
    version = JudgeVersion(
        judge_id=judge_id,
        version=1,
        program=initial_program(spec, instructions),
        origin="initial",
        parent_version=None,
        optimization_id=None,
        data_digest=None,
        model=None,
        created_at=now,
    )
    deployment = DeploymentRecord(
        judge_id=judge_id,
        sequence=1,
        version=1,
        previous_version=None,
        verb="create",
        author=author,
        reason="",
        created_at=now,
    )
    return JudgeEntry(judge, {1: version}, [deployment])


def served_before(history: Sequence[DeploymentRecord]) -> int | None:
    """Return the version that served before the current one, None if there was none.

    A rollback undoes the last deployment that is not undone yet, so that rolling back twice goes
    two deployments back instead of to and fro.

    Args:
        history: All deployments of a judge, ascending.
    """
    served: list[int] = []
    for deployment in history:
        if deployment.verb == "rollback" and len(served) > 1:
            served.pop()
        elif not served or served[-1] != deployment.version:
            served.append(deployment.version)
    return served[-2] if len(served) > 1 else None


def check_program(spec: JudgeSpec, program: JudgeProgram) -> None:
    """Refuse a program that does not fit its judge.

    Raises:
        InvalidRequestError: With all violations, as fields of ``judge_version``.
    """
    violations = []
    if not program.instructions.strip():
        violations.append(FieldViolation("judge_version.instructions", "is required"))
    fixed = (spec.kind, spec.answers_score, spec.never_partial, spec.input_fields)
    if fixed != (program.kind, program.scores, program.binary, program.input_fields):
        violations.append(
            FieldViolation("judge_version", "is for another kind of judge")
        )
    if program.score_map.slope < 0:
        violations.append(
            FieldViolation("judge_version.score_map.slope", "must not be negative")
        )
    for index, demonstration in enumerate(program.demonstrations):
        problem = label_problem(program, demonstration)
        if problem:
            path = f"judge_version.demonstrations[{index}]"
            violations.append(FieldViolation(path, problem))
    violations += [
        FieldViolation(f"judge_version.{path}", problem)
        for path, problem in memory_problems(program)
    ]
    if program.memory is not None:
        size = memory_size_bytes(program.memory)
        if size > MAX_MEMORY_BYTES:
            violations.append(
                FieldViolation(
                    "judge_version.memory",
                    f"has {size} bytes; at most {MAX_MEMORY_BYTES} are allowed",
                )
            )
    if violations:
        raise InvalidRequestError(violations)
