"""A killed writer loses nothing that it acknowledged."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sidejudge_storage import Storage

_ROUNDS = 20
_TASKS = 16


def _run_and_kill(path: Path, *, round_number: int, acks: int) -> list[str]:
    """Let a child write, kill it after some acknowledgements, return all that it made."""
    with subprocess.Popen(  # noqa: S603 - our own code
        [
            sys.executable,
            "-m",
            "tests.storage.writing_child",
            str(path),
            str(_TASKS),
            f"{round_number:02}",
        ],
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready clean\n"
        acknowledged = [child.stdout.readline() for _ in range(acks)]
        child.send_signal(signal.SIGKILL)
        acknowledged += child.stdout.readlines()  # what was in the pipe counts too
    return [line.decode().strip() for line in acknowledged if line.endswith(b"\n")]


@pytest.mark.slow
def test_rounds_of_kill_9_lose_and_duplicate_nothing(tmp_path: Path) -> None:
    """Every acknowledged row is there once, units are whole, and no start needs a repair."""
    path = tmp_path / "s.duckdb"
    rng = random.Random(20260820)  # noqa: S311 - a seeded choice of test cases
    acknowledged: list[str] = []
    for round_number in range(_ROUNDS):
        acknowledged += _run_and_kill(
            path, round_number=round_number, acks=rng.randint(1, 250)
        )

    storage = Storage.open(path)
    try:
        assert storage.repair is None
        query = storage._database.query
        stored = [i for (i,) in query("SELECT evaluation_id FROM evaluations")]
        numbers = query(
            "SELECT count(DISTINCT seq), max(seq) - min(seq) + 1 FROM commits"
        )
        others = [i for (i,) in query("SELECT feedback_id FROM feedback")]
    finally:
        storage.close_blocking()

    assert len(acknowledged) > _ROUNDS
    assert len(set(acknowledged)) == len(acknowledged)
    assert set(acknowledged) <= set(stored)
    assert len(set(stored)) == len(stored)
    # What is stored and was not acknowledged was in flight when the process was killed.
    assert len(stored) - len(acknowledged) <= _ROUNDS * _TASKS
    assert numbers[0][0] == numbers[0][1]
    assert sorted(others) == sorted(stored)
