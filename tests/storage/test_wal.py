"""A damaged write-ahead log is cut where nothing acknowledged is lost, and refused elsewhere."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from sidejudge_storage import (
    AcknowledgedRowsMissingError,
    EvaluationFilter,
    Storage,
    StorageOptions,
)
from sidejudge_storage.highwater import HighWaterFile, Mark

# Writes 30 rows one by one, says after each how long the log is, and dies without closing.
_CRASH = """
import asyncio, os, sys
from pathlib import Path
from sidejudge_storage import Storage
from tests.storage import samples
path = Path(sys.argv[1])
async def main():
    storage = Storage.open(path)
    for i in range(30):
        await storage.write(samples.evaluation(evaluation_id=f"e{i:02}"))
        print(path.with_name(path.name + ".wal").stat().st_size, flush=True)
    os._exit(0)
asyncio.run(main())
"""

_ACKNOWLEDGED = 25


@dataclass(frozen=True, slots=True)
class _Crashed:
    """A database whose process died; the mark says that 25 of its 30 rows were acknowledged."""

    path: Path
    wal_sizes: tuple[int, ...]

    @property
    def wal(self) -> Path:
        return self.path.with_name(self.path.name + ".wal")

    def copy_to(self, directory: Path) -> _Crashed:
        for file in self.path.parent.iterdir():
            shutil.copy(file, directory)
        return _Crashed(directory / self.path.name, self.wal_sizes)

    def damage(self, change: Callable[[bytearray], bytes | bytearray]) -> bytes:
        damaged = bytes(change(bytearray(self.wal.read_bytes())))
        self.wal.write_bytes(damaged)
        return damaged

    def files(self) -> dict[str, bytes]:
        return {
            p.name: p.read_bytes()
            for p in self.path.parent.iterdir()
            if p.suffix != ".acked" and p.stat().st_size  # an empty log is no log
        }


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> _Crashed:
    path = tmp_path_factory.mktemp("crashed") / "s.duckdb"
    child = subprocess.run(  # noqa: S603 - our own code
        [sys.executable, "-c", _CRASH, str(path)],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        timeout=60,
    )
    file = HighWaterFile(path.with_name(path.name + ".acked"))
    mark = file.read()
    assert mark is not None
    assert mark.commit == 30
    # The last five rows become rows that nobody was told of.
    file.reset(Mark(mark.database_id, _ACKNOWLEDGED, mark.at_micros))
    file.close()
    return _Crashed(path, tuple(map(int, child.stdout.split())))


@pytest.fixture
def crashed(original: _Crashed, tmp_path: Path) -> _Crashed:
    return original.copy_to(tmp_path)


def _rows(storage: Storage) -> list[str]:
    found = asyncio.run(
        storage.evaluations.list(EvaluationFilter(), before=None, limit=999)
    )
    return [e.evaluation_id for e in reversed(found)]


def _expect_prefix(rows: list[str], *, at_least: int) -> None:
    assert rows == [f"e{i:02}" for i in range(len(rows))]
    assert len(rows) >= at_least


def _reopens_and_writes(path: Path, rows: list[str]) -> None:
    """After a repair the database is as good as any."""
    from tests.storage import samples

    storage = Storage.open(path)
    try:
        assert storage.repair is None
        assert _rows(storage) == rows
        asyncio.run(storage.write(samples.evaluation(evaluation_id="z")))
        assert _rows(storage) == [*rows, "z"]
    finally:
        storage.close_blocking()


def test_killed_process_needs_no_repair(crashed: _Crashed) -> None:
    """Replaying an intact log is everyday business."""
    storage = Storage.open(crashed.path)
    rows = _rows(storage)
    storage.close_blocking()

    assert storage.repair is None
    assert len(rows) == 30
    assert sorted(crashed.files()) == ["s.duckdb"]


def _zero(count: int) -> Callable[[bytearray], bytes]:
    return lambda log: bytes(log[:-count]) + bytes(count)


def _flip(distance: int) -> Callable[[bytearray], bytearray]:
    def change(log: bytearray) -> bytearray:
        log[-distance] ^= 0x10
        return log

    return change


@pytest.mark.parametrize("seed", range(6))
def test_truncated_tail_opens_with_the_whole_units_before(
    crashed: _Crashed, seed: int
) -> None:
    """DuckDB drops an incomplete entry by itself, which needs no report."""
    tail = crashed.wal_sizes[-1] - crashed.wal_sizes[_ACKNOWLEDGED - 1]
    count = random.Random(seed).randint(1, tail)  # noqa: S311 - a seeded choice of test cases
    crashed.damage(lambda log: log[:-count])

    storage = Storage.open(crashed.path)
    rows = _rows(storage)
    storage.close_blocking()

    _expect_prefix(rows, at_least=_ACKNOWLEDGED)
    _reopens_and_writes(crashed.path, rows)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("damage", [_zero, _flip], ids=["zeros", "bit flip"])
def test_damaged_unacknowledged_tail_is_cut_and_reported(
    crashed: _Crashed, damage: Callable[[int], Callable[[bytearray], bytes]], seed: int
) -> None:
    """The sidecar starts, says what it cut, and keeps the log as it was."""
    tail = crashed.wal_sizes[-1] - crashed.wal_sizes[_ACKNOWLEDGED - 1]
    distance = random.Random(seed).randint(1, tail)  # noqa: S311 - a seeded choice of test cases
    damaged = crashed.damage(damage(distance))

    storage = Storage.open(crashed.path)
    rows = _rows(storage)
    storage.close_blocking()

    _expect_prefix(rows, at_least=_ACKNOWLEDGED)
    if storage.repair is None:
        # The damage lies where DuckDB takes it for an incomplete entry.
        assert len(rows) < 30
    else:
        assert 0 < storage.repair.bytes_cut <= len(damaged)
        (copy,) = storage.repair.copies
        assert copy.name.startswith("s.duckdb.wal.corrupt.")
        assert copy.read_bytes() == damaged
        assert str(copy) in storage.repair.message
    _reopens_and_writes(crashed.path, rows)


@pytest.mark.parametrize(
    "tail", [bytes(5000), b"\xff" * 5000, b"\x01" * 5000], ids=["zeros", "ones", "text"]
)
def test_old_blocks_behind_the_log_do_not_stop_the_start(
    crashed: _Crashed, tail: bytes
) -> None:
    """A power cut can grow the file without writing what belongs there."""
    crashed.damage(lambda log: bytes(log) + tail)

    storage = Storage.open(crashed.path)
    rows = _rows(storage)
    storage.close_blocking()

    _expect_prefix(rows, at_least=30)
    _reopens_and_writes(crashed.path, rows)


def _flip_in_row(number: int) -> Callable[[_Crashed], object]:
    def change(crashed: _Crashed) -> None:
        at = (crashed.wal_sizes[number - 1] + crashed.wal_sizes[number]) // 2
        crashed.damage(_flip(crashed.wal_sizes[-1] - at))

    return change


_LOSSES: dict[str, tuple[Callable[[_Crashed], object], int]] = {
    "bit flip in row 10": (_flip_in_row(10), 10),
    "bit flip in row 24": (_flip_in_row(24), 24),
    "zeros from row 20": (
        lambda c: c.damage(_zero(c.wal_sizes[-1] - c.wal_sizes[19])),
        20,
    ),
    "truncated to 20 rows": (
        lambda c: c.damage(lambda log: log[: c.wal_sizes[19]]),
        20,
    ),
    "version damaged": (lambda c: c.damage(_flip(c.wal_sizes[-1] - 5)), 0),
    "magic damaged": (lambda c: c.damage(_flip(c.wal_sizes[-1] - 0)), 0),
    "log empty": (lambda c: c.damage(lambda _: b""), 0),
    "log removed": (lambda c: c.wal.unlink(), 0),
}


@pytest.mark.parametrize("loss", _LOSSES)
def test_loss_of_acknowledged_rows_is_refused_naming_the_gap(
    crashed: _Crashed, loss: str
) -> None:
    """Refusing changes nothing, so that every start says the same; accepting goes on."""
    change, survivors = _LOSSES[loss]
    change(crashed)
    before = crashed.files()

    for _ in range(2):
        with pytest.raises(AcknowledgedRowsMissingError) as caught:
            Storage.open(crashed.path)
        gap = caught.value.gap
        assert (gap.first, gap.last) == (survivors + 1, _ACKNOWLEDGED)
        assert f"{survivors + 1}..{_ACKNOWLEDGED}" in str(caught.value)
        assert "accept_data_loss" in str(caught.value)
        assert crashed.files() == before

    storage = Storage.open(crashed.path, StorageOptions(accept_data_loss=True))
    rows = _rows(storage)
    storage.close_blocking()
    assert storage.repair is not None
    assert storage.repair.gap == gap
    assert [c.read_bytes() for c in storage.repair.copies] == [
        content for name, content in before.items() if name.endswith(".wal") and content
    ]
    assert rows == [f"e{i:02}" for i in range(survivors)]
    _reopens_and_writes(crashed.path, rows)


def test_older_copy_of_the_database_is_refused(
    original: _Crashed, tmp_path: Path
) -> None:
    """A backup that was put in place by mistake is noticed like any other loss."""
    crashed = original.copy_to(tmp_path)
    backup = tmp_path / "backup"
    Storage.open(crashed.path).close_blocking()
    shutil.copy(crashed.path, backup)
    from tests.storage import samples

    storage = Storage.open(crashed.path)
    asyncio.run(storage.write(samples.judge()))
    storage.close_blocking()
    shutil.copy(backup, crashed.path)

    with pytest.raises(AcknowledgedRowsMissingError) as caught:
        Storage.open(crashed.path)

    assert (caught.value.gap.first, caught.value.gap.last) == (31, 31)


def test_hole_in_the_commits_is_refused(crashed: _Crashed) -> None:
    """Commits in the middle can go missing when one of two logs is damaged."""
    import duckdb

    with duckdb.connect(str(crashed.path)) as connection:
        connection.execute("DELETE FROM commit_log WHERE seq IN (5, 6)").fetchall()
        for table in ("evaluations", "feedback"):
            connection.execute(
                f"DELETE FROM {table} WHERE commit_seq IN (5, 6)"  # noqa: S608 - one of two names
            ).fetchall()

    with pytest.raises(AcknowledgedRowsMissingError) as caught:
        Storage.open(crashed.path)

    assert (caught.value.gap.first, caught.value.gap.last) == (5, 6)


def test_mark_of_another_database_says_nothing(tmp_path: Path) -> None:
    """Whoever removes the database file starts over."""
    from tests.storage import samples

    path = tmp_path / "s.duckdb"
    storage = Storage.open(path)
    asyncio.run(storage.write(samples.judge()))
    storage.close_blocking()
    path.unlink()

    fresh = Storage.open(path)
    fresh.close_blocking()

    assert fresh.repair is None
    assert fresh.database_id != storage.database_id


def test_log_without_a_database_is_set_aside(crashed: _Crashed) -> None:
    """DuckDB would remove it."""
    log = crashed.wal.read_bytes()
    crashed.path.unlink()

    storage = Storage.open(crashed.path)
    storage.close_blocking()

    assert storage.repair is not None
    (copy,) = storage.repair.copies
    assert copy.read_bytes() == log
