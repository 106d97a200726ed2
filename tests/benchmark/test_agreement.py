"""Agreement figures against values worked out by hand."""

from __future__ import annotations

import pytest

from sidejudge_server.benchmark.agreement import (
    Answer,
    by_source,
    score_agreement,
    verdict_agreement,
)
from sidejudge_server.benchmark.report import markdown, summarise
from sidejudge_server.benchmark.runner import ItemFailure, RunResult
from sidejudge_server.judges.types import Verdict

P, F, H = Verdict.PASS, Verdict.FAIL, Verdict.PARTIAL
# label, answer: pass 3 of 4 right, fail 2 of 3, partial 0 of 1
PAIRS = [(P, P), (P, P), (P, P), (P, F), (F, F), (F, F), (F, P), (H, P)]


def answers(pairs: list[tuple[Verdict | float, Verdict | float]]) -> list[Answer]:
    return [Answer(f"e{n}", *pair) for n, pair in enumerate(pairs)]


def test_verdict_figures_equal_values_worked_out_by_hand() -> None:
    """Accuracy with Wilson's interval, balanced accuracy, macro F1, baselines, confusion."""
    figures = verdict_agreement(answers(list(PAIRS)))
    assert figures.count == 8
    assert figures.accuracy.value == 5 / 8
    assert figures.accuracy.lower == pytest.approx(0.30574, abs=1e-5)
    assert figures.accuracy.upper == pytest.approx(0.86316, abs=1e-5)
    assert figures.balanced_accuracy.value == pytest.approx((3 / 4 + 2 / 3 + 0) / 3)
    assert figures.macro_f1 == pytest.approx((6 / 9 + 4 / 6 + 0) / 3)
    assert figures.majority_accuracy == 4 / 8
    assert figures.majority_balanced_accuracy == pytest.approx(1 / 3)
    assert figures.confusion == {
        "fail": {"fail": 2, "partial": 0, "pass": 1},
        "partial": {"fail": 0, "partial": 0, "pass": 1},
        "pass": {"fail": 1, "partial": 0, "pass": 3},
    }


def test_score_figures_equal_values_worked_out_by_hand() -> None:
    """Mean absolute error, bias, rank correlation, and the best constant's error."""
    pairs: list[tuple[Verdict | float, Verdict | float]]
    pairs = [(0.0, 0.1), (0.25, 0.25), (0.5, 0.4), (1.0, 0.6)]
    figures = score_agreement(answers(pairs))
    assert figures.mean_absolute_error.value == pytest.approx(0.15)
    assert figures.bias == pytest.approx(-0.1)
    assert figures.spearman == pytest.approx(1.0)
    assert figures.constant_error == pytest.approx(0.3125)


def test_rank_correlation_averages_ties_and_is_none_for_constant_answers() -> None:
    """Ranks 1, 2.5, 2.5, 4 against 1, 2, 3.5, 3.5 correlate at 3.75 / 4.5."""
    tied = score_agreement(answers([(0.1, 0.1), (0.2, 0.2), (0.2, 0.3), (0.3, 0.3)]))
    assert tied.spearman == pytest.approx(3.75 / 4.5)
    constant = score_agreement(answers([(0.1, 0.5), (0.2, 0.5)]))
    assert constant.spearman is None


def test_interval_draws_groups_so_that_copies_teach_nothing() -> None:
    """Five copies of each example in one group leave the interval as wide as without copies."""
    single = [Answer(f"e{n}", 0.0, n / 20, group=f"g{n}") for n in range(20)]
    copies = [
        Answer(f"{a.key}-{c}", a.label, a.answer, a.group)
        for a in single
        for c in range(5)
    ]
    loose = [Answer(a.key, a.label, a.answer) for a in copies]
    width = {}
    for name, rows in (("single", single), ("copies", copies), ("loose", loose)):
        figure = score_agreement(rows).mean_absolute_error
        assert figure.lower is not None
        assert figure.upper is not None
        width[name] = figure.upper - figure.lower
    assert width["copies"] == pytest.approx(width["single"])
    assert width["loose"] < 0.6 * width["copies"]


def test_interval_of_one_group_cannot_be_told() -> None:
    """One group says nothing about other groups."""
    one = [Answer("a", P, P, "g"), Answer("b", F, P, "g")]
    figure = verdict_agreement(one).balanced_accuracy
    assert (figure.value, figure.lower, figure.upper) == (0.5, None, None)


def test_no_answers_are_refused_and_not_rated() -> None:
    """Without answers there is no agreement, not one of 0."""
    with pytest.raises(ValueError, match="no answers"):
        verdict_agreement([])
    with pytest.raises(ValueError, match="no answers"):
        summarise([], seed=1)


def test_sources_are_rated_apart_when_there_are_several() -> None:
    """A total can hide a source on which the judge is no use."""
    rows = [
        Answer("a", P, P, source="x"),
        Answer("b", F, P, source="y"),
        Answer("c", F, F),
    ]
    assert [a.key for a in by_source(rows)["y"]] == ["b"]
    figures = summarise(rows, seed=1)
    assert list(figures) == ["all", "x", "y"]
    assert list(summarise(rows[::2], seed=1)) == ["all"]


def test_report_names_failures_apart_from_answers() -> None:
    """An example without an answer is listed, never counted as wrong."""
    rows = answers(list(PAIRS))
    result = RunResult(
        tuple(rows), (ItemFailure("e9", "LM_UNAVAILABLE", "down"),), "m", 8, 4.0, 0
    )
    text = markdown("T", summarise(rows, seed=1), result, facts={"data": "x"})
    assert "| all | 8 | 0.625 (0.306 to 0.863) | 0.472" in text
    assert "| pass | 1 | 0 | 3 |" in text
    assert "1 examples got no answer" in text
    assert "- e9: LM_UNAVAILABLE: down" in text
