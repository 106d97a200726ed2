"""`sidejudge versions` against a real sidecar."""

from __future__ import annotations

from pathlib import Path

from sidejudge.v1 import judge_pb2
from sidejudge_server.cli.versions import Difference, differences
from tests.cli.commands import Command


def test_a_version_travels_through_a_file(call: Command, tmp_path: Path) -> None:
    """What was exported is imported as a new version that answers alike."""
    file = tmp_path / "version.json"
    assert call("versions", "export", "relevance/1", str(file)).code == 0
    imported = call("versions", "import", "relevance", str(file), "--json").json
    assert imported["origin"] == "ORIGIN_IMPORT"
    assert imported["imported_from"] == "judges/relevance/versions/1"
    shown = call("versions", "diff", "judges/relevance/versions/1", imported["name"])
    assert "imported from" in shown.out
    assert "instructions" not in shown.out


def test_a_version_goes_to_standard_output(call: Command) -> None:
    """`-` makes it easy to pipe."""
    document = call("versions", "export", "safety/v1", "-").json
    assert document["lineage"]["name"] == "judges/safety/versions/1"


def test_versions_of_two_judges_are_compared(call: Command) -> None:
    """People see both texts side by side, programs get them as JSON."""
    table = call("versions", "diff", "relevance/1", "safety/1")
    assert table.code == 0
    assert "relevance v1" in table.out
    assert "safety v1" in table.out
    parts = call("versions", "diff", "relevance/1", "safety/1", "--json").json
    assert {"instructions", "question"} <= {d["part"] for d in parts["differences"]}


def test_a_version_equals_itself(call: Command) -> None:
    """No difference is said in words."""
    assert "answer alike" in call("versions", "diff", "safety/1", "safety/1").out


def test_bad_names_and_files_are_errors(call: Command, tmp_path: Path) -> None:
    """The command says what it expected and ends with another code than 0."""
    named = call("versions", "diff", "safety", "safety/1")
    assert named.code == 2
    assert "JUDGE/NUMBER" in named.err
    missing = call("versions", "import", "safety", str(tmp_path / "none.json"))
    assert missing.code == 2
    broken = tmp_path / "broken.json"
    broken.write_text("{}")
    refused = call("versions", "import", "safety", str(broken))
    assert refused.code == 1
    assert "VERSION_DOCUMENT_INVALID" in refused.err


def test_differences_name_demonstrations_thresholds_and_guidelines() -> None:
    """A demonstration that only one side has, and another offset, are differences."""
    demonstration = judge_pb2.Demonstration(
        inputs={"artifact": "A cherry."}, verdict=judge_pb2.VERDICT_PASS
    )
    left = judge_pb2.JudgeVersion(
        instructions="Judge.", decision_rule=judge_pb2.DecisionRule(pass_offset=0.5)
    )
    right = judge_pb2.JudgeVersion(
        instructions="Judge.",
        decision_rule=judge_pb2.DecisionRule(pass_offset=-0.25),
        demonstrations=[demonstration],
        memory=judge_pb2.Memory(guidelines=["Dates must match."], shown=2),
    )
    assert list(differences(left, right)) == [
        Difference("pass offset, nats", "+0.500", "-0.250"),
        Difference("guideline: Dates must match.", "", "yes"),
        Difference("remembered examples", "", "0"),
        Difference("of these in the prompt", "", "2"),
        Difference("demonstration: artifact: A cherry.", "", "pass"),
    ]
