"""The interval of a mean is over groups, not over items."""

import numpy as np
import pytest

from sidejudge_server.stats.group_means import group_mean


def test_the_mean_is_over_items_and_the_interval_over_groups():
    values = [1.0] * 30 + [0.0] * 30
    alone = group_mean(values, [str(i) for i in range(60)])
    together = group_mean(values, [str(i // 10) for i in range(60)])
    assert alone[0] == together[0] == 0.5
    # Six groups of ten are worth six items, not sixty.
    assert together[2] - together[1] > 2 * (alone[2] - alone[1])


def test_one_group_has_no_width():
    assert group_mean([0.2, 0.4], ["a", "a"]) == pytest.approx((0.3, 0.3, 0.3))


def test_the_interval_holds_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(4)
    held = 0
    for _ in range(300):
        effects = np.repeat(rng.normal(0, 1, 40), 3)
        values = effects + rng.normal(0, 0.3, 120)
        groups = [str(i // 3) for i in range(120)]
        _, low, high = group_mean(values, groups, replicates=400)
        held += low <= 0 <= high
    assert 0.90 <= held / 300 <= 0.99
