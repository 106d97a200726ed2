"""A certificate keeps its promise, and without one it says what is missing."""

import math

import numpy as np
import pytest
from scipy import stats

from sidejudge_server.trust.certify import certify, risks
from sidejudge_server.trust.types import Reliability, Target

TARGET = Target(0.9, 0.9)


def reliability(confidence, wrong, unlabelled=()):
    found = risks(confidence, wrong, unlabelled)
    n = len(confidence)
    return Reliability(n, n - int(sum(wrong)), None, "", None, found)


def monotone(p):
    return 1 - p


def non_monotone(p):
    """The most confident answers are the worse ones."""
    return np.where(p >= 0.85, 0.14, 0.05)


def boundary(p):
    """Wrong a little more often than is allowed, at every confidence."""
    return np.full_like(p, 0.101)


def selective_error(error, threshold):
    """Return the true error rate of what a threshold accepts."""
    grid = np.linspace(0.5, 1, 20_001)
    return float(error(grid[grid >= threshold]).mean())


@pytest.mark.slow
@pytest.mark.parametrize("error", [monotone, non_monotone, boundary])
@pytest.mark.parametrize("n", [100, 300])
def test_certified_thresholds_violate_their_target_as_rarely_as_they_say(error, n):
    """At most delta of 1000 label sets, plus three standard errors."""
    rng = np.random.default_rng(n)
    runs, violations = 1000, 0
    for _ in range(runs):
        p = rng.uniform(0.5, 1, n)
        wrong = (rng.random(n) < error(p)).astype(int)
        found = certify(reliability(p, wrong, rng.uniform(0.5, 1, 300)), TARGET)
        if found.threshold is not None:
            violations += selective_error(error, found.threshold) > 0.1
    allowed = 0.1 + 3 * math.sqrt(0.1 * 0.9 / runs)
    assert violations / runs <= allowed


def test_a_good_judge_is_certified_for_most_of_its_answers():
    """Wrong in a quarter of the least and in none of the most confident answers, 300 labels."""
    rng = np.random.default_rng(5)
    coverages = []
    for _ in range(200):
        p = rng.uniform(0.5, 1, 300)
        wrong = (rng.random(300) < (1 - p) / 2).astype(int)
        found = certify(reliability(p, wrong, rng.uniform(0.5, 1, 300)), TARGET)
        coverages.append(found.coverage)
    # All that could be accepted is 80 %.
    assert 0.4 < np.mean(coverages) < 0.8
    assert np.mean(np.array(coverages) > 0) > 0.7


def test_thresholds_come_from_other_items_and_count_ties_together():
    confidence = [0.9, 0.9, 0.8, 0.7, 0.6]
    wrong = [0, 1, 0, 0, 1]
    found = risks(confidence, wrong, [0.9, 0.9, 0.9, 0.9, 0.7, 0.7, 0.7, 0.6, 0.6, 0.6])
    assert [(r.threshold, r.accepted, r.errors, r.coverage) for r in found] == [
        (0.9, 2, 1, 0.4),
        (0.7, 4, 1, 0.7),
        (0.6, 5, 2, 1.0),
    ]
    assert risks([], [], []) == ()


def test_the_lowest_threshold_that_holds_with_all_above_it_is_taken():
    confidence = np.repeat([0.95, 0.85, 0.75, 0.65], [100, 100, 100, 100])
    wrong = np.concatenate(
        [
            np.arange(100) < 2,
            np.arange(100) < 6,
            np.arange(100) < 30,
            np.arange(100) < 0,
        ]
    ).astype(int)
    found = certify(reliability(confidence, wrong), TARGET)
    # 8 of 200 pass; 38 of 300 do not, and the walk ends there whatever comes below.
    assert stats.binom.cdf(8, 200, 0.1) <= 0.1 < stats.binom.cdf(38, 300, 0.1)
    assert (found.threshold, found.accepted, found.errors) == (0.85, 200, 8)
    assert found.coverage == 0.5
    assert found.labels == 400
    assert found.labels_missing is None
    assert "90%" in found.reason


def test_one_error_does_not_end_the_walk_at_its_first_step():
    """38 accepted labels certify with one error; the first threshold has fewer and is left out."""
    confidence = np.linspace(1, 0.5, 100)
    wrong = np.zeros(100, dtype=int)
    wrong[3] = 1
    found = certify(reliability(confidence, wrong), TARGET)
    assert found.threshold is not None
    assert found.coverage == 1.0


def test_without_labels_it_says_about_how_many_are_missing():
    found = certify(Reliability(0, 0, None, "", None, ()), TARGET)
    assert found.threshold is None
    assert found.coverage == 0
    assert found.labels_missing is not None
    assert 300 <= found.labels_missing <= 700
    assert "no audit labels" in found.reason


def test_what_is_missing_is_about_what_it_takes():
    """With as many more labels as it says it certifies about four times in five."""
    rng = np.random.default_rng(3)
    n = 20
    p = rng.uniform(0.5, 1, n)
    wrong = (np.arange(n) == 0).astype(int)
    first = certify(reliability(p, wrong), TARGET)
    assert first.threshold is None
    total = n + first.labels_missing
    passed = 0
    for _ in range(200):
        p = rng.uniform(0.5, 1, total)
        wrong = (rng.random(total) < 0.05).astype(int)
        passed += certify(reliability(p, wrong), TARGET).threshold is not None
    assert 0.6 <= passed / 200 <= 0.99


def test_a_judge_that_errs_too_often_is_not_sent_for_more_labels():
    n = 200
    found = certify(reliability(np.linspace(0.5, 1, n), np.arange(n) % 3 == 0), TARGET)
    assert found.threshold is None
    assert found.labels_missing is None
    assert "optimize the judge" in found.reason
