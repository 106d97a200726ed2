"""How much to search: what a caller asked for, completed and scaled down to the data.

The defaults are 150 trials over 15 candidates for verdicts and 100 over 10 for scores. Four things
bring them down, each for its own reason; numbers that the caller gave are taken as they are:

* Distinct combinations: with I instructions and D demonstration sets there are I * D programs.
* Luck: the best of many trials on few examples looks better than it is (50 trials on 50 examples
  inflate it by 10 points), so there are at most 3 trials per validation example.
* Material: a demonstration set needs examples to differ, so candidates are at most a third of the
  training examples, and at least 4.
* Money: trials cost `lm_calls_per_trial` each, and ``default_lm_calls`` bounds their sum.

These numbers are MIPROv2's. The other algorithms look at fewer candidates, each a trial of its own:
see `DEFAULT_TRIALS`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any

from sidejudge_server.errors import FieldViolation

__all__ = [
    "AlgorithmName",
    "Auto",
    "InstructionSource",
    "OptimizationConfig",
    "SearchPlan",
    "lm_calls_per_trial",
    "make_plan",
    "total_trials",
    "within_trials",
]

FULL_EVALUATION_LIMIT = 60
"""Up to this many validation examples every trial looks at all of them."""
MINIBATCH_SIZE = 35
MINIBATCH_FULL_STEPS = 5
"""With minibatches the best candidate is scored on everything after this many trials."""

MAX_TRIALS = 500
MIN_CANDIDATES = 2
MAX_CANDIDATES = 50
MAX_BOOTSTRAPPED_DEMOS = 16
MAX_LABELED_DEMOS = 32
MAX_SEED = 2**31 - 1

LOCAL_DEMO_CHARS = 12_000
"""About 4,000 tokens of demonstrations: half of the embedded model's window of 8,192."""
REMOTE_DEMO_CHARS = 60_000

_TRIALS_PER_VALIDATION_EXAMPLE = 3
_TRAIN_EXAMPLES_PER_CANDIDATE = 3
_SMALLEST_CANDIDATES = 4
_SMALLEST_TRIALS = 5
_REMOTE_THREADS = 8
_SMALLEST_WITH_MINIBATCHES = 2
"""One trial on a minibatch and its full evaluation."""


class AlgorithmName(StrEnum):
    """Ways to look for a better version; `optimization.algorithms` has them."""

    CALIBRATION = "calibration"
    LABELED_DEMONSTRATIONS = "labeled_demonstrations"
    MEMORY = "memory"
    MIPROV2 = "miprov2"
    GEPA = "gepa"
    AUTO = "auto"


class Auto(StrEnum):
    """Presets instead of numbers."""

    LIGHT = "light"
    MEDIUM = "medium"
    HEAVY = "heavy"


class InstructionSource(StrEnum):
    """Where candidate instructions come from."""

    PROPOSER = "proposer"
    CURATED = "curated"


_PRESETS = {Auto.LIGHT: (10, 6), Auto.MEDIUM: (25, 10), Auto.HEAVY: (50, 15)}

GEPA_MINIBATCH = 3
"""Training examples that a proposal of GEPA reflects on."""
GEPA_PROPOSALS_PER_TRIAL = 4
"""Proposals that GEPA may try for each one that is good enough to be scored on everything."""

_WRITE_NOTHING = frozenset(
    {AlgorithmName.CALIBRATION, AlgorithmName.LABELED_DEMONSTRATIONS}
)

DEFAULT_TRIALS: Mapping[AlgorithmName, Mapping[Auto | None, int]] = {
    AlgorithmName.CALIBRATION: {None: 0, **dict.fromkeys(Auto, 0)},
    AlgorithmName.LABELED_DEMONSTRATIONS: {
        None: 6,
        Auto.LIGHT: 4,
        Auto.MEDIUM: 6,
        Auto.HEAVY: 10,
    },
    AlgorithmName.MEMORY: {None: 5, **dict.fromkeys(Auto, 5)},
    AlgorithmName.GEPA: {
        None: 10,
        Auto.LIGHT: 6,
        Auto.MEDIUM: 12,
        Auto.HEAVY: 18,
    },
}
"""Trials of the algorithms that do not search a grid, by preset; None without one."""


