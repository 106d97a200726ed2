"""Labelled demonstrations: the same instructions with examples that people have labelled."""

from __future__ import annotations

from dataclasses import replace

from sidejudge_server.optimization.algorithms.context import SearchContext
from sidejudge_server.optimization.demonstrations import labeled_sets, showable
from sidejudge_server.optimization.spec import Phase

__all__ = ["LabeledDemonstrations"]


class LabeledDemonstrations:
    """Scores a few seeded sets of training examples as demonstrations. Implements `Algorithm`."""

    def search(self, context: SearchContext) -> None:
        """Score one set a trial; the demonstrations of the starting version are the baseline."""
        plan = context.plan
        context.reporter.phase(Phase.BOOTSTRAPPING)
        items = showable(context.train, max_chars=plan.max_demo_chars)
        if len(items) < len(context.train):
            context.reporter.warning(
                f"{len(context.train) - len(items)} of {len(context.train)} training examples "
                "are too long to be demonstrations"
            )
        sets = labeled_sets(
            items,
            size=plan.max_labeled_demos,
            count=plan.num_trials,
            max_chars=plan.max_demo_chars,
            seed=plan.seed,
        )
        context.reporter.phase(Phase.SEARCHING)
        for index, demonstrations in enumerate(sets, start=1):
            program = replace(context.program, demonstrations=demonstrations)
            context.candidate(
                program, score=context.score(program), demo_set_index=index
            )
