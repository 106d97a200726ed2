"""`sidejudge models`: embedded models on this machine; no sidecar needed."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TransferSpeedColumn,
)

from sidejudge_server.cli.failures import CommandError
from sidejudge_server.cli.printing import print_json, print_table, warn
from sidejudge_server.config import default_model_dir
from sidejudge_server.lm.catalogue import CATALOGUE, model_path
from sidejudge_server.lm.pull import PullError, PullOptions
from sidejudge_server.lm.pull import pull as pull_model

__all__ = ["list_models", "path", "pull", "pull_with_progress"]

_MIB = 1024 * 1024


def list_models(args: argparse.Namespace) -> int:
    """List the models that can be pulled."""
    directory = default_model_dir(os.environ)
    models = [
        {
            "name": f"local/{model.name}",
            "display_name": model.display_name,
            "licence": model.licence,
            "size_bytes": model.size_bytes,
            "sha256": model.sha256,
            "path": str(found)
            if (found := model_path(model.name, directory))
            else None,
        }
        for model in CATALOGUE.values()
    ]
    if args.json:
        print_json({"models": models})
        return 0
    print_table(
        ["model", "what", "licence", ">MiB", "here"],
        (
            (
                m["name"],
                m["display_name"],
                m["licence"],
                int(str(m["size_bytes"])) // _MIB,
                m["path"],
            )
            for m in models
        ),
    )
    return 0


def pull(args: argparse.Namespace) -> int:
    """Get a model, check its hash, print where it lies."""
    options = PullOptions(local_file=args.from_file)
    directory = default_model_dir(os.environ)
    print(pull_with_progress(_known(args.model), directory, options=options))
    return 0


def path(args: argparse.Namespace) -> int:
    """Print where a model lies; exit code 1 if it was not pulled."""
    name = _known(args.model)
    found = model_path(name, default_model_dir(os.environ))
    if found is None:
        raise CommandError(
            f"{name} is not here; `sidejudge models pull {name}` gets it"
        )
    print(found)
    return 0


def pull_with_progress(
    name: str, directory: Path, *, options: PullOptions | None = None
) -> Path:
    """Return a model's verified file; get it with a progress bar if it is not there.

    Raises:
        CommandError: There is no such model, or no source has it.
    """
    model = CATALOGUE[_known(name)]
    if model_path(model.name, directory) is None:
        warn(f"getting {model.name}, {model.size_bytes // _MIB} MiB, to {directory}")
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        console=Console(stderr=True),
        disable=not sys.stderr.isatty(),
        transient=True,
    ) as progress:
        task = progress.add_task("", total=model.size_bytes)

        def report(done: int, total: int, source: str) -> None:
            progress.update(task, completed=done, total=total, description=source)

        try:
            return pull_model(model.name, directory, progress=report, options=options)
        except (PullError, OSError) as error:
            raise CommandError(str(error)) from error


def _known(text: str) -> str:
    """Return the name in the catalogue of `NAME` or `local/NAME`.

    Raises:
        CommandError: There is no such model.
    """
    name = text.removeprefix("local/")
    if name not in CATALOGUE:
        raise CommandError(f"no model {name!r}; known: {', '.join(CATALOGUE)}")
    return name
