"""Settings of the sidecar: one frozen tree, read once at start from a TOML file and the environment.

The environment wins over the file. Every problem is named at once. Nothing else in sidejudge reads
the environment.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

__all__ = [
    "ConfigError",
    "LMSettings",
    "OptimizationSettings",
    "ReviewSettings",
    "ServerSettings",
    "Settings",
    "StorageSettings",
    "default_model_dir",
    "load_settings",
]

DEFAULT_MODEL = "local/qwen2.5-coder-1.5b"


class ConfigError(Exception):
    """The configuration is wrong; the message lists every problem with the way out."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(f"- {p}" for p in problems))
        self.problems = problems


@dataclass(frozen=True, slots=True)
class LMSettings:
    """How to reach one language model."""

    model: str = DEFAULT_MODEL
    """DSPy model string, ``provider/model``; ``local/NAME`` is the embedded model of that name."""

    api_key: str | None = field(default=None, repr=False)
    """Key of the provider; None takes the provider's usual variable, such as OPENAI_API_KEY."""

    base_url: str | None = None
    """Endpoint; None takes the provider's own. Any OpenAI-compatible endpoint will do."""

    timeout_s: float = 60.0
    """Seconds that one attempt may take."""

    max_retries: int = 4
    """Attempts after the first for errors that may pass, with exponential backoff and jitter."""

    max_concurrency: int = 32
    """Calls in flight at once; further ones wait. The embedded model has one slot whatever this says."""

    logprobs: bool | None = None
    """Whether the endpoint gives token probabilities; None takes what is known of the provider."""

    embedding_model: str | None = None
    """Model by which memories compare items, as the endpoint calls it; None compares words.

    Its calls are counted at the price of prompt tokens, which no embedding model exceeds.
    """

    input_usd_per_mtok: float | None = None
    """Price of a million prompt tokens; None takes the built-in price list, if the model is in it."""

    output_usd_per_mtok: float | None = None
    """Price of a million generated tokens; None as above."""


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """How the sidecar listens and what it accepts."""

    address: str = "127.0.0.1:50510"
    """``host:port`` (port 0 takes a free one) or ``unix:/path``. Loopback unless you say otherwise."""

    http_address: str | None = None
    """Where the same services are served as JSON over HTTP, in the form of ``address``; None for nowhere."""

    max_message_bytes: int = 16 * 1024 * 1024
    """Largest request or answer."""

    max_text_chars: int = 200_000
    """Largest text field, in characters."""

    default_deadline_s: float = 60.0
    """Deadline of calls that bring none."""

    drain_s: float = 10.0
    """How long SIGTERM lets running calls finish."""

    max_pending_evaluations: int = 512
    """Evaluations in progress at once; further ones are refused with RESOURCE_EXHAUSTED."""

    reflection: bool = True
    """Whether gRPC reflection is served."""

    log_level: str = "info"
    """debug, info, warning or error."""


@dataclass(frozen=True, slots=True)
class StorageSettings:
    """Where and how data is kept."""

    path: Path = Path("sidejudge.duckdb")
    """The database file; its write-ahead log and high-water mark lie beside it."""

    memory_limit: str = "512MB"
    """DuckDB's memory limit; a sidecar must not take its default of 80 % of the machine."""

    threads: int = 2
    """DuckDB's threads."""

    accept_data_loss: bool = False
    """Start although acknowledged rows are missing after a repair."""


@dataclass(frozen=True, slots=True)
class OptimizationSettings:
    """How optimizations run."""

    max_workers: int = 1
    """Runs at once, one process each; further ones wait."""

    min_examples: int = 20
    """Fewer examples are refused."""

    recommended_examples: int = 50
    """Fewer examples bring a warning."""

    work_dir: Path | None = None
    """Where runs keep their call caches; None is ``<database>.runs``."""

    heartbeat_s: float = 4.0
    """A watcher hears something at least this often."""

    lm_outage_s: float = 900.0
    """How long a model may fail to answer before that ends a run; until then the run waits for it."""

    worker_memory_mb: int = 1024
    """Memory that one worker process may use, in MiB; beyond it its run fails, and only that one."""

    worker_silence_s: float = 60.0
    """A worker process from which nothing was heard for so long is ended; it reports every second."""
    journal_days: float = 7.0
    """How long a run that did not succeed can be resumed; 0 keeps nothing of it but its log."""

    default_lm_calls: int = 20_000
    """Scales the default number of trials: as many as this many task-model calls allow."""