@dataclass(frozen=True, slots=True)
class OptimizationConfig:
    """What a caller asked for; None leaves it to `make_plan`."""

    num_trials: int | None = None
    num_candidates: int | None = None
    max_bootstrapped_demos: int | None = None
    max_labeled_demos: int | None = None
    seed: int | None = None
    auto: Auto | None = None
    instruction_source: InstructionSource | None = None
    algorithm: AlgorithmName | None = None
    early_stopping: bool | None = None
    use_synthetic_examples: bool | None = None

    @property
    def synthetic(self) -> bool:
        """Whether synthetic examples may become demonstrations."""
        return self.use_synthetic_examples is not False

    def violations(self) -> list[FieldViolation]:
        """Return what is out of range; empty when all is well."""
        limits = {
            "num_trials": (1, MAX_TRIALS),
            "num_candidates": (MIN_CANDIDATES, MAX_CANDIDATES),
            "max_bootstrapped_demos": (0, MAX_BOOTSTRAPPED_DEMOS),
            "max_labeled_demos": (0, MAX_LABELED_DEMOS),
            "seed": (0, MAX_SEED),
        }
        found = [
            FieldViolation(f"optimization.config.{name}", f"must be {low} to {high}")
            for name, (low, high) in limits.items()
            if (value := getattr(self, name)) is not None and not low <= value <= high
        ]
        if self.auto and (self.num_trials or self.num_candidates):
            found.append(
                FieldViolation(
                    "optimization.config.auto",
                    "excludes num_trials and num_candidates; set one or the other",
                )
            )
        return found + self._algorithm_violations()

    def _algorithm_violations(self) -> list[FieldViolation]:
        if (
            self.algorithm is AlgorithmName.LABELED_DEMONSTRATIONS
            and self.max_labeled_demos == 0
        ):
            return [
                FieldViolation(
                    "optimization.config.max_labeled_demos",
                    "must be 1 or more for labeled_demonstrations, which shows nothing else",
                )
            ]
        if (
            self.algorithm is AlgorithmName.GEPA
            and self.instruction_source is InstructionSource.CURATED
        ):
            return [
                FieldViolation(
                    "optimization.config.instruction_source",
                    "must not be curated for gepa, which has a model write instructions",
                )
            ]
        return []

    def to_json(self) -> dict[str, Any]:
        """Return the fields as a JSON object."""
        return asdict(self)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> OptimizationConfig:
        """Read what `to_json` wrote; unknown keys are ignored."""
        values = {k: v for k, v in document.items() if k in cls.__dataclass_fields__}
        if values.get("auto"):
            values["auto"] = Auto(values["auto"])
        if values.get("algorithm"):
            values["algorithm"] = AlgorithmName(values["algorithm"])
        if values.get("instruction_source"):
            values["instruction_source"] = InstructionSource(
                values["instruction_source"]
            )
        return cls(**values)


@dataclass(frozen=True, slots=True)
class SearchPlan:
    """Numbers that a worker searches with.

    Attributes:
        num_trials: Combinations to try, repeats included.
        num_candidates: Instructions and demonstration sets, each at most this many.
        max_bootstrapped_demos: Demonstrations that the judge got right itself.
        max_labeled_demos: Demonstrations in a set, bootstrapped ones included.
        seed: Of everything random.
        minibatch_size: Validation examples per trial; None for all.
        instruction_source: Proposer or curated.
        max_demo_chars: Longest set of demonstrations, in characters of their inputs.
        num_threads: Calls at once.
        algorithm: How to search.
        early_stopping: True to drop a candidate that is clearly worse than the best before it is
            scored on everything.
    """

    num_trials: int
    num_candidates: int
    max_bootstrapped_demos: int
    max_labeled_demos: int
    seed: int
    minibatch_size: int | None
    instruction_source: InstructionSource
    max_demo_chars: int
    num_threads: int
    algorithm: AlgorithmName = AlgorithmName.MIPROV2
    early_stopping: bool = True

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> SearchPlan:
        """Read what `dataclasses.asdict` wrote.

        Raises:
            TypeError: A field is missing or unknown.
            ValueError: A name is unknown.
        """
        source = InstructionSource(document["instruction_source"])
        algorithm = AlgorithmName(document["algorithm"])
        return cls(**{**document, "instruction_source": source, "algorithm": algorithm})


