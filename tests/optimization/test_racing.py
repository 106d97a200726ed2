"""Candidates that are clearly behind are dropped; nothing else changes for those that are not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sidejudge_server.optimization.racing import BLOCK, Race
from tests.optimization.runs import execute, make_spec, verdict_examples
from tests.stand_in import running_stand_in


class _Table:
    """Candidates are rows of values; counts what is asked."""

    def __init__(self, rows, *, early_stopping=True, seed=9):
        self.rows = np.asarray(rows, dtype=float)
        self.examples = [object() for _ in self.rows[0]]
        self.place = {id(e): i for i, e in enumerate(self.examples)}
        self.asked = []
        self.race = Race(
            self._values,
            examples=self.examples,
            identity=str,
            early_stopping=early_stopping,
            seed=seed,
        )

    def _values(self, program, examples):
        places = [self.place[id(e)] for e in examples]
        self.asked += [(program, place) for place in places]
        return self.rows[program][places].tolist()

    def run(self, program, count=None):
        self.race(program, devset=self.examples[:count])
        return self.race.outcome(program)


def _around(mean, count=48, spread=0.1, seed=1):
    values = np.random.default_rng(seed).normal(0, spread, count)
    return (mean + values - values.mean()).clip(0, 1)


def test_dominated_candidate_is_dropped_and_never_looks_as_good():
    """It is asked about part of the examples, and the search hears less than the best one's mean."""
    table = _Table([_around(0.8), _around(0.5, seed=2)])
    best = table.run(0)
    dropped = table.run(1)
    assert (best.full, best.stopped_early, best.example_count) == (True, False, 48)
    assert dropped.stopped_early
    assert not dropped.full
    assert dropped.example_count in {BLOCK, 2 * BLOCK}
    assert dropped.asked == dropped.example_count == len(table.asked) - 48
    assert dropped.score == pytest.approx(0.5, abs=0.08)
    # Shrunk towards the best: eight pairs without difference are added.
    assert 50 < dropped.estimate < 80


def test_better_candidate_is_asked_about_everything_and_leads():
    """Only a full evaluation can become the best, and then it is what others are compared with."""
    table = _Table([_around(0.6), _around(0.8, seed=2), _around(0.65, seed=3)])
    table.run(0)
    assert table.run(1).full
    assert table.run(1).score == pytest.approx(0.8, abs=1e-3)
    assert table.run(2).stopped_early


def test_what_was_asked_once_is_never_asked_again():
    """Combinations that are drawn again, and the rest of a part, cost only what is new."""
    table = _Table([_around(0.7), _around(0.71, seed=2), _around(0.3, seed=3)])
    for program in (0, 1, 2, 1, 2, 0):
        table.run(program)
    assert len(set(table.asked)) == len(table.asked)
    assert table.run(2).asked == 0
    assert table.run(2).stopped_early


def test_part_of_the_examples_is_the_same_part_for_all():
    """A minibatch is the beginning of the race's order, and a full evaluation goes on from there."""
    table = _Table([_around(0.7), _around(0.72, seed=2)])
    table.run(0)
    table.asked.clear()
    part = table.run(1, count=20)
    assert (part.full, part.example_count, part.asked) == (False, 20, 20)
    first = list(table.asked)
    whole = table.run(1)
    assert (whole.full, whole.example_count, whole.asked) == (True, 48, 28)
    assert table.asked[:20] == first


def test_without_early_stopping_everything_asked_for_is_looked_at():
    """The examples are those that the caller chose, and no candidate is dropped."""
    table = _Table([_around(0.8), _around(0.2, seed=2)], early_stopping=False)
    table.run(0)
    table.asked.clear()
    part = table.run(1, count=10)
    assert (part.example_count, part.stopped_early) == (10, False)
    assert table.asked == [(1, place) for place in range(10)]
    assert table.run(1).full


