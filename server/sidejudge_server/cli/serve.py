"""`sidejudge serve`: run the sidecar in this process.

This module imports neither gRPC nor DuckDB: the application starts the process that optimizations
are forked from before either is loaded.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from pathlib import Path

from sidejudge_server.config import Settings, load_settings

__all__ = ["run", "settings_from"]

_VARIABLES = {
    "address": "SIDEJUDGE_ADDRESS",
    "database": "SIDEJUDGE_DATABASE",
    "lm": "SIDEJUDGE_LM",
    "prompt_lm": "SIDEJUDGE_PROMPT_LM",
    "log_level": "SIDEJUDGE_LOG_LEVEL",
}


def run(args: argparse.Namespace) -> int:
    """Serve until SIGTERM or SIGINT."""
    settings = settings_from(args, os.environ)

    from sidejudge_server import app

    return app.run(settings, ready_file=args.ready_file)


def settings_from(args: argparse.Namespace, environment: Mapping[str, str]) -> Settings:
    """Read settings; options win over the environment, which wins over the file.

    Raises:
        ConfigError: Something is wrong; all problems are listed.
    """
    variables = dict(environment)
    for option, variable in _VARIABLES.items():
        if value := getattr(args, option, None):
            variables[variable] = str(value)
    path = args.config or variables.get("SIDEJUDGE_CONFIG")
    return load_settings(Path(path) if path else None, variables)
