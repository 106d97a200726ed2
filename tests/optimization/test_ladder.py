"""Which steps `auto` takes and when one counts, with the simulation that chose its bar."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from sidejudge_server.optimization.ladder import planned_trials, rungs, shorter_plans
from sidejudge_server.optimization.ladder_step import (
    STEP_BAR,
    compare_step,
    step_helps,
)
from sidejudge_server.optimization.plan import (
    AlgorithmName,
    InstructionSource,
)
from tests.optimization.runs import PLAN

_AUTO = replace(PLAN, algorithm=AlgorithmName.AUTO, num_trials=30)


def test_steps_go_from_the_cheapest_on():
    """GEPA needs a model that may write."""
    curated = [rung.algorithm for rung in rungs(_AUTO)]
    proposer = [
        rung.algorithm
        for rung in rungs(replace(_AUTO, instruction_source=InstructionSource.PROPOSER))
    ]
    whole = [
        AlgorithmName.CALIBRATION,
        AlgorithmName.LABELED_DEMONSTRATIONS,
        AlgorithmName.MEMORY,
        AlgorithmName.MIPROV2,
        AlgorithmName.GEPA,
    ]
    assert proposer == whole
    assert curated == proposer[:-1]


def test_no_step_shows_demonstrations_that_are_not_wanted():
    """Zero means none of it."""
    found = [rung.algorithm for rung in rungs(replace(_AUTO, max_labeled_demos=0))]
    assert AlgorithmName.LABELED_DEMONSTRATIONS not in found


def test_plan_is_that_of_mipro_and_the_others_try_less():
    """Few trials for all if few were asked for; only MIPROv2 looks at minibatches."""
    plan = replace(_AUTO, minibatch_size=35)
    found = {rung.algorithm: rung for rung in rungs(plan)}
    mipro = found[AlgorithmName.MIPROV2]
    demonstrations = found[AlgorithmName.LABELED_DEMONSTRATIONS]
    assert (mipro.num_trials, mipro.minibatch_size) == (30, 35)
    assert (demonstrations.num_trials, demonstrations.minibatch_size) == (6, None)
    few = {rung.algorithm: rung for rung in rungs(replace(plan, num_trials=2))}
    assert few[AlgorithmName.LABELED_DEMONSTRATIONS].num_trials == 2


def test_planned_trials_are_those_of_all_steps():
    """Progress counts up to their sum."""
    assert planned_trials(replace(_AUTO, algorithm=AlgorithmName.MIPROV2)) == 30
    assert planned_trials(_AUTO) == sum(rung.num_trials for rung in rungs(_AUTO))


def test_shorter_plans_end_where_a_step_is_hardly_worth_it():
    """Two thirds each, down to a minimum; never more than was asked for."""
    mipro = replace(_AUTO, algorithm=AlgorithmName.MIPROV2)
    assert [p.num_trials for p in shorter_plans(mipro)] == [30, 20, 13, 8, 5]
    few = replace(mipro, num_trials=3)
    assert [p.num_trials for p in shorter_plans(few)] == [3]


def test_budget_bounds_the_planned_trials():
    """Progress counts no trials that the budget does not allow."""
    assert planned_trials(_AUTO, 4) == 4


@pytest.mark.parametrize(
    ("kept", "candidate", "helps"),
    [
        ([0.5] * 20, [0.5] * 20, False),
        ([0.5] * 20, [0.9] * 20, True),
        ([0.9] * 20, [0.5] * 20, False),
        ([0.1, 0.9] * 10, [0.9, 0.2] * 10, False),
        ([0.1] * 5 + [0.9] * 15, [0.9] * 20, True),
        ([0.1] + [0.9] * 19, [0.9] * 20, True),
        ([0.1] + [0.9] * 19, [0.9] + [0.9] * 18 + [0.2], False),
        ([], [], False),
        ([0.1], [0.9], False),
    ],
)
def test_step_is_kept_if_it_is_better_by_more_than_most_noise(kept, candidate, helps):
    """Equal or mixed answers change nothing; a gain everywhere counts without a p-value."""
    assert step_helps(compare_step(kept, candidate)) is helps


def test_answers_that_are_no_pairs_are_refused():
    """The two programs have answered the same examples."""
    with pytest.raises(ValueError, match="no pairs"):
        compare_step([0.5], [0.5, 0.6])


# --- The simulation behind the bar --------------------------------------------------------------

_STEPS = (6, 25, 10)
"""Candidates of the steps: sets of demonstrations, MIPROv2's trials, GEPA's."""
_MEAN, _DIFFICULTY, _NOISE = 1.6, 1.9, 0.8
"""Logits of the right answer: a judge that is right 78 % of the time; two equally good prompts
differ on about one example in eight."""


def _accuracy(effect: float) -> float:
    return float(stats.norm.cdf((_MEAN + effect) / np.hypot(_DIFFICULTY, _NOISE)))


def _climb(
    rng: np.random.Generator, *, effect: float, spread: float, count: int, bar: float
):
    """Return the true gain of what a climb keeps, 0..1, and how many steps were kept.

    Candidates of a step differ from its start by an effect of this mean and spread, in logits; the
    best of them on the validation examples stands for the step.
    """
    difficulty = rng.normal(_MEAN, _DIFFICULTY, count)

    def worths(effects):
        shape = (len(effects), count)
        logits = difficulty + effects[:, None] + rng.normal(0, _NOISE, shape)
        return ((logits > 0) + 1 / (1 + np.exp(-logits))) / 2

    kept, total, steps = worths(np.zeros(1))[0], 0.0, 0
    for candidates in _STEPS:
        effects = total + rng.normal(effect, spread, candidates)
        found = worths(effects)
        best = int(found.mean(axis=1).argmax())
        gain = found[best] - kept
        error = gain.std(ddof=1) / np.sqrt(count)
        if gain.mean() > 0 and stats.t.sf(gain.mean() / error, count - 1) < bar:
            kept, total, steps = found[best], float(effects[best]), steps + 1
    return _accuracy(total) - _accuracy(0.0), steps


def _gains(*, effect: float, spread: float, count: int, bar: float):
    rng = np.random.default_rng(13)
    climbs = [
        _climb(rng, effect=effect, spread=spread, count=count, bar=bar)
        for _ in range(300)
    ]
    gains, steps = np.array(climbs).T
    return gains, steps


@pytest.mark.slow
def test_bar_keeps_noise_from_piling_up_at_a_small_price():
    """30 validation examples; without a bar a third more climbs end below their start."""
    mostly_worse = {"effect": -0.4, "spread": 0.35, "count": 30}
    without, _ = _gains(**mostly_worse, bar=1.0)
    with_bar, _ = _gains(**mostly_worse, bar=STEP_BAR)
    assert (with_bar < -0.01).mean() <= 0.67 * (without < -0.01).mean()
    mixed = {"effect": -0.1, "spread": 0.35, "count": 30}
    without, _ = _gains(**mixed, bar=1.0)
    with_bar, _ = _gains(**mixed, bar=STEP_BAR)
    strict, _ = _gains(**mixed, bar=0.05)
    assert with_bar.mean() > 0.75 * without.mean()
    assert strict.mean() < 0.7 * without.mean()


@pytest.mark.slow
def test_bar_halves_the_steps_that_are_kept_for_nothing():
    """All candidates equally good: what is kept is luck, and the held-out examples have the last word."""
    nothing = {"effect": 0.0, "spread": 0.0, "count": 30}
    _, without = _gains(**nothing, bar=1.0)
    _, with_bar = _gains(**nothing, bar=STEP_BAR)
    assert with_bar.mean() < 0.6 * without.mean()
