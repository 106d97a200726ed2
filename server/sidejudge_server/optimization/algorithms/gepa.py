"""GEPA: instructions that evolve by reflecting on mistakes and on what people said about them."""

from __future__ import annotations

from dataclasses import replace

from sidejudge_server.judges.dspy_judge import JudgeLM
from sidejudge_server.optimization.algorithms.context import SearchContext, dspy_example
from sidejudge_server.optimization.gepa import evolve
from sidejudge_server.optimization.prompt_lm import make_prompt_lm
from sidejudge_server.optimization.proposals import Proposal
from sidejudge_server.optimization.spec import Phase

__all__ = ["GEPASearch"]


class GEPASearch:
    """Implements `Algorithm` with `optimization.gepa.evolve`."""

    def search(self, context: SearchContext) -> None:
        """Evolve the instructions from those of the context on; demonstrations stay."""
        context.reporter.phase(Phase.SEARCHING)
        evolve(
            context.module(context.program),
            train=[dspy_example(item) for item in context.train],
            validation=[dspy_example(item) for item in context.validation],
            metric=context.metric,
            task_lm=JudgeLM(context.models.task),
            reflection_lm=make_prompt_lm(context.models.prompt),
            plan=context.plan,
            observer=_Observer(context),
        )


class _Observer:
    """Passes on what an evolution says. Implements `EvolutionObserver`."""

    def __init__(self, context: SearchContext) -> None:
        self._context = context

    def proposed(self, proposal: Proposal) -> None:
        self._context.reporter.proposed(proposal)

    def warning(self, message: str) -> None:
        self._context.reporter.warning(message)

    def scored(self, instructions: str, *, index: int) -> None:
        program = replace(self._context.program, instructions=instructions)
        # Summed up once more, from answers that are there, so that equal candidates have equal scores.
        score = self._context.score(program)
        self._context.candidate(program, score=score, instruction_index=index)
