"""Says how many reference vectors this run has compared."""

from __future__ import annotations

from typing import Any

from tests.stats.vectors import FOLDER, LOADED


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print files and cases of the reference vectors that tests have read."""
    if LOADED:
        files = len(list(FOLDER.glob("*.json")))
        terminalreporter.section("reference vectors")
        terminalreporter.write_line(
            f"{len(LOADED)} of {files} files, {sum(LOADED.values())} cases"
        )
