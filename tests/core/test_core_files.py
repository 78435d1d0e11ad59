"""Durable files: whole or not at all; and the disk's complaints as messages with a hint."""

import errno
import os
import threading
from pathlib import Path

import pytest

from vrekit.core.errors import StorageError, UsageError, VideoError
from vrekit.core.files import is_temporary, storage_errors, write_atomic


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_atomic(path, b"old")
    write_atomic(path, b"new")
    assert path.read_bytes() == b"new"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.json"]


def test_a_failed_write_keeps_the_old_file_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.json"
    write_atomic(path, b"old")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match=r"cannot write .*a\.json: no space left on device") as caught:
        write_atomic(path, b"new")
    assert "free some space" in str(caught.value.hint)
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.json"]


def test_readers_never_see_a_mixture(tmp_path: Path) -> None:
    path = tmp_path / "a"
    write_atomic(path, b"0" * 10_000)
    seen: set[bytes] = set()
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            seen.add(path.read_bytes())

    reader = threading.Thread(target=read)
    reader.start()
    for digit in b"123456789":
        write_atomic(path, bytes([digit]) * 10_000)
    stop.set()
    reader.join()
    assert all(len(data) == 10_000 and len(set(data)) == 1 for data in seen)


@pytest.mark.parametrize(
    ("number", "reason", "hint"),
    [
        (errno.EROFS, "read-only", "-o"),
        (errno.EACCES, "permission denied", "permissions"),
        (errno.ENOENT, "no such file", "any more"),
        (errno.ENAMETOOLONG, "too long", "shorter"),
        (errno.EISDIR, "is a directory", "a folder"),
        (errno.EMFILE, "too many open files", None),
    ],
)
def test_the_disks_complaints(number: int, reason: str, hint: str | None) -> None:
    with pytest.raises(StorageError, match=f"cannot write out/x: .*{reason}") as caught, storage_errors("out/x"):
        raise OSError(number, os.strerror(number))
    assert (caught.value.hint is None) == (hint is None)
    assert (hint or "") in (caught.value.hint or "")


def test_other_errors_pass_through() -> None:
    for error in (StorageError("mine"), VideoError("video"), UsageError("usage"), KeyError("key")):
        with pytest.raises(type(error)) as caught, storage_errors("x"):
            raise error
        assert caught.value is error


def test_temporary_files_are_known_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    def look(descriptor: int) -> None:
        seen.extend(entry.name for entry in tmp_path.iterdir() if is_temporary(entry))

    monkeypatch.setattr(os, "fsync", look)
    write_atomic(tmp_path / "dataset.json", b"x")
    assert len(seen) == 1
    assert not is_temporary(tmp_path / "dataset.json")
    assert not is_temporary(tmp_path / "notes.tmp")
