"""Components of variance equal the one-way intraclass correlation, and a hand-made case."""

import numpy as np
import pytest

from sidejudge_server.stats.outcome import CannotSay
from sidejudge_server.stats.raters import intraclass_correlation
from sidejudge_server.stats.repeats import variance_components


def test_complete_tables_give_the_one_way_intraclass_correlation():
    rng = np.random.default_rng(1)
    table = rng.normal(size=(12, 1)) + 0.7 * rng.normal(size=(12, 4))
    found = variance_components(table.tolist())
    expected = intraclass_correlation(table.tolist()).one_way
    assert 1 - found.noise_share == pytest.approx(expected, rel=1e-12)


def test_items_of_different_numbers_by_hand():
    """Means 1 and 4; SS within 2 + 8 on 1 + 2 degrees; SS between 2 (1 - 2.8)^2 + 3 (4 - 2.8)^2."""
    found = variance_components([[0, 2], [2, 4, 6]])
    assert found.within == pytest.approx(10 / 3)
    assert found.between == pytest.approx((10.8 - 10 / 3) / (5 - 13 / 5))


def test_without_spread_there_is_no_noise_and_without_items_no_answer():
    assert variance_components([[1, 1], [1, 1]]).noise_share == 0
    assert variance_components([[1, 2], [2, 1]]).noise_share == 1
    assert isinstance(variance_components([[1, 2]]), CannotSay)
    with pytest.raises(ValueError, match="two values"):
        variance_components([[1, 2], [1]])
