"""How many LM calls a run is expected to make, phase by phase. Pure arithmetic.

The baseline judges every validation example once; bootstrapping runs through training examples until
it has its demonstrations; a trial judges validation examples; the refit asks nothing, because its
answers are in the run's cache; the gate judges held-out examples with both versions and training
examples with the candidate. A combination of instruction and demonstrations that comes up again is
answered from the cache, so what counts is how many of the trials are distinct. GEPA is counted at its
bounds, and the ladder of ``auto`` as the sum of its steps.
"""

from __future__ import annotations

from dataclasses import dataclass

from sidejudge_server.optimization.ladder import rungs
from sidejudge_server.optimization.memory_plan import (
    CANDIDATES,
    MAX_BATCHES,
    SHOWN,
    first_look,
)
from sidejudge_server.optimization.plan import (
    GEPA_MINIBATCH,
    GEPA_PROPOSALS_PER_TRIAL,
    MINIBATCH_FULL_STEPS,
    AlgorithmName,
    InstructionSource,
    SearchPlan,
    total_trials,
)

__all__ = ["SUMMARY_BATCH", "DataCounts", "Workload", "expected_calls"]

SUCCESS_RATE = 0.7
"""How often a judge gets a training example right, so that it may be a demonstration."""
SUMMARY_BATCH = 5
_SUMMARY_EXAMPLES = 30


@dataclass(frozen=True, slots=True)
class DataCounts:
    """Examples by side of the split."""

    train: int
    validation: int
    test: int


@dataclass(frozen=True, slots=True)
class Workload:
    """LM calls by phase, without those that the run's own cache answers.

    Attributes:
        baseline: The version that serves, on validation examples.
        bootstrapping: Demonstrations that the judge makes itself.
        proposing: Of the prompt model; all others are of the task model.
        searching: Trials.
        gate_serving: The version that serves, on held-out examples.
        gate_candidate: The candidate on held-out and training examples that it does not show. As
            many as that if it has another prompt; one that only decides otherwise asks less.
        trials: Trials as they will be reported.
    """

    baseline: float
    bootstrapping: float
    proposing: float
    searching: float
    gate_serving: float
    gate_candidate: float
    trials: int

    @property
    def search(self) -> float:
        """All calls between the baseline and the gate."""
        return self.bootstrapping + self.proposing + self.searching

    @property
    def gate(self) -> float:
        """All calls of the gate."""
        return self.gate_serving + self.gate_candidate


def expected_calls(
    plan: SearchPlan,
    data: DataCounts,
    *,
    curated_count: int,
    has_demonstrations: bool,
) -> Workload:
    """Count the LM calls of a run that nothing stops.

    Args:
        plan: Numbers of the search.
        data: How many examples there are.
        curated_count: Curated instructions of the kind, without the current one.
        has_demonstrations: Whether the version that serves has any; they are one more set.
    """
    baseline, test, train = data.validation, data.test, data.train
    unshown = max(0, train - plan.max_labeled_demos)
    if plan.algorithm is AlgorithmName.AUTO:
        return _climbing(
            plan,
            data,
            curated_count=curated_count,
            has_demonstrations=has_demonstrations,
        )
    if plan.algorithm is AlgorithmName.CALIBRATION:
        # The same prompt: the gate asks for one version's answers and applies two rules to them.
        return Workload(baseline, 0, 0, 0, test + train, 0, 0)
    if plan.algorithm is AlgorithmName.LABELED_DEMONSTRATIONS:
        searching = plan.num_trials * baseline if train else 0
        return Workload(
            baseline, 0, 0, searching, test, test + unshown, plan.num_trials
        )
    if plan.algorithm is AlgorithmName.GEPA:
        return _evolving(plan, data)
    if plan.algorithm is AlgorithmName.MEMORY:
        return _remembering(plan, data)
    instructions = _instructions(plan, curated_count)
    sets = _demonstration_sets(plan, data, has_demonstrations=has_demonstrations)
    grid = instructions * sets
    # The version that serves is one point of the grid and was scored as the baseline.
    distinct = _distinct(grid, plan.num_trials) * (1 - 1 / grid)
    return Workload(
        baseline=baseline,
        bootstrapping=_bootstrapping(plan, data),
        proposing=_proposing(plan, data),
        searching=_searching(plan, data, distinct),
        gate_serving=test,
        gate_candidate=test + unshown,
        trials=total_trials(plan),
    )


