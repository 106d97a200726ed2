"""One version as one JSON document: to carry it to another sidecar, keep it, or review it.

The document holds the program as the database keeps it, the lineage for people, and a SHA-256 over
both, which tells a changed document from a whole one. It proves nothing about who made it: an imported
version is data like any other, it does not serve until somebody deploys it, and its texts reach the
prompt through the same renderer as all others.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from typing import Any, Final

from sidejudge_server.errors import FieldViolation, InvalidRequestError
from sidejudge_server.judges.codec import (
    CodecError,
    canonical_json,
    program_from_json,
    program_to_json,
)
from sidejudge_server.judges.limits import program_violations
from sidejudge_server.judges.prompt import prompt_digest
from sidejudge_server.judges.types import JudgeProgram
from sidejudge_server.judges.versions import JudgeVersion, Lineage

__all__ = ["MAX_DOCUMENT_CHARS", "PortableVersion", "read_version", "write_version"]

MAX_DOCUMENT_CHARS: Final = 8 * 1024 * 1024

_FORMAT = "sidejudge.judge_version/1"
_KEYS = {"format", "program", "lineage", "digest"}
_MAX_NAME_CHARS = 256
_MAX_METRICS = 256
_MAX_SEED = 2**31 - 1


@dataclass(frozen=True, slots=True)
class PortableVersion:
    """What a document says.

    Attributes:
        program: How it answers.
        lineage: With ``imported_from`` and ``import_digest`` filled in.
        data_digest: SHA-256 of the training data it was made from, or None.
        model: The task model it was made with, or None.
        metrics: Measurements taken when it was made.
    """

    program: JudgeProgram
    lineage: Lineage
    data_digest: str | None
    model: str | None
    metrics: dict[str, float]


def read_version(document: str) -> PortableVersion:
    """Read a document.

    Args:
        document: At most `MAX_DOCUMENT_CHARS` characters; by whomever.

    Raises:
        InvalidRequestError: VERSION_DOCUMENT_INVALID: it is not whole, not known or out of bounds.
    """
    values = _parsed(document)
    digest = _digest({k: v for k, v in values.items() if k != "digest"})
    if values["digest"] != digest:
        raise _invalid("its digest does not match: it was changed or cut")
    try:
        program = program_from_json(canonical_json(values["program"]))
    except CodecError as error:
        raise _invalid(f"program: {error}") from None
    problems = program_violations(program)
    if problems:
        raise _invalid(
            "; ".join(f"program.{p.field} {p.description}" for p in problems)
        )
    lineage = values["lineage"]
    if not isinstance(lineage, dict):
        raise _invalid("lineage: expected an object")
    seed = lineage.get("seed")
    whole = isinstance(seed, int) and not isinstance(seed, bool)
    if seed is not None and not (whole and 0 <= seed <= _MAX_SEED):
        raise _invalid(f"lineage.seed: expected a number from 0 to {_MAX_SEED}")
    return PortableVersion(
        program=program,
        lineage=Lineage(
            split_seed=_name(lineage, "split_seed"),
            seed=seed,
            imported_from=_name(lineage, "name"),
            import_digest=digest,
        ),
        data_digest=_name(lineage, "data_digest") or None,
        model=_name(lineage, "model") or None,
        metrics=_metrics(lineage),
    )


def write_version(version: JudgeVersion) -> str:
    """Return the document of a version: JSON with sorted keys, indented for review and diffs."""
    lineage = version.lineage
    parent = version.parent_version
    values: dict[str, Any] = {
        "format": _FORMAT,
        "program": json.loads(program_to_json(version.program)),
        "lineage": {
            "name": version.name,
            "origin": version.origin,
            "parent": f"judges/{version.judge_id}/versions/{parent}" if parent else "",
            "optimization": f"optimizations/{version.optimization_id}"
            if version.optimization_id
            else "",
            "data_digest": version.data_digest or "",
            "split_seed": lineage.split_seed,
            "seed": lineage.seed,
            "prompt_digest": prompt_digest(version.program),
            "model": version.model or "",
            "metrics": dict(version.metrics),
            "create_time": version.created_at.isoformat(),
            "imported_from": lineage.imported_from,
        },
    }
    values["digest"] = _digest(values)
    return json.dumps(values, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def _parsed(document: str) -> dict[str, Any]:
    if len(document) > MAX_DOCUMENT_CHARS:
        raise _invalid(f"it is longer than {MAX_DOCUMENT_CHARS} characters")
    try:
        values = json.loads(document)
    except (ValueError, RecursionError):
        raise _invalid("it is not JSON") from None
    if not isinstance(values, dict) or not str(values.get("format", "")).startswith(
        "sidejudge.judge_version/"
    ):
        raise _invalid("it is no document of ExportJudgeVersion")
    if values["format"] != _FORMAT:
        raise _invalid("its format is not known; a newer sidejudge wrote it")
    if set(values) != _KEYS:
        raise _invalid(f"expected exactly the keys {', '.join(sorted(_KEYS))}")
    return values


def _digest(values: dict[str, Any]) -> str:
    try:
        text = canonical_json(values)
    except ValueError:
        raise _invalid("it holds a number that is not finite") from None
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _name(lineage: dict[str, Any], key: str) -> str:
    value = lineage.get(key, "")
    if not isinstance(value, str) or len(value) > _MAX_NAME_CHARS:
        raise _invalid(f"lineage.{key}: expected at most {_MAX_NAME_CHARS} characters")
    return value


def _metrics(lineage: dict[str, Any]) -> dict[str, float]:
    values = lineage.get("metrics", {})
    if not isinstance(values, dict) or len(values) > _MAX_METRICS:
        raise _invalid(f"lineage.metrics: expected at most {_MAX_METRICS} numbers")
    for name, value in values.items():
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not math.isfinite(value) or len(name) > _MAX_NAME_CHARS:
            raise _invalid("lineage.metrics: expected finite numbers by name")
    return {name: float(value) for name, value in values.items()}


def _invalid(problem: str) -> InvalidRequestError:
    """Return the error of a document; ``problem`` names places, never content."""
    return InvalidRequestError(
        [FieldViolation("document", problem)],
        reason="VERSION_DOCUMENT_INVALID",
        metadata={"problem": problem},
    )
