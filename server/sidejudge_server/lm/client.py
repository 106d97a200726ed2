"""The choice of a client for a model."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from sidejudge_server.config import LMSettings
from sidejudge_server.lm.attempts import AttemptMeter
from sidejudge_server.lm.catalogue import CATALOGUE
from sidejudge_server.lm.embedded import (
    LOCAL_BODY,
    LOCAL_PREFIX,
    EmbeddedClient,
    EmbeddedOptions,
)
from sidejudge_server.lm.http_client import ClientOptions, HttpChatClient
from sidejudge_server.lm.pricing import FREE, price_of
from sidejudge_server.lm.providers import resolve
from sidejudge_server.lm.types import ChatClient

__all__ = ["create_client", "model_identity"]


def create_client(
    settings: LMSettings,
    *,
    model_dir: Path,
    environment: Mapping[str, str] | None = None,
    meter: AttemptMeter | None = None,
) -> ChatClient:
    """Return a client for a model; nothing is connected or started yet.

    Args:
        settings: Which model and how to reach it.
        model_dir: Where embedded models are.
        environment: Variables that may hold keys and addresses; None takes the process's. Read
            here and not again.
        meter: Hears of every request before it is made and may forbid it; None for nobody.

    Raises:
        ConfigError: The model string is not of the form provider/model, or lacks an address.
    """
    environment = os.environ if environment is None else environment
    if not settings.model.startswith(LOCAL_PREFIX):
        options = ClientOptions(price_of(settings), meter=meter)
        return HttpChatClient(settings, resolve(settings, environment), options=options)
    if settings.base_url is None:
        return EmbeddedClient(
            settings,
            model_dir=model_dir,
            environment=environment,
            options=EmbeddedOptions(meter=meter),
        )
    # Embeddings would throw away the prefix cache of the model's only slot (ADR 14).
    settings = replace(settings, embedding_model=None)
    # An address beside an embedded model is that of a process that runs it already.
    known = CATALOGUE.get(settings.model.removeprefix(LOCAL_PREFIX))
    options = ClientOptions(
        FREE,
        concurrency=1,
        extra=LOCAL_BODY,
        identity=known.identity if known else None,
        meter=meter,
    )
    return HttpChatClient(settings, resolve(settings, {}), options=options)


def model_identity(
    settings: LMSettings, *, environment: Mapping[str, str] | None = None
) -> str:
    """Return what cached answers of a model belong to, without connecting to anything.

    Args:
        settings: Which model and how to reach it.
        environment: Variables that may hold addresses; None takes the process's.

    Raises:
        ConfigError: The model string is not of the form provider/model, or lacks an address.
    """
    known = CATALOGUE.get(settings.model.removeprefix(LOCAL_PREFIX))
    if settings.model.startswith(LOCAL_PREFIX) and known is not None:
        return known.identity
    environment = os.environ if environment is None else environment
    return resolve(settings, environment).identity
