"""Starter data as the demo uses it."""

from __future__ import annotations

import pytest

from sidejudge_server.benchmark.wire import example_message
from sidejudge_server.cli.demo.material import JUDGES, load, set_aside
from sidejudge_server.judges.types import RubricInput, Verdict


@pytest.mark.parametrize("judge", JUDGES)
def test_starter_data_of_each_judge_fits_its_answers(judge: str) -> None:
    """Rubrics have scores and rubric inputs, the others verdicts; safety is never partial."""
    examples = load(judge)
    assert len(examples) >= 60
    rubric = judge == "rubric"
    assert {isinstance(e.label, float) for e in examples} == {rubric}
    assert {isinstance(e.input, RubricInput) for e in examples} == {rubric}
    if judge == "safety":
        assert {e.label for e in examples} == {Verdict.PASS, Verdict.FAIL}
    assert all(example_message(e).group for e in examples)


def test_items_set_aside_share_no_group_with_those_imported() -> None:
    """A group on both sides would leak into the data split."""
    examples = load("faithfulness")
    material = set_aside(examples, count=40)
    assert 30 <= len(material.judged) <= 40
    assert len(material.judged) + len(material.imported) == len(examples)
    assert not {e.group for e in material.judged} & {e.group for e in material.imported}
