"""`sidejudge juries` against a real server."""

import json

import pytest

import sidejudge
from sidejudge_server.cli.entry import main
from tests.stand_in import running_stand_in
from tests.support.experiments import WORD, add_candidate
from tests.support.server import server_process


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    with (
        running_stand_in() as lm,
        server_process(
            tmp_path_factory.mktemp("server"), lm_base_url=lm.base_url
        ) as process,
    ):
        with sidejudge.connect(process.address) as client:
            add_candidate(client)
        yield process.address


@pytest.fixture
def run(address, capsys):
    def command(*arguments, code=0):
        got = main([*arguments, "--server", address])
        printed = capsys.readouterr()
        assert got == code, printed.err
        return printed.out if code == 0 else printed.err

    return command


@pytest.fixture
def item(tmp_path):
    path = tmp_path / "item.json"
    text = f"p(yes)=0.9 p(yes|{WORD})=0.2"
    path.write_text(json.dumps({"artifact": text, "context": "Asked."}))
    return str(path)


def test_a_jury_is_made_asked_listed_and_compared(run, item):
    members = ("--member", "safety", "--member", "safety/2")
    made = run(
        "juries", "create", "panel", "--mode", "vote", *members, "--audit-share", "1"
    )
    assert "juries/panel has 2 members" in made
    assert "safety v1, safety v2" in run("juries", "list")
    said = run("juries", "ask", "panel", "--file", item, "--no-reasoning")
    assert "fail" in said
    assert "disagreement  1.000" in said
    assert "Wrong? sidejudge feedback" in said
    assert "fail" in run("juries", "to-label", "panel")
    compared = run("juries", "compare", "panel")
    assert "label 30 more" in compared
    assert "0.50, 0.50 (equal" in compared
    document = json.loads(run("juries", "list", "--json"))
    assert document["juries"][0]["audit_share"] == 1.0


def test_a_cascade_says_what_its_answer_rests_on(run, item):
    members = ("--member", "safety/1", "--member", "safety/2")
    run("juries", "create", "steps", "--mode", "cascade", *members)
    said = run("juries", "ask", "steps", "--file", item, "--target-agreement", "0.9")
    assert "no audit labels" in said
    refused = run("juries", "ask", "steps", "--file", item, code=1)
    assert "selection" in refused


def test_a_member_that_is_none_is_refused(run):
    arguments = ("juries", "create", "x", "--mode", "vote", "--member", "safety/two")
    assert "no version of" in run(*arguments, code=2)
