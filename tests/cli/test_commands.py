"""Commands against a real sidecar: tables, JSON shapes, errors and exit codes."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from sidejudge.v1 import evaluation_pb2, judge_pb2
from sidejudge_server.cli.demo.sidecar import DemoSidecar
from sidejudge_server.cli.evaluate import influence_words
from tests.cli.commands import Command


def test_health_of_a_serving_sidecar_is_success(
    call: Command, sidecar: DemoSidecar
) -> None:
    """Exit code 0 says that it serves; JSON says what it is."""
    shown = call("health", "--json")
    assert shown.code == 0
    assert shown.json["status"] == "SERVING"
    assert shown.json["task_model"] == "openai/stand-in"
    assert shown.json["address"] == sidecar.address


def test_judges_are_listed_as_table_and_as_proto_json(call: Command) -> None:
    """The five built-in judges are there from the first start."""
    names = {j["name"] for j in call("judges", "list", "--json").json["judges"]}
    built_in = {"rubric", "relevance", "faithfulness", "minimality", "safety"}
    assert {f"judges/{n}" for n in built_in} <= names
    table = call("judges", "list").out
    assert "relevance v1" in table


def test_evaluation_is_printed_with_the_way_to_correct_it(call: Command) -> None:
    """People see verdict, confidence and what to type if it is wrong."""
    shown = call("evaluate", "relevance", "--artifact", "At nine. p(yes)=0.83")
    assert shown.code == 0
    assert "pass (0.83)" in shown.out
    assert "sidejudge feedback " in shown.out


def test_evaluation_as_json_has_the_names_of_the_contract(call: Command) -> None:
    """Programs get the Evaluation message."""
    shown = call(
        *("evaluate", "relevance", "--artifact", "At two. p(yes)=0.1", "--json"),
        *("--context", "When?", "--subject", "agent-1", "--label", "env=test"),
    )
    evaluation = shown.json
    assert evaluation["judgment"]["verdict"] == "VERDICT_FAIL"
    assert evaluation["artifact_input"]["context"] == "When?"
    assert evaluation["subject"] == "agent-1"
    assert evaluation["labels"] == {"env": "test"}
    again = call("evaluations", "show", evaluation["name"], "--json")
    assert again.json["judgment"] == evaluation["judgment"]
    listed = call("evaluations", "list", "--verdict", "fail", "--limit", "1", "--json")
    assert [e["name"] for e in listed.json["evaluations"]] == [evaluation["name"]]


def test_rubric_is_scored_on_the_given_criteria(call: Command) -> None:
    """A grade of 3 of 5 is a score of a half."""
    shown = call(
        *("evaluate", "rubric", "--task-context", "Greet.", "--json"),
        *("--agent-output", "Hello. grade=3", "--criterion", "tone=friendly"),
    )
    evaluation = shown.json
    assert evaluation["rubric"]["score"] == pytest.approx(0.5)
    criteria = evaluation["rubric_input"]["criteria"]
    assert criteria == [{"name": "tone", "description": "friendly"}]


def test_item_is_read_from_a_file_or_stdin_and_options_win(
    call: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An item may be a labelled row or bare inputs."""
    item = {"inputs": {"artifact": "a p(yes)=0.9", "context": "from the file"}}
    path = tmp_path / "item.json"
    path.write_text(json.dumps(item), encoding="utf-8")
    shown = call(
        *("evaluate", "relevance", "--file", str(path), "--json", "--no-reasoning"),
        *("--context", "from the option"),
    )
    assert shown.json["artifact_input"]["context"] == "from the option"
    assert "reasoning" not in shown.json["judgment"]
    monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps(item["inputs"])))
    piped = call("evaluate", "relevance", "--file", "-", "--json")
    assert piped.json["artifact_input"]["context"] == "from the file"


def test_item_of_neither_shape_is_a_usage_error(call: Command) -> None:
    """What cannot be an input is not sent."""
    shown = call("evaluate", "relevance", "--context", "only that")
    assert shown.code == 2
    assert "artifact" in shown.err


