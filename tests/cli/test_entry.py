"""The command line before any command runs: what it loads, what it answers, how it ends."""

from __future__ import annotations

import argparse
import subprocess
import sys

import pytest

from sidejudge_server.cli import main
from sidejudge_server.cli.entry import _handler
from sidejudge_server.cli.failures import CommandError
from sidejudge_server.cli.names import judge_name, short, version_name
from sidejudge_server.cli.parser import build_parser

HEAVY = ("grpc", "google.protobuf", "rich", "duckdb", "dspy", "numpy", "aiohttp")


def run_python(code: str) -> str:
    return subprocess.run(  # noqa: S603 - this interpreter, code of this file
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout


def commands(parser: argparse.ArgumentParser, prefix: str = "") -> dict[str, str]:
    """Return handler by command, for all commands and subcommands."""
    found = {}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, sub in action.choices.items():
                found.update(commands(sub, f"{prefix} {name}".strip()))
                if handler := sub.get_default("handler"):
                    found[f"{prefix} {name}".strip()] = handler
    return found


def test_help_loads_none_of_the_heavy_packages() -> None:
    """Help answers at once because a command's modules are imported when it runs."""
    loaded = run_python(
        "import sys\n"
        "from sidejudge_server.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "print('LOADED', *sys.modules)"
    )
    modules = set(loaded.rpartition("LOADED")[2].split())
    assert "sidejudge_server.cli.parser" in modules
    assert not modules & set(HEAVY)


def test_serve_reads_settings_before_grpc_is_loaded() -> None:
    """The process that optimizations are forked from must start before gRPC."""
    loaded = run_python(
        "import sys\nimport sidejudge_server.cli.serve\nprint(*sys.modules)"
    )
    assert not set(loaded.split()) & set(HEAVY)


@pytest.mark.parametrize("command", sorted(commands(build_parser())))
def test_every_command_has_a_handler(command: str) -> None:
    """A command that can be typed can be run."""
    assert callable(_handler(commands(build_parser())[command]))


def test_no_command_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a command the usage is printed and the exit code is 2."""
    with pytest.raises(SystemExit) as ended:
        main([])
    assert ended.value.code == 2
    assert "COMMAND" in capsys.readouterr().err


def test_address_without_port_is_a_usage_error(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """An address that cannot be one is refused before anything is sent."""
    assert main(["health", "--server", "localhost"]) == 2
    assert "neither host:port nor unix:/path" in capsys.readouterr().err


def test_missing_sidecar_is_named_with_the_way_out(
    capsys: pytest.CaptureFixture[str], tmp_path: object
) -> None:
    """Without a sidecar the message says how to start one."""
    assert main(["health", "--server", f"unix:{tmp_path}/none.sock"]) == 1
    message = capsys.readouterr().err
    assert "no sidecar answers at unix:" in message
    assert "sidejudge serve" in message


def test_server_address_comes_from_the_environment(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIDEJUDGE_SERVER is where commands go unless --server says otherwise."""
    monkeypatch.setenv("SIDEJUDGE_SERVER", "nonsense")
    assert main(["health"]) == 2
    assert "'nonsense'" in capsys.readouterr().err


def test_names_are_read_short_and_long() -> None:
    """People may type relevance or judges/relevance, 3 or v3 or the full name."""
    assert (
        judge_name("relevance") == judge_name("judges/relevance") == "judges/relevance"
    )
    expected = "judges/relevance/versions/3"
    assert version_name("relevance", "3") == expected
    assert version_name("judges/relevance", "v3") == expected
    assert version_name("relevance", expected) == expected
    assert short(expected) == "relevance v3"


@pytest.mark.parametrize("name", ["", "judges/", "a/b", "judges/a/versions/1"])
def test_name_of_something_else_is_refused(name: str) -> None:
    """A name of another collection is a mistake, not a judge."""
    with pytest.raises(CommandError):
        judge_name(name)


def test_version_of_another_judge_is_refused() -> None:
    """A full version name must belong to the judge it is asked for."""
    with pytest.raises(CommandError, match="no version of judges/safety"):
        version_name("safety", "judges/relevance/versions/1")
