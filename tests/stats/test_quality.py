"""Agreement, calibration, selection and PPI agree with independent implementations."""

import math

import numpy as np
import pytest

from sidejudge_server.stats.agreement import (
    binary_agreement,
    cohen_kappa,
    confusion,
    mean_absolute_error,
    percent_agreement,
    rank_correlations,
    weighted_kappa,
)
from sidejudge_server.stats.alt_test import alt_test, matches, negative_rmse
from sidejudge_server.stats.calibration import (
    auroc,
    brier_score,
    debiased_squared_error,
    expected_calibration_error,
    log_loss,
    smooth_calibration_error,
    spiegelhalter,
)
from sidejudge_server.stats.label_shift import rogan_gladen
from sidejudge_server.stats.outcome import CannotSay
from sidejudge_server.stats.ppi import (
    BinaryCells,
    LabelledSums,
    ppi_binary_smoothed,
    ppi_mean,
)
from sidejudge_server.stats.ppi_strata import active_mean, stratified_mean
from sidejudge_server.stats.raters import (
    fleiss_kappa,
    gwet_ac1,
    intraclass_correlation,
    krippendorff_alpha,
)
from sidejudge_server.stats.recalibration import (
    fit_beta,
    fit_isotonic,
    fit_platt,
    fit_temperature,
    venn_abers,
)
from sidejudge_server.stats.selective import (
    risk_p_value,
    risk_upper_bound,
    select_threshold,
)
from tests.stats.test_planning_and_correction import check_published
from tests.stats.vectors import load


def ends(interval):
    return [interval.low, interval.high]


def agree(found, expected, tolerance, *, loose=()):
    """Compare every expected key; ``loose`` ones have the tolerance that the vectors' README names."""
    assert set(expected) <= set(found)
    for name, value in expected.items():
        limit = dict(loose).get(name, tolerance)
        assert found[name] == pytest.approx(value, abs=limit), name


def test_two_raters_agree_with_the_vectors():
    vectors = load("agreement_two_raters")
    for given, expected in vectors.cases:
        human, judge = given["human"], given["judge"]
        table = confusion(human, judge, categories=given["categories"])
        kappa = cohen_kappa(table)
        spearman, tau = rank_correlations(human, judge)
        pairs = list(zip(human, judge, strict=True))
        found = {
            "percent": percent_agreement(table),
            "kappa": kappa.estimate,
            "kappa_se": kappa.standard_error,
            "kappa_ci95": ends(kappa.interval),
            "kappa_linear": weighted_kappa(table, weights="linear"),
            "kappa_quadratic": weighted_kappa(table, weights="quadratic"),
            "spearman": spearman,
            "kendall_tau_b": tau,
            "mae": mean_absolute_error(human, judge),
            **{
                f"alpha_{scale}": krippendorff_alpha(pairs, scale=scale)
                for scale in ("nominal", "ordinal", "interval")
            },
        }
        if len(given["categories"]) == 2:
            (tn, fp), (fn, tp) = table.astype(int).tolist()
            got = binary_agreement(tp, fn, fp, tn)
            found |= {
                "tpr": got.tpr.estimate,
                "tnr": got.tnr.estimate,
                "precision": got.precision.estimate,
                "f1": got.f1,
                "mcc": got.mcc,
                "balanced_accuracy": got.balanced_accuracy,
            }
        agree(found, expected, vectors.tolerance)


def counts_of(ratings):
    categories = sorted({r for item in ratings for r in item})
    return [[list(item).count(c) for c in categories] for item in ratings]


def test_many_raters_agree_with_the_vectors():
    vectors = load("agreement_many_raters")
    for given, expected in vectors.cases:
        found = {
            f"alpha_{scale}_with_missing": krippendorff_alpha(
                given["with_missing"], scale=scale
            )
            for scale in ("nominal", "ordinal", "interval")
        }
        found["fleiss_kappa"] = fleiss_kappa(
            counts_of(given["ratings_items_by_raters"])
        )
        agree(found, expected, vectors.tolerance)


def test_gwets_coefficient_agrees_with_the_vectors():
    vectors = load("agreement_gwet")
    for given, expected in vectors.cases:
        ratings = given["ratings_items_by_raters"]
        got = gwet_ac1(ratings)
        found = {
            "gwet_ac1": got.estimate,
            "gwet_ci95": ends(got.interval),
            "krippendorff_alpha": krippendorff_alpha(ratings, scale="nominal"),
            "fleiss_kappa": fleiss_kappa(counts_of(ratings)),
        }
        agree(found, expected, vectors.tolerance)


