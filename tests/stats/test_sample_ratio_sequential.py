"""The streamed test of sample ratio mismatch agrees with the reference."""

from __future__ import annotations

import math

import pytest

from sidejudge_server.stats.betting import anytime_p
from sidejudge_server.stats.sample_ratio import sample_ratio_log_e
from tests.stats.vectors import load


def test_evidence_after_each_batch_agrees_with_the_vectors():
    """Two and three arms; the p-value is of the largest evidence so far."""
    vectors = load("srm_sequential")
    for case, expected in vectors.cases:
        assert expected.keys() == {
            "bayes_factor_after_each_batch",
            "p_final_running_min",
        }
        counts, largest = [0] * len(case["weights"]), 0.0
        for batch, factor in zip(
            case["batches"], expected["bayes_factor_after_each_batch"], strict=True
        ):
            counts = [old + new for old, new in zip(counts, batch, strict=True)]
            log_e = sample_ratio_log_e(
                counts, case["weights"], concentration=case["concentration"]
            )
            assert math.exp(log_e) == pytest.approx(factor, abs=vectors.tolerance)
            largest = max(largest, log_e)
        assert anytime_p(largest) == pytest.approx(
            expected["p_final_running_min"], abs=vectors.tolerance
        )


def test_no_units_are_no_evidence():
    """E is 1."""
    assert sample_ratio_log_e([0, 0], [0.5, 0.5]) == 0


def test_a_broken_split_is_noticed():
    """600 : 400 at an even split passes 1000; 520 : 480 is below 1."""
    assert sample_ratio_log_e([600, 400], [0.5, 0.5]) > math.log(1000)
    assert sample_ratio_log_e([520, 480], [0.5, 0.5]) < 0


@pytest.mark.parametrize("concentration", [0, -1, math.nan])
def test_a_concentration_that_is_not_positive_is_refused(concentration):
    """It would be no prior."""
    with pytest.raises(ValueError, match="concentration"):
        sample_ratio_log_e([1, 1], [0.5, 0.5], concentration=concentration)
