"""Every streamed test keeps its error rate when it is looked at after every sample.

2000 streams each, at the worst case that its hypothesis allows; the rate at which it ever rejects
must be at most alpha plus three standard errors. Where a test of the textbook fails the same bar, it
is shown to, so that the simulation is known to be able to. Counts go through the public functions by
way of the least count that rejects; means and bets through a twin for many streams that is compared
with the public function on some of them. The figures are listed at the end of the run.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import special

from sidejudge_server.stats.betting import (
    BET_FRACTIONS,
    betting_log_e,
    betting_log_wealths,
)
from sidejudge_server.stats.confidence_sequences import (
    bernoulli_sequence,
    mean_difference_sequence,
    mean_sequence,
    mixture_precision,
    tuned_bernoulli_sequence,
)
from sidejudge_server.stats.evidence import (
    POSITIVE_FRACTIONS,
    sign_log_e,
    sign_log_e_new_better,
)
from sidejudge_server.stats.group_sequential import (
    group_sequential_bounds,
    obrien_fleming_spending,
    power_spending,
)
from sidejudge_server.stats.moments import Moments
from sidejudge_server.stats.two_bernoulli import rate_difference_log_e
from tests.stats.streams import (
    ALPHA,
    BAR,
    LIMIT,
    MIN_NAIVE,
    STREAMS,
    first_looks,
    least_counts,
    log_wealth_paths,
    most_allowed,
    publish,
    running_t,
)

pytestmark = pytest.mark.slow


def sign_two_sided(prior):
    return lambda count, n: sign_log_e(count, n - count, prior=prior) >= BAR


def sign_one_sided(count, n):
    return sign_log_e_new_better(count, n - count) >= BAR


@pytest.mark.parametrize("prior", [1, 5])
def test_sign_test_of_both_sides(prior, record_property):
    """Discordant pairs are fair coins; ties change nothing. A z test does not hold."""
    rng = np.random.default_rng(20261)
    looks = 1000
    wins = (rng.random((STREAMS, looks)) < 0.5).cumsum(axis=1)
    n = np.arange(1, looks + 1)
    least = least_counts(sign_two_sided(prior), looks, start=1)
    # It also rejects at few wins: the march starts in the upper half, losses mirror wins.
    assert (least > n / 2).all()
    rate = float((np.maximum(wins, n - wins) >= least).any(axis=1).mean())
    z = np.abs(2 * wins - n) / np.sqrt(n)
    naive = float((z[:, MIN_NAIVE:] >= 1.96).any(axis=1).mean())
    publish(record_property, sign_two_sided=rate, z_test=naive)
    assert 0.01 < rate <= LIMIT
    assert naive > 0.25


def test_sign_test_of_the_new_one(record_property):
    """At its limit, a new one that wins exactly half, and below it."""
    rng = np.random.default_rng(20262)
    looks = 1000
    n = np.arange(1, looks + 1)
    least = least_counts(sign_one_sided, looks)
    rates = {}
    for name, chance in (("equal", 0.5), ("worse", 0.42)):
        wins = (rng.random((STREAMS, looks)) < chance).cumsum(axis=1)
        rates[name] = float((wins >= least).any(axis=1).mean())
        if name == "equal":
            z = (2 * wins - n) / np.sqrt(n)
            naive = float((z[:, MIN_NAIVE:] >= 1.645).any(axis=1).mean())
            assert naive > 0.2
    publish(record_property, sign_one_sided=rates["equal"], worse=rates["worse"])
    assert 0.01 < rates["equal"] <= LIMIT
    assert rates["worse"] < 0.01


def test_sign_test_finds_a_better_one_soon(record_property):
    """80 -> 88 % losing 2 %: 126 pairs on average, median 107 (STATISTICS, 4000 runs)."""
    rng = np.random.default_rng(20263)
    u = rng.random((STREAMS, 1500))
    wins, losses = (u < 0.10).cumsum(axis=1), (u > 0.98).cumsum(axis=1)
    discordant = wins + losses
    least = np.append(np.inf, least_counts(sign_one_sided, int(discordant.max())))
    found = first_looks(wins >= least[discordant])
    publish(
        record_property,
        pairs_mean=float(found.mean()),
        pairs_median=float(np.median(found)),
    )
    assert found.mean() == pytest.approx(126, abs=7)
    assert np.median(found) == pytest.approx(107, abs=7)


def discordant_pairs(rng, shape):
    """12 % each way, the rest ties."""
    u = rng.random(shape)
    return (u < 0.12).astype(float) - (u > 0.88)


def rubric_scores(rng, shape):
    """Differences of two scores on a scale of five."""
    scale = np.array([0.0, 0.25, 0.5, 0.75, 1.0])
    shares = [0.05, 0.1, 0.15, 0.3, 0.4]
    return rng.choice(scale, shape, p=shares) - rng.choice(scale, shape, p=shares)


def skewed_to_zero(rng, shape):
    """Mostly a bit better, sometimes a disaster, and on average exactly the same."""
    return np.where(rng.random(shape) < 0.98, 0.02, -0.98)


@pytest.mark.parametrize(
    ("differences", "naive_at_least"),
    [(discordant_pairs, 0.3), (rubric_scores, 0.3), (skewed_to_zero, 0.5)],
)
def test_betting_mixture(differences, naive_at_least, record_property):
    """Two-sided, "better" and "worse"; the t test and sequences that rest on normality fail."""
    rng = np.random.default_rng(20264)
    looks = 2000
    d = differences(rng, (STREAMS, looks))
    positive = np.array(POSITIVE_FRACTIONS)
    rates = {}
    for name, fractions in (
        ("two_sided", np.array(BET_FRACTIONS)),
        ("better", positive),
        ("worse", -positive),
    ):
        most, wealth = log_wealth_paths(fractions, d)
        rates[name] = float((most >= 1 / ALPHA).mean())
        for stream in range(5) if name == "two_sided" else ():
            # The smallest wealths underflow in the twin.
            mine, public = wealth[:, stream], betting_log_wealths(d[stream])
            assert mine == pytest.approx(np.exp(public), rel=1e-6, abs=1e-300)
            assert math.log(wealth[:, stream].mean()) == pytest.approx(
                betting_log_e(d[stream]), abs=1e-9
            )
    t = running_t(d)[:, MIN_NAIVE:]
    rates["t_test"] = float((np.abs(t) >= 1.96).any(axis=1).mean())
    publish(record_property, **{f"betting_{k}": v for k, v in rates.items()})
    for name in ("two_sided", "better", "worse"):
        assert rates[name] <= LIMIT
    assert rates["t_test"] >= naive_at_least


def test_betting_mixture_finds_a_better_score_that_is_skewed(record_property):
    """So it does not hold by never rejecting: 0.02 better on average is found within 2000."""
    rng = np.random.default_rng(20265)
    d = skewed_to_zero(rng, (STREAMS, 2000)) + 0.0
    d[d > 0] = 0.04
    most, _ = log_wealth_paths(np.array(POSITIVE_FRACTIONS), d)
    power = float((most >= 1 / ALPHA).mean())
    publish(record_property, betting_power=power)
    assert power > 0.9


def test_asymptotic_sequence_of_skewed_differences_does_not_hold(record_property):
    """Why bounded scores go to the betting mixture: 98 % tiny wins, 2 % large losses."""
    rng = np.random.default_rng(20264)
    looks = 2000
    d = skewed_to_zero(rng, (STREAMS, looks))
    precision = mixture_precision(ALPHA, 500)
    scale = np.arange(1, looks + 1) * precision
    limit = np.sqrt(2 * (scale + 1) / scale * np.log(np.sqrt(scale + 1) / ALPHA))
    crossed = np.abs(running_t(d)) >= limit
    for look in (600, 1999):
        found = mean_sequence(Moments.of(d[0, : look + 1]), precision=precision)
        assert (0.0 not in found) == crossed[0, look]
    rate = float(crossed[:, 49:].any(axis=1).mean())
    publish(record_property, asymptotic_on_skewed=rate)
    assert rate > 0.3


def lognormal(rng, shape):
    """Latencies whose logarithms are normal: any spread is the same test."""
    return rng.normal(0.3, 1.0, shape)


def cached(rng, shape):
    """Three in ten answers come from a cache, 10 to 30 times as fast."""
    hit = rng.random(shape) < 0.3
    return rng.normal(0.0, 0.4, shape) - hit * rng.uniform(2.3, 3.4, shape)


def with_timeouts(rng, shape):
    """Two in a hundred wait for a timeout 30 times as long."""
    return rng.normal(0.0, 0.5, shape) + 3.4 * (rng.random(shape) < 0.02)


@pytest.mark.parametrize("share", [0.5, 0.1])
@pytest.mark.parametrize("latencies", [lognormal, cached, with_timeouts])
def test_asymptotic_sequence_on_logarithms(latencies, share, record_property):
    """Latencies of two equal arms, from 50 values of each on; the t test does not hold."""
    rng = np.random.default_rng(20266)
    batches, looks = 4, 4000
    shape = STREAMS // batches, looks
    found = []
    for _ in range(batches):
        logs, of_b = latencies(rng, shape), rng.random(shape) < share
        (n_a, mean_a, var_a), (n_b, mean_b, var_b) = arms = (
            running_moments(logs, ~of_b),
            running_moments(logs, of_b),
        )
        z = (mean_b - mean_a) / np.sqrt(var_a / n_a + var_b / n_b)
        scale = (n_a + n_b) * mixture_precision(ALPHA, 1000)
        log_e = 0.5 * (z**2 * scale / (scale + 1) - np.log1p(scale))
        for at in ((0, 3999), (1, 2500)):
            a, b = (Moments(int(n[at]), mean[at], var[at]) for n, mean, var in arms)
            public = mean_difference_sequence(a, b).log_e()
            assert public == pytest.approx(log_e[at], abs=1e-9)
        enough = np.minimum(n_a, n_b) >= 50
        crossed = (log_e >= BAR) & enough
        found.append(
            [
                rows.any(axis=1).mean()
                for rows in (crossed, crossed & (z > 0), enough & (np.abs(z) >= 1.96))
            ]
        )
    rate, above, naive = np.mean(found, axis=0).tolist()
    publish(record_property, asymptotic_on_logs=rate, above=above, t_test=naive)
    assert 0.005 < rate <= LIMIT
    assert above <= LIMIT
    assert naive > 0.25


def running_moments(values, chosen):
    """Return count, mean and variance of the chosen values of each stream after each unit."""
    n = np.maximum(1, chosen.cumsum(axis=1))
    mean = (values * chosen).cumsum(axis=1) / n
    squares = (values**2 * chosen).cumsum(axis=1)
    variance = (squares - n * mean**2) / np.maximum(1, n - 1)
    return n, mean, np.maximum(variance, 1e-12)


def uniform(hits, n):
    return bernoulli_sequence(hits, n, alpha=ALPHA)


def tuned(hits, n):
    return tuned_bernoulli_sequence(hits, n, n_optimal=200, alpha=ALPHA)


@pytest.mark.parametrize("sequence", [uniform, tuned])
@pytest.mark.parametrize("rate", [0.8, 0.95])
def test_sequence_of_a_rate_covers_it_at_all_looks(sequence, rate, record_property):
    """1000 looks together miss a true 80 or 95 % at most 5 % of the time; Wald's interval does."""
    rng = np.random.default_rng(20267)
    looks = 1000
    hits = (rng.random((STREAMS, looks)) < rate).cumsum(axis=1)
    n = np.arange(1, looks + 1)
    too_high = least_counts(lambda hits, n: sequence(hits, n).low > rate, looks)
    too_low = least_counts(lambda miss, n: sequence(n - miss, n).high < rate, looks)
    missed = (hits >= too_high) | (n - hits >= too_low)
    miss_rate = float(missed.any(axis=1).mean())
    p = hits / n
    wald = np.abs(p - rate) > 1.96 * np.sqrt(np.maximum(p * (1 - p), 1e-9) / n)
    naive = float(wald[:, MIN_NAIVE:].any(axis=1).mean())
    publish(record_property, missed=miss_rate, wald=naive)
    assert 0.005 < miss_rate <= LIMIT
    assert naive > 0.25


