"""What watches a rollout or a split keeps its error rate when it is looked at after every unit.

As in test_peeking: streams at the worst case that the hypothesis allows, a textbook's test beside
them that fails the same bar, and twins for many streams that are compared with the public function.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import special

from sidejudge_server.stats.harm import HARM_RATIOS, StageFailures, harm_log_e
from sidejudge_server.stats.sample_ratio import sample_ratio_log_e
from tests.stats.streams import (
    ALPHA,
    BAR,
    LIMIT,
    MIN_NAIVE,
    STREAMS,
    first_looks,
    least_counts,
    most_allowed,
    publish,
)

pytestmark = pytest.mark.slow

ALARM = math.log(1000)
"""Evidence at which a split is called broken."""

STAGES = ((0.05, 500), (0.10, 1000), (0.25, 1500), (0.50, 2000))
"""Share of the candidate, and units, of each stage of a rollout."""


def harm_paths(rng, baseline, candidate, max_ratio):
    """Return ln E after each unit and its final value's stages, streams in rows.

    Args:
        rng: Source of chance.
        baseline: Failure rate of the baseline, by unit.
        candidate: That of the candidate.
        max_ratio: Tolerated.
    """
    share = np.repeat([s for s, _ in STAGES], [n for _, n in STAGES])
    units = len(share)
    of_b = rng.random((STREAMS, units)) < share
    failed = rng.random((STREAMS, units)) < np.where(of_b, candidate, baseline)
    ratios = np.maximum(HARM_RATIOS, max_ratio)[:, None]
    parts = [share * r / (share * r + 1 - share) for r in (ratios, max_ratio)]
    if_b, if_a = np.log(parts[0] / parts[1]), np.log((1 - parts[0]) / (1 - parts[1]))
    sums = np.zeros((len(ratios), STREAMS))
    path = np.zeros((STREAMS, units))
    for unit in range(units):
        hit = failed[:, unit]
        step = np.where(of_b[:, unit], if_b[:, unit, None], if_a[:, unit, None])
        sums += np.where(hit, step, 0.0)
        path[:, unit] = np.exp(sums).mean(axis=0)
    first = [
        StageFailures(
            int((failed[0] & ~of_b[0] & (share == s)).sum()),
            int((failed[0] & of_b[0] & (share == s)).sum()),
            s,
        )
        for s, _ in STAGES
    ]
    public = harm_log_e(first, max_ratio=max_ratio)
    assert math.log(path[0, -1]) == pytest.approx(public, abs=1e-9)
    return path, of_b, failed


@pytest.mark.parametrize(
    ("name", "baseline", "ratio", "max_ratio"),
    [
        ("equal", 0.10, 1.0, 1.0),
        ("equal_rare", 0.02, 1.0, 1.0),
        ("better", 0.10, 0.8, 1.0),
        ("tolerated", 0.10, 1.1, 1.1),
        ("better_than_tolerated", 0.20, 0.5, 1.1),
    ],
)
def test_harm_test_while_the_share_grows(
    name, baseline, ratio, max_ratio, record_property
):
    """5, 10, 25 and 50 %: no more than 5 % of harmless rollouts are ever taken back."""
    rng = np.random.default_rng(20268)
    path, of_b, failed = harm_paths(rng, baseline, baseline * ratio, max_ratio)
    rate = float((path >= 1 / ALPHA).any(axis=1).mean())
    publish(record_property, **{f"harm_{name}": rate})
    assert rate <= LIMIT
    if name == "equal":
        of_b, failed = of_b[:500], failed[:500]  # enough, and a quarter of the memory
        n_b, x_b = of_b.cumsum(axis=1), (failed & of_b).cumsum(axis=1)
        n_a, x_a = (~of_b).cumsum(axis=1), (failed & ~of_b).cumsum(axis=1)
        pooled = (x_a + x_b) / (n_a + n_b)
        error = np.sqrt(
            pooled * (1 - pooled) * (1 / np.maximum(1, n_a) + 1 / np.maximum(1, n_b))
        )
        z = (x_b / np.maximum(1, n_b) - x_a / np.maximum(1, n_a)) / np.maximum(
            error, 1e-9
        )
        enough = (n_b >= MIN_NAIVE) & (x_a + x_b >= MIN_NAIVE)
        naive = float(((z >= 1.645) & enough).any(axis=1).mean())
        publish(record_property, harm_z_test=naive)
        assert rate > 0.01
        assert naive > 0.2


def test_harm_test_when_all_units_become_harder(record_property):
    """Both arms fail four times as often while the candidate's share is largest: still no harm."""
    rng = np.random.default_rng(20269)
    difficulty = np.repeat([0.05, 0.05, 0.10, 0.20], [n for _, n in STAGES])
    path, of_b, failed = harm_paths(rng, difficulty, difficulty, 1.0)
    rate = float((path >= 1 / ALPHA).any(axis=1).mean())
    totals = (failed & of_b).sum() / of_b.sum(), (failed & ~of_b).sum() / (~of_b).sum()
    publish(record_property, harm_harder=rate, rate_b=totals[0], rate_a=totals[1])
    assert rate <= LIMIT
    # What a comparison of all failures by all units would fall for.
    assert totals[0] > 1.2 * totals[1]


