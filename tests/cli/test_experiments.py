"""`sidejudge experiments`, `monitor`, and `analytics` against a running sidecar."""

import json

import duckdb
import numpy as np
import pytest

import sidejudge
from sidejudge_server.cli.entry import main
from tests.stand_in import running_stand_in
from tests.support.experiments import (
    add_candidate,
    judge_and_label,
    outcomes,
)
from tests.support.server import server_process


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with (
        running_stand_in() as lm,
        server_process(
            tmp_path_factory.mktemp("server"), lm_base_url=lm.base_url
        ) as process,
        sidejudge.connect(process.address) as client,
    ):
        add_candidate(client)
        yield process.address, client


@pytest.fixture
def run(server, capsys):
    address, _ = server

    def command(*arguments, code=0):
        got = main([*arguments, "--server", address])
        printed = capsys.readouterr()
        assert got == code, printed.err
        return printed.out if code == 0 else printed.err

    return command


def test_an_experiment_from_its_creation_to_its_end(server, run):
    made = run(
        *("experiments", "create", "strict", "--judge", "safety", "--candidate", "2"),
        *("--act", "--start"),
    )
    assert "running" in made
    assert "shadow" in made
    rng = np.random.default_rng(1)
    items = outcomes(rng, 60, win=0.25, loss=0.0, both_right=0.7)
    judge_and_label(server[1], items)
    watched = run("experiments", "watch", "strict", "--from-start")
    assert "started" in watched
    assert "decided ship" in watched
    report = run("experiments", "analyze", "strict")
    assert report.startswith("SHIP: agreement of candidate")
    assert "always valid" in report
    assert "o" in report
    document = json.loads(run("experiments", "analyze", "strict", "--json"))
    assert document["winner"] == "candidate"
    listed = run("experiments", "list", "--state", "concluded")
    assert "strict" in listed
    assert "ship" in listed
    again = run("experiments", "conclude", "strict", "--decision", "ship", code=1)
    assert "concluded before" in again


def test_arms_of_the_caller(run):
    run(
        *("experiments", "create", "mine", "--arm", "old=0.5", "--arm", "new=0.5"),
        *("--metric", "solved:binary", "--metric", "seconds:positive:guardrail:lower"),
        "--start",
    )
    arm = run("experiments", "assign", "mine", "task-1").strip()
    assert arm in ("old", "new")
    recorded = run(
        "experiments", "outcome", "mine", "task-1", "solved=1", "seconds=2.5"
    )
    assert arm in recorded
    again = run("experiments", "outcome", "mine", "task-1", "solved=1", code=1)
    assert "recorded before" in again
    wrong = run("experiments", "outcome", "mine", "task-2", "solved=yes", code=2)
    assert "no number" in wrong
    assert "mine" in run("experiments", "get", "mine")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--metric", "x:nothing"], "NAME:KIND"),
        (["--arm", "a=b"], "no number"),
        (["--stage", "0.5"], "SHARE:UNITS"),
    ],
)
def test_options_that_cannot_be_read(run, arguments, words):
    error = run("experiments", "create", "bad", *arguments, code=2)
    assert words in error


def test_a_rollout_shows_its_stages(run):
    text = run(
        *("experiments", "create", "ramp", "--judge", "safety", "--candidate", "1"),
        *("--mode", "rollout", "--stage", "0.1:50", "--stage", "0.5:100", "--json"),
    )
    stages = json.loads(text)["rollout"]["stages"]
    assert [s["share"] for s in stages] == [0.1, 0.5]


def test_a_plan_says_how_many_labels(run):
    text = run(
        *("experiments", "plan", "--baseline-rate", "0.8", "--min-improvement", "0.08")
    )
    assert "658 labels" in text
    assert "153 labels" in text


def test_the_monitor_of_a_judge(run):
    assert "learning" in run("monitor", "show", "safety")
    changed = run(
        "monitor", "set", "safety", "--audit-share", "0.5", "--no-auto-rollback"
    )
    assert "50%" in changed
    assert "nothing to change" in run("monitor", "set", "safety", code=2)
    assert "learning" in run("monitor", "restart", "safety")
    assert "started" in run("monitor", "events", "safety")
    assert "evaluation" in run("monitor", "audit-items", "safety", "--all")
    assert "agreement" in run("monitor", "performance", "safety", "--bucket", "hour")


def test_figures_and_sql(run, tmp_path):
    table = run("analytics", "quality", "--bucket", "day", "--by", "version")
    assert "safety v1" in table
    assert "agreement" in table
    rows = json.loads(
        run(
            "analytics",
            "query",
            "SELECT judge_id, count(*) AS n FROM evaluations GROUP BY ALL",
            "--json",
        )
    )
    assert rows == [{"judge_id": "safety", "n": rows[0]["n"]}]
    path = tmp_path / "rows.arrow"
    run("analytics", "query", "SELECT * FROM feedback", "-o", str(path))
    assert path.stat().st_size > 1000
    refused = run("analytics", "query", "DROP TABLE main.judges", code=1)
    assert "SELECT" in refused
    assert "no rows" in run("analytics", "query", "SELECT 1 WHERE false")


def test_everything_goes_to_parquet(run, tmp_path):
    counts = json.loads(
        run("analytics", "export", "--output", str(tmp_path / "out"), "--json")
    )
    assert counts["evaluations"] > 0
    for view, count in counts.items():
        path = tmp_path / "out" / f"{view}.parquet"
        rows = (
            duckdb.connect()
            .execute("SELECT count(*) FROM read_parquet(?)", [str(path)])
            .fetchall()
        )
        assert rows == [(count,)], view
    assert "no view" in run(
        "analytics", "export", "--output", str(tmp_path), "--view", "x", code=2
    )
