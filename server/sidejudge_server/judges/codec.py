"""Canonical JSON of inputs, programs and specs: what the database keeps and digests are taken of.

Canonical means sorted keys, no spaces, no escapes beyond the necessary: equal values have equal
text. Reading is strict: an unknown or missing key or a wrong type is an error with its path.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from sidejudge_server.judges.json_reader import (
    CodecError,
    Reader,
    boolean,
    integer,
    number,
    optional_number,
    optional_string,
    string,
    string_map,
    strings,
)
from sidejudge_server.judges.kinds import JudgeSpec
from sidejudge_server.judges.memory import MAX_MEMORY_BYTES, MAX_MEMORY_EXAMPLES
from sidejudge_server.judges.types import (
    ArtifactInput,
    Criterion,
    Demonstration,
    JudgeInput,
    JudgeKind,
    JudgeProgram,
    LabelOffsets,
    LearnedHead,
    Memory,
    MemoryExample,
    RubricInput,
    ScoreHead,
    ScoreMap,
    Verdict,
    VerdictHead,
)

__all__ = [
    "CodecError",
    "canonical_json",
    "content_digest",
    "input_from_json",
    "input_to_json",
    "memory_size_bytes",
    "program_digest",
    "program_from_json",
    "program_to_json",
    "spec_from_json",
    "spec_to_json",
]

_FORMAT = 1


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
    return _read_input(Reader.parse(text))


def content_digest(item: JudgeInput) -> str:
    """Return the SHA-256, hexadecimal, of an input with runs of white space made one space."""
    text = canonical_json(_normalised(_input_document(item)))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def program_to_json(program: JudgeProgram) -> str:
    """Return canonical JSON of a program; memory and head are left out if there are none."""
    document: dict[str, Any] = {
        "format": _FORMAT,
        "kind": program.kind.value,
        "scores": program.scores,
        "binary": program.binary,
        "instructions": program.instructions,
        "question": program.question,
        "demonstrations": [
            _labelled_document(demonstration)
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
    if program.memory is not None:
        document["memory"] = _memory_document(program.memory)
    if program.head is not None:
        document["head"] = _head_document(program.head)
    return canonical_json(document)


def memory_size_bytes(memory: Memory) -> int:
    """Return how long a memory's canonical JSON is; what `MAX_MEMORY_BYTES` bounds."""
    text = canonical_json(_memory_document(memory))
    return len(text.encode("utf-8", "surrogatepass"))


