"""What holds for local folders only, and for processes."""

import errno
import multiprocessing
import os
import pickle
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.stores.conftest import QUICK, new_url
from vrekit.core.errors import AccessError, DatasetError, LockedError, ObjectExistsError, StorageError, VrekitError
from vrekit.core.stores import local as local_module
from vrekit.core.stores import open_store


@pytest.mark.parametrize("foreign", ["link", "folder_link", "pipe", "folder"])
def test_only_regular_files_in_real_folders(tmp_path: Path, foreign: str) -> None:
    root, outside = tmp_path / "d", tmp_path / "outside"
    root.mkdir()
    outside.mkdir()
    (outside / "x").write_bytes(b"secret")
    name = "f"
    if foreign == "link":
        (root / "f").symlink_to(outside / "x")
    elif foreign == "folder_link":
        (root / "f").symlink_to(outside)
        name = "f/x"
    elif foreign == "pipe":
        os.mkfifo(root / "f")
    else:
        (root / "f").mkdir()
    store = open_store(root)
    for ask in (store.read, store.head, store.reader):
        with pytest.raises(DatasetError):
            ask(name)
    if foreign != "folder":
        with pytest.raises(DatasetError):
            list(store.list())
    if foreign == "folder_link":
        for write in (
            lambda: store.put(name, b"1"),
            lambda: store.put_if_absent("f/y", b"1"),
            lambda: store.delete(name),
        ):
            with pytest.raises(DatasetError):
                write()
    assert (outside / "x").read_bytes() == b"secret"
    assert os.listdir(outside) == ["x"]


def test_links_that_the_user_allows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x").write_bytes(b"1")
    (tmp_path / "d").mkdir()
    (tmp_path / "d/f").symlink_to(tmp_path / "x")
    monkeypatch.setenv("VREKIT_FOLLOW_LINKS", "1")
    store = open_store(tmp_path / "d")
    assert store.read("f") == b"1"
    assert [info.name for info in store.list()] == ["f"]


@pytest.mark.parametrize("failing", ["fsync", "link", "replace"])
def test_a_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str) -> None:
    store = open_store(tmp_path)
    etag = store.put("f", b"1")

    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr(Path if failing == "replace" else os, failing, fail)
    writes: list[Callable[[], object]] = [lambda: store.put_if_absent("g", b"2")] if failing != "replace" else []
    if failing != "link":
        writes += [lambda: store.put("f", b"2"), lambda: store.compare_and_swap("f", b"2", etag)]
    for write in writes:
        with pytest.raises(StorageError, match="no space") as caught:
            write()
        assert "free some space" in str(caught.value.hint)
    monkeypatch.undo()
    assert os.listdir(tmp_path) == ["f"]
    assert store.read("f") == b"1"


@pytest.mark.parametrize("kind", ["bytes", "file"])
def test_a_file_system_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    def no_links(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, "no links")

    monkeypatch.setattr(os, "link", no_links)
    (tmp_path / "source").write_bytes(b"1")
    store = open_store(tmp_path / "d")
    store.put_if_absent("f", b"1" if kind == "bytes" else tmp_path / "source")
    with pytest.raises(ObjectExistsError):
        store.put_if_absent("f", b"2")
    assert store.read("f") == b"1"
    assert os.listdir(tmp_path / "d") == ["f"]


def test_a_swap_that_hangs_does_not_block_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_module, "_LOCK_SECONDS", 0.05)
    store = open_store(tmp_path)
    store.put("f", b"1")
    with local_module._swapping(tmp_path / "f"), pytest.raises(LockedError, match="another process"):
        store.put("f", b"2")
    store.put("f", b"3")


def test_quick_swaps_get_other_etags(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time_ns", lambda: 1)  # a clock that stands still
    store = open_store(tmp_path)
    assert len({store.put("f", b"same") for _ in range(20)}) == 20


def test_without_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store(tmp_path)
    store.put("f", b"1")

    def denied(*_: object) -> int:
        raise PermissionError(errno.EACCES, "denied")

    monkeypatch.setattr(local_module, "open_regular", denied)
    with pytest.raises(AccessError, match="f may not be read"):
        store.read("f")
    with pytest.raises(AccessError, match=r"cannot write .*g: permission denied") as caught:
        store.put_if_absent("g", b"1")
    assert isinstance(caught.value, PermissionError)
    assert caught.value.hint


def _read_in_child(store: Any, answers: Any) -> None:
    try:
        answers.put(store.read("f"))
    except VrekitError as error:
        answers.put((error.message, error.hint))


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
@pytest.mark.parametrize("kind", ["local", "s3", "memory"])
def test_forked_processes(kind: str, tmp_path: Path, s3_environment: str) -> None:
    store = open_store(new_url(kind, tmp_path), QUICK)
    store.put("f", b"1")
    context = multiprocessing.get_context("fork")
    answers = context.SimpleQueue()
    child = context.Process(target=_read_in_child, args=(store, answers))
    child.start()
    answer = answers.get()
    child.join()
    if kind == "local":
        assert answer == b"1"
    else:  # instead of waiting for ever
        assert "forked process" in answer[0]
        assert "forkserver" in answer[1]


_CHILD = """
import pickle, sys
from vrekit.core.errors import VrekitError
try:
    print(pickle.load(sys.stdin.buffer).read("f").decode())
except VrekitError as error:
    print("error:", error)
"""


@pytest.mark.parametrize("kind", ["local", "s3", "memory"])
def test_spawned_processes(kind: str, tmp_path: Path, s3_environment: str) -> None:
    store = open_store(new_url(kind, tmp_path), QUICK)
    store.put("f", b"one")
    child = subprocess.run([sys.executable, "-c", _CHILD], input=pickle.dumps(store), capture_output=True, check=True)
    if kind == "memory":
        assert b"lies in the memory of another process" in child.stdout
    else:
        assert child.stdout == b"one\n"


def test_local_stores_need_no_package() -> None:
    script = (
        "import sys; sys.modules['obstore'] = sys.modules['fsspec'] = None\n"
        "from vrekit.core.stores import open_store; print(open_store('/nowhere').location)\n"
        "assert not {'numpy', 'moto', 'torch'} & set(sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert found.stdout == "/nowhere\n"
