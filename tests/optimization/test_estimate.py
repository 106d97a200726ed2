"""What a run is expected to take: the arithmetic."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest

from sidejudge_server.lm.pricing import Price
from sidejudge_server.optimization.estimate import (
    NO_BOUNDS,
    Lengths,
    Rates,
    estimate_run,
)
from sidejudge_server.optimization.plan import AlgorithmName, InstructionSource
from sidejudge_server.optimization.workload import DataCounts, expected_calls
from tests.optimization.runs import PLAN

_DATA = DataCounts(train=30, validation=30, test=40)
_LENGTHS = Lengths(serving=1_000, bare=1_000, demonstration=400, example=300)
_RATES = Rates(
    tokens_per_char=0.25,
    output_tokens=1,
    task_call_s=0.4,
    prompt_call_s=4.0,
    task_price=Price(1.0, 2.0, 1.0, 1.0),
    prompt_price=Price(1.0, 2.0, 1.0, 1.0),
    basis="the test",
)


@dataclass(frozen=True)
class _Bounds:
    max_lm_calls: int | None = None
    max_tokens: int | None = None
    max_cost_usd: float | None = None
    max_duration_s: float | None = None
    max_trials: int | None = None


def _work(data=_DATA, *, curated_count=20, has_demonstrations=False, **plan):
    return expected_calls(
        replace(PLAN, **plan),
        data,
        curated_count=curated_count,
        has_demonstrations=has_demonstrations,
    )


def _expect(bounds=NO_BOUNDS, *, rates=_RATES, **plan):
    return estimate_run(
        _work(**plan),
        replace(PLAN, **plan),
        lengths=_LENGTHS,
        rates=rates,
        bounds=bounds,
    )


def _estimate(bounds=NO_BOUNDS, **options):
    expected = _expect(bounds, **options)
    return expected.estimate, expected.warnings


def test_phases_are_counted_from_the_plan():
    """Baseline once, both versions at the gate, distinct combinations in between."""
    work = _work(num_trials=6, num_candidates=3, max_bootstrapped_demos=0)
    assert work.baseline == 30
    assert work.gate == 2 * 40 + 30 - 2
    assert (work.bootstrapping, work.proposing) == (0, 0)
    # 9 combinations, one of which is the baseline; 6 draws hit at most 6 of them.
    assert 4 * 30 < work.searching < 6 * 30
    assert work.trials == 6


def test_calibration_asks_for_one_version_only():
    """Baseline, and at the gate the answers of the same prompt under two rules."""
    work = _work(algorithm=AlgorithmName.CALIBRATION)
    assert (work.baseline, work.gate, work.trials) == (30, 40 + 30, 0)
    assert (work.bootstrapping, work.proposing, work.searching) == (0, 0, 0)


def test_labelled_demonstrations_cost_one_look_at_validation_a_set():
    """As many sets as trials; without training examples there are none."""
    labelled = {"algorithm": AlgorithmName.LABELED_DEMONSTRATIONS, "num_trials": 4}
    assert _work(**labelled).searching == 4 * 30
    assert _work(DataCounts(0, 30, 40), **labelled).searching == 0


def test_evolution_is_counted_at_its_bounds():
    """Four proposals a trial, each tried on three examples by parent and child."""
    gepa = {"algorithm": AlgorithmName.GEPA, "num_trials": 5}
    work = _work(**gepa)
    assert (work.proposing, work.trials) == (20, 5)
    assert work.searching == 20 * 2 * 3 + 5 * 30
    assert _work(DataCounts(0, 30, 40), **gepa).search == 0


def test_ladder_is_the_sum_of_its_steps_and_one_gate():
    """Each step is counted as if it stood alone, from a version with demonstrations."""
    auto = {"num_trials": 4, "instruction_source": InstructionSource.PROPOSER}
    whole = _work(algorithm=AlgorithmName.AUTO, **auto)
    shown = _work(algorithm=AlgorithmName.LABELED_DEMONSTRATIONS, **auto)
    mipro = _work(has_demonstrations=True, **auto)
    gepa = _work(algorithm=AlgorithmName.GEPA, **auto)
    assert whole.search >= shown.search + mipro.search + gepa.search
    assert whole.trials >= shown.trials + mipro.trials + gepa.trials
    assert whole.baseline == 30
    assert whole.gate == 40 + max(w.gate_candidate for w in (shown, mipro, gepa))


def test_demonstrations_of_the_judge_itself_cost_calls():
    """More of them cost more, and never more than all training examples a set."""
    few = _work(num_candidates=6, max_bootstrapped_demos=1)
    many = _work(num_candidates=6, max_bootstrapped_demos=4)
    scarce = _work(
        DataCounts(train=2, validation=30, test=40),
        num_candidates=6,
        max_bootstrapped_demos=16,
    )
    assert 0 < few.bootstrapping < many.bootstrapping
    assert scarce.bootstrapping == 4 * 2


def test_the_proposer_reads_batches_sums_up_and_writes():
    """30 examples in 6 batches, one summary, one call for each new instruction."""
    work = _work(num_candidates=5, instruction_source=InstructionSource.PROPOSER)
    assert work.proposing == 6 + 1 + 4


def test_few_curated_instructions_make_a_small_grid():
    """One instruction and no demonstrations: the only combination is the baseline."""
    work = _work(curated_count=0, max_bootstrapped_demos=0, max_labeled_demos=0)
    assert work.searching == 0


def test_demonstrations_that_serve_are_one_more_set():
    """The grid grows, and with it what many trials visit."""
    without = _work(num_trials=40, num_candidates=3)
    with_them = _work(num_trials=40, num_candidates=3, has_demonstrations=True)
    assert with_them.searching > without.searching


def test_minibatches_cost_less_than_full_evaluations():
    """And never more than one look at everything for each distinct combination."""
    data = DataCounts(train=90, validation=200, test=120)
    full = _work(data, num_trials=20, num_candidates=6)
    batches = _work(data, num_trials=20, num_candidates=6, minibatch_size=35)
    assert 20 * 35 / 2 < batches.searching < full.searching
    assert batches.trials == 24


def test_tokens_money_and_time_follow_from_lengths_and_rates():
    """Threads share the time; demonstrations make prompts longer."""
    bare, _ = _estimate(max_labeled_demos=0, max_bootstrapped_demos=0)
    shown, _ = _estimate(max_labeled_demos=2, max_bootstrapped_demos=0)
    assert bare.input_tokens == pytest.approx(bare.lm_calls * 250, rel=0.01)
    assert shown.input_tokens > shown.lm_calls * 250
    assert bare.output_tokens == bare.lm_calls
    assert bare.cost_usd == pytest.approx(
        (bare.input_tokens + 2 * bare.output_tokens) / 1e6, rel=0.01
    )
    assert bare.duration_s == pytest.approx(1 + bare.lm_calls * 0.105, rel=0.01)
    assert bare.basis == "the test"


def test_dropping_candidates_early_saves_calls_of_the_search_alone():
    """Where there are examples enough to drop one before it has seen them all."""
    raced, whole = _estimate()[0], _estimate(early_stopping=False)[0]
    saved = 0.15 * _work().searching
    assert whole.lm_calls - raced.lm_calls == pytest.approx(saved, abs=1)
    few = {"data": DataCounts(train=12, validation=12, test=16)}
    work = _work(**few)
    plans = [replace(PLAN, early_stopping=stops) for stops in (True, False)]
    assert (
        len(
            {
                estimate_run(
                    work, plan, lengths=_LENGTHS, rates=_RATES, bounds=NO_BOUNDS
                ).estimate.lm_calls
                for plan in plans
            }
        )
        == 1
    )


def test_unknown_price_gives_no_amount():
    """Unless nothing is asked of the model whose price is unknown."""
    unknown = replace(_RATES, task_price=None)
    assert _estimate(rates=unknown)[0].cost_usd is None
    no_proposer = replace(_RATES, prompt_price=None)
    assert _estimate(rates=no_proposer)[0].cost_usd is not None
    proposes = {"instruction_source": InstructionSource.PROPOSER}
    assert _estimate(rates=no_proposer, **proposes)[0].cost_usd is None


@pytest.mark.parametrize(
    "bounds",
    [
        _Bounds(max_lm_calls=200),
        _Bounds(max_tokens=60_000),
        _Bounds(max_cost_usd=0.06),
        _Bounds(max_duration_s=25.0),
        _Bounds(max_trials=2),
    ],
)
def test_a_budget_shortens_the_search_and_keeps_the_gate(bounds):
    """Each bound works on its own; nothing is expected beyond it."""
    whole, warnings = _estimate()
    assert not warnings
    cut, warnings = _estimate(bounds)
    assert 0 < cut.trials < whole.trials
    assert 138 <= cut.lm_calls < whole.lm_calls
    assert cut.lm_calls <= (bounds.max_lm_calls or cut.lm_calls)
    assert cut.input_tokens + cut.output_tokens <= (bounds.max_tokens or 10**9)
    assert (cut.cost_usd or 0) <= (bounds.max_cost_usd or 10**9)
    assert cut.duration_s <= (bounds.max_duration_s or 10**9)
    if bounds.max_trials is None:
        assert "leaves room for about" in warnings[0]


def test_a_budget_below_the_gate_is_a_warning_with_figures():
    """The run would end before the gate can speak."""
    cut, warnings = _estimate(_Bounds(max_lm_calls=100))
    assert cut.lm_calls == 100
    assert cut.trials == 0
    assert "max_lm_calls of 100 does not reach the gate" in warnings[0]
    assert "about 138" in warnings[0]
    assert not _expect(_Bounds(max_lm_calls=100)).reaches_gate
    assert _expect(_Bounds(max_lm_calls=200)).reaches_gate
