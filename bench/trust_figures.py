"""What calibration and selection do for a judge on labelled data, from the answers of `bench quality`.

`python -m bench.trust_figures --data DIRECTORY --rows DIRECTORY` reads `JUDGE.rows.jsonl` files as
`sidejudge bench quality --out` writes them, and the groups of the examples from the data. Prints
Markdown. Labels are drawn as they are: no item is chosen by confidence.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from sidejudge_server.trust.certify import certify, risks
from sidejudge_server.trust.fit import Labelled, fit_reliability
from sidejudge_server.trust.types import Figure, Reliability, Target

JUDGES = ("faithfulness", "relevance", "minimality", "safety")
TARGETS = (0.8, 0.9)
SPLITS = 200
FITTED_SHARE = 2 / 3


def groups_of(path: Path) -> dict[str, str]:
    """Return the group of each example of a labelled file, by id."""
    examples = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    return {example["id"]: example["group"] for example in examples}


def labelled(judge: str, data: Path, rows: Path) -> list[Labelled]:
    """Return the labelled answers of a judge that have a confidence, one for each example."""
    groups = groups_of(data / f"{judge}.jsonl")
    found = {}
    for line in (rows / f"{judge}.rows.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        if row["confidence"] is not None:
            right = row["answer"] == row["label"]
            found[row["key"]] = Labelled(row["confidence"], right, groups[row["key"]])
    return list(found.values())


def calibration_row(judge: str, items: Sequence[Labelled]) -> str:
    """Return a row of figures that are cross-validated over groups."""
    found = fit_reliability(items, [])
    agreed = f"{found.agreed / found.labels:.3f}"
    known = found.calibration
    if known is None:
        return f"| {judge} | {found.labels} | {agreed} | {found.reason} | | | | |"
    figures = (
        known.raw_brier_score,
        known.brier_score,
        known.improvement,
        known.calibration_error,
        known.auroc,
    )
    cells = " | ".join(_cell(figure) for figure in figures)
    return f"| {judge} | {found.labels} | {agreed} | {known.map.kind.value} | {cells} |"


def selection_row(judge: str, items: Sequence[Labelled], target: float) -> str:
    """Return a row of what certificates of two thirds of the groups do on the other third."""
    rng = np.random.default_rng(9)
    groups = sorted({item.group for item in items})
    certified, coverages, right, accepted = 0, [], 0, 0
    for _ in range(SPLITS):
        kept = {
            group
            for group, draw in zip(groups, rng.random(len(groups)), strict=True)
            if draw < FITTED_SHARE
        }
        fitted = [item for item in items if item.group in kept]
        held_out = [item for item in items if item.group not in kept]
        found = certify(_counted(fitted), Target(target, 0.9))
        chosen = [
            item
            for item in held_out
            if found.threshold is not None and item.confidence >= found.threshold
        ]
        certified += found.threshold is not None
        coverages.append(len(chosen) / len(held_out))
        accepted += len(chosen)
        right += sum(item.agrees for item in chosen)
    observed = f"{right / accepted:.3f}" if accepted else "nothing accepted"
    everything = certify(_counted(items), Target(target, 0.9))
    return (
        f"| {judge} | {target:.2f} | {certified / SPLITS:.0%} | {np.mean(coverages):.1%} |"
        f" {observed} | {everything.reason} |"
    )


def _counted(items: Sequence[Labelled]) -> Reliability:
    """Return what `certify` looks at, without fitting a map."""
    confidences = [item.confidence for item in items]
    wrong = [int(not item.agrees) for item in items]
    found = risks(confidences, wrong, [])
    return Reliability(len(items), len(items) - sum(wrong), None, "", None, found)


def _cell(figure: Figure) -> str:
    if figure.value is None:
        return "cannot say"
    if figure.low is None or figure.high is None:
        return f"{figure.value:.3f}"
    return f"{figure.value:.3f} ({figure.low:.3f} to {figure.high:.3f})"


def report(data: Path, rows: Path) -> Iterator[str]:
    """Yield the lines of both tables."""
    known = {
        judge: labelled(judge, data, rows)
        for judge in JUDGES
        if (rows / f"{judge}.rows.jsonl").exists()
    }
    yield "| judge | n | agreement | map | Brier before | after | improvement | calibration error | AUROC |"
    yield "|---|---|---|---|---|---|---|---|---|"
    for judge, items in known.items():
        yield calibration_row(judge, items)
    yield ""
    yield "| judge | target | certified | coverage | agreement of accepted | with all labels |"
    yield "|---|---|---|---|---|---|"
    for judge, items in known.items():
        for target in TARGETS:
            yield selection_row(judge, items, target)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--rows", type=Path, required=True)
    arguments = parser.parse_args()
    for line in report(arguments.data, arguments.rows):
        print(line)


if __name__ == "__main__":
    main()
