"""Canonical JSON of inputs, programs and specs: what the database keeps and digests are taken of.

Canonical means sorted keys, no spaces, no escapes beyond the necessary: equal values have equal
text. Reading is strict: an unknown or missing key or a wrong type is an error with its path.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from sidejudge_server.judges.kinds import JudgeSpec
from sidejudge_server.judges.types import (
    ArtifactInput,
    Criterion,
    Demonstration,
    JudgeInput,
    JudgeKind,
    JudgeProgram,
    LabelOffsets,
    RubricInput,
    ScoreMap,
    Verdict,
)

__all__ = [
    "CodecError",
    "canonical_json",
    "content_digest",
    "input_from_json",
    "input_to_json",
    "program_digest",
    "program_from_json",
    "program_to_json",
    "spec_from_json",
    "spec_to_json",
]

T = TypeVar("T")

_FORMAT = 1


class CodecError(ValueError):
    """The JSON is not what it should be; the message has the path, not the content."""


def canonical_json(value: object) -> str:
    """Return the one JSON text of a value made of plain types; NaN and infinity are refused."""
    return json.dumps(
        value,
        sort_keys=True,
        separators=(",", ":"),
        ensure_ascii=False,
        allow_nan=False,
    )


def input_to_json(item: JudgeInput) -> str:
    """Return canonical JSON of an input."""
    return canonical_json(_input_document(item))


def input_from_json(text: str) -> JudgeInput:
    """Read `input_to_json`.

    Raises:
        CodecError: The text is something else.
    """
    return _read_input(_Reader.parse(text))


def content_digest(item: JudgeInput) -> str:
    """Return the SHA-256, hexadecimal, of an input with runs of white space made one space."""
    text = canonical_json(_normalised(_input_document(item)))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def program_to_json(program: JudgeProgram) -> str:
    """Return canonical JSON of a program."""
    return canonical_json(
        {
            "format": _FORMAT,
            "kind": program.kind.value,
            "scores": program.scores,
            "binary": program.binary,
            "instructions": program.instructions,
            "question": program.question,
            "demonstrations": [
                {
                    "input": _input_document(demonstration.input),
                    "verdict": demonstration.verdict and demonstration.verdict.value,
                    "score": demonstration.score,
                    "reasoning": demonstration.reasoning,
                }
                for demonstration in program.demonstrations
            ],
            "offsets": {
                "passed": program.offsets.passed,
                "partial": program.offsets.partial,
            },
            "score_map": {
                "slope": program.score_map.slope,
                "intercept": program.score_map.intercept,
            },
            "input_fields": list(program.input_fields),
        }
    )


def program_from_json(text: str) -> JudgeProgram:
    """Read `program_to_json`.

    Raises:
        CodecError: The text is something else.
    """
    reader = _Reader.parse(text)
    version = reader.get("format", _integer)
    if version != _FORMAT:
        raise CodecError(f"format: {version} is not known; a newer sidejudge wrote it")
    offsets = reader.child("offsets")
    score_map = reader.child("score_map")
    program = JudgeProgram(
        kind=reader.get("kind", _kind),
        scores=reader.get("scores", _boolean),
        binary=reader.get("binary", _boolean),
        instructions=reader.get("instructions", _string),
        question=reader.get("question", _string),
        demonstrations=tuple(
            _read_demonstration(child) for child in reader.children("demonstrations")
        ),
        offsets=LabelOffsets(
            offsets.get("passed", _number), offsets.get("partial", _number)
        ),
        score_map=ScoreMap(
            score_map.get("slope", _number), score_map.get("intercept", _number)
        ),
        input_fields=reader.get("input_fields", _strings),
    )
    for part in (offsets, score_map, reader):
        part.finish()
    return program


def program_digest(program: JudgeProgram) -> str:
    """Return the SHA-256, hexadecimal, of a program's canonical JSON."""
    return hashlib.sha256(
        program_to_json(program).encode("utf-8", "surrogatepass")
    ).hexdigest()


def spec_to_json(spec: JudgeSpec) -> str:
    """Return canonical JSON of a spec."""
    return canonical_json(
        {
            "kind": spec.kind.value,
            "default_criteria": _criteria_document(spec.default_criteria),
            "instructions": spec.instructions,
            "question": spec.question,
            "scores": spec.scores,
            "input_fields": list(spec.input_fields),
            "binary": spec.binary,
        }
    )


def spec_from_json(text: str) -> JudgeSpec:
    """Read `spec_to_json`.

    Raises:
        CodecError: The text is something else.
    """
    reader = _Reader.parse(text)
    spec = JudgeSpec(
        kind=reader.get("kind", _kind),
        default_criteria=_read_criteria(reader, "default_criteria"),
        instructions=reader.get("instructions", _string),
        question=reader.get("question", _string),
        scores=reader.get("scores", _boolean),
        input_fields=reader.get("input_fields", _strings),
        binary=reader.get("binary", _boolean),
    )
    reader.finish()
    return spec


