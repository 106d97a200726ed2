"""The gate stays honest however often it is asked: simulated, and through the service."""

from __future__ import annotations

import asyncio
import json
import math
from functools import cache

import numpy as np
import pytest
from scipy.stats import binom

from sidejudge_server.optimization.gate import decide
from sidejudge_server.optimization.gate_decision import Outcome
from sidejudge_server.optimization.queue import CreateOptimization
from sidejudge_server.optimization.shadow_evidence import BAR, Evidence
from sidejudge_server.stats.spending import use_number
from sidejudge_server.training.held_out import ALPHA, FULL_PAIRS, gate_bar
from tests.optimization import toy_workers
from tests.optimization.service_setup import running

_ROUNDS = 20
_RUNS = 3_000
_SPENT = 6 / math.pi**2
_SAFETY = CreateOptimization("safety")


@cache
def _e_value(wins: int, losses: int) -> float:
    return Evidence(wins, losses, wins + losses).e_value


def _deployed(
    wins: int, losses: int, random: np.random.Generator, *, later: int, win: float
) -> bool:
    """Return whether evidence reaches its bar, from a gate on within so many discordant pairs.

    Args:
        wins: Of the gate.
        losses: Of the gate.
        random: Where the pairs come from.
        later: How many discordant pairs come after the gate.
        win: Probability that one of them is won.
    """
    for won in (None, *(random.random(later) < win)):
        if won is not None:
            wins, losses = (wins + 1, losses) if won else (wins, losses + 1)
        if _e_value(wins, losses) >= BAR:
            return True
        if _e_value(losses, wins) >= BAR:
            return False
    return False


def _false_deployments(sizes: list[int], *, spending: bool) -> float:
    """Return how often at least one of twenty candidates, none of them better, comes to serve.

    The version that serves is right on 80 % of the items, the same ones in every round. Each
    candidate is wrong where it was right on 7.5 %, right where it was wrong on 30 %: 12 % of the
    items are discordant and half of them won. With spending, what passes on few items goes into
    shadow and gets 60 more discordant pairs, those of 500 corrections; nothing replaces it.
    """
    random = np.random.default_rng(20260820)
    wrong = np.zeros(_RUNS, dtype=int)
    served = np.zeros(_RUNS, dtype=bool)
    before = 0
    for number, size in enumerate(sizes):
        wrong += random.binomial(size - before, 0.2, _RUNS)
        before = size
        wins = random.binomial(wrong, 0.3)
        losses = random.binomial(size - wrong, 0.075)
        use = use_number(size, sizes[:number])
        bar = gate_bar(size, use) if spending else ALPHA
        p_value = binom.sf(wins - 1, wins + losses, 0.5)
        passed = (wins - losses >= 0.05 * size - 1e-9) & (p_value < bar)
        if not spending or size >= FULL_PAIRS:
            served |= passed
            continue
        for run in np.flatnonzero(passed & ~served):
            counts = int(wins[run]), int(losses[run])
            served[run] = _deployed(*counts, random, later=60, win=0.5)
    return float(served.mean())


