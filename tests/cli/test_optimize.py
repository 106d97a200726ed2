"""Optimizations from the command line: progress, decision, exit codes, lost connections."""

from __future__ import annotations

from pathlib import Path

import pytest

from sidejudge_server.cli.demo.sidecar import DemoSidecar
from tests.cli.commands import Command, verdict_rows, write_rows

SEARCH = (
    *("--trials", "3", "--candidates", "2", "--instruction-source", "curated"),
    *("--labeled-demos", "2", "--bootstrapped-demos", "1"),
)


def teach(call: Command, judge: str, tmp_path: Path) -> None:
    call("judges", "create", judge, "--kind", "relevance")
    data = write_rows(tmp_path / "data.jsonl", verdict_rows(60, prefix=judge))
    assert call("import", judge, str(data)).code == 0


@pytest.mark.slow
def test_watched_run_shows_progress_and_ends_with_its_decision(
    call: Command, tmp_path: Path
) -> None:
    """Lines on stderr while it runs, the decision on stdout, exit code 0 when it finished."""
    teach(call, "watched", tmp_path)
    shown = call("optimize", "watched", "--watch", *SEARCH)
    assert shown.code == 0, shown.err
    assert "trial 3/3" in shown.err
    assert "succeeded" in shown.out
    assert "deployed" in shown.out
    runs = call("optimizations", "list", "--judge", "watched", "--json").json
    run = runs["optimizations"][0]
    assert run["state"] == "STATE_SUCCEEDED"
    assert run["decision"]["outcome"].startswith("OUTCOME_")
    trials = call("optimizations", "trials", run["name"], "--json").json["trials"]
    assert trials[0]["name"].endswith("/trials/0")
    assert call("optimizations", "watch", run["name"]).code == 0
    assert "watched v1" in call("optimizations", "show", run["name"]).out


@pytest.mark.slow
def test_cancelled_run_ends_its_watch_with_exit_code_1(
    call: Command, tmp_path: Path
) -> None:
    """A script notices that there is no result."""
    teach(call, "cancelled", tmp_path)
    started = call("optimize", "cancelled", "--trials", "500", "--json").json
    assert call("optimizations", "cancel", started["name"]).code == 0
    watched = call("optimizations", "watch", started["name"])
    assert watched.code == 1
    assert "cancelled" in watched.out


@pytest.mark.slow
def test_run_out_of_budget_says_so_and_how_to_go_on(
    call: Command, tmp_path: Path
) -> None:
    """It ended in order: exit code 0, with the bound and the one that would do."""
    teach(call, "bounded", tmp_path)
    bounds = ("--max-lm-calls", "20", "--max-minutes", "2.5", "--max-trials", "5")
    shown = call("optimize", "bounded", "--watch", *SEARCH, *bounds)
    assert shown.code == 0, shown.err
    assert "budget of 20 LM calls" in " ".join(shown.out.split())
    assert "max_lm_calls of at least" in " ".join(shown.out.split())
    (run,) = call("optimizations", "list", "--judge", "bounded", "--json").json[
        "optimizations"
    ]
    assert run["outcome"] == "OUTCOME_BUDGET"
    assert run["budget"] == {
        "max_lm_calls": "20",
        "max_duration": "150s",
        "max_trials": 5,
    }
    assert "budget" in call("optimizations", "list", "--judge", "bounded").out


def test_bounds_out_of_range_are_named(call: Command, sidecar: DemoSidecar) -> None:
    """All of them, by the server."""
    shown = call("optimize", "relevance", "--max-trials", "501", "--max-tokens", "0")
    assert shown.code != 0
    assert "max_trials" in shown.err
    assert "max_tokens" in shown.err


@pytest.mark.slow
def test_run_without_budget_goes_on_with_more_of_it(
    call: Command, tmp_path: Path
) -> None:
    """What was spent counts, what was answered is not asked again, and the log goes on."""
    teach(call, "resumed", tmp_path)
    short = call("optimize", "resumed", "--watch", "--max-lm-calls", "30", *SEARCH)
    assert short.code == 0, short.err
    (run,) = call("optimizations", "list", "--judge", "resumed", "--json").json[
        "optimizations"
    ]
    assert run["outcome"] == "OUTCOME_BUDGET"
    again = call(
        *("optimizations", "resume", run["name"], "--max-lm-calls", "1000"),
        *("--watch", "--json"),
    )
    assert again.code == 0, again.err
    assert "goes on" in again.err
    assert again.json["resume_count"] == 1
    assert again.json["outcome"] != "OUTCOME_BUDGET"
    log = call("optimizations", "logs", run["name"]).out
    assert "resumed" in log
    refused = call("optimizations", "resume", run["name"])
    assert refused.code == 1
    assert "OPTIMIZATION_NOT_RESUMABLE" in refused.err


@pytest.mark.slow
def test_calibration_alone_takes_no_trials(call: Command, tmp_path: Path) -> None:
    """The cheapest algorithm ends with a decision like every other."""
    teach(call, "calibrated", tmp_path)
    shown = call("optimize", "calibrated", "--algorithm", "calibration", "--watch")
    assert shown.code == 0, shown.err
    assert "succeeded" in shown.out
    runs = call("optimizations", "list", "--judge", "calibrated", "--json").json
    config = runs["optimizations"][0]["config"]
    assert config["algorithm"] == "ALGORITHM_CALIBRATION"
    trials = call(
        "optimizations", "trials", runs["optimizations"][0]["name"], "--json"
    ).json["trials"]
    assert len(trials) == 1


def test_preset_excludes_numbers(call: Command, sidecar: DemoSidecar) -> None:
    """A preset decides the numbers."""
    shown = call("optimize", "relevance", "--auto", "light", "--trials", "3")
    assert shown.code == 2
    assert "--auto decides" in shown.err
