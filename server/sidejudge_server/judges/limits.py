"""How long the parts of a version may be, whoever brings it."""

from __future__ import annotations

from typing import Final

from sidejudge_server.errors import FieldViolation
from sidejudge_server.judges.types import JudgeProgram

__all__ = [
    "MAX_DEMONSTRATIONS",
    "MAX_INSTRUCTIONS_CHARS",
    "MAX_QUESTION_CHARS",
    "MAX_REASONING_CHARS",
    "program_violations",
]

MAX_INSTRUCTIONS_CHARS: Final = 8_000
MAX_QUESTION_CHARS: Final = 500
MAX_DEMONSTRATIONS: Final = 64
MAX_REASONING_CHARS: Final = 4_000


def program_violations(program: JudgeProgram) -> list[FieldViolation]:
    """Return what of a program is too long, as fields of it; empty when all is well."""
    lengths = [
        ("instructions", len(program.instructions), MAX_INSTRUCTIONS_CHARS),
        ("question", len(program.question), MAX_QUESTION_CHARS),
        *(
            (
                f"demonstrations[{index}].reasoning",
                len(d.reasoning),
                MAX_REASONING_CHARS,
            )
            for index, d in enumerate(program.demonstrations)
        ),
    ]
    violations = [
        FieldViolation(name, f"has {length} characters; at most {limit} are allowed")
        for name, length, limit in lengths
        if length > limit
    ]
    count = len(program.demonstrations)
    if count > MAX_DEMONSTRATIONS:
        violations.append(
            FieldViolation(
                "demonstrations",
                f"has {count} entries; at most {MAX_DEMONSTRATIONS} are allowed",
            )
        )
    return violations
