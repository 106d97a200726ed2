"""`sidejudge models`: works without a sidecar and never takes wrong bytes for a model."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.commands import Command


@pytest.fixture(autouse=True)
def empty_model_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIDEJUDGE_MODEL_DIR", str(tmp_path / "models"))


def test_models_are_listed_with_licence_size_and_place(run: Command) -> None:
    """What is not here has no path."""
    models = {m["name"]: m for m in run("models", "list", "--json").json["models"]}
    default = models["local/qwen2.5-coder-1.5b"]
    assert default["licence"] == "Apache-2.0"
    assert default["size_bytes"] > 10**9
    assert default["path"] is None
    assert "local/smollm2-135m" in run("models", "list").out


def test_path_of_a_model_that_is_not_here_is_a_failure(run: Command) -> None:
    """A script can ask whether a model was pulled."""
    shown = run("models", "path", "local/smollm2-135m")
    assert shown.code == 1
    assert "sidejudge models pull smollm2-135m" in shown.err
    assert shown.out == ""


def test_unknown_model_is_refused_with_the_known_ones(run: Command) -> None:
    """A typo is answered with what could have been meant."""
    shown = run("models", "pull", "gpt-9")
    assert shown.code == 1
    assert "smollm2-135m" in shown.err


def test_file_with_other_bytes_is_not_taken_for_the_model(
    run: Command, tmp_path: Path
) -> None:
    """Only size and hash make a file the model."""
    fake = tmp_path / "fake.gguf"
    fake.write_bytes(b"GGUF")
    shown = run("models", "pull", "smollm2-135m", "--from-file", str(fake))
    assert shown.code == 1
    assert "is not the model" in shown.err
    assert run("models", "path", "smollm2-135m").code == 1
