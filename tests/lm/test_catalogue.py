"""Bytes are verified once, and again when they may have changed."""

import os

import pytest

from sidejudge_server.lm.catalogue import ModelMismatchError, verify
from tests.lm.wheels import CONTENT, tiny_model


@pytest.fixture
def path(tmp_path):
    file = tmp_path / "tiny.gguf"
    file.write_bytes(CONTENT)
    return file


def test_right_bytes_pass(path):
    """The hash of the catalogue is enough, and is noted."""
    verify(path, tiny_model())

    assert path.with_name("tiny.gguf.verified").exists()


def test_wrong_bytes_of_the_right_size_are_refused(path):
    """The message names both hashes."""
    path.write_bytes(CONTENT[::-1])

    with pytest.raises(ModelMismatchError, match=tiny_model().sha256):
        verify(path, tiny_model())


def test_changed_file_is_verified_again(path):
    """A note about other bytes is worth nothing."""
    verify(path, tiny_model())
    path.write_bytes(CONTENT[::-1])
    os.utime(path, ns=(1, 1))

    with pytest.raises(ModelMismatchError):
        verify(path, tiny_model())


def test_unchanged_file_is_not_read_again(path):
    """The note alone makes a start fast: here it is believed although the bytes changed."""
    verify(path, tiny_model())
    status = path.stat()
    path.write_bytes(CONTENT[::-1])
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))

    verify(path, tiny_model())


def test_note_for_another_model_is_not_believed(path):
    """A changed catalogue means a new check."""
    verify(path, tiny_model())

    with pytest.raises(ModelMismatchError):
        verify(path, tiny_model(sha256="0" * 64))


@pytest.mark.parametrize("note", ["", "not JSON", "[]", "{}"])
def test_broken_note_is_ignored(path, note):
    """It costs a check, not a start."""
    path.with_name("tiny.gguf.verified").write_text(note)

    verify(path, tiny_model())
