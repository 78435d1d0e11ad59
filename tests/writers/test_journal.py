"""The file that grows and its journal: a flush may break off anywhere and be tried again."""

import errno
import os
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from vrekit.catalog.cells import Cell
from vrekit.core.checksum import crc32
from vrekit.core.errors import StorageError
from vrekit.core.schema import SAMPLES_SCHEMA, rows_to_table
from vrekit.writers import journal
from vrekit.writers.journal import OpenShard
from vrekit.writers.webdataset.sidecars import sidecar_bytes

CELL = Cell("car", "all", 0, 1 << 20)
ROW = {
    "video_id": "car",
    "representation": "x",
    "kind": "color",
    "run_id": "r",
    "config_hash": "0123456789abcdef",
    "status": "failed",
    "valid": True,
}


def append(shard: OpenShard, frame: int) -> None:
    data = bytes([frame]) * (300_000 if frame % 3 == 0 else 100 + frame)
    row = {"frame_index": frame, **ROW, "status": "ok"}
    place = {"byte_offset": shard.size, "byte_size": len(data), "checksum": crc32(data)}
    shard.append([data], [{**row, **place}])


def rows_of(shard: OpenShard) -> list[dict[str, Any]]:
    return [row for table in shard.tables() for row in table.to_pylist()]


def open_shard(folder: Path) -> OpenShard:
    return OpenShard(folder / "a.payloads", folder / "a.journal", CELL)


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
    rows = rows_of(again)
    assert [row["frame_index"] for row in rows] == list(range(13))
    assert [again.read(row["byte_offset"], row["byte_size"])[:1] for row in rows] == [bytes([n]) for n in range(13)]
    assert (again.first_frame, again.last_frame) == (0, 12)
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


def test_rows_come_back_as_they_were(tmp_path: Path) -> None:
    shard = open_shard(tmp_path)
    whole = {
        "video_id": "car",
        "pts_seconds": 1 / 29.97,
        "representation": "rgb",
        "kind": "color",
        "run_id": "run1",
        "config_hash": "0123456789abcdef",
        "status": "ok",
        "valid": True,
        "compute_seconds": 0.1 + 2**-40,
        "encode_seconds": 1e-9,
        "codec": "png",
        "dtype": "uint8",
        "shape": (4, 5, 3),
        "raw_bytes": 60,
        "byte_offset": 2**53 - 1,
        "byte_size": 8 * 10**9,
        "payload_index": 7,
        "checksum": 2**32 - 1,
        "shard": "",
    }
    rows = [
        {"frame_index": 0, "error": None, **whole},
        {"frame_index": 1, **dict.fromkeys(whole), "error": 'é "quoted" \\ \n\t \U0001f600 \x7f', "valid": False},
        {"frame_index": 2, "error": "", **whole, "shape": (), "pts_seconds": float("inf"), "compute_seconds": 3},
    ]
    shard.append([b"x"], rows[:2])
    shard.append([b"y"], rows[2:])
    shard.flush()
    (table,) = shard.tables()
    assert table.equals(rows_to_table(rows))
    assert table.schema.equals(SAMPLES_SCHEMA)
    shard.remove()


