"""Numbers of a search: defaults, scaling, limits."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import pytest

from sidejudge_server.optimization.plan import (
    AlgorithmName,
    Auto,
    InstructionSource,
    OptimizationConfig,
    SearchPlan,
    lm_calls_per_trial,
    make_plan,
)


def _plan(config: OptimizationConfig | None = None, **changes) -> SearchPlan:
    arguments = {
        "scores": False,
        "train_count": 150,
        "validation_count": 150,
        "curated_count": 20,
        "default_lm_calls": 20_000,
        "local": False,
        "max_concurrency": 32,
        "prompt_model": False,
    }
    return make_plan(config or OptimizationConfig(), **{**arguments, **changes})


def test_defaults_with_plenty_of_data():
    """150 trials over 15 candidates for verdicts, 100 over 10 for scores."""
    verdicts, scores = _plan(), _plan(scores=True)
    assert (verdicts.num_trials, verdicts.num_candidates) == (150, 15)
    assert (scores.num_trials, scores.num_candidates) == (100, 10)
    assert (verdicts.max_bootstrapped_demos, verdicts.max_labeled_demos) == (2, 8)
    assert verdicts.seed == 9


@pytest.mark.parametrize(
    ("changes", "trials", "candidates"),
    [
        # Luck: 3 per validation example. Material: 15 // 3 = 5 candidates, 5 * 5 combinations.
        ({"train_count": 15, "validation_count": 15}, 25, 5),
        ({"validation_count": 12}, 36, 15),
        # Distinct: curated 1 + 6 instructions, 15 sets.
        ({"local": True, "curated_count": 6}, 105, 15),
        # Money: 35 + 30 calls a trial with minibatches on 150 examples.
        ({"default_lm_calls": 1_300}, 20, 15),
        ({"train_count": 6, "validation_count": 6}, 16, 4),
        ({"default_lm_calls": 1}, 5, 15),
    ],
)
def test_defaults_scale_down_to_the_data(changes, trials, candidates):
    """Each bound works on its own."""
    plan = _plan(**changes)
    assert (plan.num_trials, plan.num_candidates) == (trials, candidates)


def test_numbers_of_the_caller_are_taken_as_they_are():
    """Only defaults are scaled; zeros count as given."""
    config = OptimizationConfig(
        num_trials=300,
        num_candidates=20,
        max_bootstrapped_demos=0,
        max_labeled_demos=0,
        seed=0,
    )
    plan = _plan(config, train_count=9, validation_count=9)
    assert (plan.num_trials, plan.num_candidates, plan.seed) == (300, 20, 0)
    assert (plan.max_bootstrapped_demos, plan.max_labeled_demos) == (0, 0)


@pytest.mark.parametrize(
    ("auto", "trials", "candidates"),
    [(Auto.LIGHT, 10, 6), (Auto.MEDIUM, 25, 10), (Auto.HEAVY, 50, 15)],
)
def test_presets(auto, trials, candidates):
    """Light, medium and heavy are about 10, 25 and 50 trials."""
    plan = _plan(OptimizationConfig(auto=auto))
    assert (plan.num_trials, plan.num_candidates) == (trials, candidates)


@pytest.mark.parametrize(
    ("count", "minibatch", "calls"), [(1, None, 1), (60, None, 60), (61, 35, 48)]
)
def test_minibatches_begin_above_sixty_examples(count, minibatch, calls):
    """Up to 60 validation examples every trial looks at all of them."""
    assert _plan(validation_count=count).minibatch_size == minibatch
    assert lm_calls_per_trial(count) == calls


@pytest.mark.parametrize(
    ("local", "prompt_model", "source"),
    [
        (True, False, InstructionSource.CURATED),
        (True, True, InstructionSource.PROPOSER),
        (False, False, InstructionSource.PROPOSER),
    ],
)
def test_instruction_source_by_default(local, prompt_model, source):
    """An embedded model does not write instructions unless told to."""
    plan = _plan(local=local, prompt_model=prompt_model)
    assert plan.instruction_source is source
    asked = OptimizationConfig(instruction_source=InstructionSource.CURATED)
    assert _plan(asked).instruction_source is InstructionSource.CURATED


def test_embedded_model_gets_one_call_at_a_time_and_short_demonstrations():
    """It has one slot and a window of 8,192 tokens."""
    local, remote = _plan(local=True), _plan()
    assert (local.num_threads, remote.num_threads) == (1, 8)
    assert local.max_demo_chars < remote.max_demo_chars
    assert _plan(max_concurrency=2).num_threads == 2


def test_all_violations_are_named_at_once():
    """A caller can repair everything in one go; auto excludes numbers."""
    config = OptimizationConfig(
        num_trials=501, num_candidates=1, max_labeled_demos=33, seed=-1, auto=Auto.LIGHT
    )
    assert [v.field.rpartition(".")[2] for v in config.violations()] == [
        "num_trials",
        "num_candidates",
        "max_labeled_demos",
        "seed",
        "auto",
    ]
    assert not OptimizationConfig(seed=0, max_bootstrapped_demos=16).violations()


@pytest.mark.parametrize(
    ("algorithm", "auto", "trials"),
    [
        (None, None, 150),
        (AlgorithmName.MIPROV2, None, 150),
        (AlgorithmName.CALIBRATION, None, 0),
        (AlgorithmName.CALIBRATION, Auto.HEAVY, 0),
        (AlgorithmName.LABELED_DEMONSTRATIONS, None, 6),
        (AlgorithmName.LABELED_DEMONSTRATIONS, Auto.HEAVY, 10),
    ],
)
def test_algorithms_have_trials_of_their_own(algorithm, auto, trials):
    """What does not search a grid looks at a few candidates; MIPROv2 is the default."""
    plan = _plan(OptimizationConfig(algorithm=algorithm, auto=auto))
    assert plan.algorithm is (algorithm or AlgorithmName.MIPROV2)
    assert plan.num_trials == trials


@pytest.mark.parametrize(
    ("algorithm", "local", "source"),
    [
        (AlgorithmName.CALIBRATION, False, InstructionSource.CURATED),
        (AlgorithmName.LABELED_DEMONSTRATIONS, False, InstructionSource.CURATED),
        (AlgorithmName.GEPA, True, InstructionSource.PROPOSER),
        (AlgorithmName.AUTO, True, InstructionSource.CURATED),
        (AlgorithmName.AUTO, False, InstructionSource.PROPOSER),
    ],
)
def test_who_writes_depends_on_the_algorithm(algorithm, local, source):
    """What writes no instructions needs no model for it; GEPA always does."""
    plan = _plan(OptimizationConfig(algorithm=algorithm), local=local)
    assert plan.instruction_source is source


def test_instructions_that_nobody_may_write_are_no_task_for_gepa():
    """Curated ones are not evolved."""
    (violation,) = OptimizationConfig(
        algorithm=AlgorithmName.GEPA, instruction_source=InstructionSource.CURATED
    ).violations()
    assert violation.field == "optimization.config.instruction_source"


def test_only_mipro_looks_at_minibatches():
    """Few candidates can all be scored on everything."""
    config = OptimizationConfig(algorithm=AlgorithmName.LABELED_DEMONSTRATIONS)
    assert _plan().minibatch_size == 35
    assert _plan(config).minibatch_size is None


def test_caller_decides_how_many_sets_of_demonstrations_are_tried():
    """A number that was given is taken; calibration still tries nothing."""
    sets = OptimizationConfig(
        num_trials=3, algorithm=AlgorithmName.LABELED_DEMONSTRATIONS
    )
    nothing = OptimizationConfig(num_trials=3, algorithm=AlgorithmName.CALIBRATION)
    assert (_plan(sets).num_trials, _plan(nothing).num_trials) == (3, 0)


@pytest.mark.parametrize("algorithm", sorted(AlgorithmName))
def test_every_algorithm_of_the_contract_can_be_asked_for(algorithm):
    """None is only a name."""
    assert OptimizationConfig(algorithm=algorithm).violations() == []


def test_demonstrations_without_room_for_any_are_refused():
    """That algorithm shows nothing else."""
    (violation,) = OptimizationConfig(
        algorithm=AlgorithmName.LABELED_DEMONSTRATIONS, max_labeled_demos=0
    ).violations()
    assert violation.field == "optimization.config.max_labeled_demos"


def test_candidates_are_stopped_early_unless_told_not_to():
    """Unset is yes."""
    assert _plan().early_stopping
    assert not _plan(OptimizationConfig(early_stopping=False)).early_stopping


def test_plan_survives_json():
    """It crosses the pipe to the worker."""
    plan = _plan(OptimizationConfig(algorithm=AlgorithmName.CALIBRATION))
    assert SearchPlan.from_json(json.loads(json.dumps(asdict(plan)))) == plan


def test_zero_trials_are_refused_and_do_not_mean_the_default():
    """0 is a value that the caller gave."""
    (violation,) = OptimizationConfig(num_trials=0).violations()
    assert violation.field.endswith("num_trials")


def test_config_survives_json():
    """It is stored as JSON."""
    config = OptimizationConfig(
        auto=Auto.HEAVY,
        seed=0,
        instruction_source=InstructionSource.PROPOSER,
        algorithm=AlgorithmName.CALIBRATION,
        early_stopping=False,
    )
    assert OptimizationConfig.from_json(config.to_json()) == config
    assert OptimizationConfig.from_json({"later": 1}) == replace(
        config,
        auto=None,
        seed=None,
        instruction_source=None,
        algorithm=None,
        early_stopping=None,
    )
