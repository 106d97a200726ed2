"""Whether an input has the shape that a judge asks for."""

from __future__ import annotations

from dataclasses import replace

from sidejudge_server.errors import FieldViolation, InvalidRequestError
from sidejudge_server.judges.kinds import KINDS
from sidejudge_server.judges.types import ArtifactInput, JudgeInput, RubricInput
from sidejudge_server.judges.versions import Judge

__all__ = ["fitting_input"]


def fitting_input(judge: Judge, item: JudgeInput) -> JudgeInput:
    """Return an input in the shape that a judge asks for, with its default criteria.

    Raises:
        InvalidRequestError: The shape is another one (INPUT_KIND_MISMATCH), or something that
            this judge needs is missing or not known to it.
    """
    spec = judge.spec
    got = "rubric_input" if isinstance(item, RubricInput) else "artifact_input"
    expected = "rubric_input" if spec.answers_score else "artifact_input"
    if got != expected:
        raise InvalidRequestError(
            [FieldViolation("input", f"{judge.name} needs {expected}, got {got}")],
            reason="INPUT_KIND_MISMATCH",
            metadata={"judge": judge.name, "expected": expected, "got": got},
        )
    if isinstance(item, RubricInput):
        if item.criteria or not spec.default_criteria:
            return item
        return replace(item, criteria=spec.default_criteria)
    violations = _artifact_violations(judge, item)
    if violations:
        raise InvalidRequestError(violations)
    return item


def _artifact_violations(judge: Judge, item: ArtifactInput) -> list[FieldViolation]:
    violations = []
    if KINDS[judge.spec.kind].needs_ground_truth and not item.ground_truth:
        violations.append(
            FieldViolation(
                "artifact_input.ground_truth", f"is required by {judge.name}"
            )
        )
    wanted, given = set(judge.spec.input_fields), set(item.fields)
    violations += [
        FieldViolation(f"artifact_input.fields[{name}]", f"is required by {judge.name}")
        for name in judge.spec.input_fields
        if not item.fields.get(name)
    ]
    violations += [
        FieldViolation(
            f"artifact_input.fields[{name}]", f"is not an input of {judge.name}"
        )
        for name in sorted(given - wanted)
    ]
    return violations