def test_intraclass_correlations_agree_with_r():
    vectors = load("icc")
    for given, expected in vectors.cases:
        got = intraclass_correlation(given["scores_items_by_raters"])
        found = {
            "icc1": got.one_way,
            "icc2_agreement": got.agreement,
            "icc3_consistency": got.consistency,
            "icc2_ci95": ends(got.agreement_interval),
        }
        agree(found, expected, vectors.tolerance)


def test_the_alternative_annotator_test_agrees_with_the_vectors():
    vectors = load("alt_test")
    scores = {"accuracy": matches, "neg_rmse": negative_rmse}
    for given, expected in vectors.cases:
        got = alt_test(
            given["annotators_by_items"],
            given["judge"],
            score=scores[given["score"]],
            epsilon=given["epsilon"],
            q=given["q"],
        )
        found = {
            "p_values": list(got.p_values),
            "winning_rate": got.winning_rate,
            "advantage_probability": got.advantage,
        }
        agree(found, expected, vectors.tolerance)
        assert got.may_replace == (got.winning_rate >= 0.5)


def test_published_examples_come_out_as_printed():
    vectors = load("published")
    for given, expected in vectors.cases:
        found = check_published(given, expected)
        if "observers_by_units" in given:
            items = list(zip(*given["observers_by_units"], strict=True))
            found = {
                name: krippendorff_alpha(items, scale=name.removeprefix("alpha_"))
                for name in expected
            }
        elif "counts" in given:
            found = {"fleiss_kappa": fleiss_kappa(given["counts"])}
        agree(found, expected, 1e-3 if "mcnemar_chi2" in expected else 6e-4)


def labelled_sums(y, f, fu):
    return LabelledSums(
        n=len(y),
        y=math.fsum(y),
        yy=math.fsum(a * a for a in y),
        f=math.fsum(f),
        ff=math.fsum(a * a for a in f),
        yf=math.fsum(a * b for a, b in zip(y, f, strict=True)),
        unlabelled=len(fu),
        fu=math.fsum(fu),
        ffu=math.fsum(a * a for a in fu),
    )


def classical(y):
    """The mean of labels with a normal interval and the population variance, as the reference has it."""
    mean, half = np.mean(y), 1.959963984540054 * np.std(y) / math.sqrt(len(y))
    return [mean - half, mean + half]


def test_ppi_agrees_with_the_vectors():
    vectors = load("ppi_mean")
    for given, expected in vectors.cases:
        sums = labelled_sums(given["y"], given["f"], given["f_unlabelled"])
        plain = ppi_mean(sums, weight=1.0, student=False)
        tuned = ppi_mean(sums, student=False)
        z = (tuned.estimate - 0.75) / tuned.standard_error
        found = {
            "ppi_estimate": plain.estimate,
            "ppi_ci95": ends(plain.interval),
            "ppi_pp_estimate": tuned.estimate,
            "ppi_pp_ci95": ends(tuned.interval),
            "ppi_pp_p_null_0_75": math.erfc(abs(z) / math.sqrt(2)),
            "lambda": tuned.weight,
            "classical_ci95": classical(given["y"]),
        }
        agree(found, expected, vectors.tolerance)


def cells_of(y, f, fu):
    pairs = list(zip(y, f, strict=True))
    return BinaryCells(
        both=pairs.count((1, 1)),
        label_only=pairs.count((1, 0)),
        judge_only=pairs.count((0, 1)),
        neither=pairs.count((0, 0)),
        unlabelled=len(fu),
        unlabelled_hits=sum(fu),
    )


def test_smoothed_ppi_agrees_with_the_vectors():
    vectors = load("ppi_binary_smoothed")
    for given, expected in vectors.cases:
        cells = cells_of(given["y"], given["f"], given["f_unlabelled"])
        got = ppi_binary_smoothed(cells, alpha=given["alpha"])
        found = {
            "lam": got.weight,
            "estimate": got.estimate,
            "se": got.standard_error,
            "ci95": ends(got.interval),
        }
        agree(found, expected, vectors.tolerance)


