"""Metrics are bounded, deterministic, monotone in correctness, and as documented."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidejudge_server.judges.types import VerdictProbabilities
from sidejudge_server.training import metrics

METRICS = {name: getattr(metrics, name) for name in metrics.THRESHOLDS}
PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"

ANYTHING = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=60),
    st.lists(st.text(max_size=30), max_size=4),
    st.sampled_from(["pass", "partial", "fail", "PASS "]),
    st.dictionaries(st.sampled_from(["pass", "partial", "fail"]), st.floats()),
)  # fmt: skip
FIELDS = (
    "verdict", "score", "confidence", "probabilities", "reasoning", "suggestions",
    "task_context", "agent_output", "artifact", "context", "criteria",
)  # fmt: skip
THINGS = st.dictionaries(st.sampled_from(FIELDS), ANYTHING)
VERDICTS = st.sampled_from(["pass", "partial", "fail"])


@pytest.mark.parametrize("name", METRICS)
@given(THINGS, THINGS)
@settings(max_examples=40)
def test_every_metric_is_bounded_and_deterministic(name, example, prediction):
    """Whatever comes in, out comes the same number in 0..1; attributes and keys read alike."""
    value = METRICS[name](example, prediction)
    assert 0 <= value <= 1
    assert METRICS[name](example, prediction) == value
    as_objects = SimpleNamespace(**example), SimpleNamespace(**prediction)
    assert METRICS[name](*as_objects) == value
    assert METRICS[name](example, prediction, trace=[]) is (
        value >= metrics.THRESHOLDS[name]
    )


@pytest.mark.parametrize("name", ["judge_metric", "soft_judge_metric"])
@given(
    VERDICTS, VERDICTS, st.floats(0.5, 1) | st.none(), st.sampled_from(["", "Because."])
)
@settings(max_examples=40)
def test_the_right_verdict_is_never_worth_less(
    name, gold, wrong, confidence, reasoning
):
    """With all else equal, right beats or equals wrong at a confidence of a half or more."""
    rest = {"confidence": confidence, "reasoning": reasoning}
    right = METRICS[name]({"verdict": gold}, {"verdict": gold, **rest})
    assert right >= METRICS[name]({"verdict": gold}, {"verdict": wrong, **rest})


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))
@settings(max_examples=50)
def test_a_nearer_score_is_never_worth_less(gold, a, b):
    """Both rubric metrics fall with the error."""
    near, far = sorted((a, b), key=lambda score: abs(score - gold))
    for metric in (metrics.rubric_metric, metrics.soft_rubric_metric):
        at_near = metric({"score": gold}, {"score": near})
        assert at_near >= metric({"score": gold}, {"score": far}) - 1e-12


@given(st.floats(0, 1), st.floats(0, 1))
@settings(max_examples=50)
def test_more_probability_on_the_right_label_is_worth_more(a, b):
    """Soft metric and calibration rise with P(right label)."""
    low, high = sorted((a, b))
    example = {"verdict": "pass"}

    def rated(metric, p):
        probabilities = VerdictProbabilities(p, 0.0, 1 - p)
        return metric(example, {"verdict": "pass", "probabilities": probabilities})

    for metric in (metrics.judge_metric, metrics.soft_judge_metric):
        assert rated(metric, high) >= rated(metric, low) - 1e-12


@pytest.mark.parametrize(
    ("gold", "answered", "correctness"),
    [
        ("pass", "pass", 1.0),
        ("pass", "partial", 0.5),
        ("fail", "partial", 0.5),
        ("partial", "fail", 0.5),
        ("pass", "fail", 0.0),
        ("pass", "nonsense", 0.0),
        ("pass", None, 0.0),
    ],
)
def test_partial_counts_half_against_pass_and_fail(gold, answered, correctness):
    """Without confidence and reasoning only correctness is left, at 60 %."""
    value = metrics.judge_metric({"verdict": gold}, {"verdict": answered})
    assert value == pytest.approx(0.6 * correctness)


@pytest.mark.parametrize("bad", [math.nan, math.inf, "high", None, True, [0.5]])
def test_a_score_that_is_none_gives_the_lowest_score_part(bad):
    """Nothing else is in the answer, so nothing is left."""
    assert metrics.rubric_metric({"score": 0.5}, {"score": bad}) == 0.0
    assert metrics.soft_rubric_metric({"score": 0.5}, {"score": bad}) == 0.0


@pytest.mark.parametrize(
    ("confidence", "answered", "expected"),
    [(0.9, "pass", 0.9), (0.9, "fail", 0.1), (None, "pass", 1.0), (1.7, "pass", 1.0)],
)
def test_soft_metric_without_probabilities_reads_the_confidence(
    confidence, answered, expected
):
    """One that is no probability is as good as none."""
    prediction = {"verdict": answered, "confidence": confidence}
    assert metrics.soft_judge_metric({"verdict": "pass"}, prediction) == pytest.approx(
        expected
    )


def test_an_actionable_suggestion_beats_a_generic_one():
    """The difference is worth up to 20 % of the metric."""
    example = {"score": 0.4, "task_context": "parse dates", "agent_output": "def f():"}

    def rated(*suggestions):
        return metrics.rubric_metric(example, {"suggestions": list(suggestions)})

    assert rated("Add a test for dates before 1970.") == pytest.approx(0.2)
    assert rated("Be more specific.") < 0.1
    assert rated() == 0.0


def test_dspy_objects_are_read():
    """DSPy's own examples and predictions are what the optimizer passes."""
    dspy = pytest.importorskip("dspy")
    example = dspy.Example(artifact="x", verdict="pass").with_inputs("artifact")
    prediction = dspy.Prediction(verdict="pass", confidence=0.75)
    assert metrics.soft_judge_metric(example, prediction) == pytest.approx(0.75)
    assert metrics.judge_metric(example, dspy.Prediction()) == 0.0


def worked_examples():
    """Return the JSON blocks of the page."""
    blocks = re.findall(r"```json\n(.*?)```", PAGE.read_text(), re.DOTALL)
    return [json.loads(block) for block in blocks]


@pytest.mark.parametrize("case", worked_examples(), ids=lambda c: c["title"])
def test_worked_examples_of_the_page_hold(case):
    """Every figure that docs/metrics.md gives is what the code gives."""
    for name, expected in case["values"].items():
        value = METRICS[name](case["example"], case["prediction"])
        assert value == pytest.approx(expected, abs=5e-5)
    assert case["values"]


def test_the_page_shows_every_metric_and_weight():
    """Each metric has a worked example, and the thresholds in the table are the code's."""
    shown = {name for case in worked_examples() for name in case["values"]}
    assert shown == set(METRICS)
    for name, threshold in metrics.THRESHOLDS.items():
        assert re.search(rf"\| `{name}` \|.*\| {threshold} \|", PAGE.read_text())
