"""The file that grows and its journal: a flush may break off anywhere and be tried again."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vrekit.core.checksum import crc32
from vrekit.core.errors import StorageError
from vrekit.writers.journal import OpenShard


def append(shard: OpenShard, frame: int) -> None:
    data = bytes([frame]) * (300_000 if frame % 3 == 0 else 100 + frame)
    row = {"frame_index": frame, "representation": "x", "run_id": "r", "status": "ok"}
    place = {"byte_offset": shard.size, "byte_size": len(data), "checksum": crc32(data)}
    shard.append([data], [{**row, **place}])


def open_shard(folder: Path) -> OpenShard:
    return OpenShard(folder / "a.payloads", folder / "a.journal")


class Breaks:
    """Breaks off the call of some functions of `os`, numbered in the order they are called."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, number: int, error: BaseException, *, after: bool) -> None:
        self.left, self.error, self.after = number, error, after
        for name in ("pwrite", "fsync"):
            monkeypatch.setattr(os, name, self.wrap(getattr(os, name)))

    def wrap(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any) -> Any:
            self.left -= 1
            if self.left == 0 and not self.after:
                if len(args) == 3:
                    function(args[0], args[1][: len(args[1]) // 2], args[2])  # a part of it is on the disk
                raise self.error
            result = function(*args)
            if self.left == 0:
                raise self.error
            return result

        return wrapped


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("number", range(1, 9))
@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(errno.ENOSPC, "full")], ids=["ctrl-c", "full-disk"])
def test_a_flush_that_broke_off_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, error: BaseException, after: bool
) -> None:
    shard = open_shard(tmp_path)
    for frame in range(4):
        append(shard, frame)
    shard.flush()
    for frame in range(4, 12):
        append(shard, frame)
    with monkeypatch.context() as patch:
        breaks = Breaks(patch, number, error, after=after)
        broken = 0
        try:
            shard.flush()
        except (KeyboardInterrupt, StorageError):
            broken = 1
        assert broken == (breaks.left <= 0)
    append(shard, 12)
    shard.flush()
    shard.close()
    again = open_shard(tmp_path)
    assert [row["frame_index"] for row in again.rows] == list(range(13))
    assert [again.read(row)[:1] for row in again.rows] == [bytes([frame]) for frame in range(13)]
    assert again.size == (tmp_path / "a.payloads").stat().st_size
    again.close()


def test_bytes_without_a_journal_line_are_cut_off(tmp_path: Path) -> None:
    shard = open_shard(tmp_path)
    append(shard, 1)
    shard.seal(b"the end")
    shard.close()
    again = open_shard(tmp_path)
    assert again.size == (tmp_path / "a.payloads").stat().st_size == 101
    again.remove()
    assert not list(tmp_path.iterdir())
