"""`sidejudge config show`: the settings as the sidecar would read them, without secrets."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sidejudge_server.cli.serve import settings_from
from sidejudge_server.config import Settings

__all__ = ["show", "visible_settings"]


def show(args: argparse.Namespace) -> int:
    """Print the settings."""
    document = visible_settings(settings_from(args, os.environ))
    if args.json:
        print(json.dumps(document, indent=2))
        return 0
    for section, values in document.items():
        if isinstance(values, Mapping):
            print(f"\n[{section}]")
            for name, value in values.items():
                print(_line(name, value))
        else:
            print(_line(section, values))
    return 0


def visible_settings(settings: Settings) -> dict[str, Any]:
    """Return the settings as plain data; a key is only said to be set or not."""
    document: dict[str, Any] = {}
    nested = asdict(settings)
    for name, model in nested.pop("models").items():
        nested[f"models.{name}"] = model
    # Plain values first: in TOML they belong above all sections.
    for section in sorted(nested, key=lambda name: isinstance(nested[name], Mapping)):
        value = nested[section]
        document[section] = (
            {name: _visible(name, v) for name, v in value.items()}
            if isinstance(value, Mapping)
            else _visible(section, value)
        )
    return document


def _visible(name: str, value: object) -> object:
    if name == "api_key":
        return "(set)" if value else None
    return str(value) if isinstance(value, Path) else value


def _line(name: str, value: object) -> str:
    # JSON writes texts, numbers and booleans as TOML does.
    return f"# {name} is not set" if value is None else f"{name} = {json.dumps(value)}"
