"""Reference vectors of a checkout that has them beside it: ``<repository>/../shared/stats_vectors``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import pytest

FOLDER = Path(__file__).parents[3] / "shared" / "stats_vectors"


LOADED: dict[str, int] = {}
"""Number of cases by procedure, of those that tests of this run have read."""


class Vectors(NamedTuple):
    """Cases of one procedure and how far they may be missed."""

    tolerance: float
    cases: list[tuple[dict, dict]]


def load(name: str) -> Vectors:
    """Read the cases of one procedure; skip the test where they are absent."""
    path = FOLDER / f"{name}.json"
    if not path.is_file():
        pytest.skip(f"no reference vectors beside this checkout ({path.name})")
    content = json.loads(path.read_text())
    cases = [(case["input"], case["expected"]) for case in content["cases"]]
    assert cases
    LOADED[name] = len(cases)
    # Published examples have a tolerance each, by the digits that were printed.
    tolerance = content.get("tolerance_abs") or max(
        case["tolerance_abs"] for case in content["cases"]
    )
    return Vectors(tolerance, cases)
