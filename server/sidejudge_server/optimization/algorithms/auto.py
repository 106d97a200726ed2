"""Auto: climb the ladder of algorithms, each from the best that those before have found."""

from __future__ import annotations

from collections.abc import Mapping

from sidejudge_server.judges.codec import program_to_json
from sidejudge_server.judges.types import JudgeProgram
from sidejudge_server.optimization.algorithms.algorithm import Algorithm
from sidejudge_server.optimization.algorithms.context import SearchContext
from sidejudge_server.optimization.ladder import rungs, shorter_plans
from sidejudge_server.optimization.ladder_step import compare_step, step_helps
from sidejudge_server.optimization.plan import AlgorithmName, SearchPlan
from sidejudge_server.optimization.scoring import Fitted
from sidejudge_server.optimization.spending import BudgetExhausted
from sidejudge_server.optimization.workload import DataCounts, expected_calls

__all__ = ["Ladder"]


class Ladder:
    """Climbs the ladder. Implements `Algorithm`."""

    def __init__(self, algorithms: Mapping[AlgorithmName, Algorithm]) -> None:
        """Take the algorithms of the steps by name."""
        self._algorithms = algorithms

    def search(self, context: SearchContext) -> None:
        """Climb as far as the budget allows.

        The first step, calibration, is the starting version with its refitted rule: the refit's own
        cross-validation decides about that. What a step has found when the budget ends counts.
        """
        kept = context.refit(context.program, closing=True)
        for planned in rungs(context.plan):
            if planned.algorithm is AlgorithmName.CALIBRATION:
                continue
            plan = _affordable(context, kept.program, planned)
            if plan is None:
                context.reporter.warning(
                    f"{planned.algorithm}: skipped, what is left of the budget does not reach for it"
                )
                continue
            if plan.num_trials < planned.num_trials:
                context.reporter.warning(
                    f"{plan.algorithm}: at most {plan.num_trials} instead of {planned.num_trials} "
                    "trials, for which what is left of the budget does not reach"
                )
            rung = context.rung(kept.program, plan)
            try:
                self._algorithms[plan.algorithm].search(rung)
            except BudgetExhausted:
                _step(context, rung, plan, kept=kept)
                raise
            # Nothing is said about a step that was interrupted: by a model that is down, say.
            kept = _step(context, rung, plan, kept=kept)


def _affordable(
    context: SearchContext, program: JudgeProgram, planned: SearchPlan
) -> SearchPlan | None:
    """Return the longest plan of a step that the rest of the budget reaches for; None for none.

    Decided once: a run that goes on takes the steps that it took before.
    """
    plans = {plan.num_trials: plan for plan in shorter_plans(planned)}
    trials = context.models.decisions.once(
        f"trials of {planned.algorithm}",
        lambda: _affordable_trials(context, program, planned),
        acted_on=bool,
    )
    return plans.get(trials)


def _affordable_trials(
    context: SearchContext, program: JudgeProgram, planned: SearchPlan
) -> int:
    """Return the trials of the longest such plan, 0 for none."""
    data = DataCounts(len(context.train), len(context.validation), test=0)
    for plan in shorter_plans(planned):
        work = expected_calls(
            plan,
            data,
            curated_count=len(context.curated),
            has_demonstrations=bool(program.demonstrations),
        )
        if context.models.meter.reaches_for(work.search):
            return plan.num_trials
    return 0


def _step(
    context: SearchContext, rung: SearchContext, plan: SearchPlan, *, kept: Fitted
) -> Fitted:
    """Return the better of the kept program and the best of a step, and say which."""
    name = plan.algorithm
    fitted = [rung.refit(program, closing=True) for program in rung.candidates.values()]
    best = max(fitted, key=lambda f: f.quality, default=None)
    if best is None:
        context.reporter.warning(f"{name}: found no candidate")
        return kept
    decision = compare_step(kept.worths, best.worths)
    p_value = decision.p_value
    figures = (
        f"{100 * decision.difference.value:+.1f} points on {len(best.worths)} validation examples "
        f"out of fold, {'no p-value' if p_value is None else f'one-sided p = {p_value:.2g}'}"
    )
    if not step_helps(decision):
        context.reporter.warning(f"{name}: not kept, {figures}")
        return kept
    context.reporter.warning(f"{name}: kept, {figures}")
    context.candidates[program_to_json(best.program)] = best.program
    context.chosen = best
    return best
