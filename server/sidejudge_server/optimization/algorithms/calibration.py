"""Calibration: the same prompt with a better cut."""

from __future__ import annotations

from sidejudge_server.optimization.algorithms.context import SearchContext

__all__ = ["Calibration"]


class Calibration:
    """Searches nothing. Implements `Algorithm`.

    What is left of a run then is what every run ends with: the decision rule or score map of the
    starting version is fitted to its own validation answers, which the baseline has paid for.
    """

    def search(self, context: SearchContext) -> None:
        """Make no candidates and no calls."""
