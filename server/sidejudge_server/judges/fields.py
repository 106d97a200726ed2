"""Inputs as text by field name: how demonstrations travel and how DSPy sees an item."""

from __future__ import annotations

from collections.abc import Mapping

from sidejudge_server.judges.prompt import criteria_from_text, criteria_text
from sidejudge_server.judges.types import (
    ArtifactInput,
    JudgeInput,
    JudgeProgram,
    RubricInput,
)

__all__ = ["field_names", "input_from_fields", "input_to_fields", "is_reserved"]

_RUBRIC_FIELDS = ("task_context", "agent_output", "criteria")
_ARTIFACT_FIELDS = ("artifact", "ground_truth", "context")
_ANSWER_FIELDS = ("judgment", "verdict", "score", "confidence", "reasoning")
# Names that DSPy takes for its own when an optimization hands it a judge's inputs.
_DSPY_NAMES = (
    "self", "base", "config", "demos", "signature", "new_signature", "lm",
    "instructions", "fields", "input_fields", "output_fields",
)  # fmt: skip
_RESERVED = frozenset((*_ARTIFACT_FIELDS, *_ANSWER_FIELDS, *_DSPY_NAMES))


def field_names(*, scores: bool, input_fields: tuple[str, ...]) -> tuple[str, ...]:
    """Return the names of a judge's inputs, all of them text.

    Args:
        scores: Whether the judge answers a score.
        input_fields: Further inputs of a custom judge.
    """
    return _RUBRIC_FIELDS if scores else (*_ARTIFACT_FIELDS, *input_fields)


def is_reserved(name: str) -> bool:
    """Return whether a custom judge's further input must not have this name."""
    return name in _RESERVED or name.startswith("model_")


def input_to_fields(item: JudgeInput) -> dict[str, str]:
    """Return an input as text by name; what it lacks is ""."""
    if isinstance(item, RubricInput):
        return {
            "task_context": item.task_context,
            "agent_output": item.agent_output,
            "criteria": criteria_text(item.criteria),
        }
    return {
        "artifact": item.artifact,
        "ground_truth": item.ground_truth or "",
        "context": item.context,
        **item.fields,
    }


def input_from_fields(program: JudgeProgram, fields: Mapping[str, str]) -> JudgeInput:
    """Return the input that `input_to_fields` describes; it renders to the same bytes.

    Args:
        program: Says which shape and which further fields there are; other keys are ignored.
        fields: Text by name; a missing name is "".
    """
    text = {name: str(value) for name, value in fields.items() if value is not None}
    if program.scores:
        return RubricInput(
            task_context=text.get("task_context", ""),
            agent_output=text.get("agent_output", ""),
            criteria=criteria_from_text(text.get("criteria", "")),
        )
    return ArtifactInput(
        artifact=text.get("artifact", ""),
        ground_truth=text.get("ground_truth") or None,
        context=text.get("context", ""),
        fields={name: text[name] for name in program.input_fields if name in text},
    )
