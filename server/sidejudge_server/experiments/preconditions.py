"""What must hold before an experiment is written, started or changed, as errors that say what to do."""

from __future__ import annotations

from collections.abc import Iterable

from sidejudge_server.errors import (
    AlreadyExistsError,
    ConflictError,
    FailedPreconditionError,
)
from sidejudge_server.experiments.splitting import Slice, free_slice
from sidejudge_server.experiments.types import Experiment, State
from sidejudge_server.judges.registry import JudgeRegistry

__all__ = [
    "name_taken",
    "outdated",
    "require_baseline",
    "require_draft",
    "require_slice",
]


def require_draft(experiment: Experiment, what: str) -> None:
    """Refuse what only a draft allows.

    Args:
        experiment: Which.
        what: What was to be done with it, as a participle.

    Raises:
        FailedPreconditionError: It was started (EXPERIMENT_NOT_DRAFT).
    """
    if experiment.state is not State.DRAFT:
        raise FailedPreconditionError(
            f"{experiment.name} is {experiment.state.value} and can't be {what} any more;"
            " conclude it and create another one",
            reason="EXPERIMENT_NOT_DRAFT",
            metadata={
                "experiment": experiment.name,
                "state": experiment.state.value.upper(),
            },
        )


def name_taken(experiment_id: str) -> AlreadyExistsError:
    """Return the error of a name that another experiment has (EXPERIMENT_ALREADY_EXISTS)."""
    name = f"experiments/{experiment_id}"
    return AlreadyExistsError(
        f"{name} exists; choose another name",
        reason="EXPERIMENT_ALREADY_EXISTS",
        metadata={"experiment": name},
    )


def outdated(experiment: Experiment, got: str) -> ConflictError:
    """Return the error of a change that starts from another revision (ETAG_MISMATCH)."""
    return ConflictError(
        f"{experiment.name} was changed since it was read; read it again",
        reason="ETAG_MISMATCH",
        metadata={"expected": experiment.etag, "got": got},
    )


def require_baseline(experiment: Experiment, judges: JudgeRegistry) -> None:
    """Refuse to start an experiment whose baseline is a version that does not serve.

    Raises:
        FailedPreconditionError: Another version serves (EXPERIMENT_BASELINE_NOT_DEPLOYED).
    """
    if experiment.judge_id is None:
        return
    deployed = judges.get(experiment.judge_id).deployed_version
    if experiment.baseline.version != deployed:
        of = f"judges/{experiment.judge_id}/versions/"
        baseline = f"{of}{experiment.baseline.version}"
        raise FailedPreconditionError(
            f"the baseline of {experiment.name} is {baseline}, but {of}{deployed} serves;"
            " deploy the baseline or put the deployed version first",
            reason="EXPERIMENT_BASELINE_NOT_DEPLOYED",
            metadata={
                "experiment": experiment.name,
                "baseline": baseline,
                "deployed": f"{of}{deployed}",
            },
        )


def require_slice(experiment: Experiment, experiments: Iterable[Experiment]) -> Slice:
    """Return the part of its namespace that an experiment can have beside those running.

    Args:
        experiment: Which is to start.
        experiments: All there are.

    Raises:
        FailedPreconditionError: No free part is large enough (NAMESPACE_FULL).
    """
    others = [
        other
        for other in experiments
        if other.state is State.RUNNING and other.namespace == experiment.namespace
    ]
    taken = [Slice(other.slice_low, other.slice_high) for other in others]
    part = free_slice(taken, experiment.traffic_share)
    if part is None:
        free = max(0.0, 1 - sum(t.high - t.low for t in taken))
        names = ",".join(other.name for other in others)
        raise FailedPreconditionError(
            f"{experiment.name} needs {experiment.traffic_share:g} of the subjects of"
            f" {experiment.namespace!r}, of which {free:.4g} are free, perhaps in several"
            f" parts; running there: {names}. Conclude one, lower traffic_share or use"
            " another namespace",
            reason="NAMESPACE_FULL",
            metadata={
                "namespace": experiment.namespace,
                "free": f"{free:.6g}",
                "need": f"{experiment.traffic_share:g}",
                "experiments": names,
            },
        )
    return part
