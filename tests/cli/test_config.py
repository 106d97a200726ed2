"""`sidejudge config show` and the precedence of settings."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest

from sidejudge_server.cli import main
from sidejudge_server.cli.parser import build_parser
from sidejudge_server.cli.serve import settings_from

TOML = """
[server]
address = "127.0.0.1:7001"
drain_s = 3.5

[task_lm]
model = "openai/from-file"
api_key = "sk-secret"

[models.large]
model = "openai/large"
api_key = "sk-secret-too"
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "sidejudge.toml"
    path.write_text(TOML, encoding="utf-8")
    return path


def test_options_win_over_environment_over_file(config: Path) -> None:
    """Options are the nearest to the person who starts the sidecar."""
    args = build_parser().parse_args(
        ["serve", "--config", str(config), "--lm", "openai/from-option"]
    )
    environment = {"SIDEJUDGE_ADDRESS": "127.0.0.1:7002", "SIDEJUDGE_LM": "openai/env"}
    settings = settings_from(args, environment)
    assert settings.task_lm.model == "openai/from-option"
    assert settings.server.address == "127.0.0.1:7002"
    assert settings.server.drain_s == 3.5


def test_config_file_may_be_named_by_the_environment(config: Path) -> None:
    """SIDEJUDGE_CONFIG is read when --config is not given."""
    args = build_parser().parse_args(["serve"])
    settings = settings_from(args, {"SIDEJUDGE_CONFIG": str(config)})
    assert settings.task_lm.model == "openai/from-file"


def test_shown_settings_hold_no_secret_and_are_toml(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A key is said to be set, never shown; the output is a valid TOML document."""
    assert main(["config", "show", "--config", str(config)]) == 0
    text = capsys.readouterr().out
    assert "sk-secret" not in text
    document = tomllib.loads(text)
    assert document["task_lm"]["api_key"] == "(set)"
    assert document["models"]["large"]["model"] == "openai/large"
    assert document["models"]["large"]["api_key"] == "(set)"
    assert document["server"]["drain_s"] == 3.5


def test_settings_as_json_name_missing_values(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """JSON has null where nothing is set."""
    assert main(["config", "show", "--json", "--config", str(config)]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["task_lm"]["base_url"] is None
    assert document["prompt_lm"] is None
    assert document["task_lm"]["model"] == "openai/from-file"


def test_wrong_settings_end_with_usage_code_and_all_problems(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2, every problem named at once."""
    path = tmp_path / "wrong.toml"
    path.write_text("[server]\nport = 1\n[nothing]\n", encoding="utf-8")
    assert main(["config", "show", "--config", str(path)]) == 2
    message = capsys.readouterr().err
    assert "server.port is not a setting" in message
    assert "[nothing] is not a section" in message