def test_harm_test_takes_a_bad_candidate_back(record_property):
    """10 -> 20 %: all, after 1114 units in the median (STATISTICS, 4000 runs)."""
    rng = np.random.default_rng(20270)
    path, _, _ = harm_paths(rng, 0.10, 0.20, 1.0)
    found = first_looks(path >= 1 / ALPHA)
    power = float(np.isfinite(found).mean())
    median = float(np.median(found))
    publish(record_property, harm_power=power, harm_units_median=median)
    assert power > 0.99
    assert median == pytest.approx(1114, abs=80)


@pytest.mark.parametrize("weights", [(0.5, 0.5), (0.7, 0.2, 0.1), (0.95, 0.05)])
def test_sample_ratio(weights, record_property):
    """Split as planned: ever E >= 20 in at most 5 %, ever E >= 1000 in at most 0.1 %."""
    rng = np.random.default_rng(20271)
    looks, k = 5000, 100.0
    arm = rng.choice(len(weights), size=(STREAMS, looks), p=weights)
    share = np.array(weights)
    counts = np.zeros((STREAMS, len(weights)))
    log_e, most = np.zeros(STREAMS), np.zeros(STREAMS)
    chi, rows = np.zeros(STREAMS), np.arange(STREAMS)
    for look in range(looks):
        units = arm[:, look]
        prior = k * share[units] + counts[rows, units]
        # E grows by what the Dirichlet predicted over what was planned.
        log_e += np.log(prior / ((k + look) * share[units]))
        counts[rows, units] += 1
        np.maximum(most, log_e, out=most)
        if look >= 100:
            planned = (look + 1) * share
            np.maximum(chi, ((counts - planned) ** 2 / planned).sum(axis=1), out=chi)
    for stream in range(5):
        public = sample_ratio_log_e(counts[stream].astype(int).tolist(), weights)
        assert public == pytest.approx(log_e[stream], abs=1e-8)
    rate = float((most >= BAR).mean())
    alarms = float((most >= ALARM).mean())
    bound = float(special.chdtri(len(weights) - 1, 0.001))
    naive = float((chi >= bound).mean())
    publish(record_property, srm_20=rate, srm_1000=alarms, chi_square_0001=naive)
    assert rate <= LIMIT
    assert alarms <= most_allowed(0.001)
    assert naive > most_allowed(0.001)


def test_sample_ratio_notices_a_lost_fifth(record_property):
    """An arm that loses a fifth of its units (50 : 40) is found within 5000 units."""
    rng = np.random.default_rng(20272)
    looks = 5000
    of_whole = (rng.random((STREAMS, looks)) < 50 / 90).cumsum(axis=1)

    def alarms(count, n):
        split = [count, n - count]
        return count > n / 2 and sample_ratio_log_e(split, [0.5, 0.5]) >= ALARM

    found = first_looks(of_whole >= least_counts(alarms, looks))
    power, median = float(np.isfinite(found).mean()), float(np.median(found))
    publish(record_property, srm_power=power, srm_units_median=median)
    assert power > 0.95
