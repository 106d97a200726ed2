"""What a run decided by what was left of its budget: decided once, however often the run goes on.

What is left depends on time and on which answers came first, so a run that does the same again would
decide otherwise. A decision is therefore written down when it is taken, and read when it comes again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from sidejudge_server.optimization.budget import OptimizationBudget

__all__ = ["RecordedDecisions"]

T = TypeVar("T", bool, int, str)

_PRIVATE_FILE = 0o600


class RecordedDecisions:
    """A file of decisions. One process at a time may use it.

    A decision holds as long as the budget is the same. With another one it is taken again, unless it
    was acted on: what was begun goes on as it was planned.
    """

    def __init__(self, path: Path, budget: OptimizationBudget) -> None:
        """Open it and read what is there; lines that cannot be read are skipped.

        Args:
            path: Its file, made if missing, as are its directories.
            budget: Of this life of the run.

        Raises:
            OSError: It cannot be read or written.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        self._file = os.fdopen(os.open(path, flags, _PRIVATE_FILE), "a+b")
        self._budget = budget.to_json()
        self._known: dict[str, Any] = {}
        self._file.seek(0)
        for line in self._file:
            try:
                entry = json.loads(line)
                if entry["acted_on"] or entry["budget"] == self._budget:
                    self._known[str(entry["what"])] = entry["value"]
            except (ValueError, KeyError, TypeError):
                continue

    def once(
        self,
        what: str,
        decide: Callable[[], T],
        *,
        acted_on: Callable[[T], bool] = lambda _: False,
    ) -> T:
        """Return a decision: the one on record, else a new one, which is on disk then.

        Args:
            what: What is decided; the same in every life.
            decide: Takes the decision.
            acted_on: Whether a decision holds with another budget too.

        Raises:
            OSError: It cannot be written.
        """
        value: T
        if what in self._known:
            value = self._known[what]
            return value
        value = decide()
        self.record(what, value, acted_on=acted_on(value))
        return value

    def recall(self, what: str) -> Any:  # noqa: ANN401 - a JSON scalar
        """Return the decision on record, None if there is none."""
        return self._known.get(what)

    def record(self, what: str, value: bool | int | str, *, acted_on: bool) -> None:
        """Write a decision down, instead of an earlier one; it is on disk on return.

        Args:
            what: What was decided.
            value: How.
            acted_on: True if it holds with another budget too.

        Raises:
            OSError: It cannot be written.
        """
        self._known[what] = value
        entry = {
            "what": what,
            "value": value,
            "acted_on": acted_on,
            "budget": self._budget,
        }
        self._file.write(json.dumps(entry).encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        self._file.close()
