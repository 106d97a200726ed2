"""Where each provider is, which wire it speaks and which variable holds its key.

Model strings are those of DSPy and LiteLLM: ``provider/model``. Any other prefix is taken for an
OpenAI-compatible endpoint if a base URL is given.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from urllib.parse import urlsplit

from sidejudge_server.config import DEFAULT_MODEL, ConfigError, LMSettings

__all__ = ["PROVIDERS", "Endpoint", "Provider", "Wire", "resolve"]


class Wire(StrEnum):
    """How requests and answers look."""

    OPENAI = "openai"
    ANTHROPIC = "anthropic"


@dataclass(frozen=True, slots=True)
class Provider:
    """A provider as known from its documentation.

    Attributes:
        base_url: None if only the user can know it.
        key_variables: Variables that usually hold the key, first one first; empty if it needs none.
        url_variables: Variables that usually hold another base URL.
        max_top_logprobs: Most alternatives per token that it reports; 0 if it reports none.
        key_header: Header of the key; ``authorization`` gets a Bearer prefix.
    """

    base_url: str | None
    key_variables: tuple[str, ...] = ()
    url_variables: tuple[str, ...] = ()
    max_top_logprobs: int = 20
    wire: Wire = Wire.OPENAI
    key_header: str = "authorization"


_OLLAMA = Provider("http://localhost:11434/v1", url_variables=("OLLAMA_API_BASE",))
_VLLM = Provider(
    None,
    key_variables=("HOSTED_VLLM_API_KEY",),
    url_variables=("HOSTED_VLLM_API_BASE",),
)

PROVIDERS: Mapping[str, Provider] = MappingProxyType(
    {
        "openai": Provider(
            "https://api.openai.com/v1",
            key_variables=("OPENAI_API_KEY",),
            url_variables=("OPENAI_BASE_URL", "OPENAI_API_BASE"),
        ),
        "azure": Provider(
            None,
            key_variables=("AZURE_API_KEY", "AZURE_OPENAI_API_KEY"),
            url_variables=("AZURE_API_BASE",),
            key_header="api-key",
        ),
        "anthropic": Provider(
            "https://api.anthropic.com/v1",
            key_variables=("ANTHROPIC_API_KEY",),
            max_top_logprobs=0,
            wire=Wire.ANTHROPIC,
            key_header="x-api-key",
        ),
        "gemini": Provider(
            "https://generativelanguage.googleapis.com/v1beta/openai",
            key_variables=("GEMINI_API_KEY", "GOOGLE_API_KEY"),
            max_top_logprobs=0,
        ),
        "groq": Provider(
            "https://api.groq.com/openai/v1",
            key_variables=("GROQ_API_KEY",),
            max_top_logprobs=0,
        ),
        "mistral": Provider(
            "https://api.mistral.ai/v1",
            key_variables=("MISTRAL_API_KEY",),
            max_top_logprobs=0,
        ),
        "deepseek": Provider(
            "https://api.deepseek.com/v1", key_variables=("DEEPSEEK_API_KEY",)
        ),
        "xai": Provider(
            "https://api.x.ai/v1", key_variables=("XAI_API_KEY",), max_top_logprobs=8
        ),
        "openrouter": Provider(
            "https://openrouter.ai/api/v1", key_variables=("OPENROUTER_API_KEY",)
        ),
        "together_ai": Provider(
            "https://api.together.xyz/v1",
            key_variables=("TOGETHER_API_KEY", "TOGETHERAI_API_KEY"),
        ),
        "fireworks_ai": Provider(
            "https://api.fireworks.ai/inference/v1",
            key_variables=("FIREWORKS_API_KEY", "FIREWORKS_AI_API_KEY"),
            max_top_logprobs=5,
        ),
        "ollama": _OLLAMA,
        "ollama_chat": _OLLAMA,
        "hosted_vllm": _VLLM,
        "vllm": _VLLM,
        "lm_studio": Provider(
            "http://localhost:1234/v1",
            url_variables=("LM_STUDIO_API_BASE",),
            max_top_logprobs=0,
        ),
        "llamafile": Provider(
            "http://localhost:8080/v1", url_variables=("LLAMAFILE_API_BASE",)
        ),
    }
)

# Models that reject a temperature, log probabilities and stop strings.
_REASONING = re.compile(r"(o\d|gpt-([5-9]|\d\d))(?!.*-chat)")
# Models that think first, inside the limit of generated tokens.
_THINKING = re.compile(
    r"(o\d|gpt-([5-9]|\d\d))(?!.*-chat)|gemini-(2\.5|[3-9])|gemini-(flash|pro)-latest"
    r"|deepseek-(reasoner|r1)|magistral"
)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """All that a client needs to know of where it calls.

    Attributes:
        model: As configured; what errors and the records of usage say.
        sent_model: As the endpoint calls it.
        url: Full URL of the call.
        embeddings_url: Full URL of embedding calls; "" on a wire without any.
        api_key: None if there is none.
        missing_key: Variable to set if the provider needs a key and there is none, else "".
        reasoning: True if sampling parameters and log probabilities are refused.
        thinking: True if hidden thinking counts as generated tokens.
        proxy: URL of the HTTP proxy, None for none.
    """

    model: str
    sent_model: str
    wire: Wire
    url: str
    embeddings_url: str
    api_key: str | None = field(repr=False)
    key_header: str
    missing_key: str
    max_top_logprobs: int
    reasoning: bool
    thinking: bool
    proxy: str | None

    @property
    def headers(self) -> dict[str, str]:
        """Headers of each call, the key included."""
        headers = {"content-type": "application/json"}
        if self.wire is Wire.ANTHROPIC:
            headers["anthropic-version"] = "2023-06-01"
        if self.api_key:
            bearer = "Bearer " if self.key_header == "authorization" else ""
            headers[self.key_header] = bearer + self.api_key
        return headers

    @property
    def identity(self) -> str:
        """Model and address: two models of one name on two servers are not the same."""
        return f"{self.model} at {self.url}"


def resolve(settings: LMSettings, environment: Mapping[str, str]) -> Endpoint:
    """Find the endpoint of a model.

    Args:
        settings: Model, key and address as configured.
        environment: Variables to look for what is not configured.

    Raises:
        ConfigError: The model string has no provider, or only the user can know the address.
    """
    prefix, separator, name = settings.model.partition("/")
    if not (separator and prefix and name):
        problem = f"the model {settings.model!r} is not of the form provider/model"
        raise ConfigError([f"{problem}, such as openai/gpt-4o-mini or {DEFAULT_MODEL}"])
    provider = PROVIDERS.get(prefix, Provider(None))
    base_url = (
        settings.base_url
        or _first(environment, provider.url_variables)
        or provider.base_url
    )
    if not base_url:
        known = ", ".join(PROVIDERS)
        problem = f"the model {settings.model!r} needs a base URL: set base_url"
        raise ConfigError(
            [f"{problem} (SIDEJUDGE_LM_BASE_URL), or use a known provider: {known}"]
        )
    if urlsplit(base_url).scheme not in {"http", "https"}:
        raise ConfigError([f"the base URL {base_url!r} is not an http or https URL"])
    api_key = settings.api_key or _first(environment, provider.key_variables)
    # A server of one's own often needs no key, so a configured address asks for none.
    key_needed = bool(provider.key_variables) and not settings.base_url
    missing = provider.key_variables[0] if key_needed and not api_key else ""
    reasoning = prefix in {"openai", "azure"} and bool(_REASONING.match(name))
    return Endpoint(
        model=settings.model,
        sent_model=name,
        wire=provider.wire,
        url=_call_url(base_url, provider.wire),
        embeddings_url=_embeddings_url(base_url, provider.wire),
        api_key=api_key,
        key_header=provider.key_header,
        missing_key=missing,
        max_top_logprobs=0 if reasoning else provider.max_top_logprobs,
        reasoning=reasoning,
        thinking=bool(_THINKING.match(name.rsplit("/", 1)[-1])),
        proxy=_proxy(base_url, environment),
    )


def _first(environment: Mapping[str, str], names: tuple[str, ...]) -> str | None:
    return next((environment[n] for n in names if environment.get(n)), None)


def _call_url(base_url: str, wire: Wire) -> str:
    """Append the call's path; a query, such as Azure's api-version, stays at the end."""
    parts = urlsplit(base_url)
    path = parts.path.rstrip("/")
    if wire is Wire.OPENAI:
        path += "/chat/completions"
    else:
        path += "/messages" if path.endswith("/v1") else "/v1/messages"
    return parts._replace(path=path).geturl()


def _embeddings_url(base_url: str, wire: Wire) -> str:
    if wire is not Wire.OPENAI:
        return ""
    parts = urlsplit(base_url)
    return parts._replace(path=parts.path.rstrip("/") + "/embeddings").geturl()


def _proxy(base_url: str, environment: Mapping[str, str]) -> str | None:
    parts = urlsplit(base_url)
    host = parts.hostname or ""
    if host in {"localhost", "::1"} or host.startswith("127."):
        return None
    variable = f"{parts.scheme}_proxy"
    proxy = _first(environment, (variable, variable.upper()))
    exempt = _first(environment, ("no_proxy", "NO_PROXY")) or ""
    suffixes = [s.strip().removeprefix("*").lstrip(".") for s in exempt.split(",")]
    if exempt.strip() == "*" or any(
        host == suffix or host.endswith("." + suffix) for suffix in suffixes if suffix
    ):
        return None
    return proxy
