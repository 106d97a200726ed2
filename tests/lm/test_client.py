"""Which client a model string gets, and what it needs for that."""

import asyncio

import pytest

from sidejudge_server.config import ConfigError, LMSettings
from sidejudge_server.errors import LMCredentialsError
from sidejudge_server.lm.client import create_client
from sidejudge_server.lm.embedded import EmbeddedClient
from sidejudge_server.lm.http_client import HttpChatClient
from tests.lm.calls import ask
from tests.stand_in import running_stand_in


def test_missing_key_is_an_error_of_the_call_not_of_the_start(tmp_path):
    """A sidecar starts without a key; the first call says which variable to set."""
    client = create_client(
        LMSettings("openai/gpt-4o-mini"), model_dir=tmp_path, environment={}
    )

    with pytest.raises(LMCredentialsError, match="set OPENAI_API_KEY") as raised:
        asyncio.run(ask(client))

    assert raised.value.reason == "LM_CREDENTIALS_REJECTED"


def test_key_of_the_environment_is_read_once(tmp_path):
    """What changes later does not matter."""
    with running_stand_in() as stand_in:
        environment = {
            "OPENAI_API_KEY": "sk-first",
            "OPENAI_BASE_URL": stand_in.base_url,
        }
        client = create_client(
            LMSettings("openai/stand-in"), model_dir=tmp_path, environment=environment
        )
        environment["OPENAI_API_KEY"] = "sk-second"
        asyncio.run(ask(client))

        assert stand_in.headers[0]["authorization"] == "Bearer sk-first"


def test_local_models_run_embedded(tmp_path):
    """Nothing is started by creating the client."""
    client = create_client(
        LMSettings("local/smollm2-135m"), model_dir=tmp_path, environment={}
    )

    assert isinstance(client, EmbeddedClient)
    assert client.process_id is None
    assert client.supports_logprobs


def test_local_model_with_address_is_one_that_runs_already(tmp_path):
    """Another process's embedded model is asked over its address, with its prefix cache."""
    with running_stand_in() as stand_in:
        settings = LMSettings("local/smollm2-135m", base_url=stand_in.base_url)
        client = create_client(settings, model_dir=tmp_path, environment={})
        response = asyncio.run(ask(client))

        assert isinstance(client, HttpChatClient)
        assert stand_in.requests[0]["cache_prompt"] is True
        assert response.usage.cost_usd == 0.0
        assert (
            client.identity
            == create_client(
                LMSettings("local/smollm2-135m"), model_dir=tmp_path, environment={}
            ).identity
        )


@pytest.mark.parametrize(
    ("model", "problem"),
    [
        ("gpt-4o-mini", "not of the form provider/model"),
        ("nobody/model", "needs a base URL"),
        ("hosted_vllm/model", "needs a base URL"),
        ("local/llama-9000", "there is no model"),
    ],
)
def test_wrong_model_string_is_a_configuration_error(tmp_path, model, problem):
    """A string that cannot work is refused at the start."""
    with pytest.raises(ConfigError, match=problem):
        create_client(LMSettings(model), model_dir=tmp_path, environment={})