def test_stratified_and_active_means_agree_with_the_vectors():
    vectors = load("ppi_stratified_active")
    for given, expected in vectors.cases:
        rows = list(zip(given["stratum"], given["f"], given["y"], strict=True))
        strata = [
            labelled_sums(
                [y for s, _, y in rows if s == name and y is not None],
                [f for s, f, y in rows if s == name and y is not None],
                [f for s, f, y in rows if s == name and y is None],
            )
            for name in dict.fromkeys(given["stratum"])
        ]
        one = stratified_mean(strata)
        other = active_mean(given["f"], given["y"], given["inclusion_probability"])
        found = {
            "stratified_estimate": one.estimate,
            "stratified_ci95_t": ends(one.interval),
            "active_ipw_estimate": other.estimate,
            "active_ci95_t": ends(other.interval),
        }
        agree(found, expected, vectors.tolerance)


def test_rogan_and_gladen_agree_with_the_vectors():
    vectors = load("rogan_gladen")
    for given, expected in vectors.cases:
        pairs = list(zip(given["y"], given["f"], strict=True))
        fu = given["f_unlabelled"]
        got = rogan_gladen(
            pairs.count((1, 1)),
            sum(given["y"]),
            pairs.count((0, 0)),
            len(pairs) - sum(given["y"]),
            hits=sum(fu),
            n=len(fu),
        )
        found = {
            "tpr": got.tpr,
            "tnr": got.tnr,
            "theta": got.estimate,
            "se_delta": got.standard_error,
        }
        agree(found, expected, vectors.tolerance)


def test_calibration_agrees_with_the_vectors():
    vectors = load("calibration_metrics")
    for given, expected in vectors.cases:
        p, y = given["p"], given["y"]
        z = spiegelhalter(p, y)
        found = {
            "brier": brier_score(p, y),
            "log_loss": log_loss(p, y),
            "auroc": auroc(p, y),
            "ece_equal_width_10": expected_calibration_error(p, y, equal_mass=False),
            "ece_equal_mass_10": expected_calibration_error(p, y, equal_mass=True),
            "debiased_squared_l2_ce_equal_mass_10": debiased_squared_error(p, y),
            "smece": smooth_calibration_error(p, y),
            "spiegelhalter_z": z.z,
            "spiegelhalter_p": z.p_value,
        }
        agree(found, expected, vectors.tolerance, loose=[("smece", 2e-3)])


def test_recalibration_agrees_with_the_vectors():
    vectors = load("recalibration")
    for given, expected in vectors.cases:
        p, y, at = given["p"], given["y"], given["test_p"]
        temperature, platt = fit_temperature(p, y), fit_platt(p, y)
        isotonic, beta = fit_isotonic(p, y), fit_beta(p, y)
        pairs = [venn_abers(p, y, at=x) for x in at]
        found = {
            "temperature": temperature.temperature,
            "temperature_test": [temperature(x) for x in at],
            "platt_slope": platt.slope,
            "platt_intercept": platt.intercept,
            "platt_test": [platt(x) for x in at],
            "isotonic_test": [isotonic(x) for x in at],
            "beta_test": [beta(x) for x in at],
            "venn_abers_p0": [pair.low for pair in pairs],
            "venn_abers_p1": [pair.high for pair in pairs],
            "venn_abers_merged": [pair.merged for pair in pairs],
        }
        agree(found, expected, vectors.tolerance, loose=[("beta_test", 2e-2)])


def test_selective_thresholds_agree_with_the_vectors():
    vectors = load("selective_threshold")
    for given, expected in vectors.cases:
        if "errors" in given:
            counts = given["errors"], given["n"]
            found = {
                "upper_bound": risk_upper_bound(*counts, delta=given["delta"]),
                "p_value_risk_gt_0_10": risk_p_value(*counts, alpha=0.10),
                "p_value_risk_gt_0_15": risk_p_value(*counts, alpha=0.15),
            }
            agree(found, expected, vectors.tolerance)
            continue
        got = select_threshold(
            given["confidence"],
            given["error"],
            given["thresholds_in_test_order"],
            alpha=given["alpha"],
            delta=given["delta"],
        )
        if expected["threshold"] is None:
            assert isinstance(got, CannotSay)
            assert "more without error" in got.reason
            continue
        sure, wrong = np.array(given["confidence"]), np.array(given["error"])
        p_values = [
            risk_p_value(
                int(wrong[sure >= t].sum()),
                int((sure >= t).sum()),
                alpha=given["alpha"],
            )
            for t in given["thresholds_in_test_order"]
        ]
        found = {
            "threshold": got.threshold,
            "n_accepted": got.accepted,
            "p_values": p_values,
            "rejected_indices": list(range(got.passed)),
        }
        agree(found, expected, vectors.tolerance)


