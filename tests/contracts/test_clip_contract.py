"""Clips in files: written once, and forgotten when they are damaged; `StorageContract` has what all storages share."""

from pathlib import Path

import pytest

from tests.contracts.writer_cells import CELL, WRITERS, make_writer
from tests.storages import read_samples
from vrekit.catalog.cells import CellWriter
from vrekit.testing.cells import clip_bytes, make_clip

pytestmark = pytest.mark.parametrize("writer", WRITERS)


def open_cell(folder: Path, writer: str) -> CellWriter:
    return make_writer(folder, writer, names=["rgb"]).open_cell(CELL)


def copies(folder: Path, frames: range) -> int:
    """How often the bytes of a clip lie in the files of a dataset."""
    return sum(path.read_bytes().count(clip_bytes(frames)) for path in folder.rglob("*") if path.is_file())


def test_a_clip_is_written_once(tmp_path: Path, writer: str) -> None:
    with open_cell(tmp_path, writer) as cell:
        cell.append_clip(make_clip(range(10, 20), failed=(10, 15)))
        cell.append_clip(make_clip(range(20, 30)))
    assert copies(tmp_path, range(20, 30)) == 1


def test_a_suspended_clip_that_is_damaged_is_forgotten(tmp_path: Path, writer: str) -> None:
    cell = open_cell(tmp_path, writer)
    cell.append_clip(make_clip(range(5)))
    cell.append_clip(make_clip(range(5, 9)))
    cell.suspend()
    (partial,) = (path for path in tmp_path.rglob("*") if path.suffix in (".partial", ".payloads"))
    data = bytearray(partial.read_bytes())
    data[data.index(clip_bytes(range(5, 9))) + 500] ^= 1
    partial.write_bytes(data)
    with open_cell(tmp_path, writer) as again:
        assert again.recovered == {frame: {"rgb": "ok"} for frame in range(5)}
        again.append_clip(make_clip(range(5, 9)))
    assert copies(tmp_path, range(5)) == copies(tmp_path, range(5, 9)) == 1
    assert read_samples(tmp_path).num_rows == 9
