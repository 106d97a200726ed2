"""Evidence is the same for any order of the units and however often it is taken up again.

All e-values but those of drift are functions of counts, histograms or sums; here they are fed with
streams: whole, shuffled, and in parts that are counted apart and added up, as a database does.
"""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidejudge_server.stats.betting import (
    betting_interval_of_histogram,
    betting_log_e,
    betting_log_e_of_histogram,
    betting_log_wealths,
)
from sidejudge_server.stats.confidence_sequences import (
    bernoulli_sequence,
    mean_difference_sequence,
    tuned_bernoulli_sequence,
)
from sidejudge_server.stats.evidence import (
    bet_log_e,
    bet_sums,
    sign_log_e,
    sign_log_e_new_better,
)
from sidejudge_server.stats.harm import StageFailures, harm_log_e
from sidejudge_server.stats.moments import Moments
from sidejudge_server.stats.outcome import CannotSay, Interval
from sidejudge_server.stats.sample_ratio import sample_ratio_log_e
from sidejudge_server.stats.two_bernoulli import (
    rate_difference_interval,
    rate_difference_log_e,
)

SHARES = (0.05, 0.10, 0.25, 0.50)


def of_wins(counts):
    return [
        sign_log_e(counts[1.0], counts[-1.0]),
        sign_log_e_new_better(counts[1.0], counts[-1.0]),
        betting_log_e_of_histogram(list(counts.items())),
        betting_log_e_of_histogram(list(counts.items()), alternative="greater"),
        *ends(betting_interval_of_histogram(list(counts.items()))),
    ]


def of_hits(counts):
    hits, n = counts[1], counts.total()
    return [
        *ends(bernoulli_sequence(hits, n)),
        *ends(tuned_bernoulli_sequence(hits, n, n_optimal=100)),
    ]


def of_two_arms(counts):
    rates = [
        counts["a", 1],
        counts["a", 0] + counts["a", 1],
        counts["b", 1],
        counts["b", 0] + counts["b", 1],
    ]
    return [
        rate_difference_log_e(*rates, margin=0.02),
        *ends(rate_difference_interval(*rates)),
        sample_ratio_log_e([rates[1], rates[3]], [0.5, 0.5]),
    ]


def of_failures(counts):
    stages = [StageFailures(counts["a", s], counts["b", s], s) for s in SHARES]
    return [harm_log_e(stages), harm_log_e(stages, max_ratio=1.5)]


def ends(found: Interval | CannotSay):
    return [] if isinstance(found, CannotSay) else [found.low, found.high]


arms = st.sampled_from(["a", "b"])
UNITS = {
    of_wins: st.sampled_from([-1.0, 0.0, 1.0]),
    of_hits: st.sampled_from([0, 1]),
    of_two_arms: st.tuples(arms, st.sampled_from([0, 1])),
    of_failures: st.tuples(arms, st.sampled_from(SHARES)),
}


@pytest.mark.parametrize("statistics", UNITS)
@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_counts_of_parts_in_any_order_are_the_evidence_of_the_stream(statistics, data):
    """Counting after a restart what came since, and adding it to what was counted before."""
    stream = data.draw(st.lists(UNITS[statistics], max_size=120))
    shuffled = data.draw(st.permutations(stream))
    cut = data.draw(st.integers(0, len(stream)))
    whole = statistics(Counter(stream))
    assert statistics(Counter(shuffled)) == pytest.approx(whole, abs=1e-9)
    added = Counter(stream[:cut]) + Counter(stream[cut:])
    assert statistics(added) == pytest.approx(whole, abs=1e-9)


@given(st.lists(st.floats(-1, 1), max_size=60), st.integers(0, 60), st.data())
@settings(max_examples=40, deadline=None)
def test_bets_on_scores_add_up_over_parts_in_any_order(values, cut, data):
    """The log wealth of each bet is a sum; so is what the serving process keeps of it."""
    shuffled = data.draw(st.permutations(values))
    whole = betting_log_wealths(values, mean=0.1)
    parts = zip(
        betting_log_wealths(shuffled[:cut], mean=0.1),
        betting_log_wealths(shuffled[cut:], mean=0.1),
        strict=True,
    )
    assert [a + b for a, b in parts] == pytest.approx(whole, abs=1e-9)
    kept = [
        a + b
        for a, b in zip(bet_sums(shuffled[:cut]), bet_sums(shuffled[cut:]), strict=True)
    ]
    assert bet_log_e(kept) == pytest.approx(
        betting_log_e(values, alternative="greater"), abs=1e-9
    )


@given(
    st.lists(st.floats(0.01, 50), min_size=60, max_size=90),
    st.integers(1, 59),
    st.data(),
)
@settings(max_examples=20, deadline=None)
def test_sums_of_parts_give_the_asymptotic_sequence_of_all(values, cut, data):
    """Count, sum and sum of squares are all it takes."""
    shuffled = data.draw(st.permutations(values))
    base = Moments(80, 9.0, 16.0)
    of_sums = Moments.of_sums(
        len(values),
        sum(shuffled[:cut]) + sum(shuffled[cut:]),
        sum(v * v for v in shuffled[:cut]) + sum(v * v for v in shuffled[cut:]),
    )
    whole = mean_difference_sequence(base, Moments.of(values))
    parts = mean_difference_sequence(base, of_sums)
    assert ends(parts.interval) == pytest.approx(ends(whole.interval), abs=1e-6)
    assert parts.log_e() == pytest.approx(whole.log_e(), abs=1e-6)
