"""Memory: guidelines distilled from corrections, and the most similar corrections in the prompt.

The fast path beside MIPROv2: one pass over the training examples, three calls at most of the model that
writes, and four candidates, of which only the best one is scored on everything. With 50 examples the
whole run takes at most 60 LM calls beyond those for the version that serves, held-out ones included
(`memory_plan`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from sidejudge_server.errors import LMRequestError
from sidejudge_server.judges.fields import input_to_fields
from sidejudge_server.judges.types import (
    JudgeInput,
    JudgeProgram,
    JudgeResult,
    Judgment,
    Memory,
)
from sidejudge_server.optimization.algorithms.context import SearchContext
from sidejudge_server.optimization.demonstrations import dealt
from sidejudge_server.optimization.guidelines import Correction, distil
from sidejudge_server.optimization.memory_plan import CANDIDATES, SHOWN, first_look
from sidejudge_server.optimization.plan import InstructionSource
from sidejudge_server.optimization.proposals import Proposal
from sidejudge_server.optimization.remembering import remembered
from sidejudge_server.optimization.scoring import LabelledItem, quality
from sidejudge_server.optimization.spec import Phase

__all__ = ["MemorySearch"]

_WRONG_VERDICT = 0.5
_WRONG_SCORE = 0.9
"""Answers worth less than this are corrections to learn from: scores that are off by over 0.1."""


class MemorySearch:
    """Implements `Algorithm`."""

    def search(self, context: SearchContext) -> None:
        """Compare the candidates on a part of the validation examples, then score the best on all.

        If the budget allows few trials, fewer candidates are compared: the last trial is the one on
        all, because nothing else counts as found.
        """
        start = replace(context.program, head=None)
        guidelines = self._guidelines(context, start)
        context.reporter.phase(Phase.SEARCHING)
        looked_at = _balanced(context)
        whole = len(looked_at) == len(context.validation)
        scored: list[tuple[float, JudgeProgram, int]] = []

        def look(program: JudgeProgram, *, instruction_index: int) -> float:
            score = _mean(context.soft_values(program, looked_at))
            scored.append((score, program, instruction_index))
            context.candidate(
                program,
                score=score,
                example_count=len(looked_at),
                full=whole,
                instruction_index=instruction_index,
            )
            return score

        left = context.trials_left
        if left is not None and left < CANDIDATES + (not whole):
            programs = _few(context, start, guidelines)
            for program, index in programs[: left if whole else left - 1]:
                look(program, instruction_index=index)
            if not scored and programs:
                program, index = programs[0]
                scored.append((0.0, program, index))
        else:
            self._compare(context, start, guidelines, look)
        if whole or not scored:
            return
        _, best, index = max(scored, key=lambda entry: entry[0])
        context.candidate(best, score=context.score(best), instruction_index=index)

    @staticmethod
    def _compare(
        context: SearchContext,
        start: JudgeProgram,
        guidelines: tuple[str, ...],
        look: Callable[..., float],
    ) -> None:
        """Look at each number of examples, at the guidelines, and at the best of both together."""
        shown = 0
        best_score = float("-inf")
        for count in SHOWN:
            program = _showing(context, start, count)
            if program is None:
                continue
            score = look(program, instruction_index=0)
            if score > best_score:
                shown, best_score = count, score
        if guidelines:
            look(_guided(start, guidelines), instruction_index=1)
            both = _showing(context, start, shown) if shown else None
            if both is not None:
                look(_guided(both, guidelines), instruction_index=1)

    def _guidelines(
        self, context: SearchContext, start: JudgeProgram
    ) -> tuple[str, ...]:
        """Return guidelines that are new, in addition to those that there are; empty for none."""
        if context.plan.instruction_source is InstructionSource.CURATED:
            return ()
        context.reporter.phase(Phase.DISTILLING)
        corrections = _corrections(context, start)
        if not corrections:
            return ()
        try:
            found = distil(corrections, program=start, client=context.models.prompt)
        except LMRequestError as error:
            context.reporter.warning(f"no guidelines were written: {error.message}")
            return ()
        if found.refused:
            context.reporter.warning(
                f"{found.refused} proposed guidelines were refused, such as for saying the same as "
                "another or for holding a marker"
            )
        before = start.memory.guidelines if start.memory is not None else ()
        if found.guidelines == before:
            return ()
        context.reporter.proposed(Proposal("\n".join(found.guidelines), 1))
        return found.guidelines


def _corrections(context: SearchContext, start: JudgeProgram) -> list[Correction]:
    """Return the training examples that the starting version gets wrong, the worst first."""
    items = _corrected(context)
    answers = context.models.scorer.answers(start, items)
    rule = context.refit(start).program
    worths = quality(rule, items, answers)
    bar = _WRONG_SCORE if start.scores else _WRONG_VERDICT
    wrong = [i for i in range(len(items)) if worths[i] < bar]
    wrong.sort(key=lambda i: worths[i])
    return [Correction(items[i], _answered(answers[i])) for i in wrong]


def _corrected(context: SearchContext) -> list[LabelledItem]:
    """Return the training examples whose labels are people's: nothing else is remembered."""
    return [item for item in context.train if not item.synthetic]


def _answered(answer: JudgeResult | None) -> str:
    if answer is None:
        return "nothing usable"
    if isinstance(answer, Judgment):
        return answer.verdict.value
    return f"{answer.raw_score:.2f}"


def _balanced(context: SearchContext) -> list[LabelledItem]:
    """Return the validation examples that all candidates are compared on: labels take turns."""
    count = first_look(len(context.train), len(context.validation))
    return dealt(context.validation, seed=context.plan.seed)[:count]


def _showing(
    context: SearchContext, start: JudgeProgram, shown: int
) -> JudgeProgram | None:
    """Return a program that shows the most similar training examples; None if none is short enough.

    Demonstrations that the version has already take their part of the room.
    """
    demonstrations = sum(_chars(d.input, d.reasoning) for d in start.demonstrations)
    room = max(0, context.plan.max_demo_chars - demonstrations) // shown
    corrected = _corrected(context)
    items = [i for i in corrected if _chars(i.input, i.rationale) <= room]
    memory = remembered(
        items,
        base=replace(start.memory or Memory(), shown=min(shown, len(items))),
        scorer=context.models.scorer,
    )
    return replace(start, memory=memory) if memory.examples else None


def _few(
    context: SearchContext, start: JudgeProgram, guidelines: tuple[str, ...]
) -> list[tuple[JudgeProgram, int]]:
    """Return what competes when trials are few, with the index of its instructions.

    The guidelines, which are paid for and say what all corrections have in common, come first.
    """
    found = [(_guided(start, guidelines), 1)] if guidelines else []
    showing = (_showing(context, start, count) for count in SHOWN)
    return found + [(program, 0) for program in showing if program is not None]


def _guided(program: JudgeProgram, guidelines: tuple[str, ...]) -> JudgeProgram:
    memory = replace(program.memory or Memory(), guidelines=guidelines)
    return replace(program, memory=memory)


def _chars(item: JudgeInput, reasoning: str) -> int:
    return len(reasoning) + sum(len(text) for text in input_to_fields(item).values())


def _mean(values: Sequence[float]) -> float:
    return sum(values) / max(1, len(values))
