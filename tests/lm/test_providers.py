"""Endpoints are what the provider's documentation says, unless configured otherwise."""

import pytest

from sidejudge_server.config import ConfigError, LMSettings
from sidejudge_server.lm.providers import resolve


@pytest.mark.parametrize(
    ("model", "url", "sent"),
    [
        ("openai/gpt-4o", "https://api.openai.com/v1/chat/completions", "gpt-4o"),
        (
            "anthropic/claude-haiku-4-5",
            "https://api.anthropic.com/v1/messages",
            "claude-haiku-4-5",
        ),
        (
            "ollama_chat/llama3:8b",
            "http://localhost:11434/v1/chat/completions",
            "llama3:8b",
        ),
        (
            "openrouter/meta-llama/llama-4",
            "https://openrouter.ai/api/v1/chat/completions",
            "meta-llama/llama-4",
        ),
    ],
)
def test_known_provider_needs_no_address(model, url, sent):
    """The prefix chooses the address; the rest is the model's name there."""
    endpoint = resolve(LMSettings(model), {})

    assert (endpoint.url, endpoint.sent_model) == (url, sent)


def test_any_prefix_works_with_an_address():
    """An endpoint nobody knows speaks the OpenAI wire and needs no key."""
    endpoint = resolve(LMSettings("mine/model", base_url="http://box:1234/v1/"), {})

    assert endpoint.url == "http://box:1234/v1/chat/completions"
    assert endpoint.missing_key == ""
    assert endpoint.max_top_logprobs == 20


def test_configured_key_wins_over_the_environment():
    """The settings say more precisely what is meant."""
    settings = LMSettings("groq/x", api_key="configured")

    assert resolve(settings, {"GROQ_API_KEY": "usual"}).api_key == "configured"
    assert resolve(LMSettings("groq/x"), {"GROQ_API_KEY": "usual"}).api_key == "usual"


def test_azure_keeps_its_version_and_its_header():
    """A query in the base URL stays behind the path; the key has a header of its own."""
    base = "https://me.openai.azure.com/openai/deployments/d?api-version=2024-10-21"
    endpoint = resolve(LMSettings("azure/d", base_url=base, api_key="k"), {})

    assert endpoint.url == (
        "https://me.openai.azure.com/openai/deployments/d/chat/completions"
        "?api-version=2024-10-21"
    )
    assert endpoint.headers["api-key"] == "k"
    assert "authorization" not in endpoint.headers


def test_key_is_not_in_the_representation():
    """A printed or logged endpoint gives nothing away."""
    assert "hidden" not in repr(resolve(LMSettings("openai/x", api_key="hidden"), {}))


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://host/", "host:80"])
def test_address_must_be_http(url):
    """Other schemes are refused at the start."""
    with pytest.raises(ConfigError, match="not an http or https URL"):
        resolve(LMSettings("openai/x", base_url=url), {})


@pytest.mark.parametrize(
    ("model", "reasoning"),
    [
        ("openai/o3", True),
        ("openai/gpt-5-mini", True),
        ("openai/gpt-6-sol", True),
        ("openai/gpt-5-chat-latest", False),
        ("openai/gpt-4o", False),
        ("hosted_vllm/o3-like", False),
    ],
)
def test_reasoning_models_are_known_by_name(model, reasoning):
    """Only OpenAI's own refuse sampling parameters."""
    endpoint = resolve(LMSettings(model, base_url="http://x/v1"), {})

    assert endpoint.reasoning is reasoning
    assert (endpoint.max_top_logprobs == 0) is reasoning


@pytest.mark.parametrize(
    ("url", "exempt", "proxy"),
    [
        ("https://api.example.com/v1", "", "http://proxy:3128"),
        ("https://api.example.com/v1", "other.com", "http://proxy:3128"),
        ("https://api.example.com/v1", "localhost, .example.com", None),
        ("https://api.example.com/v1", "*", None),
        ("http://localhost:8000/v1", "", None),
        ("http://127.0.0.1:8000/v1", "", None),
    ],
)
def test_proxy_of_the_environment_is_used_outside_this_machine(url, exempt, proxy):
    """no_proxy exempts hosts by suffix; loopback never goes through a proxy."""
    environment = {
        "https_proxy": "http://proxy:3128",
        "http_proxy": "http://proxy:3128",
        "no_proxy": exempt,
    }

    assert resolve(LMSettings("x/y", base_url=url), environment).proxy == proxy
