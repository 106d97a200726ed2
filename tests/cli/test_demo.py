"""`sidejudge demo` with the stand-in: the whole loop, what stays, and how it is stopped."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from sidejudge_server.cli.demo.sidecar import stop_running
from sidejudge_server.cli.failures import CommandError
from tests.cli.commands import Command
from tests.stand_in import StandIn

SMALL = ("--corrections", "8", "--trials", "2", "--candidates", "2")


@pytest.fixture
def demo(
    run: Command, stand_in: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Command:
    """Run the demo with the stand-in in a directory of its own."""
    monkeypatch.setenv("SIDEJUDGE_LM_BASE_URL", stand_in.base_url)
    monkeypatch.setenv("SIDEJUDGE_LM_API_KEY", "made-up")

    def command(*argv: str) -> object:
        return run(
            *("demo", "--directory", str(tmp_path / "demo")),
            *("--lm", "openai/stand-in", *SMALL, *argv),
        )

    return command  # type: ignore[return-value] # the outcome of a command


@pytest.mark.slow
def test_demo_tells_the_loop_and_leaves_a_server_that_can_be_stopped(
    demo: Command, run: Command, tmp_path: Path
) -> None:
    """Each step is told, the sidecar that stays answers, and --stop ends it."""
    shown = demo("--keep", "--judge", "relevance")
    try:
        assert shown.code == 0, shown.err
        assert "rubric: 64 examples imported" in shown.out
        # Whole groups that fit into the 8 asked for.
        assert "relevance judges 7 items" in shown.out
        assert "7 corrections and confirmations" in shown.out
        assert "held-out items" in shown.out
        assert "serves now" in shown.out or "goes on serving" in shown.out
        state = json.loads((tmp_path / "demo" / "server.json").read_text())
        training = run("training", "relevance", "--server", state["address"], "--json")
        assert training.json["example_count"] == 64
        assert state["address"] in shown.out
    finally:
        stopped = demo("--stop")
    assert f"Stopped process {state['pid']}" in stopped.out
    with pytest.raises(ProcessLookupError):
        os.kill(state["pid"], 0)
    assert "No demo is running" in demo("--stop").out


@pytest.mark.slow
def test_demo_without_keep_leaves_nothing_running(
    demo: Command, tmp_path: Path
) -> None:
    """In CI nothing must stay behind; a score judge can be shown as well."""
    shown = demo("--no-keep", "--judge", "rubric")
    assert shown.code == 0, shown.err
    assert "score accuracy" in shown.out
    assert not (tmp_path / "demo" / "server.json").exists()


def test_demo_of_an_unknown_judge_is_a_usage_error(demo: Command) -> None:
    """Only built-in judges have starter data."""
    shown = demo("--judge", "nobody")
    assert shown.code == 2
    assert "not for 'nobody'" in shown.err


def test_sidecar_that_does_not_start_is_shown_with_its_log(
    run: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Why it did not start stands in its log, which people should not have to look for."""
    monkeypatch.setenv("SIDEJUDGE_DRAIN_S", "soon")
    shown = run("demo", "--directory", str(tmp_path / "d"), "--lm", "openai/stand-in")
    assert shown.code == 1
    assert "expected a number" in shown.err


def test_foreign_process_is_never_stopped(tmp_path: Path) -> None:
    """A process that took over the id of the demo's sidecar is left alone."""
    state = {"pid": os.getpid(), "address": "127.0.0.1:1", "database_id": "x"}
    (tmp_path / "server.json").write_text(json.dumps(state))
    with pytest.raises(CommandError, match="does not answer"):
        stop_running(tmp_path)
