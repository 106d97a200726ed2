"""Which algorithm a plan asks for."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from sidejudge_server.optimization.algorithms.algorithm import Algorithm
from sidejudge_server.optimization.algorithms.auto import Ladder
from sidejudge_server.optimization.algorithms.calibration import Calibration
from sidejudge_server.optimization.algorithms.gepa import GEPASearch
from sidejudge_server.optimization.algorithms.labeled_demonstrations import (
    LabeledDemonstrations,
)
from sidejudge_server.optimization.algorithms.memory import MemorySearch
from sidejudge_server.optimization.algorithms.miprov2 import MIPROv2Search
from sidejudge_server.optimization.plan import AlgorithmName, SearchPlan

__all__ = ["algorithm_for"]

_ALGORITHMS: Mapping[AlgorithmName, Callable[[], Algorithm]] = {
    AlgorithmName.CALIBRATION: Calibration,
    AlgorithmName.LABELED_DEMONSTRATIONS: LabeledDemonstrations,
    AlgorithmName.MEMORY: MemorySearch,
    AlgorithmName.MIPROV2: MIPROv2Search,
    AlgorithmName.GEPA: GEPASearch,
}


def algorithm_for(plan: SearchPlan) -> Algorithm:
    """Return the algorithm of a plan.

    Raises:
        KeyError: There is none of that name; `OptimizationConfig.violations` refuses it before.
    """
    if plan.algorithm is AlgorithmName.AUTO:
        return Ladder({name: make() for name, make in _ALGORITHMS.items()})
    return _ALGORITHMS[plan.algorithm]()
