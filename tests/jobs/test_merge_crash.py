"""A merge is killed at many points and called again: nothing is lost, nothing is there twice, the same bytes."""

import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.jobs.merge_datasets import file_hashes, make_dataset, rows_of
from vrekit.catalog.manifest import MANIFEST_NAME
from vrekit.jobs.merge import origin as merge_origin
from vrekit.jobs.merge import run as merge_run
from vrekit.jobs.merge.manifests import Layout
from vrekit.jobs.merge.run import merge
from vrekit.jobs.validate import validate
from vrekit.writers import journal
from vrekit.writers.lance import copying as lance_target
from vrekit.writers.lance import table as lance_table
from vrekit.writers.lance.table import LanceTable
from vrekit.writers.webdataset import new_shard as tar_target

POINTS = 20


def some_slow(numbers: range) -> list[Any]:
    """Every third number; the others are marked slow."""
    return [number if number % 3 == 0 else pytest.param(number, marks=pytest.mark.slow) for number in numbers]


class Killed(BaseException):
    """Nothing of ours may catch it: what follows is what a SIGKILL leaves, except that locks are given up."""


# Everything a merge does to the disk goes through one of these.
_CALLS: dict[str, list[tuple[Any, str]]] = {
    "tar": [
        (merge_origin, "write_atomic"),
        (tar_target, "write_tar"),
        (tar_target, "write_atomic"),
        (tar_target, "fsync_folder"),
        (merge_run, "copy_runs"),
        (merge_run, "copy_statistics"),
        (merge_run, "write_card"),
        (merge_run, "write_manifest"),
    ],
    "lance": [
        (lance_target, "_copy_file"),
        (lance_target, "tidy"),
        (LanceTable, "sync"),
        (lance_table, "tag"),
        (journal.OpenShard, "flush"),
        (journal.OpenShard, "remove"),
        (merge_run, "write_manifest"),
    ],
}


@contextmanager
def killed_at(monkeypatch: pytest.MonkeyPatch, calls: list[tuple[Any, str]], number: int) -> Iterator[list[int]]:
    """Raise Killed at the so-many-th of these calls, before or after it happens (even or odd numbers)."""
    count = [0]
    lock = threading.Lock()  # several threads copy

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            with lock:
                count[0] += 1
                is_the_one = count[0] == number // 2
            if is_the_one and number % 2 == 0:
                raise Killed
            result = function(*args, **kwargs)
            if is_the_one:
                raise Killed
            return result

        return call

    with monkeypatch.context() as patch:
        for owner, name in calls:
            patch.setattr(owner, name, counted(getattr(owner, name)))
        yield count


def make_sources(folder: Path, writer: str) -> list[Path]:
    a = make_dataset(folder / "a", {"car": range(30), "bus": range(9)}, writer=writer)
    b = make_dataset(folder / "b", {"car": range(21, 50)}, writer=writer, run_id="run-b")
    return [a, make_dataset(b, {"car": range(21, 50)}, ["flow"], run_id="run-c")]


@pytest.mark.parametrize("join", [False, True])
def test_killed_at_random_points(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, join: bool) -> None:
    sources = make_sources(tmp_path, "webdataset")
    layout = Layout(join=join, shard_frames=16)
    whole, out = tmp_path / "whole", tmp_path / "out"
    with killed_at(monkeypatch, _CALLS["tar"], 0) as count:
        merge(sources, whole, layout=layout)
    order = random.Random(int(join))
    killed = 0
    for number in sorted(order.sample(range(2, 2 * count[0] + 2), POINTS)):
        try:
            with killed_at(monkeypatch, _CALLS["tar"], number):
                merge(sources, out, layout=layout)
        except Killed:
            killed += 1
            _drop_locks(out)
        else:  # earlier calls had done so much that this point was not reached
            break
    assert killed  # at least the first one: what a later one has to do depends on how far the others got
    report = merge(sources, out, layout=layout)
    assert report.was_finished or report.already
    _assert_same(out, whole)
    assert file_hashes(out, "shards/**/*") == file_hashes(whole, "shards/**/*")


