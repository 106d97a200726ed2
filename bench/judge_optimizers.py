"""Optimizers on people's labels: held-out accuracy, calls and seconds, beside plain DSPy.

`make bench-judges BENCH_ARGS="--data DIRECTORY"` runs every row of every task that has no result yet
and prints the tables; so an interrupted comparison goes on. Results and answers by key are kept in
the output directory, texts are not. One model process at a time: that of a sidecar, or for the rows
of plain DSPy the same program with the same file and options.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.judge_figures import BASELINE, figures, table
from bench.judge_sidecar import ALGORITHMS, Search, Splits, run_row
from bench.judge_tasks import (
    TASKS,
    digest,
    examples_of,
    plain_instructions,
    row,
)
from bench.plain_dspy import PlainTask
from bench.processes import ROOT, stand_in
from sidejudge_server.benchmark.labelled import LabelledExample
from sidejudge_server.config import LMSettings, default_model_dir
from sidejudge_server.lm.embedded import LOCAL_PREFIX, EmbeddedClient

PLAIN_ROWS = {"plain DSPy": False, "plain DSPy, MIPROv2": True}
ROWS = (BASELINE, *ALGORITHMS, *PLAIN_ROWS)
DEFAULT_ROWS = tuple(r for r in ROWS if r != "labeled demonstrations")
MODEL = "local/qwen2.5-coder-1.5b"


class DifferentComparisonError(Exception):
    """The output directory holds results of other data, another model or other numbers."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """One task of a comparison and where its results are kept.

    Attributes:
        name: Of the task.
        examples: Of the task.
        model: Model string of the sidecar; the stand-in if it is no embedded one.
        search: Numbers of the search.
        directory: For results.
    """

    name: str
    examples: Sequence[LabelledExample]
    model: str
    search: Search
    directory: Path

    def prepare(self) -> None:
        """Make the directory, or check that its results belong to this comparison.

        Raises:
            DifferentComparisonError: They do not.
        """
        facts = {
            "examples": digest(self.examples),
            "model": self.model,
            "search": asdict(self.search),
        }
        path = self.directory / "comparison.json"
        if path.exists():
            if json.loads(path.read_text(encoding="utf-8")) != facts:
                raise DifferentComparisonError(
                    f"{self.directory} holds another comparison; choose another --output"
                )
            return
        self.directory.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")

    def result(self, row_name: str) -> dict[str, Any] | None:
        """Return what is kept of a row; None if it has not been run."""
        path = self._path(row_name)
        if not path.exists():
            return None
        kept: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return kept

    def keep(self, row_name: str, result: dict[str, Any]) -> None:
        """Keep the result of a row, whole or not at all."""
        path = self._path(row_name)
        part = path.with_suffix(".part")
        part.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        part.replace(path)

    def splits(self) -> Splits:
        """Return the server's split of the examples.

        Raises:
            DifferentComparisonError: Version 1 has not been run yet.
        """
        kept = self.result(BASELINE)
        if kept is None:
            raise DifferentComparisonError(f"run the row {BASELINE!r} first")
        return Splits(**kept["splits"])

    def tables(self) -> str:
        """Return the figures of all rows that have been run, as Markdown."""
        results = {r: kept for r in ROWS if (kept := self.result(r))}
        if BASELINE not in results:
            return f"## {self.name}\n\nNothing yet."
        splits = self.splits()
        held_out = set(splits.test)
        labels = {e.key: str(e.label) for e in self.examples if e.key in held_out}
        counts = Counter(labels.values())
        spread = ", ".join(f"{counts[label]} {label}" for label in sorted(counts))
        return (
            f"## {self.name}\n\n{len(splits.train)} train, {len(splits.validation)} "
            f"validation, {len(splits.test)} held out ({spread}): always saying the same gives "
            f"{max(counts.values()) / len(labels):.3f} at best; {self.model}.\n\n"
            + table(figures(results, labels))
        )

    def _path(self, row_name: str) -> Path:
        return self.directory / (row_name.replace(",", "").replace(" ", "-") + ".json")


def _measured(comparison: Comparison, row_name: str) -> dict[str, Any]:
    """Make a row and add the load of the machine and the wall time of all of it."""
    make = _plain_result if row_name in PLAIN_ROWS else _sidecar_result
    before, started = os.getloadavg()[0], time.perf_counter()
    result = make(comparison, row_name)
    return {
        **result,
        "load": [before, os.getloadavg()[0]],
        "wall_s": time.perf_counter() - started,
    }


def _sidecar_result(comparison: Comparison, row_name: str) -> dict[str, Any]:
    with _sidecar_settings(comparison.model) as settings:
        made = run_row(
            TASKS[comparison.name].judge_id,
            comparison.examples,
            algorithm=None if row_name == BASELINE else row_name,
            search=comparison.search,
            settings=settings,
            log=comparison.directory / "sidecar.log",
        )
    if row_name != BASELINE and made.splits != comparison.splits():
        raise RuntimeError("the server split the same examples in another way")
    run = made.run or {}
    progress = run.get("progress", {})
    seconds = float(str(progress.get("elapsed", "0s")).removesuffix("s"))
    return {
        **asdict(made),
        "calls": int(progress.get("lm_calls", made.scoring["calls"])),
        "cached": int(progress.get("cached_calls", 0)),
        "seconds": seconds or made.scoring["seconds"],
        "outcome": run.get("outcome", "").removeprefix("OUTCOME_").lower().replace("_", " "),
    }  # fmt: skip


def _plain_result(comparison: Comparison, row_name: str) -> dict[str, Any]:
    splits = comparison.splits()
    by_key = {e.key: row(e) for e in comparison.examples}
    path = comparison.directory / "plain-dspy.part"
    path.unlink(missing_ok=True)
    cache = comparison.directory / f"cache-{row_name.replace(' ', '-')}"
    with _endpoint(comparison.model) as (model, base_url, api_key):
        train, validation, test = (
            [by_key[key] for key in keys]
            for keys in (splits.train, splits.validation, splits.test)
        )
        task = PlainTask(
            model=model,
            base_url=base_url,
            api_key=api_key,
            instructions=plain_instructions(TASKS[comparison.name].judge_id),
            labels=sorted({r["label"] for r in train + validation}),
            train=train,
            validation=validation,
            test=test,
            optimize=PLAIN_ROWS[row_name],
            **asdict(comparison.search),
            cache_dir=str(cache),
            result=str(path),
        )
        subprocess.run(
            [sys.executable, "-m", "bench.plain_dspy"],
            input=json.dumps(asdict(task)),
            text=True,
            check=True,
            cwd=ROOT,
        )
    made = json.loads(path.read_text(encoding="utf-8"))
    path.unlink()
    unusable = sum(not item["answer"] for item in made["items"])
    return {
        **made,
        "calls": made["search"]["calls"] + made["scoring"]["calls"],
        "cached": 0,
        "seconds": made["search"]["seconds"] + made["scoring"]["seconds"],
        "outcome": f"{unusable} unusable" if unusable else "",
    }


@contextmanager
def _sidecar_settings(model: str) -> Iterator[dict[str, str]]:
    """Yield the environment of a sidecar with a model; the stand-in runs meanwhile if it is that."""
    if model.startswith(LOCAL_PREFIX):
        yield {
            "SIDEJUDGE_LM": model,
            # Left out of the environment of the sidecar otherwise.
            "SIDEJUDGE_MODEL_DIR": str(default_model_dir(os.environ)),
        }
        return
    with stand_in() as base_url:
        yield {
            "SIDEJUDGE_LM": model,
            "SIDEJUDGE_LM_BASE_URL": base_url,
            "SIDEJUDGE_LM_API_KEY": "bench",
        }


@contextmanager
def _endpoint(model: str) -> Iterator[tuple[str, str, str]]:
    """Yield name, base URL and key of a model of its own, run as a sidecar would run it."""
    if not model.startswith(LOCAL_PREFIX):
        with stand_in() as base_url:
            yield model.partition("/")[2], base_url, "bench"
        return
    with asyncio.Runner() as runner:
        client = EmbeddedClient(
            LMSettings(model=model),
            model_dir=default_model_dir(os.environ),
            environment=os.environ,
        )
        try:
            settings = runner.run(client.shared_settings())
            assert settings.base_url
            assert settings.api_key
            yield model.removeprefix(LOCAL_PREFIX), settings.base_url, settings.api_key
        finally:
            runner.run(client.close())


def main() -> None:
    """Run what is missing and print what there is."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--data", type=Path, required=True, help="directory of the JSONL files"
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=Path.home() / ".cache" / "sidejudge" / "bench-judges",
    )
    parser.add_argument(
        "--tasks", nargs="*", choices=TASKS, default=["faithfulness", "minimality", "relevance"]
    )  # fmt: skip
    parser.add_argument("--rows", nargs="*", choices=ROWS, default=list(DEFAULT_ROWS))
    parser.add_argument(
        "--model", default=MODEL, help="or openai/stand-in, to try it out"
    )
    parser.add_argument("--seed", type=int, default=Search().seed)
    parser.add_argument("--trials", type=int, default=Search().trials)
    parser.add_argument(
        "--table", action="store_true", help="print what there is, run nothing"
    )
    arguments = parser.parse_args()
    # Ends the sidecar and its model too, which plain SIGTERM would leave behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    for name in arguments.tasks:
        comparison = Comparison(
            name,
            examples_of(TASKS[name], arguments.data, seed=arguments.seed),
            arguments.model,
            Search(trials=arguments.trials, seed=arguments.seed),
            arguments.output / name,
        )
        comparison.prepare()
        for row_name in ROWS:
            if row_name not in arguments.rows or arguments.table:
                continue
            if comparison.result(row_name) is None:
                print(f"{name}: {row_name}", file=sys.stderr, flush=True)
                comparison.keep(row_name, _measured(comparison, row_name))
        print(comparison.tables(), end="\n\n", flush=True)


if __name__ == "__main__":
    main()