@pytest.mark.parametrize(
    "sizes",
    [
        [100] * _ROUNDS,
        [200] * _ROUNDS,
        [40 + 8 * i for i in range(_ROUNDS)],
        [40 + 40 * i for i in range(_ROUNDS)],
        [40 * 2 ** (i // 4) for i in range(_ROUNDS)],
    ],
    ids=["100", "200", "40 and 8 a round", "40 and 40 a round", "doubled every 4"],
)
def test_twenty_rounds_let_nothing_through_by_chance(sizes):
    """The rate of any false deployment stays below 5 %; a bar that stays is above it."""
    error = math.sqrt(ALPHA * (1 - ALPHA) / _RUNS)
    assert _false_deployments(sizes, spending=True) < ALPHA + 3 * error
    assert _false_deployments(sizes, spending=False) > ALPHA + 3 * error


def test_two_stages_find_what_few_examples_alone_would_miss():
    """Of candidates that are 10 points better (14 % won, 4 % lost), with 40 held-out examples.

    A first use at 0.0304 finds few; at twice the bar more go into shadow, and nearly all of those
    serve within the 72 discordant pairs of 400 corrections.
    """
    random = np.random.default_rng(7)
    wins, losses, _ = random.multinomial(40, [0.14, 0.04, 0.82], _RUNS).T
    p_value = binom.sf(wins - 1, wins + losses, 0.5)
    enough = wins - losses >= 0.05 * 40 - 1e-9
    alone = float((enough & (p_value < ALPHA * _SPENT)).mean())
    shadowed = np.flatnonzero(enough & (p_value < gate_bar(40, 1)))
    served = [
        _deployed(int(wins[i]), int(losses[i]), random, later=72, win=14 / 18)
        for i in shadowed
    ]
    assert alone < 0.35
    assert len(shadowed) / _RUNS > alone + 0.1
    assert np.mean(served) > 0.95


def _decided(wins: int, losses: int, pairs: int, *shared: int, **options):
    ties = pairs - wins - losses
    return decide(
        [0.0] * wins + [1.0] * losses + [1.0] * ties,
        [1.0] * wins + [0.0] * losses + [1.0] * ties,
        train=[1.0],
        validation=[1.0],
        scores=False,
        shared=shared,
        **options,
    )


def test_every_use_raises_the_bar():
    """12 wins against 2 losses, p = 0.0065, pass twice and not a third time."""
    uses = [_decided(12, 2, 200, *[200] * earlier) for earlier in range(3)]
    assert [d.use_count for d in uses] == [1, 2, 3]
    assert [d.alpha for d in uses] == pytest.approx(
        [0.05 * _SPENT, 0.05 * _SPENT / 4, 0.05 * _SPENT / 9]
    )
    assert [d.outcome for d in uses] == [
        Outcome.IMPROVED,
        Outcome.IMPROVED,
        Outcome.NOT_ENOUGH_EVIDENCE,
    ]
    assert "use" not in uses[0].summary
    assert "used for the 2nd time, so the bar was p < 0.0076" in uses[1].summary
    assert "used for the 3rd time" in uses[2].summary


def test_a_run_without_a_candidate_leaves_the_count():
    """What did not look at the examples with a candidate has learnt nothing from them."""
    decision = _decided(0, 0, 60, 60, differs=False)
    assert decision.outcome is Outcome.NO_IMPROVEMENT
    assert decision.use_count == 1
    assert "time" not in decision.summary


def test_used_up_examples_ask_for_fresh_labels():
    """After one use of 20 pairs not even winning all that differ passes: 11 more, 28 labels."""
    decision = _decided(3, 1, 20)
    assert decision.fresh_labels_needed == 28
    assert "bring about 28 new labels first" in decision.summary
    assert _decided(12, 2, 100).fresh_labels_needed == 0


def test_used_up_examples_of_scores_ask_for_fresh_labels():
    """Ten points at a spread of a quarter are two standard errors with 25 pairs: p = 0.023."""
    gains = [0.3, -0.2, 0.35, -0.25, 0.3] * 5
    decision = decide(
        [0.5] * 25,
        [0.5 + gain for gain in gains],
        train=[0.5],
        validation=[0.5],
        scores=True,
    )
    assert decision.use_count == 1
    assert decision.fresh_labels_needed > 0


def _finish(server, **fields):
    async def run():
        record = await server.service.create(CreateOptimization("safety", **fields))
        events = await server.watch_all(record.optimization_id)
        return events[-1].record

    return run()


def test_uses_are_counted_with_the_end_of_runs(tmp_path):
    """Each run that came to a candidate is one use; the next is told how much it shares."""

    async def scenario():
        async with running(tmp_path, entry=toy_workers.tells_what_was_shared) as server:
            await server.train()
            first = json.loads((await _finish(server)).decision_json)
            second = json.loads((await _finish(server)).decision_json)
            await server.train(count=30, word="MORE")
            third = json.loads((await _finish(server)).decision_json)
            return first, second, third, await server.storage.gate_uses.of("safety")

    first, second, third, uses = asyncio.run(scenario())
    held_out = first["pair_count"]
    assert first["shared"] == []
    assert second["shared"] == [held_out]
    assert third["shared"] == [held_out, held_out]
    assert third["pair_count"] > held_out
    assert [u.pair_count for u in uses] == [held_out, held_out, third["pair_count"]]
    assert uses[0].examples_digest == uses[1].examples_digest
    assert uses[1].examples_digest != uses[2].examples_digest
    assert {(u.outcome, u.p_value, u.wins) for u in uses} == {("improved", 0.01, 3)}


def test_uses_outlive_the_server(tmp_path):
    """The count is read from the database by every run."""

    async def scenario():
        counts = []
        for _ in range(2):
            async with running(
                tmp_path, entry=toy_workers.tells_what_was_shared
            ) as server:
                if not counts:
                    await server.train()
                decision = json.loads((await _finish(server)).decision_json)
                counts.append(len(decision["shared"]))
        return counts

    assert asyncio.run(scenario()) == [0, 1]


def test_runs_without_a_candidate_or_an_end_are_no_uses(tmp_path):
    """Nothing differed, or nobody got to hear what the gate said."""

    async def scenario():
        async with running(tmp_path, entry=toy_workers.finds_nothing) as server:
            await server.train()
            await _finish(server)
            server.executor._entry = toy_workers.finishes_when_cancelled
            record = await server.service.create(_SAFETY)
            await server.watch_until(record.optimization_id, "best_improved")
            await server.service.cancel(record.optimization_id)
            await server.watch_all(record.optimization_id)
            return await server.storage.gate_uses.of("safety")

    assert asyncio.run(scenario()) == []


def test_training_set_warns_when_its_held_out_examples_are_used_up(tmp_path):
    """In words, with the number of labels that bring them back."""

    async def scenario():
        async with running(tmp_path, entry=toy_workers.tells_what_was_shared) as server:
            await server.train(count=50)
            before = await server.feedback.training_set("safety")
            await _finish(server)
            after = await server.feedback.training_set("safety")
            return before, after

    before, after = asyncio.run(scenario())
    assert not any("earlier runs" in warning for warning in before.warnings)
    (warning,) = [w for w in after.warnings if "earlier runs" in w]
    assert "use 2" in warning
    assert "label 28 more first" in warning
    assert after.readiness == "marginal"
