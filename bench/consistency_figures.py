"""What averaging does for a judge's agreement with itself, from `bench quality --samples 6`.

`python -m bench.consistency_figures --data DIRECTORY --rows DIRECTORY` reads `JUDGE.rows.jsonl` files.
Single answers are compared with each other, and means of three with means of the other three, over all
ten ways to part six. Prints Markdown; intervals are over groups.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from itertools import combinations
from pathlib import Path

import numpy as np

from bench.trust_figures import JUDGES, groups_of
from sidejudge_server.stats.group_means import group_mean
from sidejudge_server.stats.repeats import Components, variance_components

SAMPLES = 6


def parted(values: Sequence[float]) -> list[tuple[float, float]]:
    """Return the means of both halves, for each way to part the values."""
    given = np.asarray(values)
    half = len(values) // 2
    pairs = []
    for chosen in combinations(range(1, len(values)), half - 1):
        first = np.zeros(len(values), dtype=bool)
        first[[0, *chosen]] = True
        pairs.append((float(given[first].mean()), float(given[~first].mean())))
    return pairs


def figures(pairs: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Return the variance of one of a pair, and the share of pairs on two sides of a half."""
    variance = float(np.mean([(a - b) ** 2 / 2 for a, b in pairs]))
    flips = float(np.mean([(a > 0.5) != (b > 0.5) for a, b in pairs]))
    return variance, flips


def report(data: Path, rows: Path) -> Iterator[str]:
    """Yield the lines of the table."""
    yield "| judge | items | variance, once | mean of three | flips, once | mean of three | share of noise, once | mean of three |"
    yield "|---|---|---|---|---|---|---|---|"
    for judge in JUDGES:
        path = rows / f"{judge}.rows.jsonl"
        if not path.exists():
            continue
        groups = groups_of(data / f"{judge}.jsonl")
        found = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
        known = [row for row in found if len(row.get("values") or ()) == SAMPLES]
        if not known:
            continue
        values = [row["values"] for row in known]
        of = [groups[row["key"]] for row in known]
        once = [figures(list(combinations(v, 2))) for v in values]
        means = [figures(parted(v)) for v in values]
        cells = [
            _mean([one[column] for one in each], of)
            for column in (0, 1)
            for each in (once, means)
        ]
        components = variance_components(values)
        if isinstance(components, Components):
            after = Components(components.within / 3, components.between)
            cells += [f"{c.noise_share:.0%}" for c in (components, after)]
        yield f"| {judge} | {len(known)} | {' | '.join(cells)} |"


def _mean(values: Sequence[float], groups: Sequence[str]) -> str:
    value, low, high = group_mean(values, groups)
    return f"{value:.3f} ({low:.3f} to {high:.3f})"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--rows", type=Path, required=True)
    arguments = parser.parse_args()
    for line in report(arguments.data, arguments.rows):
        print(line)


if __name__ == "__main__":
    main()
