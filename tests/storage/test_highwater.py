"""The mark survives torn writes, and never gets ahead of itself."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest

from sidejudge_storage import DatabaseLockedError
from sidejudge_storage.highwater import HighWaterFile, Mark

_ID = uuid.UUID(int=7)


def test_newest_mark_is_read_back(tmp_path: Path) -> None:
    """Each write goes over the older of two."""
    path = tmp_path / "m"
    file = HighWaterFile(path)
    assert file.read() is None
    for commit in range(1, 6):
        file.write(Mark(_ID, commit, 100))
    file.close()

    again = HighWaterFile(path)
    assert again.read() == Mark(_ID, 5, 100)
    again.write(Mark(_ID, 6, 100))
    assert again.read() == Mark(_ID, 6, 100)
    again.close()


@pytest.mark.parametrize("slot", [0, 1])
def test_torn_write_leaves_the_mark_before_it(tmp_path: Path, slot: int) -> None:
    """A stale mark is safe, no mark would hide a loss."""
    path = tmp_path / "m"
    file = HighWaterFile(path)
    file.write(Mark(_ID, 1, 100))
    file.write(Mark(_ID, 2, 100))
    file.close()
    content = bytearray(path.read_bytes())
    content[slot * 512 + 10] ^= 1
    path.write_bytes(content)

    again = HighWaterFile(path)
    assert again.read() == Mark(_ID, 2 if slot == 0 else 1, 100)
    again.close()


def test_reset_forgets_a_higher_mark(tmp_path: Path) -> None:
    """An accepted loss starts over from what is there."""
    file = HighWaterFile(tmp_path / "m")
    file.write(Mark(_ID, 9, 100))
    file.reset(Mark(_ID, 4, 100))
    assert file.read() == Mark(_ID, 4, 100)
    file.close()


def test_mark_is_dirty_until_it_is_synced(tmp_path: Path) -> None:
    """The writer syncs it at most once a second."""
    file = HighWaterFile(tmp_path / "m")
    assert not file.dirty
    file.write(Mark(_ID, 1, 100))
    assert file.dirty
    file.sync()
    assert not file.dirty
    file.close()


def test_file_is_locked_while_it_is_open(tmp_path: Path) -> None:
    """The lock ends with the holder."""
    file = HighWaterFile(tmp_path / "m")
    with pytest.raises(DatabaseLockedError):
        HighWaterFile(tmp_path / "m")
    file.close()
    HighWaterFile(tmp_path / "m").close()
