"""No file of reference vectors is forgotten."""

import re
from pathlib import Path

import pytest

from tests.stats.vectors import FOLDER


def test_every_file_of_reference_vectors_is_read_by_a_test():
    if not FOLDER.is_dir():
        pytest.skip("no reference vectors beside this checkout")
    sources = "".join(p.read_text() for p in Path(__file__).parent.glob("test_*.py"))
    read = set(re.findall(r'load\(\s*"(\w+)"\s*\)', sources))
    assert read == {path.stem for path in FOLDER.glob("*.json")}
