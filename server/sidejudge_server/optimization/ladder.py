"""The ladder that ``auto`` climbs: which algorithms, from the cheapest on, with how much each."""

from __future__ import annotations

from dataclasses import replace

from sidejudge_server.optimization.plan import (
    DEFAULT_TRIALS,
    AlgorithmName,
    InstructionSource,
    SearchPlan,
    total_trials,
)

__all__ = ["planned_trials", "rungs", "shorter_plans"]

_SMALLEST_TRIALS = {
    AlgorithmName.LABELED_DEMONSTRATIONS: 2,
    AlgorithmName.MIPROV2: 5,
    AlgorithmName.GEPA: 3,
}
"""With fewer a step hardly finds anything; it is left out unless so few were asked for."""

_LADDER = (
    AlgorithmName.CALIBRATION,
    AlgorithmName.LABELED_DEMONSTRATIONS,
    AlgorithmName.MEMORY,
    AlgorithmName.MIPROV2,
    AlgorithmName.GEPA,
)


def rungs(plan: SearchPlan) -> tuple[SearchPlan, ...]:
    """Return the plans of the steps of a plan for ``auto``, in order.

    The plan's own numbers are MIPROv2's; the others take their defaults, or fewer trials if the plan
    has fewer. GEPA is there if a model may write instructions: one was configured for it, or a remote
    one judges. Labelled demonstrations are there unless the plan wants none.
    """
    found = []
    for algorithm in _LADDER:
        if (
            algorithm is AlgorithmName.LABELED_DEMONSTRATIONS
            and not plan.max_labeled_demos
        ):
            continue
        if (
            algorithm is AlgorithmName.GEPA
            and plan.instruction_source is InstructionSource.CURATED
        ):
            continue
        rung = replace(plan, algorithm=algorithm)
        if algorithm in DEFAULT_TRIALS:
            trials = min(plan.num_trials, DEFAULT_TRIALS[algorithm][None])
            rung = replace(rung, num_trials=trials, minibatch_size=None)
        found.append(rung)
    return tuple(found)


def shorter_plans(plan: SearchPlan) -> tuple[SearchPlan, ...]:
    """Return the plan of a step and shorter ones, each about two thirds of the one before.

    The last has as many trials as the step needs to be worth its calls.
    """
    smallest = min(
        plan.num_trials, _SMALLEST_TRIALS.get(plan.algorithm, plan.num_trials)
    )
    found = [plan.num_trials]
    while found[-1] > smallest:
        found.append(max(smallest, 2 * found[-1] // 3))
    return tuple(replace(plan, num_trials=trials) for trials in found)


def planned_trials(plan: SearchPlan, most: int | None = None) -> int:
    """Return how many trials will be reported, those of all steps of ``auto`` together.

    Args:
        plan: Numbers of the search.
        most: Bound of the budget; None for none.
    """
    steps = rungs(plan) if plan.algorithm is AlgorithmName.AUTO else (plan,)
    planned = sum(total_trials(step) for step in steps)
    return planned if most is None else min(planned, most)
