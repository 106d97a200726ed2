"""Settings come from file and environment, and every problem is named at once."""

from pathlib import Path

import pytest

from sidejudge_server.config import (
    ConfigError,
    OptimizationSettings,
    load_settings,
)


def test_defaults_need_no_key_and_stay_on_loopback():
    """A stranger starts the sidecar without any configuration."""
    settings = load_settings(environment={})

    assert settings.task_lm.model.startswith("local/")
    assert settings.task_lm.api_key is None
    assert settings.prompt_lm is None
    assert settings.server.address.startswith("127.0.0.1:")


def test_environment_wins_over_the_file(tmp_path: Path):
    """The file is the base, variables override it for one deployment."""
    file = tmp_path / "sidejudge.toml"
    file.write_text(
        '[task_lm]\nmodel = "openai/from-file"\ntimeout_s = 7\n[storage]\npath = "a.duckdb"\n'
    )

    settings = load_settings(file, {"SIDEJUDGE_LM": "openai/from-env"})

    assert settings.task_lm.model == "openai/from-env"
    assert settings.task_lm.timeout_s == 7.0
    assert settings.storage.path == Path("a.duckdb")


def test_prompt_model_has_its_own_endpoint():
    """Proposer and judge may live at different providers."""
    settings = load_settings(
        environment={
            "SIDEJUDGE_PROMPT_LM": "anthropic/writer",
            "SIDEJUDGE_PROMPT_LM_API_KEY": "k1",
            "SIDEJUDGE_LM_API_KEY": "k2",
        }
    )

    assert settings.prompt_lm is not None
    assert settings.prompt_lm.model == "anthropic/writer"
    assert (settings.prompt_lm.api_key, settings.task_lm.api_key) == ("k1", "k2")


def test_all_problems_are_named_at_once(tmp_path: Path):
    """Nobody should fix settings one start at a time."""
    file = tmp_path / "sidejudge.toml"
    file.write_text('[sever]\naddress = "x"\n[server]\nport = 3\n')
    environment = {
        "SIDEJUDGE_LM_TIMEOUT_S": "soon",
        "SIDEJUDGE_MAX_WORKERS": "0",
        "SIDEJUDGE_REFLECTION": "perhaps",
        "SIDEJUDGE_LM_MAX_RETRIES": "-1",
        "SIDEJUDGE_HEARTBEAT_S": "nan",
        "SIDEJUDGE_REVIEW_LABEL_RULE": "loudest",
        "SIDEJUDGE_REVIEW_AUDIT_SHARE": "1.5",
        "SIDEJUDGE_TYPO": "1",
    }

    with pytest.raises(ConfigError) as caught:
        load_settings(file, environment)

    text = str(caught.value)
    for part in (
        "[sever]",
        "server.port",
        "task_lm.timeout_s",
        "optimization.max_workers",
        "server.reflection",
        "task_lm.max_retries",
        "optimization.heartbeat_s",
        "review.label_rule",
        "review.audit_share",
        "SIDEJUDGE_TYPO",
    ):
        assert part in text


def test_secrets_do_not_show_in_the_representation():
    """Settings end up in logs and tracebacks; keys must not."""
    settings = load_settings(environment={"SIDEJUDGE_LM_API_KEY": "sk-planted"})

    assert "sk-planted" not in repr(settings)


def test_proposer_settings_without_a_proposer_are_a_mistake():
    """A key for a model that is not named would be silently unused."""
    with pytest.raises(ConfigError, match="SIDEJUDGE_PROMPT_LM"):
        load_settings(environment={"SIDEJUDGE_PROMPT_LM_API_KEY": "k"})


def test_watchers_hear_something_every_five_seconds_by_default():
    """The default heartbeat leaves room for a busy machine."""
    assert OptimizationSettings().heartbeat_s <= 4.5


def test_further_models_have_names_and_the_fields_of_any_model(tmp_path):
    path = tmp_path / "sidejudge.toml"
    path.write_text(
        '[models.large]\nmodel = "openai/big"\nmax_concurrency = 4\n'
        '[models.small]\nmodel = "local/qwen2.5-coder-0.5b"\n'
    )
    models = load_settings(path, {}).models
    assert sorted(models) == ["large", "small"]
    assert models["large"].max_concurrency == 4
    path.write_text(
        '[models.Large]\nmodel = "openai/big"\n[models.none]\n'
        '[models.wrong]\nmodel = "a/b"\ntimeout_s = 0\ncolour = 1\n'
    )
    with pytest.raises(ConfigError) as caught:
        load_settings(path, {})
    text = str(caught.value)
    for part in ("[models.Large]", "[models.none] needs", "timeout_s", "colour"):
        assert part in text
    path.write_text("models = 3\n")
    with pytest.raises(ConfigError, match="must be sections"):
        load_settings(path, {})
