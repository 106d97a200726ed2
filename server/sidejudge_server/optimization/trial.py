"""Scored candidates, whatever algorithm made them: what events and the table of trials show."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from sidejudge_server.judges.types import JudgeProgram
from sidejudge_server.optimization.plan import AlgorithmName

__all__ = ["Trial", "TrialLog", "TrialSink"]


@dataclass(frozen=True, slots=True)
class Trial:
    """One scored candidate.

    Attributes:
        number: From 1, without gaps over a whole run; 0 is the version that the run starts from.
        score: Mean soft metric on the validation examples looked at, 0..1.
        example_count: Validation examples looked at.
        full: True if those were all.
        instruction_index: Into the instructions that compete; 0 is the current one.
        demo_set_index: Into the demonstration sets; 0 is none.
        instructions: The instruction.
        demo_count: Demonstrations in the set.
        best: True if it is the best full evaluation so far.
        stopped_early: True if it was dropped before all its examples were looked at.
        algorithm: What made it; None for the version that the run starts from.
    """

    number: int
    score: float
    example_count: int
    full: bool
    instruction_index: int
    demo_set_index: int
    instructions: str
    demo_count: int
    best: bool
    stopped_early: bool = False
    algorithm: AlgorithmName | None = None


class TrialSink(Protocol):
    """Takes trials; thread-safe."""

    def trial(self, trial: Trial) -> None:
        """Take one."""
        ...


class TrialLog:
    """Numbers the trials of a run, knows the best and reports them all."""

    def __init__(self, sink: TrialSink) -> None:
        self._sink = sink
        self._next = 0
        self._best: float | None = None

    @property
    def made(self) -> int:
        """How many there were, not counting the version that the run starts from."""
        return max(0, self._next - 1)

    def add(
        self,
        program: JudgeProgram,
        *,
        score: float,
        example_count: int,
        full: bool = True,
        instruction_index: int = 0,
        demo_set_index: int = 0,
        stopped_early: bool = False,
        algorithm: AlgorithmName | None = None,
    ) -> Trial:
        """Report a trial; see `Trial`. The first of a run is the version that it starts from."""
        best = full and (self._best is None or score > self._best)
        trial = Trial(
            number=self._next,
            score=score,
            example_count=example_count,
            full=full,
            instruction_index=instruction_index,
            demo_set_index=demo_set_index,
            instructions=program.instructions,
            demo_count=len(program.demonstrations),
            best=best,
            stopped_early=stopped_early,
            algorithm=algorithm,
        )
        self._next += 1
        if best:
            self._best = score
        self._sink.trial(trial)
        return trial
