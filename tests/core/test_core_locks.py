"""A lock file has one owner, and dies with it."""

import multiprocessing
import os
import signal
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from vrekit.core.errors import LockedError, StorageError
from vrekit.core.locks import OwnedFile


def hold(path: Path, ready: Connection) -> None:
    owned = OwnedFile(path, "a shard")
    ready.send(os.getpid())
    ready.recv()
    owned.release()


def test_one_owner_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    first = OwnedFile(path, "car/all frames 0..7")
    with pytest.raises(LockedError, match=rf"\(pid {os.getpid()}\) is writing car/all frames 0..7") as caught:
        OwnedFile(path, "car/all frames 0..7")
    assert "--frames" in str(caught.value.hint)
    first.release()
    assert not path.exists()
    second = OwnedFile(path, "again")
    second.release()


@pytest.mark.parametrize("how", ["released", "killed"])
def test_between_processes(tmp_path: Path, how: str) -> None:
    path = tmp_path / ".lock"
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=hold, args=(path, there))
    process.start()
    owner = here.recv()
    with pytest.raises(LockedError, match=f"pid {owner}"):
        OwnedFile(path, "a shard")
    if how == "released":
        here.send("go on")
    else:
        os.kill(owner, signal.SIGKILL)
    process.join(30)
    assert path.exists() == (how == "killed")  # a killed owner cannot remove it, but owns it no more
    OwnedFile(path, "a shard").release()
    assert not path.exists()


def test_a_lock_that_the_owner_removed_meanwhile_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / ".lock"
    answers = iter([False, True])
    asked: list[bool] = []

    def is_current(self: OwnedFile) -> bool:
        asked.append(next(answers))
        return asked[-1]

    monkeypatch.setattr(OwnedFile, "_is_current", is_current)
    owned = OwnedFile(path, "a shard")
    assert asked == [False, True]
    owned.release()


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="no such file or directory"):
        OwnedFile(tmp_path / "gone" / ".lock", "a shard")
