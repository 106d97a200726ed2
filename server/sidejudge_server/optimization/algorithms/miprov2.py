"""MIPROv2: combinations of instructions and demonstration sets, chosen by a Bayesian search."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sidejudge_server.judges.codec import program_to_json
from sidejudge_server.judges.dspy_judge import JudgeLM, program_from_module
from sidejudge_server.optimization.algorithms.context import SearchContext, dspy_example
from sidejudge_server.optimization.mipro import SearchTrial, StreamingMIPRO
from sidejudge_server.optimization.prompt_lm import make_prompt_lm
from sidejudge_server.optimization.proposals import Proposal
from sidejudge_server.optimization.racing import Race
from sidejudge_server.optimization.spec import Phase

__all__ = ["MIPROv2Search"]


class MIPROv2Search:
    """Implements `Algorithm` with `StreamingMIPRO`."""

    def search(self, context: SearchContext) -> None:
        """Search from the program of the context on; its demonstrations are one of the sets."""
        validation = [dspy_example(item) for item in context.validation]
        items = {
            id(example): item
            for example, item in zip(validation, context.validation, strict=True)
        }

        def values(module: Any, examples: Sequence[Any]) -> list[float]:  # noqa: ANN401 - dspy is untyped
            return context.soft_values(
                program_from_module(module, context.program),
                [items[id(example)] for example in examples],
            )

        def identity(module: Any) -> str:  # noqa: ANN401 - dspy is untyped
            return program_to_json(program_from_module(module, context.program))

        StreamingMIPRO(
            metric=context.metric,
            task_lm=JudgeLM(context.models.task),
            prompt_lm=make_prompt_lm(context.models.prompt),
            plan=context.plan,
            curated=context.curated,
            observer=_Observer(context),
            race=Race(
                values,
                examples=validation,
                identity=identity,
                early_stopping=context.plan.early_stopping,
                seed=context.plan.seed,
            ),
        ).search(
            context.module(context.program),
            train=[dspy_example(item) for item in context.train],
            validation=validation,
        )


class _Observer:
    """Passes on what a search says. Implements `SearchObserver`."""

    def __init__(self, context: SearchContext) -> None:
        self._context = context

    def phase(self, phase: Phase) -> None:
        self._context.reporter.phase(phase)

    def proposed(self, proposal: Proposal) -> None:
        self._context.reporter.proposed(proposal)

    def warning(self, message: str) -> None:
        self._context.reporter.warning(message)

    def should_stop(self) -> bool:
        """Never: a cancelled run stops at once, not at the end of a trial."""
        return False

    def trial(self, trial: SearchTrial) -> None:
        self._context.candidate(
            program_from_module(trial.module, self._context.program),
            score=trial.score,
            example_count=trial.example_count,
            full=trial.full,
            instruction_index=trial.instruction_index,
            demo_set_index=trial.demo_set_index,
            stopped_early=trial.stopped_early,
        )