def _climbing(
    plan: SearchPlan,
    data: DataCounts,
    *,
    curated_count: int,
    has_demonstrations: bool,
) -> Workload:
    """Add up the steps; each may have left demonstrations to the next. There is one gate."""
    steps = [
        expected_calls(
            step,
            data,
            curated_count=curated_count,
            has_demonstrations=has_demonstrations
            or (
                index > 0 and step.algorithm is not AlgorithmName.LABELED_DEMONSTRATIONS
            ),
        )
        for index, step in enumerate(rungs(plan))
    ]
    return Workload(
        baseline=data.validation,
        bootstrapping=sum(step.bootstrapping for step in steps),
        proposing=sum(step.proposing for step in steps),
        searching=sum(step.searching for step in steps),
        gate_serving=data.test,
        gate_candidate=max(step.gate_candidate for step in steps),
        trials=sum(step.trials for step in steps),
    )


def _evolving(plan: SearchPlan, data: DataCounts) -> Workload:
    """Count all proposals and all scored instructions that there may be: most runs take less.

    A proposal is tried on a few training examples by parent and child.
    """
    if not data.train or not data.validation:
        return Workload(data.validation, 0, 0, 0, data.test, data.test, 0)
    proposals = GEPA_PROPOSALS_PER_TRIAL * plan.num_trials
    seen = min(GEPA_MINIBATCH, data.train)
    return Workload(
        baseline=data.validation,
        bootstrapping=0,
        proposing=proposals,
        searching=2 * seen * proposals + plan.num_trials * data.validation,
        gate_serving=data.test,
        gate_candidate=data.test + data.train,
        trials=plan.num_trials,
    )


def _remembering(plan: SearchPlan, data: DataCounts) -> Workload:
    """The serving version is asked about training examples too: what it gets wrong is remembered."""
    writes = plan.instruction_source is InstructionSource.PROPOSER
    candidates = CANDIDATES if writes else len(SHOWN)
    look = first_look(data.train, data.validation)
    whole = data.validation - look
    return Workload(
        baseline=data.validation,
        bootstrapping=data.train if writes else 0,
        proposing=MAX_BATCHES if writes else 0,
        searching=candidates * look + whole if data.train else 0,
        gate_serving=data.test,
        gate_candidate=data.test,
        trials=candidates + (whole > 0),
    )


def _instructions(plan: SearchPlan, curated_count: int) -> int:
    if plan.instruction_source is InstructionSource.PROPOSER:
        return plan.num_candidates
    return min(plan.num_candidates, 1 + curated_count)


def _demonstration_sets(
    plan: SearchPlan, data: DataCounts, *, has_demonstrations: bool
) -> int:
    none = plan.max_labeled_demos == 0 and plan.max_bootstrapped_demos == 0
    found = 1 if none or not data.train else plan.num_candidates
    return found + has_demonstrations


def _distinct(grid: int, trials: int) -> float:
    """Return how many different points so many trials visit, on average.

    Independent draws would hit ``grid * (1 - (1 - 1/grid) ** trials)``, a sampler that never returns
    the smaller of the two numbers. MIPROv2's lies between (72 of 100 points in 90 trials, 13 of 16
    in 20, 8 of 25 in 10); the mean is a little on the long side of that.
    """
    missed = float((1 - 1 / grid) ** trials)
    independent = grid * (1 - missed)
    return (independent + min(grid, trials)) / 2


def _bootstrapping(plan: SearchPlan, data: DataCounts) -> float:
    """Sets beyond none and labels only each look for their successes among training examples.

    The first of them wants the full number, the others a random one from 1 to that.
    """
    wanted = plan.max_bootstrapped_demos
    sets = plan.num_candidates - 2
    if not wanted or sets < 1:
        return 0.0
    first = min(data.train, wanted / SUCCESS_RATE)
    other = min(data.train, (1 + wanted) / 2 / SUCCESS_RATE)
    return first + (sets - 1) * other


def _proposing(plan: SearchPlan, data: DataCounts) -> float:
    """A call per batch of at most 30 examples, one to sum up, one for each new instruction."""
    if plan.instruction_source is not InstructionSource.PROPOSER:
        return 0.0
    batches = -(-min(data.train, _SUMMARY_EXAMPLES) // SUMMARY_BATCH)
    return max(1, batches) + 1 + plan.num_candidates - 1


def _searching(plan: SearchPlan, data: DataCounts, distinct: float) -> float:
    if plan.minibatch_size is None:
        return distinct * data.validation
    # A point that is drawn again sees other examples; those seen before are in the cache.
    draws = plan.num_trials / max(1.0, distinct)
    missed = float((1 - plan.minibatch_size / data.validation) ** draws)
    full = min(distinct, -(-plan.num_trials // MINIBATCH_FULL_STEPS))
    return data.validation * ((distinct - full) * (1 - missed) + full)