@dataclass(frozen=True, slots=True)
class ReviewSettings:
    """What people are asked to label, and how their labels count."""

    round_items: int = 40
    """Items that a round of the queue draws on average; it considers ten times as many evaluations."""

    audit_share: float = 0.15
    """Share of audit items in the queue, 0 to 1: they were chosen by chance, and guarantees rest on them."""

    window_items: int = 5_000
    """Newest evaluations of a judge from which rounds are drawn."""

    window_days: float = 30.0
    """Older evaluations are not drawn, and what was drawn longer ago leaves the queue."""

    claim_minutes: float = 15.0
    """How long an item is kept for an annotator who does not say."""

    label_rule: str = "latest"
    """How several labels of an item become one: latest of the weightiest source, or a weighted vote."""

    expert_weight: float = 4.0
    """Weight of a label of an expert."""

    user_weight: float = 2.0
    """Weight of a label of a user."""

    downstream_weight: float = 1.0
    """Weight of a later signal."""


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings."""

    server: ServerSettings = field(default_factory=ServerSettings)
    storage: StorageSettings = field(default_factory=StorageSettings)
    task_lm: LMSettings = field(default_factory=LMSettings)
    prompt_lm: LMSettings | None = None
    optimization: OptimizationSettings = field(default_factory=OptimizationSettings)
    review: ReviewSettings = field(default_factory=ReviewSettings)
    models: Mapping[str, LMSettings] = field(default_factory=dict)
    """Further models that members of juries may answer with, by name; only in the file."""
    model_dir: Path = field(default_factory=lambda: default_model_dir({}))


def default_model_dir(environment: Mapping[str, str]) -> Path:
    """Return where pulled models are kept: SIDEJUDGE_MODEL_DIR, else the user's cache."""
    if configured := environment.get("SIDEJUDGE_MODEL_DIR"):
        return Path(configured)
    cache = environment.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(cache) / "sidejudge" / "models"


# name in the environment -> (section, field); TOML uses [section] field = value.
_VARIABLES: dict[str, tuple[str, str]] = {
    "SIDEJUDGE_ADDRESS": ("server", "address"),
    "SIDEJUDGE_HTTP_ADDRESS": ("server", "http_address"),
    "SIDEJUDGE_MAX_MESSAGE_BYTES": ("server", "max_message_bytes"),
    "SIDEJUDGE_MAX_TEXT_CHARS": ("server", "max_text_chars"),
    "SIDEJUDGE_DEFAULT_DEADLINE_S": ("server", "default_deadline_s"),
    "SIDEJUDGE_DRAIN_S": ("server", "drain_s"),
    "SIDEJUDGE_MAX_PENDING_EVALUATIONS": ("server", "max_pending_evaluations"),
    "SIDEJUDGE_REFLECTION": ("server", "reflection"),
    "SIDEJUDGE_LOG_LEVEL": ("server", "log_level"),
    "SIDEJUDGE_DATABASE": ("storage", "path"),
    "SIDEJUDGE_DUCKDB_MEMORY_LIMIT": ("storage", "memory_limit"),
    "SIDEJUDGE_DUCKDB_THREADS": ("storage", "threads"),
    "SIDEJUDGE_ACCEPT_DATA_LOSS": ("storage", "accept_data_loss"),
    "SIDEJUDGE_MAX_WORKERS": ("optimization", "max_workers"),
    "SIDEJUDGE_WORK_DIR": ("optimization", "work_dir"),
    "SIDEJUDGE_HEARTBEAT_S": ("optimization", "heartbeat_s"),
    "SIDEJUDGE_LM_OUTAGE_S": ("optimization", "lm_outage_s"),
    "SIDEJUDGE_WORKER_MEMORY_MB": ("optimization", "worker_memory_mb"),
    "SIDEJUDGE_WORKER_SILENCE_S": ("optimization", "worker_silence_s"),
    "SIDEJUDGE_JOURNAL_DAYS": ("optimization", "journal_days"),
    "SIDEJUDGE_DEFAULT_LM_CALLS": ("optimization", "default_lm_calls"),
    **{
        f"SIDEJUDGE_REVIEW_{name.upper()}": ("review", name)
        for name in ReviewSettings.__dataclass_fields__
    },
    **{
        f"SIDEJUDGE_{prefix}{name.upper()}": (section, name)
        for prefix, section in (("LM_", "task_lm"), ("PROMPT_LM_", "prompt_lm"))
        for name in LMSettings.__dataclass_fields__
        if name != "model"
    },
    "SIDEJUDGE_LM": ("task_lm", "model"),
    "SIDEJUDGE_PROMPT_LM": ("prompt_lm", "model"),
}

_SECTIONS: dict[str, type] = {
    "server": ServerSettings,
    "storage": StorageSettings,
    "task_lm": LMSettings,
    "prompt_lm": LMSettings,
    "optimization": OptimizationSettings,
    "review": ReviewSettings,
}

_POSITIVE = {
    "max_message_bytes",
    "max_text_chars",
    "default_deadline_s",
    "max_pending_evaluations",
    "threads",
    "max_workers",
    "heartbeat_s",
    "worker_memory_mb",
    "worker_silence_s",
    "default_lm_calls",
    "timeout_s",
    "max_concurrency",
    "round_items",
    "window_items",
    "window_days",
    "claim_minutes",
}
_NOT_NEGATIVE = {
    "max_retries",
    "drain_s",
    "lm_outage_s",
    "journal_days",
    "min_examples",
    "recommended_examples",
    "input_usd_per_mtok",
    "output_usd_per_mtok",
    "expert_weight",
    "user_weight",
    "downstream_weight",
}
_MODEL_NAME = re.compile(r"[a-z][a-z0-9-]{0,62}", re.ASCII)
_LABEL_RULES = ("latest", "vote")


