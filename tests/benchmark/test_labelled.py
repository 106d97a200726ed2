"""Labelled rows: which shapes are read, and what is said about the others."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sidejudge_server.benchmark.labelled import (
    LabelledDataError,
    parse_criteria,
    parse_row,
    read_jsonl,
)
from sidejudge_server.judges.types import (
    ArtifactInput,
    Criterion,
    RubricInput,
    Verdict,
)


def test_data_set_row_of_a_verdict_judge_is_read() -> None:
    """Keys beside inputs, label, group and rationale are ignored; an empty ground truth is none."""
    example = parse_row(
        {
            "id": "rele-1",
            "task": "relevance",
            "inputs": {"context": "When?", "artifact": "At nine.", "ground_truth": ""},
            "label": "pass",
            "group": "shop:1",
            "source": "made-up",
            "subset": "x",
            "human_rationale": "It says when.",
            "n_annotators": 2,
        },
        place="line 1",
    )
    assert example.key == "rele-1"
    assert example.input == ArtifactInput("At nine.", None, "When?")
    assert example.label is Verdict.PASS
    assert (example.group, example.source) == ("shop:1", "made-up")
    assert example.rationale == "It says when."


def test_data_set_row_of_a_rubric_with_criteria_as_text_is_read() -> None:
    """The text before the first colon names the criterion; a whole number is a score."""
    example = parse_row(
        {
            "inputs": {
                "task_context": "Say hello.",
                "agent_output": "Hello.",
                "criteria": "Fluency (1 to 5): reads well: no slips.",
            },
            "label": 1,
            "human_rationale": None,
        },
        place="line 7",
    )
    assert example.key == "line 7"
    assert example.input == RubricInput(
        "Say hello.",
        "Hello.",
        (Criterion("Fluency (1 to 5)", "reads well: no slips."),),
    )
    assert example.label == 1.0
    assert example.rationale == ""


def test_inputs_may_lie_in_the_row_itself_or_be_json_text() -> None:
    """Tables have columns instead of nested objects."""
    flat = parse_row({"artifact": "a", "context": "c", "label": "fail"}, place="row 1")
    text = parse_row(
        {"inputs": '{"artifact": "a", "context": "c"}', "label": "fail"}, place="row 1"
    )
    assert flat == text


@pytest.mark.parametrize(
    ("criteria", "expected"),
    [
        (None, ()),
        ("", ()),
        ("tone", (Criterion("tone"),)),
        ("x" * 65, (Criterion("criterion", "x" * 65),)),
        (["a: b", "c"], (Criterion("a", "b"), Criterion("c"))),
        (["y" * 70 + ": z"], (Criterion("criterion", "y" * 70 + ": z"),)),
        (
            ["a", "z" * 70],
            (Criterion("a"), Criterion("criterion 2", "z" * 70)),
        ),
        ([{"name": "a", "description": "b"}], (Criterion("a", "b"),)),
        ({"a": "b"}, (Criterion("a", "b"),)),
    ],
)
def test_criteria_are_read_in_each_form(
    criteria: object, expected: tuple[Criterion, ...]
) -> None:
    """Texts, lists of texts or objects, and mappings are criteria."""
    assert parse_criteria(criteria) == expected


@pytest.mark.parametrize(
    "label", ["maybe", 1.5, -0.1, float("nan"), None, True, [], "2"]
)
def test_label_that_is_neither_verdict_nor_score_is_refused(label: object) -> None:
    """A label is pass, partial, fail or a number in 0..1."""
    with pytest.raises(LabelledDataError, match=r"line 3: label"):
        parse_row({"inputs": {"artifact": "a"}, "label": label}, place="line 3")


@pytest.mark.parametrize(
    "inputs",
    [
        {},
        {"context": "c"},
        {"artifact": "a", "agent_output": "b"},
        {"artifact": 3},
        {"artifact": "a", "fields": [1]},
        [1],
        {"agent_output": "a", "criteria": 3},
        {"agent_output": "a", "criteria": [3]},
    ],
)
def test_inputs_of_neither_shape_are_refused(inputs: object) -> None:
    """Inputs are those of an artifact or of a rubric, as texts."""
    with pytest.raises(LabelledDataError, match="line 1: "):
        parse_row({"inputs": inputs, "label": "pass"}, place="line 1")


def test_all_problems_of_a_file_are_named_with_their_lines(tmp_path: Path) -> None:
    """Nothing is returned if a row is wrong; blank lines do not count as rows."""
    path = tmp_path / "rows.jsonl"
    good = json.dumps({"inputs": {"artifact": "a"}, "label": "pass"})
    path.write_text(f"{good}\n\nno json\n{{}}\n[]\n", encoding="utf-8")
    with pytest.raises(LabelledDataError) as caught:
        read_jsonl(path)
    problems = caught.value.problems
    assert [p.partition(":")[0] for p in problems] == [
        "line 3",
        "line 4",
        "line 4",
        "line 5",
    ]


def test_row_whose_id_was_taken_is_known_by_its_place(tmp_path: Path) -> None:
    """Two rows with one key would be counted as two answers to one of them."""
    path = tmp_path / "rows.jsonl"
    row = json.dumps({"id": "x", "inputs": {"artifact": "a"}, "label": "pass"})
    path.write_text(f"{row}\n{row}\n{row}\n", encoding="utf-8")
    assert [e.key for e in read_jsonl(path)] == ["x", "line 2", "line 3"]


def test_only_the_first_twenty_problems_are_shown() -> None:
    """A message stays readable when every row is wrong."""
    shown = str(LabelledDataError([f"line {n}: bad" for n in range(30)])).splitlines()
    assert len(shown) == 21
    assert shown[-1] == "... and 10 more"


@pytest.mark.parametrize(
    ("label", "key"),
    [("partial", "partial"), (0, "0.0-0.2"), (0.2, "0.2-0.4"), (1, "0.8-1.0")],
)
def test_label_key_is_the_verdict_or_the_fifth_of_the_range(
    label: object, key: str
) -> None:
    """The upper end of the range belongs to the last fifth."""
    row = {"inputs": {"artifact": "a"}, "label": label}
    assert parse_row(row, place="line 1").label_key == key
