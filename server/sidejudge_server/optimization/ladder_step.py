"""When a step of the ladder counts.

A step is kept if the gate's own comparison, applied to validation answers out of fold, sees it help.
That is no proof (a candidate is the best of many on these very examples) and needs none: the held-out
examples decide once, at the end, so their error rate is spent once however many steps there were. What
the bar does is to keep noise from piling up step by step; `STEP_BAR` comes from a simulation, see
`docs/adr/0013-ladder-of-algorithms.md` and `tests/optimization/test_ladder.py`.
"""

from __future__ import annotations

from collections.abc import Sequence

from sidejudge_server.optimization.gate import decide
from sidejudge_server.optimization.gate_decision import GateDecision

__all__ = ["STEP_BAR", "compare_step", "step_helps"]

STEP_BAR = 0.2
"""One-sided p below which a step is kept; not an error rate, see the module."""


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