def _input_document(item: JudgeInput) -> dict[str, Any]:
    if isinstance(item, RubricInput):
        return {
            "type": "rubric",
            "task_context": item.task_context,
            "agent_output": item.agent_output,
            "criteria": _criteria_document(item.criteria),
        }
    return {
        "type": "artifact",
        "artifact": item.artifact,
        "ground_truth": item.ground_truth,
        "context": item.context,
        "fields": dict(item.fields),
    }


def _criteria_document(criteria: tuple[Criterion, ...]) -> list[dict[str, str]]:
    return [{"name": c.name, "description": c.description} for c in criteria]


def _normalised(value: Any) -> Any:  # noqa: ANN401 - any JSON value, in and out
    if isinstance(value, str):
        return " ".join(value.split())
    if isinstance(value, list):
        return [_normalised(element) for element in value]
    if isinstance(value, dict):
        return {key: _normalised(element) for key, element in value.items()}
    return value


class _Reader:
    """Takes typed values out of a JSON object and notices what is left over."""

    def __init__(self, value: object, path: str) -> None:
        if not isinstance(value, dict):
            raise CodecError(f"{path or 'document'}: expected an object")
        self._values = dict(value)
        self._path = path

    @classmethod
    def parse(cls, text: str) -> _Reader:
        try:
            return cls(json.loads(text), "")
        except json.JSONDecodeError as error:
            raise CodecError(f"not JSON: {error.msg} at {error.pos}") from None

    def get(self, key: str, convert: Callable[[object], T]) -> T:
        if key not in self._values:
            raise CodecError(f"{self._path}{key}: missing")
        try:
            return convert(self._values.pop(key))
        except ValueError as error:
            raise CodecError(f"{self._path}{key}: {error}") from None

    def child(self, key: str) -> _Reader:
        return _Reader(self.get(key, _anything), f"{self._path}{key}.")

    def children(self, key: str) -> list[_Reader]:
        return [
            _Reader(value, f"{self._path}{key}[{index}].")
            for index, value in enumerate(self.get(key, _list))
        ]

    def finish(self) -> None:
        if self._values:
            unknown = ", ".join(sorted(self._values))
            raise CodecError(f"{self._path or 'document: '}unknown keys: {unknown}")


def _read_input(reader: _Reader) -> JudgeInput:
    shape = reader.get("type", _string)
    item: JudgeInput
    if shape == "rubric":
        item = RubricInput(
            task_context=reader.get("task_context", _string),
            agent_output=reader.get("agent_output", _string),
            criteria=_read_criteria(reader, "criteria"),
        )
    elif shape == "artifact":
        item = ArtifactInput(
            artifact=reader.get("artifact", _string),
            ground_truth=reader.get("ground_truth", _optional_string),
            context=reader.get("context", _string),
            fields=reader.get("fields", _string_map),
        )
    else:
        raise CodecError("type: expected rubric or artifact")
    reader.finish()
    return item


def _read_criteria(reader: _Reader, key: str) -> tuple[Criterion, ...]:
    criteria = []
    for child in reader.children(key):
        criteria.append(
            Criterion(child.get("name", _string), child.get("description", _string))
        )
        child.finish()
    return tuple(criteria)


def _read_demonstration(reader: _Reader) -> Demonstration:
    demonstration = Demonstration(
        input=_read_input(reader.child("input")),
        verdict=reader.get("verdict", _optional_verdict),
        score=reader.get("score", _optional_number),
        reasoning=reader.get("reasoning", _string),
    )
    reader.finish()
    if (demonstration.verdict is None) == (demonstration.score is None):
        raise CodecError("demonstrations: expected either a verdict or a score")
    return demonstration


def _anything(value: object) -> object:
    return value


def _string(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("expected text")  # noqa: TRY004 - becomes a CodecError
    return value


def _optional_string(value: object) -> str | None:
    return None if value is None else _string(value)


def _boolean(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError("expected true or false")  # noqa: TRY004 - becomes a CodecError
    return value


def _integer(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError("expected a whole number")  # noqa: TRY004 - becomes a CodecError
    return value


def _number(value: object) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise ValueError("expected a number")  # noqa: TRY004 - becomes a CodecError
    if not math.isfinite(value):
        raise ValueError("expected a finite number")
    return float(value)


def _optional_number(value: object) -> float | None:
    return None if value is None else _number(value)


def _list(value: object) -> list[object]:
    if not isinstance(value, list):
        raise ValueError("expected a list")  # noqa: TRY004 - becomes a CodecError
    return value


def _strings(value: object) -> tuple[str, ...]:
    return tuple(_string(element) for element in _list(value))


def _string_map(value: object) -> Mapping[str, str]:
    if not isinstance(value, dict):
        raise ValueError("expected an object")  # noqa: TRY004 - becomes a CodecError
    return {_string(key): _string(element) for key, element in value.items()}


def _kind(value: object) -> JudgeKind:
    return JudgeKind(_string(value))


def _optional_verdict(value: object) -> Verdict | None:
    return None if value is None else Verdict(_string(value))