@pytest.mark.parametrize(
    ("argv", "reason", "way_out"),
    [
        (("evaluate", "nobody", "--artifact", "a"), "JUDGE_NOT_FOUND", "judges list"),
        (
            ("evaluate", "rubric", "--artifact", "a"),
            "INPUT_KIND_MISMATCH",
            "--task-context",
        ),
        (
            ("feedback", "evaluations/none", "--verdict", "pass"),
            "EVALUATION_NOT_FOUND",
            "evaluations list",
        ),
        (("judges", "rollback", "safety"), "NO_PREVIOUS_VERSION", ""),
        (("judges", "delete", "safety"), "JUDGE_BUILT_IN", ""),
        (("optimize", "minimality"), "TRAINING_SET_TOO_SMALL", "sidejudge import"),
        (("optimizations", "show", "none"), "OPTIMIZATION_NOT_FOUND", "list"),
        (("judges", "deploy", "safety", "99"), "JUDGE_VERSION_NOT_FOUND", "versions"),
    ],
)
def test_refused_command_fails_with_reason_and_way_out(
    call: Command, argv: tuple[str, ...], reason: str, way_out: str
) -> None:
    """The server's own words go to stderr, the exit code is 1, stdout stays empty."""
    shown = call(*argv)
    assert shown.code == 1
    assert f"[{reason}]" in shown.err
    assert way_out in shown.err
    assert shown.out == ""


def test_all_wrong_fields_of_a_request_are_named(call: Command) -> None:
    """One look is enough to mend a request."""
    shown = call(
        *("evaluate", "relevance", "--artifact", " ", "--subject", "s" * 300),
        *("--group", "g" * 300),
    )
    assert shown.code == 1
    assert "subject" in shown.err
    assert "group" in shown.err


def test_feedback_becomes_a_training_example(call: Command) -> None:
    """A correction teaches the judge that was wrong."""
    call("judges", "create", "corrected", "--kind", "relevance")
    name = call(
        "evaluate", "corrected", "--artifact", "At two. p(yes)=0.9", "--json"
    ).json["name"]
    shown = call("feedback", name, "--verdict", "fail", "--comment", "Asked for nine.")
    assert shown.code == 0
    assert "teaches corrected" in shown.out
    training = call("training", "corrected", "--json").json
    assert training["example_count"] == 1
    assert training["disagreement_count"] == 1
    assert training["readiness"] == "READINESS_NOT_READY"
    listed = call("training", "corrected", "--examples", "--json").json
    assert listed["training_examples"][0]["rationale"] == "Asked for nine."
    assert "not ready" in call("training", "corrected").out


def test_custom_judge_is_created_shown_and_deleted(
    call: Command, tmp_path: Path
) -> None:
    """A judge that somebody defines is a judge like the others."""
    instructions = tmp_path / "instructions.txt"
    instructions.write_text("Judge whether the answer is polite.\n", encoding="utf-8")
    created = call(
        *("judges", "create", "polite", "--kind", "custom", "--binary", "--json"),
        *("--instructions-file", str(instructions), "--input-field", "tone"),
        *("--question", "Is it polite?"),
    ).json
    assert created["deployed_version"] == "judges/polite/versions/1"
    assert created["custom"]["input_fields"] == ["tone"]
    version = call("judges", "version", "polite", "1", "--json").json
    assert version["instructions"] == "Judge whether the answer is polite."
    assert "Is it polite?" in call("judges", "show", "polite").out
    assert "initial" in call("judges", "versions", "polite").out
    judged = call(
        *("evaluate", "polite", "--artifact", "Sure! p(yes)=0.8", "--json"),
        *("--field", "tone=warm"),
    )
    assert judged.json["artifact_input"]["fields"] == {"tone": "warm"}
    assert call("judges", "delete", "polite").code == 0
    gone = call("evaluate", "polite", "--artifact", "a", "--field", "tone=b")
    assert "[JUDGE_NOT_FOUND]" in gone.err


@pytest.mark.parametrize(
    "argv", [("estimate", "faithfulness"), ("optimize", "faithfulness", "--estimate")]
)
def test_estimate_is_printed_and_nothing_starts(
    call: Command, argv: tuple[str, ...]
) -> None:
    """Calls, time and what the numbers rest on, with the reason why it would be refused."""
    shown = call(*argv, "--trials", "5")
    assert shown.code == 0
    assert "5 trials" in shown.out
    assert "basis" in shown.out
    assert "not ready" in shown.out
    assert call(*argv, "--json").json["estimate"]["lm_calls"]
    assert call("optimizations", "list", "--json").json == {}


def test_corrections_behind_an_answer_are_named() -> None:
    """A weight is shown only where a learned head gave one."""
    influence = evaluation_pb2.Influence(
        training_example="trainingExamples/x",
        verdict=judge_pb2.VERDICT_FAIL,
        similarity=0.834,
    )
    assert influence_words(influence) == "x: fail, 83% similar"
    influence.weight = -1.5
    assert influence_words(influence) == "x: fail, 83% similar, weight -1.50"
    scored = evaluation_pb2.Influence(training_example="trainingExamples/y", score=0.25)
    assert influence_words(scored) == "y: 0.25, 0% similar"