@pytest.mark.parametrize(
    "answer",
    [
        cohen_kappa(np.zeros((2, 2))),
        cohen_kappa(np.array([[5.0, 0.0], [0.0, 0.0]])),
        weighted_kappa(np.array([[5.0, 0.0], [0.0, 0.0]]), weights="quadratic"),
        percent_agreement(np.zeros((2, 2))),
        rank_correlations([1, 1], [1, 2]),
        mean_absolute_error([], []),
        krippendorff_alpha([[1, None], [None, 2]], scale="nominal"),
        krippendorff_alpha([[1, 1], [1, 1]], scale="interval"),
        fleiss_kappa([]),
        fleiss_kappa([[3, 0], [3, 0]]),
        gwet_ac1([[1, 1]]),
        intraclass_correlation([[1.0, 2.0]]),
        intraclass_correlation([[1.0, 1.0], [1.0, 1.0]]),
        alt_test([[1] * 5, [1] * 5], [1] * 5),
        rogan_gladen(1, 2, 1, 2, hits=3, n=5),
        rogan_gladen(1, 1, 0, 0, hits=3, n=5),
        ppi_binary_smoothed(BinaryCells(0, 0, 0, 0, 5, 3)),
        ppi_binary_smoothed(BinaryCells(1, 1, 1, 1, 0, 0)),
        ppi_mean(labelled_sums([1.0], [1.0], [1.0])),
        ppi_mean(labelled_sums([1.0, 1.0], [1.0, 1.0], [1.0])),
        stratified_mean([labelled_sums([1.0], [1.0], [1.0])]),
        active_mean([1.0], [1.0], [0.5]),
        brier_score([], []),
        log_loss([], []),
        auroc([0.2, 0.3], [1, 1]),
        debiased_squared_error([0.5] * 5, [1] * 5),
        spiegelhalter([0.5, 0.5], [0, 1]),
        fit_temperature([0.2, 0.8], [1, 1]),
        fit_platt([0.2, 0.8], [0, 1]),
        fit_beta([0.2, 0.8], [1, 1]),
        fit_isotonic([], []),
        venn_abers([], [], at=0.5),
        select_threshold([], [], [0.9], alpha=0.1, delta=0.1),
    ],
)
def test_data_that_cannot_answer_say_why(answer):
    assert isinstance(answer, CannotSay)
    assert len(answer.reason) > 7


PASS_RATES = (0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.97)
JUDGES = (0.6, 0.7, 0.8, 0.9, 0.95)
RUNS = 1_500


def coverage(n, pass_rate, accuracy, unlabelled, rng):
    """Return how often the smoothed and the published interval cover the pass rate."""
    hits = rng.binomial(n, pass_rate, RUNS)
    both = rng.binomial(hits, accuracy)
    judge_only = rng.binomial(n - hits, 1 - accuracy)
    rate_f = pass_rate * accuracy + (1 - pass_rate) * (1 - accuracy)
    fu = rng.binomial(unlabelled, rate_f, RUNS)
    covered = published = 0
    for b, h, j, u in zip(
        both.tolist(), hits.tolist(), judge_only.tolist(), fu.tolist(), strict=True
    ):
        cells = BinaryCells(b, h - b, j, n - h - j, unlabelled, u)
        got = ppi_binary_smoothed(cells)
        covered += got.interval.low <= pass_rate <= got.interval.high
        plain = ppi_mean(cells.sums(), student=False)
        if not isinstance(plain, CannotSay):
            published += plain.interval.low <= pass_rate <= plain.interval.high
    return covered / RUNS, published / RUNS


@pytest.mark.slow
def test_the_smoothed_interval_covers_on_the_whole_grid_where_the_published_one_does_not(
    record_property,
):
    """40 pass rates and judges for each n, with 2 n and 20 n judgments."""
    rng = np.random.default_rng(7)
    for n in (20, 30, 50, 100):
        found = [
            coverage(n, rate, accuracy, factor * n, rng)
            for rate in PASS_RATES
            for accuracy in JUDGES
            for factor in (2, 20)
        ]
        ours, theirs = zip(*found, strict=True)
        record_property(
            f"coverage at {n} labels",
            f"smoothed min {min(ours):.3f} mean {np.mean(ours):.3f},"
            f" published min {min(theirs):.3f} mean {np.mean(theirs):.3f}",
        )
        assert min(ours) >= 0.91
        assert min(theirs) < 0.91