def test_seed_orders_the_examples():
    """The same seed looks at the same examples first, another one at others."""
    asked = []
    for seed in (1, 1, 2):
        table = _Table([_around(0.8), _around(0.3, seed=2)], seed=seed)
        table.run(0)
        table.run(1)
        asked.append(table.asked)
    assert asked[0] == asked[1]
    assert asked[0] != asked[2]


def test_failure_is_not_swallowed():
    """MIPROv2 scores an exception 0 and goes on; the trial's report raises it again."""

    def broken(program, examples):
        raise ZeroDivisionError

    race = Race(broken, examples=[object()], identity=str, early_stopping=True, seed=1)
    with pytest.raises(ZeroDivisionError):
        race(0, devset=[None])
    with pytest.raises(ZeroDivisionError):
        race.outcome(0)


def _soft(rng, shift, count):
    """Soft metrics of the best one and of a candidate that is better by a known shift in logits."""
    difficulty = rng.normal(1.0, 1.6, count)
    best = 1 / (1 + np.exp(-difficulty - rng.normal(0, 0.6, count)))
    other = 1 / (1 + np.exp(-difficulty - shift - rng.normal(0, 0.6, count)))
    return best, other


@pytest.mark.parametrize("count", [30, 60])
def test_better_candidates_are_rarely_dropped(count):
    """Of candidates whose full mean is higher, at most one in twenty is dropped; of worse ones most are."""
    rng = np.random.default_rng(15)
    better = worse = wrong = right = 0
    for _ in range(400):
        best, other = _soft(rng, rng.normal(0, 0.5), count)
        table = _Table([best, other])
        table.run(0)
        dropped = table.run(1).stopped_early
        if other.mean() > best.mean():
            better, wrong = better + 1, wrong + dropped
        elif other.mean() < best.mean() - 0.03:
            worse, right = worse + 1, right + dropped
    assert wrong / better <= 0.05
    assert right / worse >= 0.8


def _trials(events):
    return [e["trial"] for e in events if e["kind"] == "trial_completed"]


def _spec(base_url, directory, **plan):
    spec = make_spec(base_url, directory, num_trials=16, **plan)
    return replace(spec, validation=verdict_examples("validation", 48))


@pytest.mark.slow
def test_run_that_stops_early_costs_less_and_finds_the_same(tmp_path):
    """Fewer calls reach the model, the dropped trials say so, and the winner is a full evaluation."""
    runs = {}
    for early in (True, False):
        with running_stand_in() as lm:
            events = execute(
                _spec(lm.base_url, tmp_path / str(early), early_stopping=early)
            )
            runs[early] = events, lm.call_count
    stopped = [t for t in _trials(runs[True][0]) if t["stopped_early"]]
    assert stopped
    assert all(t["example_count"] < 48 for t in stopped)
    assert not any(t["best"] or t["full_evaluation"] for t in stopped)
    assert not any(t["stopped_early"] for t in _trials(runs[False][0]))
    assert runs[True][1] < runs[False][1]
    results = [runs[early][0][-1] for early in (True, False)]
    assert results[0]["candidate"] == results[1]["candidate"]
    assert results[0]["decision"] == results[1]["decision"]


@pytest.mark.slow
@pytest.mark.parametrize("minibatch_size", [None, 20])
def test_threads_do_not_change_what_is_dropped(tmp_path, minibatch_size):
    """Trials, calls and candidate are the same with one call at a time and with eight."""
    runs = []
    for threads in (1, 8):
        with running_stand_in() as lm:
            spec = _spec(
                lm.base_url,
                tmp_path / str(threads),
                num_threads=threads,
                minibatch_size=minibatch_size,
            )
            events = execute(spec)
            trials = [
                {k: v for k, v in t.items() if k != "end_time"} for t in _trials(events)
            ]
            runs.append((trials, events[-1]["candidate"], lm.call_count))
    assert runs[0] == runs[1]
    assert any(t["stopped_early"] for t in runs[0][0])
