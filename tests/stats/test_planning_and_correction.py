"""Sample sizes, corrections for many tests and bootstrap intervals agree with the references."""

import statistics

import pytest

from sidejudge_server.stats.bootstrap import (
    bca_interval,
    percentile_interval,
    replicates_of,
)
from sidejudge_server.stats.multiple_testing import (
    benjamini_hochberg,
    benjamini_yekutieli,
    bonferroni,
    hochberg,
    holm,
    hommel,
)
from sidejudge_server.stats.outcome import CannotSay
from sidejudge_server.stats.paired import (
    mcnemar_chi_square,
    wilcoxon,
)
from sidejudge_server.stats.power import mcnemar_power
from sidejudge_server.stats.proportions import newcombe, wilson
from sidejudge_server.stats.sample_size import (
    arcsine_power,
    arcsine_sample_size,
    pooled_power,
    pooled_sample_size,
    t_test_sample_size,
)
from sidejudge_server.stats.two_proportions import cohens_h
from tests.stats.vectors import load


def test_sample_sizes_agree_with_the_vectors():
    vectors = load("power")
    for given, expected in vectors.cases:
        found = {}
        if "p1" in given:
            rates = given["p1"], given["p2"]
            options = {"alpha": given["alpha"], "ratio": given["ratio"]}
            found["cohens_h"] = abs(cohens_h(*rates))
            found["n1_normal_h"] = arcsine_sample_size(
                *rates, power=given["power"], **options
            )
            found["power_at_n200"] = arcsine_power(*rates, 200, **options)
            # The reference halves alpha twice (its "one-tail" function was given alpha/2 and a
            # two-sided alternative): 397.9 here where R's power.prop.test says 328.6 at alpha.
            found["n1_pooled_variance"] = (
                pooled_sample_size(
                    *rates, power=given["power"], alpha=given["alpha"] / 2
                )
                if given["ratio"] == 1
                else None
            )
        elif "cohens_d" in given:
            options = {"power": given["power"], "alpha": given["alpha"]}
            d = given["cohens_d"]
            found["n_two_sample_t"] = t_test_sample_size(d, paired=False, **options)
            found["n_paired_t"] = t_test_sample_size(d, paired=True, **options)
        else:
            found["power_exact_mcnemar"] = mcnemar_power(
                given["n_pairs"],
                p_win=given["p_only_b_right"],
                p_loss=given["p_only_a_right"],
                alpha=given["alpha"],
            )
        assert set(found) == set(expected)
        for name, value in expected.items():
            if value is None:
                assert found[name] is None
            else:
                assert found[name] == pytest.approx(value, abs=vectors.tolerance), name


def test_pooled_power_agrees_with_r():
    vectors = load("power_prop_test_r")
    for given, expected in vectors.cases:
        rates = given["p1"], given["p2"]
        size = pooled_sample_size(*rates, power=given["power"], alpha=given["alpha"])
        assert size == pytest.approx(expected["n_per_arm"], abs=vectors.tolerance)
        power = pooled_power(*rates, 300, alpha=given["alpha"])
        assert power == pytest.approx(expected["power_at_300"], abs=vectors.tolerance)


def test_corrections_agree_with_the_vectors():
    vectors = load("multiple_testing")
    methods = {
        "bonferroni": bonferroni,
        "holm": holm,
        "hommel": hommel,
        "fdr_bh": benjamini_hochberg,
        "fdr_by": benjamini_yekutieli,
        "simes-hochberg": hochberg,
    }
    for given, expected in vectors.cases:
        assert set(expected) == set(methods)
        for name, method in methods.items():
            assert method(given["p"]) == pytest.approx(
                expected[name], abs=vectors.tolerance
            ), name


def test_corrections_of_nothing_are_nothing_and_of_nonsense_refused():
    assert holm([]) == []
    with pytest.raises(ValueError, match=r"0\.\.1"):
        holm([0.1, float("nan")])


def test_bootstrap_intervals_agree_with_scipy():
    vectors = load("bootstrap_bca")
    of = {"mean": statistics.fmean, "median": statistics.median}
    for given, expected in vectors.cases:
        statistic, drawn = of[given["statistic"]], given["bootstrap_replicates"]
        plain = percentile_interval(drawn)
        bca = bca_interval(given["x"], statistic, drawn)
        assert [plain.low, plain.high] == pytest.approx(
            expected["percentile_ci95"], abs=vectors.tolerance
        )
        assert [bca.low, bca.high] == pytest.approx(
            expected["bca_ci95"], abs=vectors.tolerance
        )


def test_replicates_are_the_same_for_the_same_seed():
    values = [0.1, 0.4, 0.9, 0.3]
    drawn = replicates_of(values, statistics.fmean, count=50, seed=7)
    assert drawn == replicates_of(values, statistics.fmean, count=50, seed=7)
    assert drawn != replicates_of(values, statistics.fmean, count=50, seed=8)
    assert all(0.1 <= value <= 0.9 for value in drawn)


def test_further_paired_tests_agree_with_the_vectors():
    vectors = load("mcnemar")
    for given, expected in vectors.cases:
        got = mcnemar_chi_square(given["only_b_right"], given["only_a_right"])
        n = sum(given.values())
        delta = (given["only_b_right"] - given["only_a_right"]) / n
        assert delta == pytest.approx(expected["delta"], abs=vectors.tolerance)
        if "chi2" not in expected:
            assert isinstance(got, CannotSay)
            continue
        for name, value in (
            ("chi2", got.statistic),
            ("p", got.p_value),
            ("chi2_cc", got.corrected),
            ("p_cc", got.corrected_p),
        ):
            assert value == pytest.approx(expected[name], abs=vectors.tolerance), name
    vectors = load("paired_continuous")
    for given, expected in vectors.cases:
        got = wilcoxon([b - a for a, b in zip(given["a"], given["b"], strict=True)])
        assert got.statistic == pytest.approx(
            expected["wilcoxon_W"], abs=vectors.tolerance
        )
        assert got.p_value == pytest.approx(
            expected["wilcoxon_p"], abs=vectors.tolerance
        )


@pytest.mark.parametrize(
    "answer",
    [
        pooled_sample_size(0.5, 0.5),
        arcsine_sample_size(0.5, 0.5),
        percentile_interval([]),
        bca_interval([1.0, 2.0], statistics.fmean, [1.0]),
        bca_interval([1.0, 1.0, 1.0], statistics.fmean, [1.0, 1.0]),
        mcnemar_chi_square(0, 0),
        wilcoxon([0.0, 0.0]),
    ],
)
def test_data_that_cannot_answer_say_why(answer):
    assert isinstance(answer, CannotSay)
    assert answer.reason


def check_published(given, expected):
    """Return what we say to a published example of proportions or pairs, None for others."""
    if "wilson_ci95" in expected:
        got = wilson(given["k"], given["n"])
        return {"wilson_ci95": [got.low, got.high]}
    if "newcombe_ci95" in expected:
        got = newcombe(
            given["k2"], given["n2"], successes_new=given["k1"], trials_new=given["n1"]
        )
        return {"newcombe_ci95": [got.interval.low, got.interval.high]}
    if "mcnemar_chi2" in expected:
        (_, losses), (wins, _) = given["table"]
        got = mcnemar_chi_square(wins, losses)
        return {"mcnemar_chi2": got.statistic, "mcnemar_chi2_cc": got.corrected}
    return None