@pytest.mark.parametrize(
    ("looks", "sides", "spending"),
    [
        (5, 2, obrien_fleming_spending),
        (20, 2, obrien_fleming_spending),
        (5, 1, power_spending(1)),
        (20, 1, power_spending(3)),
    ],
    ids=["5_both", "20_both", "5_one_side_even", "20_one_side_late"],
)
def test_group_sequential_bounds_at_their_looks(
    looks, sides, spending, record_property
):
    """They spend exactly 5 % at the planned looks (20 000 streams); 1.96 at each spends more."""
    rng = np.random.default_rng(20273)
    streams = 20_000
    fractions = [(i + 1) / looks for i in range(looks)]
    bounds = group_sequential_bounds(
        fractions, alpha=ALPHA, sides=sides, spending=spending
    )
    steps = rng.normal(0, math.sqrt(1 / looks), (streams, looks))
    z = steps.cumsum(axis=1) / np.sqrt(fractions)
    size = np.abs(z) if sides == 2 else z
    rate = float((size >= np.array(bounds)).any(axis=1).mean())
    fixed = 1.96 if sides == 2 else 1.645
    naive = float((size >= fixed).any(axis=1).mean())
    publish(record_property, group_sequential=rate, fixed_bound=naive)
    margin = most_allowed(ALPHA, streams) - ALPHA
    assert rate == pytest.approx(ALPHA, abs=margin)
    assert naive > 0.1


