"""The seam between a run and the ways to search."""

from __future__ import annotations

from typing import Protocol

from sidejudge_server.optimization.algorithms.context import SearchContext

__all__ = ["Algorithm"]


class Algorithm(Protocol):
    """A way to look for a better version."""

    def search(self, context: SearchContext) -> None:
        """Make candidates and hand each to `SearchContext.candidate` as soon as it is scored.

        The starting version is scored before. What ends a run (cancelling, an outage, a used-up
        budget) is a BaseException from the models: it must pass through, and what was handed over
        before counts. The run refits all candidates afterwards, picks one and takes it to the gate.
        """
        ...