def load_settings(
    path: Path | None = None, environment: Mapping[str, str] | None = None
) -> Settings:
    """Read settings from a TOML file and the environment.

    Args:
        path: A TOML file with the sections server, storage, task_lm, prompt_lm, optimization, review
            and models.NAME; None for none.
        environment: Variables; None takes the process's.

    Raises:
        ConfigError: Something is wrong; all problems are listed.
    """
    environment = os.environ if environment is None else environment
    problems: list[str] = []
    values: dict[str, dict[str, Any]] = {name: {} for name in _SECTIONS}
    further = _read_file(path, values, problems)
    for variable, (section, name) in _VARIABLES.items():
        if environment.get(variable):
            values[section][name] = environment[variable]
    models: dict[str, LMSettings] = {}
    for name, content in further.items():
        models[name] = _further_model(name, content, problems)
    known = set(_VARIABLES) | {
        "SIDEJUDGE_MODEL_DIR",
        "SIDEJUDGE_CONFIG",
        "SIDEJUDGE_SERVER",
    }
    problems += [
        f"{name} is not a setting of sidejudge; see the configuration table of the README"
        for name in environment
        if name.startswith("SIDEJUDGE_") and name not in known
    ]
    built: dict[str, Any] = {}
    for section, cls in _SECTIONS.items():
        if section == "prompt_lm" and not values[section].get("model"):
            if values[section]:
                problems.append(
                    "prompt_lm has settings but no model; set SIDEJUDGE_PROMPT_LM"
                )
            built[section] = None
            continue
        built[section] = _build(section, cls, values[section], problems)
    if problems:
        raise ConfigError(problems)
    return Settings(model_dir=default_model_dir(environment), models=models, **built)


def _read_file(
    path: Path | None, values: dict[str, dict[str, Any]], problems: list[str]
) -> dict[str, Any]:
    """Read a file into ``values``; return its further models."""
    if path is None:
        return {}
    try:
        with path.open("rb") as file:
            document = tomllib.load(file)
    except (OSError, tomllib.TOMLDecodeError) as error:
        problems.append(f"{path}: {error}")
        return {}
    further = document.pop("models", {})
    if not isinstance(further, dict):
        problems.append(f"{path}: models must be sections, such as [models.large]")
        further = {}
    for section, content in document.items():
        if section not in _SECTIONS or not isinstance(content, dict):
            problems.append(
                f"{path}: [{section}] is not a section; known:"
                f" {', '.join(_SECTIONS)}, models.NAME"
            )
            continue
        values[section].update(content)
    return further


def _further_model(name: str, content: object, problems: list[str]) -> LMSettings:
    section = f"models.{name}"
    if not _MODEL_NAME.fullmatch(name):
        problems.append(
            f"[{section}]: the name must be 1 to 63 of a-z, 0-9 and -, a letter first"
        )
    if not isinstance(content, dict) or not content.get("model"):
        problems.append(f"[{section}] needs a model, such as model = 'openai/gpt-5'")
        return LMSettings()
    built: LMSettings = _build(section, LMSettings, content, problems)
    return built


def _build(section: str, cls: type, values: dict[str, Any], problems: list[str]) -> Any:  # noqa: ANN401 - one of five dataclasses
    types = {f.name: str(f.type) for f in fields(cls)}
    arguments: dict[str, Any] = {}
    for name, raw in values.items():
        if name not in types:
            problems.append(
                f"{section}.{name} is not a setting; known: {', '.join(types)}"
            )
            continue
        try:
            value = _convert(types[name], raw)
        except ValueError as error:
            problems.append(f"{section}.{name} = {raw!r}: {error}")
            continue
        if problem := _range_problem(name, value):
            problems.append(f"{section}.{name} = {raw!r}: {problem}")
            continue
        arguments[name] = value
    return cls(**arguments)


def _range_problem(name: str, value: object) -> str:
    """Say what is wrong with a number, or nothing. NaN fails both comparisons."""
    if name == "label_rule" and value not in _LABEL_RULES:
        return f"must be one of {', '.join(_LABEL_RULES)}"
    if not isinstance(value, int | float):
        return ""
    if name == "audit_share" and not 0 <= value <= 1:
        return "must be a number from 0 to 1"
    if name in _POSITIVE and not value > 0:
        return "must be greater than 0"
    if name in _NOT_NEGATIVE and not value >= 0:
        return "must not be negative"
    return ""


def _convert(annotation: str, raw: object) -> object:
    """Turn a TOML value or the text of a variable into the field's type."""
    wanted = annotation.split("|", maxsplit=1)[0].strip()
    if wanted == "Path":
        return Path(str(raw))
    if wanted == "str":
        return str(raw)
    if wanted == "bool":
        if isinstance(raw, bool):
            return raw
        words = {
            "1": True,
            "true": True,
            "yes": True,
            "0": False,
            "false": False,
            "no": False,
        }
        if str(raw).lower() not in words:
            raise ValueError("expected true or false")
        return words[str(raw).lower()]
    try:
        return int(str(raw)) if wanted == "int" else float(str(raw))
    except ValueError:
        raise ValueError(f"expected a number ({wanted})") from None
