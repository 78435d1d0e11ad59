"""Payloads that frames share, the same for both storages: written once, found by every frame, recovered whole."""

import dataclasses
import zlib
from pathlib import Path

import numpy as np
import pytest

from tests.contracts.writer_cells import CELL, STORAGES, make_manifest, make_sample, make_writer
from tests.storages import open_payloads, read_samples
from vrekit.catalog.cells import CellWriter, Clip
from vrekit.catalog.index import frames_of
from vrekit.catalog.rows import byte_shares
from vrekit.readers.index import FrameIndex

pytestmark = pytest.mark.parametrize("writer", STORAGES)


def make_clip(frames: range, *, failed: tuple[int, ...] = (), data: bytes | None = None) -> Clip:
    """Frames of `rgb` in a clip that has two frames before them."""
    rows = []
    for frame in frames:
        (payload,) = make_sample(frame, ["rgb"], failed=["rgb"] if frame in failed else []).payloads
        place = None if frame in failed else frame - frames[0] + 2
        rows.append(dataclasses.replace(payload.row, payload_index=place))
    return Clip(tuple(rows), "mp4", clip_bytes(frames) if data is None else data)


def clip_bytes(frames: range) -> bytes:
    return np.random.default_rng(frames[0]).bytes(1000 + len(frames))


def open_cell(folder: Path, writer: str) -> CellWriter:
    return make_writer(folder, writer, names=["rgb"]).open_cell(CELL)


def payload_of(folder: Path, writer: str, frame: int) -> bytes | None:
    index = FrameIndex.from_table(read_samples(folder), ["rgb"])
    (row,) = np.flatnonzero(index.frame_index == frame)
    (data,) = open_payloads(folder, make_manifest(writer, ["rgb"]), index).read(np.array([row]), ["rgb"])["rgb"]
    return None if data is None else bytes(data)


def test_every_frame_of_a_clip_finds_it(tmp_path: Path, writer: str) -> None:
    with open_cell(tmp_path, writer) as cell:
        cell.append_clip(make_clip(range(10, 20), failed=(10, 15)))
        cell.append_clip(make_clip(range(20, 30)))
    rows = {row["frame_index"]: row for row in read_samples(tmp_path).to_pylist()}
    assert sorted(rows) == list(range(10, 30))
    assert [rows[frame]["payload_index"] for frame in range(9, 31) if frame in rows] == [
        *(None if frame in (10, 15) else frame - 8 for frame in range(10, 20)),
        *range(2, 12),
    ]
    for frames in (range(10, 20), range(20, 30)):
        stored = [rows[frame] for frame in frames if rows[frame]["status"] == "ok"]
        data = clip_bytes(frames)
        assert {(row["byte_size"], row["checksum"]) for row in stored} == {(len(data), zlib.crc32(data))}
        assert len({(row["shard"], row["byte_offset"]) for row in stored}) == 1
        assert all(payload_of(tmp_path, writer, row["frame_index"]) == data for row in stored)
    assert payload_of(tmp_path, writer, 15) is None
    assert rows[15]["byte_size"] is rows[15]["checksum"] is None
    assert writer == "memory" or (
        sum(path.read_bytes().count(clip_bytes(range(20, 30))) for path in tmp_path.rglob("*") if path.is_file()) == 1
    )


def test_bytes_of_a_clip_are_counted_once(tmp_path: Path, writer: str) -> None:
    with open_cell(tmp_path, writer) as cell:
        cell.append_clip(make_clip(range(7), failed=(3,)))
        cell.append_clip(make_clip(range(7, 10)))
    table = read_samples(tmp_path)
    sizes = [len(clip_bytes(frames)) for frames in (range(7), range(7, 10))]
    shares = byte_shares(table)
    assert shares.sum() == sum(sizes)
    assert shares[[0, 3, 7]].tolist() == [sizes[0] // 6 + sizes[0] % 6, 0, sizes[1] // 3 + sizes[1] % 3]
    assert sum(frames_of(table)["total_bytes"].to_pylist()) == sum(sizes)


def test_a_suspended_clip_is_recovered_whole_or_not_at_all(tmp_path: Path, writer: str) -> None:
    cell = open_cell(tmp_path, writer)
    cell.append_clip(make_clip(range(5)))
    cell.suspend()
    again = open_cell(tmp_path, writer)
    assert again.recovered == {frame: {"rgb": "ok"} for frame in range(5)}
    again.append_clip(make_clip(range(5, 9)))
    again.suspend()
    if writer == "memory":
        return  # nothing is on disk
    (partial,) = (path for path in tmp_path.rglob("*") if path.suffix in (".partial", ".payloads"))
    data = bytearray(partial.read_bytes())
    data[data.index(clip_bytes(range(5, 9))) + 500] ^= 1
    partial.write_bytes(data)
    with open_cell(tmp_path, writer) as last:
        # the first clip is committed since; the damaged one is forgotten
        assert last.recovered == {frame: {"rgb": "ok"} for frame in range(5)}
        last.append_clip(make_clip(range(5, 9)))
    assert [payload_of(tmp_path, writer, frame) for frame in (4, 5)] == [clip_bytes(range(5)), clip_bytes(range(5, 9))]
    assert read_samples(tmp_path).num_rows == 9


def test_a_clip_without_a_frame_that_is_good_is_rows_only(tmp_path: Path, writer: str) -> None:
    clip = make_clip(range(4), failed=(0, 1, 2, 3))
    with open_cell(tmp_path, writer) as cell:
        cell.append_clip(dataclasses.replace(clip, data=None))
    rows = read_samples(tmp_path).to_pylist()
    assert [(row["status"], row["byte_size"], row["payload_index"]) for row in rows] == [("failed", None, None)] * 4
