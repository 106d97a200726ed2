"""Structured logs: one JSON object a line on standard error, with the call id, without secrets."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping, MutableMapping
from typing import Any

import structlog

__all__ = ["configure_logging", "drop_secrets"]

_SECRET_WORDS = ("key", "token", "secret", "password", "authorization")


def configure_logging(level: str) -> None:
    """Send structlog's and the standard library's records to standard error as JSON.

    Args:
        level: debug, info, warning or error.
    """
    number = getattr(logging, level.upper(), logging.INFO)
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        drop_secrets,
    ]
    structlog.configure(
        processors=[
            *shared,
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processor=structlog.processors.JSONRenderer(),
            foreign_pre_chain=[*shared, structlog.processors.format_exc_info],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    # Libraries log requests at info, with texts in some: only what they warn of is kept.
    root.setLevel(max(number, logging.WARNING))
    for name in ("sidejudge_server", "sidejudge_storage"):
        logging.getLogger(name).setLevel(number)


def drop_secrets(
    _logger: object, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """Remove entries whose name tells of a secret, also in nested mappings.

    Numbers stay: a count of tokens is no secret.
    """
    for name in [name for name, value in event.items() if _is_secret(name, value)]:
        del event[name]
    for name, value in event.items():
        if isinstance(value, Mapping):
            event[name] = drop_secrets(None, "", dict(value))
    return event


def _is_secret(name: object, value: object) -> bool:
    if isinstance(value, int | float):
        return False
    lowered = str(name).lower()
    return any(word in lowered for word in _SECRET_WORDS)