def test_memory_does_not_grow_with_the_rows(tmp_path: Path) -> None:
    count, row = 30_000, {**ROW, "error": "no weights " * 20}
    shard = open_shard(tmp_path)
    tracemalloc.start()
    held = []
    for frame in range(count):
        shard.append([], [{"frame_index": frame, **row}])
        if frame % (count // 3) == 0:
            shard.flush()
            held.append(tracemalloc.get_traced_memory()[0])
    shard.flush()
    held.append(tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()
    assert held[-1] - held[0] < 100_000
    tables = list(shard.tables())
    assert len(tables) > 3  # a block of the journal each
    assert [frame for table in tables for frame in table["frame_index"].to_pylist()] == list(range(count))
    shard.close()
    again = open_shard(tmp_path)
    assert (again.first_frame, again.last_frame, again.size) == (0, count - 1, 0)
    again.remove()


def test_a_line_longer_than_a_block(tmp_path: Path) -> None:
    shard = open_shard(tmp_path)
    row = {"status": "failed", "error": "no weights " * 20, "representation": "rgb", "run_id": "run1"}
    for clip in range(3):
        shard.append([], [{"frame_index": 10_000 * clip + frame, **row} for frame in range(10_000)])
    shard.flush()
    assert [len(table) for table in shard.tables()] == [10_000] * 3
    shard.remove()


def test_a_sidecar_does_not_depend_on_how_its_rows_come() -> None:
    kind = {"representation": "rgb", "kind": "color", "run_id": "r", "config_hash": "h", "status": "ok", "valid": True}
    few = rows_to_table({"video_id": "car", "frame_index": frame, "shape": (frame,), **kind} for frame in range(1000))
    whole = pa.concat_tables([few] * 300)
    parts = [whole.slice(at, 7001) for at in range(0, len(whole), 7001)]
    assert sidecar_bytes(parts) == sidecar_bytes(iter([whole])) == sidecar_bytes(whole.combine_chunks())
    groups = pq.ParquetFile(pa.BufferReader(sidecar_bytes(parts))).metadata
    assert [groups.row_group(at).num_rows for at in range(groups.num_row_groups)] == [131072, 131072, 37856]


def eventually(condition: Callable[[], bool]) -> bool:
    """Return whether something becomes true; a loaded machine gets half a minute."""
    end = time.monotonic() + 30
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.005)
    return True


def test_a_timer_flushes_what_nobody_follows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "FLUSH_SECONDS", 0.01)
    shard, lines = open_shard(tmp_path), tmp_path / "a.journal"
    for frame in range(4):
        append(shard, frame)
        assert eventually(lambda count=frame + 1: lines.read_bytes().count(b"\n") == count)  # type: ignore[misc]
    assert (tmp_path / "a.payloads").stat().st_size == shard.size
    shard.flush()  # waits until the timer's flush has ended
    assert [row["frame_index"] for row in rows_of(shard)] == [0, 1, 2, 3]
    shard.close()


def test_what_a_timer_cannot_flush_is_told_to_who_appends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "FLUSH_SECONDS", 0.01)
    shard = open_shard(tmp_path)
    with monkeypatch.context() as patch:
        breaks = Breaks(patch, 1, OSError(errno.ENOSPC, "full"), after=False)
        append(shard, 0)
        assert eventually(lambda: breaks.left <= 0)
        with pytest.raises(StorageError, match="no space left") as raised:
            append(shard, 1)
    assert "vrekit resume" in (raised.value.hint or "")
    shard.flush()
    shard.close()
    again = open_shard(tmp_path)
    assert [row["frame_index"] for row in rows_of(again)] == [0]
    again.close()


def test_a_late_error_is_told_by_the_next_flush_which_writes_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "FLUSH_SECONDS", 0.01)
    shard = open_shard(tmp_path)
    with monkeypatch.context() as patch:
        breaks = Breaks(patch, 2, OSError(errno.EIO, "broken"), after=False)
        append(shard, 0)
        assert eventually(lambda: breaks.left <= 0)
        with pytest.raises(StorageError, match="input/output error"):
            shard.flush()
    assert [row["frame_index"] for row in rows_of(shard)] == [0]
    shard.close()


def test_no_timer_outlives_a_shard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for end in ("close", "remove", "flush"):
        shard = open_shard(tmp_path)
        append(shard, 1)
        timer = shard._timer
        assert timer is not None
        getattr(shard, end)()
        timer.join(30)
        assert not timer.is_alive()
    monkeypatch.setattr(journal, "FLUSH_SECONDS", 0)
    for _ in range(200):  # the timer is at work while the file is closed
        shard = open_shard(tmp_path)
        append(shard, 1)
        shard.remove()
    assert not list(tmp_path.iterdir())
