"""A chart of a run's trials for the terminal."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from rich.bar import Bar
from rich.console import Console
from rich.table import Table
from rich.text import Text

from sidejudge.v1 import optimization_pb2
from sidejudge_server.cli.printing import number

__all__ = ["print_trial_chart"]

_BAR_WIDTH = 40
_PIPE_WIDTH = 100
_MOST_ROWS = 60
_MARGIN = 0.02


def print_trial_chart(trials: Sequence[optimization_pb2.Trial]) -> None:
    """Print a bar a trial, from just below the lowest score on; nothing without trials.

    With more than 60 trials, those that became the best so far and the last ones are shown.

    Args:
        trials: In order; trial 0 is the baseline.
    """
    shown = _chosen(trials)
    if not shown:
        return
    scores = [trial.score for trial in shown]
    low = max(0.0, min(scores) - _MARGIN)
    span = max(max(scores) - low, _MARGIN)
    table = Table(box=None, header_style="bold", pad_edge=False)
    for heading in ("trial", "score"):
        table.add_column(heading, justify="right")
    table.add_column(f"from {number(low, digits=2)} to {number(low + span, digits=2)}")
    table.add_column("")
    for trial in shown:
        table.add_row(
            trial.name.rpartition("/")[2],
            number(trial.score),
            Bar(span, 0.0, trial.score - low, width=_BAR_WIDTH),
            Text(_note(trial)),
        )
    width = None if sys.stdout.isatty() else _PIPE_WIDTH
    Console(width=width, highlight=False).print(table)


def _chosen(
    trials: Sequence[optimization_pb2.Trial],
) -> Sequence[optimization_pb2.Trial]:
    if len(trials) <= _MOST_ROWS:
        return trials
    best = [trial for trial in trials if trial.best][-_MOST_ROWS // 2 :]
    last = trials[-(_MOST_ROWS - len(best)) :]
    return [*(trial for trial in best if trial not in last), *last]


def _note(trial: optimization_pb2.Trial) -> str:
    words = []
    if trial.name.endswith("/trials/0"):
        words.append("baseline")
    elif trial.best:
        words.append("best so far")
    if trial.stopped_early:
        words.append(f"dropped after {trial.example_count} examples")
    elif not trial.full_evaluation:
        words.append(f"{trial.example_count} examples")
    return ", ".join(words)