@pytest.mark.parametrize("point", some_slow(range(POINTS)))
def test_killed_once_at_any_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, point: int) -> None:
    sources = make_sources(tmp_path, "webdataset")
    whole, out = tmp_path / "whole", tmp_path / "out"
    with killed_at(monkeypatch, _CALLS["tar"], 0) as count:
        merge(sources, whole)
    number = 2 + point * 2 * count[0] // POINTS + point % 2
    with killed_at(monkeypatch, _CALLS["tar"], number), pytest.raises(Killed):
        merge(sources, out)
    _drop_locks(out)
    for folder in (out, out / "shards/car"):  # what a kill inside `write_atomic` leaves
        if folder.exists() and not (out / MANIFEST_NAME).exists():
            (folder / ".origin.json.1.tmp").write_bytes(b"half")
    merge(sources, out)
    _assert_same(out, whole)
    assert file_hashes(out, "shards/**/*") == file_hashes(whole, "shards/**/*")


@pytest.mark.parametrize("number", some_slow(range(2, 22)))
def test_lance_killed_at_each_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    sources = make_sources(tmp_path, "lance")
    out = tmp_path / "out"
    try:
        with killed_at(monkeypatch, _CALLS["lance"], number * 3):
            merge(sources, out)
    except Killed:
        _drop_locks(out)
    merge(sources, out)
    whole = tmp_path / "whole"
    merge(sources, whole)
    _assert_same(out, whole)
    assert not list((out / "lance").glob(".open/*/*"))


def _drop_locks(out: Path) -> None:
    # The kernel drops a dead process's locks; here the process lives on, so the lock files go instead.
    for lock in out.rglob("*.lock"):
        if lock.parent.name != "lance":  # a table's lock file stays; an unfinished owner shows in its content
            lock.unlink()


def _assert_same(out: Path, whole: Path) -> None:
    assert rows_of(out) == rows_of(whole)
    assert not validate(out).problems
    assert file_hashes(out, "runs/*") == file_hashes(whole, "runs/*")
    assert (out / MANIFEST_NAME).read_bytes() == (whole / MANIFEST_NAME).read_bytes()
    assert not [
        path for path in out.rglob(".*") if path.name.endswith((".merging", ".tmp", ".lock")) and path.parent == out
    ]
    assert not list(out.glob("shards/*/.*"))


def test_a_torn_shard_is_written_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a power cut may leave: a sidecar whose tar is not all there."""
    sources = make_sources(tmp_path, "webdataset")
    whole, out = tmp_path / "whole", tmp_path / "out"
    merge(sources, whole)
    with monkeypatch.context() as patch:
        patch.setattr(merge_run, "copy_runs", _kill)
        with pytest.raises(Killed):
            merge(sources, out, sync=False)
    first, second, third, *_ = sorted(out.glob("shards/car/*.tar"))
    content = bytearray(first.read_bytes())
    content[-4096:-1024] = bytes(3072)
    first.write_bytes(content)
    os.truncate(second, 5000)
    third.with_suffix(".parquet").write_bytes(b"")
    report = merge(sources, out)
    assert report.shards == 3
    _assert_same(out, whole)


def _kill(*args: object) -> None:
    raise Killed


@pytest.mark.slow
@pytest.mark.parametrize("writer", ["webdataset", "lance"])
def test_sigkill(tmp_path: Path, writer: str) -> None:
    sources = [
        make_dataset(
            tmp_path / f"source{number}", {f"video{number}": range(64), "shared": range(number * 9, 64)}, writer=writer
        )
        for number in range(6)
    ]
    whole, out = tmp_path / "whole", tmp_path / "out"
    started = time.monotonic()
    command = [sys.executable, "-m", "vrekit", "merge", *map(str, sources), "-o"]
    subprocess.run([*command, str(whole)], check=True, capture_output=True)
    seconds = time.monotonic() - started
    order = random.Random(3)
    killed = 0
    while not killed:  # at least one is: what the later ones have to do depends on how far the others got
        shutil.rmtree(out, ignore_errors=True)
        for _ in range(20):
            process = subprocess.Popen([*command, str(out)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            try:
                process.wait(seconds * order.uniform(0.3, 1.0))
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                process.wait()
                killed += 1
        seconds /= 2
    subprocess.run([*command, str(out)], check=True, capture_output=True)
    _assert_same(out, whole)