def lm_calls_per_trial(validation_count: int) -> int:
    """Return how many judge calls one trial costs on average, at least 1.

    All validation examples up to 60 of them; beyond, a minibatch of 35 plus a fifth of a full
    evaluation, rounded up.
    """
    if validation_count <= FULL_EVALUATION_LIMIT:
        return max(1, validation_count)
    return MINIBATCH_SIZE + -(-validation_count // MINIBATCH_FULL_STEPS)


def make_plan(
    config: OptimizationConfig,
    *,
    scores: bool,
    train_count: int,
    validation_count: int,
    curated_count: int,
    default_lm_calls: int,
    local: bool,
    max_concurrency: int,
    prompt_model: bool,
) -> SearchPlan:
    """Complete a configuration; see the module for the scaling.

    Args:
        config: Asked for, and valid.
        scores: True for judges that score.
        train_count: Training examples.
        validation_count: Validation examples.
        curated_count: Curated instructions of the kind, without the current one.
        default_lm_calls: Bound of judge calls for the default number of trials.
        local: True if the embedded model judges: shorter demonstrations, one call at a time.
        max_concurrency: Calls that the task model takes at once.
        prompt_model: True if a model was configured to write instructions.
    """
    algorithm = config.algorithm or AlgorithmName.MIPROV2
    source = config.instruction_source or (
        InstructionSource.PROPOSER
        if prompt_model or not local or algorithm is AlgorithmName.GEPA
        else InstructionSource.CURATED
    )
    if algorithm in _WRITE_NOTHING:
        source = InstructionSource.CURATED
    trials, candidates = (100, 10) if scores else (150, 15)
    if config.auto:
        trials, candidates = _PRESETS[config.auto]
    room = max(_SMALLEST_CANDIDATES, train_count // _TRAIN_EXAMPLES_PER_CANDIDATE)
    candidates = config.num_candidates or min(candidates, room)
    instructions = (
        candidates
        if source is InstructionSource.PROPOSER
        else min(candidates, 1 + curated_count)
    )
    affordable = default_lm_calls // lm_calls_per_trial(validation_count)
    if algorithm in DEFAULT_TRIALS:
        trials = min(DEFAULT_TRIALS[algorithm][config.auto], affordable)
    else:
        trials = max(
            _SMALLEST_TRIALS,
            min(
                trials,
                instructions * candidates,
                _TRIALS_PER_VALIDATION_EXAMPLE * validation_count,
                affordable,
            ),
        )
    if algorithm is not AlgorithmName.CALIBRATION:
        trials = config.num_trials or max(1, trials)
    full = algorithm in DEFAULT_TRIALS or validation_count <= FULL_EVALUATION_LIMIT
    return SearchPlan(
        num_trials=trials,
        num_candidates=candidates,
        max_bootstrapped_demos=_or(config.max_bootstrapped_demos, 2),
        max_labeled_demos=_or(config.max_labeled_demos, 8),
        seed=_or(config.seed, 9),
        minibatch_size=None if full else MINIBATCH_SIZE,
        instruction_source=source,
        max_demo_chars=LOCAL_DEMO_CHARS if local else REMOTE_DEMO_CHARS,
        num_threads=1 if local else min(_REMOTE_THREADS, max_concurrency),
        algorithm=algorithm,
        early_stopping=config.early_stopping is not False,
    )


def total_trials(plan: SearchPlan) -> int:
    """Return how many trials will be reported: with minibatches, full evaluations are trials too."""
    if plan.minibatch_size is None:
        return plan.num_trials
    # The default program is trial 0 of the original and every sixth place is a full evaluation.
    last = 1 if plan.num_trials % MINIBATCH_FULL_STEPS else 0
    return plan.num_trials + plan.num_trials // MINIBATCH_FULL_STEPS + last


def within_trials(plan: SearchPlan, most: int | None) -> SearchPlan:
    """Return the longest plan of at most so many reported trials; the plan itself for None.

    A plan with minibatches keeps room for the full evaluations, without which nothing is found; if
    there is none, its few trials look at all examples instead.
    """
    if most is None or total_trials(plan) <= most:
        return plan
    if most < _SMALLEST_WITH_MINIBATCHES:
        return replace(plan, num_trials=min(plan.num_trials, most), minibatch_size=None)
    trials = min(plan.num_trials, most)
    while total_trials(replace(plan, num_trials=trials)) > most:
        trials -= 1
    return replace(plan, num_trials=trials)


def _or(value: int | None, default: int) -> int:
    """Return the default for None; 0 is a value."""
    return default if value is None else value