@pytest.mark.parametrize(("rate_a", "margin"), [(0.80, 0.0), (0.05, 0.02)])
def test_rates_of_two_arms_from_counts(rate_a, margin, record_property):
    """At a difference of exactly the margin; looked at after every unit of both arms.

    The evidence is the least over all pairs of rates that the hypothesis allows. It can only reach
    20 where a grid of pairs, the true one among them, has: there the public function is asked.
    """
    rng = np.random.default_rng(20274)
    looks = 400
    rate_b = rate_a + margin
    a = (rng.random((STREAMS, looks)) < rate_a).cumsum(axis=1)
    b = (rng.random((STREAMS, looks)) < rate_b).cumsum(axis=1)
    n = np.arange(1, looks + 1)

    def log_mixture(hits, n, p):
        return (
            special.betaln(1 + hits, 1 + n - hits)
            - hits * np.log(p)
            - (n - hits) * np.log1p(-p)
        )

    least = log_mixture(a, n, rate_a) + log_mixture(b, n, rate_b)
    rows, cols = np.nonzero(least >= BAR)
    hits_a, hits_b, size = a[rows, cols], b[rows, cols], n[cols]
    grid = np.linspace(0.001, 0.999 - margin, 300)[:, None]
    on_grid = log_mixture(hits_a, size, grid) + log_mixture(hits_b, size, grid + margin)
    possible = np.flatnonzero(on_grid.min(axis=0) >= BAR)
    rejected = {
        int(rows[i])
        for i in possible
        if rate_difference_log_e(
            int(hits_a[i]), int(size[i]), int(hits_b[i]), int(size[i]), margin=margin
        )
        >= BAR
    }
    rate = len(rejected) / STREAMS
    pooled = (a + b + 1) / (2 * n + 2)
    z = (b - a - margin * n) / np.sqrt(2 * n * pooled * (1 - pooled))
    naive = float((z[:, MIN_NAIVE:] >= 1.645).any(axis=1).mean())
    publish(record_property, two_rates=rate, z_test=naive)
    assert rate <= LIMIT
    assert naive > 0.15
    # Much in reserve, but not deaf: 15 points are found with 400 units each.
    better = round(400 * (rate_b + 0.15)), 400
    assert rate_difference_log_e(round(400 * rate_a), 400, *better, margin=margin) > BAR
