"""What an algorithm gets to search with, and where its candidates go."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from sidejudge_server.judges.codec import program_to_json
from sidejudge_server.judges.dspy_judge import example_from
from sidejudge_server.judges.types import JudgeProgram
from sidejudge_server.optimization.faults import guarded_metric
from sidejudge_server.optimization.plan import AlgorithmName, SearchPlan
from sidejudge_server.optimization.reporter import Reporter
from sidejudge_server.optimization.run_models import RunModels
from sidejudge_server.optimization.scoring import (
    Fitted,
    LabelledItem,
    TalliedJudge,
    refit,
    soft_values,
)
from sidejudge_server.optimization.spending import BudgetExhausted
from sidejudge_server.optimization.stops import StopReason
from sidejudge_server.optimization.trial import Trial, TrialLog
from sidejudge_server.training.metrics import soft_judge_metric, soft_rubric_metric

__all__ = ["SearchContext", "dspy_example"]


class SearchContext:
    """The run as an algorithm sees it.

    Attributes:
        program: The version to start from.
        train: Demonstrations and corrections come from these.
        validation: Candidates are scored and refitted on these. The held-out examples are not here.
        models: The judge, the model that writes, and what counts their answers.
        plan: Numbers.
        curated: Instructions shipped for the judge's kind.
        reporter: Takes phases, proposals and warnings.
        trials: Numbers and reports the trials of the whole run.
        algorithm: What searches; its name is on the trials.
        max_trials: The search is ended when so many trials have been made; None for no bound.
        candidates: Fully scored programs in the order of their first appearance, by program JSON.
            What is here when the search ends, or is ended, is what the run chooses from.
        chosen: What an algorithm that chooses by itself has chosen so far; None leaves it to the run.
    """

    def __init__(
        self,
        program: JudgeProgram,
        *,
        train: Sequence[LabelledItem],
        validation: Sequence[LabelledItem],
        models: RunModels,
        plan: SearchPlan,
        curated: Sequence[str],
        reporter: Reporter,
        trials: TrialLog,
        algorithm: AlgorithmName,
        max_trials: int | None = None,
    ) -> None:
        self.program = program
        self.train = tuple(train)
        self.validation = tuple(validation)
        self.models = models
        self.plan = plan
        self.curated = tuple(curated)
        self.reporter = reporter
        self.trials = trials
        self.algorithm = algorithm
        self.max_trials = max_trials
        self.candidates: dict[str, JudgeProgram] = {}
        self.chosen: Fitted | None = None

    def rung(self, program: JudgeProgram, plan: SearchPlan) -> SearchContext:
        """Return the context of a step: another start and plan, the same run, no candidates yet."""
        rung = copy.copy(self)
        rung.program = program
        rung.plan = plan
        rung.algorithm = plan.algorithm
        rung.candidates = {}
        rung.chosen = None
        return rung

    @property
    def trials_left(self) -> int | None:
        """How many trials the budget still allows; None for no bound."""
        return None if self.max_trials is None else self.max_trials - self.trials.made

    @property
    def metric(self) -> Any:  # noqa: ANN401 - a function in DSPy's own signature
        """The soft metric that candidates are scored with, 0..1; a bool when it gets a trace."""
        return guarded_metric(
            soft_rubric_metric if self.program.scores else soft_judge_metric
        )

    def module(self, program: JudgeProgram) -> TalliedJudge:
        """Return a program as a DSPy module."""
        return TalliedJudge(program, tally=self.models.tally)

    def score(self, program: JudgeProgram, *, closing: bool = False) -> float:
        """Return the mean soft metric of a program on all validation examples, 0..1.

        Args:
            program: What to score.
            closing: True to pay from what is kept back from the search.

        Raises:
            BudgetExhausted: The budget does not allow it.
            RunAborted: The model did not deliver, or too many answers are unusable.
            RunCancelled: The run was cancelled.
        """
        values = self.soft_values(program, self.validation, closing=closing)
        return sum(values) / len(values)

    def soft_values(
        self,
        program: JudgeProgram,
        items: Sequence[LabelledItem],
        *,
        closing: bool = False,
    ) -> list[float]:
        """Return the soft metric of a program on each item, 0..1.

        Args:
            program: What to score.
            items: On what.
            closing: True to pay from what is kept back from the search.

        Raises:
            BudgetExhausted: The budget does not allow it.
            RunAborted: The model did not deliver, or too many answers are unusable.
            RunCancelled: The run was cancelled.
        """
        models = self.models
        scorer = models.closing_scorer if closing else models.scorer
        return soft_values(program, items, scorer.answers(program, items))

    def refit(self, program: JudgeProgram, *, closing: bool = False) -> Fitted:
        """Fit the decision rule or score map on validation answers; asks only what was not asked.

        Args:
            program: What to fit.
            closing: True to pay from what is kept back from the search.

        Raises:
            BudgetExhausted: The budget does not allow it.
            RunAborted: The model did not deliver, or too many answers are unusable.
            RunCancelled: The run was cancelled.
        """
        models = self.models
        scorer = models.closing_scorer if closing else models.scorer
        answers = scorer.answers(program, self.validation)
        return refit(program, self.validation, answers)

    def candidate(
        self,
        program: JudgeProgram,
        *,
        score: float,
        example_count: int | None = None,
        full: bool = True,
        instruction_index: int = 0,
        demo_set_index: int = 0,
        stopped_early: bool = False,
    ) -> Trial:
        """Report a scored candidate as the next trial, and keep it if it was scored on everything.

        The best so far is handed to the server at once, refitted, so that a run that stops here
        leaves it behind.

        Args:
            program: The candidate.
            score: Mean soft metric on the examples looked at, 0..1.
            example_count: Validation examples looked at; None for all.
            full: False for a trial on part of the examples, whose program is not kept.
            instruction_index: Into the instructions that compete; 0 is the current one.
            demo_set_index: Into the demonstration sets; 0 is none.
            stopped_early: True if it was dropped before all its examples were looked at.

        Raises:
            BudgetExhausted: It was the last trial that the budget allows.
        """
        trial = self.trials.add(
            program,
            score=score,
            example_count=len(self.validation)
            if example_count is None
            else example_count,
            full=full,
            instruction_index=instruction_index,
            demo_set_index=demo_set_index,
            stopped_early=stopped_early,
            algorithm=self.algorithm,
        )
        if full:
            self.candidates.setdefault(program_to_json(program), program)
        if trial.best:
            self.reporter.best_improved(
                trial.number,
                score=trial.score,
                program_json=program_to_json(self.refit(program).program),
            )
        if self.max_trials is not None and trial.number >= self.max_trials:
            raise BudgetExhausted(
                StopReason.MAX_TRIALS, f"{trial.number} trials were made"
            )
        return trial


def dspy_example(item: LabelledItem) -> Any:  # noqa: ANN401 - dspy is untyped
    """Return a labelled item as a DSPy example."""
    return example_from(
        item.input, verdict=item.verdict, score=item.score, reasoning=item.rationale
    )
