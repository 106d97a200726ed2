"""Labelled examples from JSON rows: what a judge may see, and what people said.

One row is ``{"inputs": {...}, "label": ..., "group": ..., "rationale": ...}``. The inputs are those of
an artifact (``artifact``, ``context``, ``ground_truth``, and ``fields`` for custom judges) or of a
rubric (``task_context``, ``agent_output``, ``criteria``), nested or directly in the row. Further keys
are ignored, so that data sets can carry their own.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sidejudge_server.judges.types import (
    ArtifactInput,
    Criterion,
    JudgeInput,
    RubricInput,
    Verdict,
)

__all__ = [
    "Label",
    "LabelledDataError",
    "LabelledExample",
    "parse_criteria",
    "parse_input",
    "parse_row",
    "read_jsonl",
    "with_own_key",
]

Label = Verdict | float

_MAX_PROBLEMS = 20
_MAX_CRITERION_NAME = 64
_INPUT_KEYS = (
    "artifact",
    "ground_truth",
    "context",
    "fields",
    "task_context",
    "agent_output",
    "criteria",
)


class LabelledDataError(ValueError):
    """Rows are wrong; the message lists the first 20 problems with their place."""

    def __init__(self, problems: Sequence[str]) -> None:
        shown = list(problems[:_MAX_PROBLEMS])
        if len(problems) > _MAX_PROBLEMS:
            shown.append(f"... and {len(problems) - _MAX_PROBLEMS} more")
        super().__init__("\n".join(shown))
        self.problems = tuple(problems)


@dataclass(frozen=True, slots=True)
class LabelledExample:
    """An input with the label that people gave.

    Attributes:
        key: The row's ``id``, else its place; unique within a file.
        input: What a judge may see.
        label: A verdict, or a score in 0..1.
        group: Examples of one group are about the same thing; empty if the row has none.
        source: Data set that the row is from, for slices; empty if the row has none.
        rationale: Why people said so; empty if the row has none.
        feedback_source: ``expert``, ``user``, ``downstream``, or empty.
        origin: ``synthetic`` for an exported example whose label is a model's claim; else of no
            consequence.
        writer: The model that wrote what is judged (``writer_model``); empty if the row has none.
    """

    key: str
    input: JudgeInput
    label: Label
    group: str = ""
    source: str = ""
    rationale: str = ""
    feedback_source: str = ""
    origin: str = ""
    writer: str = ""

    @property
    def label_key(self) -> str:
        """The verdict, or the fifth of the score range, such as ``0.2-0.4``."""
        if isinstance(self.label, Verdict):
            return self.label.value
        low = min(int(self.label * 5), 4)
        return f"{low / 5:.1f}-{(low + 1) / 5:.1f}"


def read_jsonl(path: Path) -> list[LabelledExample]:
    """Read a file of labelled rows; blank lines are skipped.

    Raises:
        LabelledDataError: Some rows are wrong; nothing is returned.
        OSError: The file cannot be read.
    """
    examples: list[LabelledExample] = []
    problems: list[str] = []
    keys: set[str] = set()
    with path.open(encoding="utf-8") as lines:
        for place, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
                where = f"line {place}"
                example = parse_row(row, place=where)
                examples.append(with_own_key(example, place=where, taken=keys))
            except json.JSONDecodeError as error:
                problems.append(f"line {place}: no JSON: {error}")
            except LabelledDataError as error:
                problems += error.problems
    if problems:
        raise LabelledDataError(problems)
    return examples


def parse_row(row: object, *, place: str) -> LabelledExample:
    """Turn one row into an example.

    Args:
        row: Decoded JSON, or a row of a Parquet file as a dict.
        place: Where it stands, for messages and as key of rows without ``id``.

    Raises:
        LabelledDataError: Something is missing or of the wrong type.
    """
    if not isinstance(row, Mapping):
        raise LabelledDataError([f"{place}: not an object"])
    problems: list[str] = []
    judge_input: JudgeInput | None = None
    label: Label | None = None
    try:
        judge_input = parse_input(row)
    except ValueError as error:
        problems.append(f"{place}: {error}")
    try:
        label = _label(row.get("label"))
    except ValueError as error:
        problems.append(f"{place}: {error}")
    if judge_input is None or label is None:
        raise LabelledDataError(problems)
    return LabelledExample(
        key=_text(row.get("id")) or place,
        input=judge_input,
        label=label,
        group=_text(row.get("group")),
        source=_text(row.get("source")),
        rationale=_text(row.get("rationale")) or _text(row.get("human_rationale")),
        feedback_source=_text(row.get("feedback_source")),
        origin=_text(row.get("origin")),
        writer=_text(row.get("writer_model")),
    )


def with_own_key(
    example: LabelledExample, *, place: str, taken: set[str]
) -> LabelledExample:
    """Return an example under its place if its key is taken, and take its key."""
    if example.key in taken:
        example = replace(example, key=place)
    taken.add(example.key)
    return example


def parse_input(row: Mapping[str, object]) -> JudgeInput:
    """Return the input of a row: under ``inputs``, or its own keys.

    Raises:
        ValueError: Neither an artifact nor an agent's output is there, or both, or a type is wrong.
    """
    nested = row.get("inputs")
    if isinstance(nested, str):  # a Parquet column may hold JSON text
        nested = json.loads(nested)
    inputs = nested if nested is not None else row
    if not isinstance(inputs, Mapping):
        raise ValueError("inputs is not an object")  # noqa: TRY004 - all problems of a row are ValueErrors
    found = {k: inputs[k] for k in _INPUT_KEYS if inputs.get(k) is not None}
    for key, value in found.items():
        if key not in {"fields", "criteria"} and not isinstance(value, str):
            raise ValueError(f"{key} is not a text")
    if "artifact" in found and "agent_output" not in found:
        return ArtifactInput(
            artifact=str(found["artifact"]),
            # Data sets write "" where there is none.
            ground_truth=str(found["ground_truth"])
            if found.get("ground_truth")
            else None,
            context=str(found.get("context", "")),
            fields=_fields(found.get("fields")),
        )
    if "agent_output" in found and "artifact" not in found:
        return RubricInput(
            task_context=str(found.get("task_context", "")),
            agent_output=str(found["agent_output"]),
            criteria=parse_criteria(found.get("criteria")),
        )
    raise ValueError(
        "inputs need either artifact (with context, ground_truth) or agent_output"
        " (with task_context, criteria)"
    )


def parse_criteria(value: object) -> tuple[Criterion, ...]:
    """Return criteria from a text ``name: description``, a list of texts or objects, or a mapping.

    A text without a short name before its first colon becomes the description of a criterion named
    ``criterion``, numbered if there are several.

    Raises:
        ValueError: The value is none of these.
    """
    if value is None or value == "":
        return ()
    if isinstance(value, Mapping):
        return tuple(Criterion(str(k), str(v)) for k, v in value.items())
    items = [value] if isinstance(value, str) else value
    if not isinstance(items, Sequence):
        raise ValueError("criteria is neither a text nor a list")  # noqa: TRY004 - as above
    criteria: list[Criterion] = []
    for position, item in enumerate(items, start=1):
        if isinstance(item, Mapping) and isinstance(item.get("name"), str):
            criteria.append(Criterion(item["name"], _text(item.get("description"))))
        elif isinstance(item, str):
            unnamed = "criterion" if len(items) == 1 else f"criterion {position}"
            criteria.append(_criterion(item.strip(), unnamed))
        else:
            raise ValueError("criteria holds something that is neither text nor name")  # noqa: TRY004 - as above
    return tuple(criteria)


def _label(value: object) -> Label:
    if isinstance(value, str):
        text = value.strip().lower()
        if text in {verdict.value for verdict in Verdict}:
            return Verdict(text)
        try:
            value = float(text)
        except ValueError:
            raise ValueError(
                f"label {value!r} is neither pass, partial, fail nor a number"
            ) from None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("label is neither pass, partial, fail nor a number")  # noqa: TRY004 - as above
    if not (math.isfinite(value) and 0 <= value <= 1):
        raise ValueError(f"label {value} is not in 0..1")
    return float(value)


def _criterion(text: str, unnamed: str) -> Criterion:
    head, colon, rest = text.partition(":")
    if colon and head.strip() and len(head.strip()) <= _MAX_CRITERION_NAME:
        return Criterion(head.strip(), rest.strip())
    if len(text) <= _MAX_CRITERION_NAME and not colon:
        return Criterion(text)
    return Criterion(unnamed, text)


def _fields(value: object) -> dict[str, str]:
    if value is None:
        return {}
    if isinstance(value, str):  # a Parquet column may hold JSON text
        value = json.loads(value)
    if not isinstance(value, Mapping):
        raise ValueError("fields is not an object")  # noqa: TRY004 - as above
    return {str(k): str(v) for k, v in value.items()}


def _text(value: object) -> str:
    return "" if value is None else str(value)
