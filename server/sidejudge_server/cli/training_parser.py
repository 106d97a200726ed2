"""The options of the commands about training data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sidejudge_server.cli.options import add_client, declare

__all__ = ["add_training"]

_SPLITS = ["train", "validation", "test"]


def add_training(commands: Any) -> None:  # noqa: ANN401 - argparse's own type is private
    """Add `sidejudge training`, `import`, `export` and `synthesize`."""
    training = declare(
        commands, "training", "training:show", "Show what a judge has to learn from."
    )
    training.add_argument("judge", metavar="JUDGE")
    training.add_argument(
        "--examples", action="store_true", help="list the examples, newest first"
    )
    training.add_argument(
        "--split", choices=_SPLITS, help="with --examples: only these"
    )
    training.add_argument(
        "--rejected", action="store_true", help="with --examples: also those rejected"
    )
    training.add_argument(
        "--limit", type=int, default=50, help="(default: %(default)s)"
    )
    add_client(training)

    importing = declare(
        commands, "import", "training:import_file", "Bring labelled examples."
    )
    importing.add_argument("judge", metavar="JUDGE")
    importing.add_argument("file", metavar="FILE.jsonl|FILE.parquet", type=Path)
    add_client(importing, timeout_s=600.0)

    exporting = declare(
        commands, "export", "training:export_file", "Take the examples away as JSONL."
    )
    exporting.add_argument("judge", metavar="JUDGE")
    exporting.add_argument("file", metavar="FILE|-")
    exporting.add_argument(
        "--rejected", action="store_true", help="also the examples that do not count"
    )
    add_client(exporting, timeout_s=600.0, json=False)

    writing = declare(
        commands,
        "synthesize",
        "training:synthesize",
        "Have a language model write more training examples, marked as such.",
    )
    writing.add_argument("judge", metavar="JUDGE")
    writing.add_argument(
        "--count",
        type=int,
        default=20,
        metavar="N",
        help="at most so many, 1 to 100 (default: %(default)s)",
    )
    writing.add_argument(
        "--max-lm-calls",
        type=int,
        default=0,
        metavar="N",
        help="at most so many LM calls, 1 to 200 (default: as many as --count)",
    )
    add_client(writing, timeout_s=600.0)
