"""Who takes part in an experiment, and which arm a subject has: pure functions of their names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from sidejudge_server.experiments.assignment import assign, hash_to_unit
from sidejudge_server.experiments.types import Arm, Experiment, Mode

__all__ = [
    "Slice",
    "arm_of",
    "free_slice",
    "rollout_share",
    "takes_part",
    "weights_now",
]

_EPSILON = 1e-9


@dataclass(frozen=True, slots=True)
class Slice:
    """A part [low, high) of a namespace's subjects."""

    low: float
    high: float


def takes_part(experiment: Experiment, subject: str) -> bool:
    """Return whether a subject is in the experiment's slice of its namespace."""
    place = hash_to_unit("namespace", experiment.namespace, subject)
    return experiment.slice_low <= place < experiment.slice_high


def arm_of(experiment: Experiment, subject: str) -> Arm | None:
    """Return the arm of a subject; None if it does not take part.

    The same subject has the same arm after a restart and on every server. While the share of a
    rollout grows, subjects move from the baseline to the candidate and never back. In shadow mode
    the baseline answers all.
    """
    if not takes_part(experiment, subject):
        return None
    if experiment.mode is Mode.SHADOW:
        return experiment.baseline
    arm_id = assign(
        experiment.experiment_id,
        subject,
        salt=experiment.salt,
        weights=weights_now(experiment),
    )
    return experiment.arm(arm_id)


def weights_now(experiment: Experiment) -> Mapping[str, float]:
    """Return the share of each arm at the present stage, in the order that keeps subjects.

    A rollout whose circuit is open gives everything to the baseline.
    """
    if experiment.mode is not Mode.ROLLOUT:
        return {arm.arm_id: arm.weight for arm in experiment.arms}
    share = rollout_share(experiment)
    # The growing part comes first: its subjects stay where they are.
    return {
        experiment.candidates[0].arm_id: share,
        experiment.baseline.arm_id: 1.0 - share,
    }


def rollout_share(experiment: Experiment) -> float:
    """Return the share of the subjects that get a rollout's candidate now."""
    if experiment.status.circuit_open:
        return 0.0
    stages = experiment.rollout.stages
    stage = experiment.status.stage
    return stages[stage].share if stage < len(stages) else 1.0


def free_slice(taken: Iterable[Slice], need: float) -> Slice | None:
    """Return the lowest free part of [0, 1) of the size needed, None if there is none.

    Args:
        taken: What running experiments of the namespace hold.
        need: Share above 0, up to 1.
    """
    low = 0.0
    for part in sorted(taken, key=lambda t: t.low):
        if part.low - low >= need - _EPSILON:
            return Slice(low, low + need)
        low = max(low, part.high)
    if 1.0 - low >= need - _EPSILON:
        # The last part ends exactly at 1, so that no subject falls beside it.
        return Slice(low, 1.0 if low + need > 1.0 - _EPSILON else low + need)
    return None