def program_from_json(text: str) -> JudgeProgram:
    """Read `program_to_json`.

    Raises:
        CodecError: The text is something else.
    """
    reader = Reader.parse(text)
    version = reader.get("format", integer)
    if version != _FORMAT:
        raise CodecError(f"format: {version} is not known; a newer sidejudge wrote it")
    offsets = reader.child("offsets")
    score_map = reader.child("score_map")
    program = JudgeProgram(
        kind=reader.get("kind", _kind),
        scores=reader.get("scores", boolean),
        binary=reader.get("binary", boolean),
        instructions=reader.get("instructions", string),
        question=reader.get("question", string),
        demonstrations=tuple(
            _read_demonstration(child) for child in reader.children("demonstrations")
        ),
        offsets=LabelOffsets(
            offsets.get("passed", number), offsets.get("partial", number)
        ),
        score_map=ScoreMap(
            score_map.get("slope", number), score_map.get("intercept", number)
        ),
        input_fields=reader.get("input_fields", strings),
        memory=_read_memory(reader.optional_child("memory")),
        head=_read_head(reader.optional_child("head")),
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
    reader = Reader.parse(text)
    spec = JudgeSpec(
        kind=reader.get("kind", _kind),
        default_criteria=_read_criteria(reader, "default_criteria"),
        instructions=reader.get("instructions", string),
        question=reader.get("question", string),
        scores=reader.get("scores", boolean),
        input_fields=reader.get("input_fields", strings),
        binary=reader.get("binary", boolean),
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


def _labelled_document(labelled: Demonstration | MemoryExample) -> dict[str, Any]:
    return {
        "input": _input_document(labelled.input),
        "verdict": labelled.verdict and labelled.verdict.value,
        "score": labelled.score,
        "reasoning": labelled.reasoning,
    }


def _memory_document(memory: Memory) -> dict[str, Any]:
    return {
        "guidelines": list(memory.guidelines),
        "examples": [
            {"example_id": example.example_id, **_labelled_document(example)}
            for example in memory.examples
        ],
        "shown": memory.shown,
        "embedding_model": memory.embedding_model,
        "embeddings": memory.embeddings,
    }


def _head_document(head: LearnedHead) -> dict[str, Any]:
    if isinstance(head, VerdictHead):
        return {
            "type": "verdict",
            "neighbours": head.neighbours,
            "pass_bias": head.pass_bias,
            "partial_bias": head.partial_bias,
            "lm_weight": head.lm_weight,
            "vote_weight": head.vote_weight,
        }
    return {
        "type": "score",
        "neighbours": head.neighbours,
        "intercept": head.intercept,
        "raw_weight": head.raw_weight,
        "label_weight": head.label_weight,
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


def _read_input(reader: Reader) -> JudgeInput:
    shape = reader.get("type", string)
    item: JudgeInput
    if shape == "rubric":
        item = RubricInput(
            task_context=reader.get("task_context", string),
            agent_output=reader.get("agent_output", string),
            criteria=_read_criteria(reader, "criteria"),
        )
    elif shape == "artifact":
        item = ArtifactInput(
            artifact=reader.get("artifact", string),
            ground_truth=reader.get("ground_truth", optional_string),
            context=reader.get("context", string),
            fields=reader.get("fields", string_map),
        )
    else:
        raise CodecError("type: expected rubric or artifact")
    reader.finish()
    return item


def _read_criteria(reader: Reader, key: str) -> tuple[Criterion, ...]:
    criteria = []
    for child in reader.children(key):
        criteria.append(
            Criterion(child.get("name", string), child.get("description", string))
        )
        child.finish()
    return tuple(criteria)


def _read_demonstration(reader: Reader) -> Demonstration:
    demonstration = Demonstration(
        input=_read_input(reader.child("input")),
        verdict=reader.get("verdict", _optional_verdict),
        score=reader.get("score", optional_number),
        reasoning=reader.get("reasoning", string),
    )
    reader.finish()
    if (demonstration.verdict is None) == (demonstration.score is None):
        raise CodecError("demonstrations: expected either a verdict or a score")
    return demonstration


def _read_memory(reader: Reader | None) -> Memory | None:
    if reader is None:
        return None
    children = reader.children("examples")
    if len(children) > MAX_MEMORY_EXAMPLES:
        raise CodecError(
            f"memory.examples: more than the {MAX_MEMORY_EXAMPLES} that are allowed"
        )
    memory = Memory(
        guidelines=reader.get("guidelines", strings),
        examples=tuple(_read_memory_example(child) for child in children),
        shown=reader.get("shown", integer),
        embedding_model=reader.get("embedding_model", string),
        embeddings=reader.get("embeddings", string),
    )
    reader.finish()
    if memory_size_bytes(memory) > MAX_MEMORY_BYTES:
        raise CodecError(f"memory: longer than {MAX_MEMORY_BYTES} bytes")
    return memory


def _read_memory_example(reader: Reader) -> MemoryExample:
    example_id = reader.get("example_id", string)
    shown = _read_demonstration(reader)
    return MemoryExample(
        example_id, shown.input, shown.verdict, shown.score, shown.reasoning
    )


def _read_head(reader: Reader | None) -> LearnedHead | None:
    if reader is None:
        return None
    head: LearnedHead
    shape = reader.get("type", string)
    neighbours = reader.get("neighbours", integer)
    if shape == "verdict":
        head = VerdictHead(
            neighbours,
            pass_bias=reader.get("pass_bias", number),
            partial_bias=reader.get("partial_bias", number),
            lm_weight=reader.get("lm_weight", number),
            vote_weight=reader.get("vote_weight", number),
        )
    elif shape == "score":
        head = ScoreHead(
            neighbours,
            intercept=reader.get("intercept", number),
            raw_weight=reader.get("raw_weight", number),
            label_weight=reader.get("label_weight", number),
        )
    else:
        raise CodecError("head.type: expected verdict or score")
    reader.finish()
    return head


def _kind(value: object) -> JudgeKind:
    return JudgeKind(string(value))


def _optional_verdict(value: object) -> Verdict | None:
    return None if value is None else Verdict(string(value))
