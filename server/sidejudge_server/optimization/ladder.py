"""The ladder that ``auto`` climbs: which algorithms, with how much each, and when a step counts.

From the cheapest on: calibration, labelled demonstrations, memory, MIPROv2, GEPA. A step is kept if
the gate's own comparison, applied to validation answers out of fold, sees it help. That comparison is
no proof (a candidate is the best of many on these very examples) and needs none: the held-out
examples decide once, at the end, so their error rate is spent once however many steps there were. What
the bar does is to keep noise from piling up step by step; `STEP_BAR` comes from a simulation, see
`docs/adr/0013-ladder-of-algorithms.md` and `tests/optimization/test_ladder.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from sidejudge_server.optimization.gate import decide
from sidejudge_server.optimization.gate_decision import GateDecision
from sidejudge_server.optimization.plan import (
    DEFAULT_TRIALS,
    UNAVAILABLE,
    AlgorithmName,
    InstructionSource,
    SearchPlan,
    total_trials,
)

__all__ = ["STEP_BAR", "compare_step", "planned_trials", "rungs", "step_helps"]

STEP_BAR = 0.2
"""One-sided p below which a step is kept; not an error rate, see the module."""

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
        if algorithm in UNAVAILABLE:
            continue
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


def planned_trials(plan: SearchPlan, most: int | None = None) -> int:
    """Return how many trials will be reported, those of all steps of ``auto`` together.

    Args:
        plan: Numbers of the search.
        most: Bound of the budget; None for none.
    """
    steps = rungs(plan) if plan.algorithm is AlgorithmName.AUTO else (plan,)
    planned = sum(total_trials(step) for step in steps)
    return planned if most is None else min(planned, most)


def compare_step(kept: Sequence[float], candidate: Sequence[float]) -> GateDecision:
    """Compare a step's candidate with the best kept so far, by the gate's own function.

    Args:
        kept: Worth of each validation answer of the best kept so far, out of fold, 0..1.
        candidate: Of the step's candidate, in the same order.

    Raises:
        ValueError: They are not pairs.
    """
    return decide(kept, candidate, train=(), validation=(), scores=True)


def step_helps(decision: GateDecision) -> bool:
    """Say whether a step is kept: it is better, and by more than most noise.

    Where p cannot be told because all answers gained the same, that gain is kept.
    """
    gain, p_value = decision.difference, decision.p_value
    if gain.value <= 0:
        return False
    return gain.lower > 0 if p_value is None else p_value < STEP_BAR
