"""Partial rank correlation is the correlation of what regression on the third leaves of the ranks."""

import numpy as np
import pytest
from scipy import stats

from sidejudge_server.stats.outcome import CannotSay
from sidejudge_server.stats.partial_rank import partial_rank_correlation


def residuals(values, given):
    ranks, third = stats.rankdata(values), stats.rankdata(given)
    design = np.column_stack([np.ones(len(third)), third])
    fitted, *_ = np.linalg.lstsq(design, ranks, rcond=None)
    return ranks - design @ fitted


def test_it_is_what_regression_leaves():
    rng = np.random.default_rng(2)
    z = rng.integers(0, 5, 80)
    x, y = z + rng.normal(size=80), z + rng.integers(0, 3, 80)
    expected = np.corrcoef(residuals(x, z), residuals(y, z))[0, 1]
    found = partial_rank_correlation(x.tolist(), y.tolist(), z.tolist())
    assert found == pytest.approx(expected, rel=1e-12)


def test_what_cannot_be_said():
    assert isinstance(
        partial_rank_correlation([1, 2, 3], [1, 2, 3], [1, 2, 1]), CannotSay
    )
    assert isinstance(
        partial_rank_correlation([1, 1, 1, 1], [1, 2, 3, 4], [1, 2, 1, 2]), CannotSay
    )
    assert isinstance(
        partial_rank_correlation([1, 2, 3, 4], [1, 2, 2, 1], [2, 4, 6, 8]), CannotSay
    )
    assert partial_rank_correlation(
        [1, 2, 3, 4], [1, 2, 3, 4], [7, 7, 7, 7]
    ) == pytest.approx(1)
    with pytest.raises(ValueError, match="lengths"):
        partial_rank_correlation([1], [1, 2], [1])
