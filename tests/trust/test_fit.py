"""Maps are fitted when there are labels enough, and measured on labels that were left out."""

import math

import numpy as np
import pytest

from sidejudge_server.stats.recalibration import (
    BetaMap,
    PlattMap,
    TemperatureMap,
    venn_abers,
)
from sidejudge_server.trust.codec import reliability_from_json, reliability_to_json
from sidejudge_server.trust.fit import Labelled, fit_map, fit_reliability
from sidejudge_server.trust.types import ConfidenceMap, MapKind


def labelled(rng, n, truth, *, groups=None):
    """Return items with confidences in 0.5..1 that are right with probability ``truth(p)``."""
    items = []
    for index, p in enumerate(rng.uniform(0.5, 1, n)):
        group = f"g{index % groups}" if groups else f"g{index}"
        items.append(Labelled(float(p), bool(rng.random() < truth(p)), group))
    return items


def overconfident(p):
    """Right as often as a temperature of 3 says."""
    return 1 / (1 + math.exp(-math.log(p / (1 - p)) / 3))


@pytest.mark.parametrize("p", [1e-15, 0.02, 0.5, 0.73, 0.999, 1.0])
def test_maps_say_what_the_fitted_ones_say(p):
    cases = [
        (TemperatureMap(2.5), ConfidenceMap(MapKind.TEMPERATURE, 0.4, 0.4, 0.0)),
        (PlattMap(1.5, -0.3), ConfidenceMap(MapKind.PLATT, 1.5, 1.5, -0.3)),
        (BetaMap(0.7, 1.9, 0.2), ConfidenceMap(MapKind.BETA, 0.7, 1.9, 0.2)),
    ]
    for theirs, ours in cases:
        assert ours(p) == pytest.approx(theirs(p), rel=1e-12, abs=1e-300)


def test_below_thirty_labels_there_is_no_map_and_the_reason_says_how_many_are_missing():
    rng = np.random.default_rng(1)
    found = fit_reliability(labelled(rng, 29, overconfident), [])
    assert found.calibration is None
    assert "1 more" in found.reason
    assert found.labels == 29
    more = fit_reliability(labelled(rng, 30, overconfident), [])
    assert more.calibration is not None
    assert more.calibration.map.kind is MapKind.TEMPERATURE
    assert more.reason == ""


def test_calibration_helps_an_overconfident_judge_on_labels_it_has_not_seen():
    found = fit_reliability(
        labelled(np.random.default_rng(2), 190, overconfident), []
    ).calibration
    assert found.map.kind is MapKind.TEMPERATURE
    assert 1 / found.map.a > 1.5, "it takes confidence away"
    assert found.brier_score.value < found.raw_brier_score.value
    assert found.improvement.low > 0, "shown, not only seen"
    assert found.improvement.value == pytest.approx(
        found.raw_brier_score.value - found.brier_score.value
    )
    assert found.brier_score.low < found.brier_score.value < found.brier_score.high
    assert 0.4 < found.auroc.value < 0.8
    assert abs(found.calibration_error.value) < 0.03


def test_from_two_hundred_labels_the_map_may_bend():
    def shifted(p):
        return 1 / (1 + math.exp(-(0.6 * math.log(p / (1 - p)) - 1.0)))

    found = fit_reliability(
        labelled(np.random.default_rng(3), 800, shifted), []
    ).calibration
    assert found.map.kind in (MapKind.PLATT, MapKind.BETA)
    assert found.map(0.9) == pytest.approx(shifted(0.9), abs=0.06)


def test_a_judge_that_is_mostly_wrong_gets_a_map_that_says_so():
    found = fit_reliability(
        labelled(np.random.default_rng(4), 100, lambda p: 0.1 + 0.3 * p), []
    ).calibration
    assert found.map.kind is MapKind.PLATT
    assert found.map(0.75) < 0.5


def test_labels_of_one_kind_fit_no_map():
    found = fit_reliability(labelled(np.random.default_rng(5), 60, lambda _: 1.0), [])
    assert found.calibration is None
    assert "all agree" in found.reason
    assert found.interval(0.9)[0] > 0.5


def test_intervals_count_groups_not_items():
    """40 groups whose members all have one label are worth 40 labels, not 400."""
    rng = np.random.default_rng(6)
    items = []
    for group in range(40):
        right = bool(rng.random() < 0.5)
        # Confidence says nothing at all.
        items += [Labelled(0.9, right, f"g{group}") for _ in range(10)]
    found = fit_reliability(items, []).calibration
    apart = [
        Labelled(item.confidence, item.agrees, f"i{index}")
        for index, item in enumerate(items)
    ]
    alone = fit_reliability(apart, []).calibration
    assert found.raw_brier_score.high - found.raw_brier_score.low > 2 * (
        alone.raw_brier_score.high - alone.raw_brier_score.low
    )


def test_confidence_without_meaning_is_mapped_to_the_rate():
    found = fit_map(MapKind.PLATT, [0.6, 0.9] * 3, [1, 0, 1, 0, 0, 1])
    assert found(0.6) == found(0.99) == pytest.approx(0.5)
    rng = np.random.default_rng(9)
    fitted = fit_reliability(
        labelled(rng, 150, lambda p: 1.3 - 0.8 * p), []
    ).calibration
    assert fitted.map(0.95) - fitted.map(0.6) < 0.2, "not 0.35 as it says"
    assert fitted.improvement.value > 0


def test_a_map_that_does_not_help_on_left_out_labels_is_not_used():
    """A calibrated judge has nothing to gain, and 40 labels are enough to lose."""
    refused = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        found = fit_reliability(labelled(rng, 40, lambda p: p), [])
        if found.calibration is None:
            refused += 1
            assert "no map is better" in found.reason
        else:
            assert found.calibration.map.kind in (MapKind.TEMPERATURE, MapKind.PLATT)
    assert 5 <= refused <= 19


def test_the_interval_holds_the_venn_abers_pair_of_every_confidence():
    rng = np.random.default_rng(7)
    items = labelled(rng, 120, overconfident)
    p = [item.confidence for item in items]
    y = [int(item.agrees) for item in items]
    table = fit_reliability(items, []).interval
    for at in rng.uniform(0.5, 1, 50):
        pair = venn_abers(p, y, at=float(at))
        low, high = table(float(at))
        assert low <= pair.low + 1e-12
        assert high >= pair.high - 1e-12
    assert 0 <= table(0.0)[0] <= table(1.0)[1] <= 1


def test_it_is_the_same_after_it_was_stored():
    rng = np.random.default_rng(8)
    for n in (25, 60):
        found = fit_reliability(labelled(rng, n, overconfident), [0.6, 0.7, 0.8])
        assert reliability_from_json(reliability_to_json(found)) == found
