"""What tests of commands share: how a command ended, and labelled rows."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Command", "Outcome", "verdict_rows", "write_rows"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """What was printed, as JSON."""
        return json.loads(self.out)


Command = Callable[..., Outcome]


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Write labelled rows as JSONL."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def verdict_rows(count: int, *, prefix: str = "item") -> list[dict[str, Any]]:
    """Return rows of both labels that the stand-in mostly judges as labelled."""
    return [
        {
            "id": f"{prefix}-{n}",
            "inputs": {
                "artifact": f"{prefix} {n} says p(yes)={0.2 + 0.6 * (n % 2):.1f}.",
                "context": f"Question {n}.",
            },
            "label": "pass" if n % 2 else "fail",
            "group": f"{prefix}-{n}",
            "human_rationale": "Made up for a test.",
        }
        for n in range(count)
    ]
