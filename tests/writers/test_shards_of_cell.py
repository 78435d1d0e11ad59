"""Which files of a video's folder are those of a cell."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.contracts.writer_cells import make_sample, make_writer, write_missing
from tests.storages import read_samples
from vrekit.catalog.cells import Cell
from vrekit.writers.webdataset.writer import _common_digits


@given(st.integers(0, 2 * 10**9), st.integers(0, 10**6), st.data())
def test_digits_that_a_range_has_in_common(first: int, width: int, data: st.DataObject) -> None:
    inside = data.draw(st.integers(first, first + width))
    assert f"{inside:08d}".startswith(_common_digits(first, first + width))


@pytest.mark.parametrize("first", [0, 64, 99_999_936, 99_999_968, 100_000_000])
def test_a_cell_finds_its_own_shards_only(tmp_path: Path, first: int) -> None:
    writer = make_writer(tmp_path, "webdataset", shard_size_bytes=2000)
    for start in (first, first + 64, first + 640):
        for group in ("all", "add1"):
            with writer.open_cell(Cell("car", group, start, start + 63)) as cell:
                write_missing(cell, range(start, start + 12), names=("rgb",))
    home = tmp_path / "shards/car"
    for name in (f"all-{first + 64:08d}-{first + 80:08d}-1.tar", f"all-{first + 20:08d}-{first + 21:08d}.tar"):
        (home / name).write_bytes(b"never committed")
    cell = writer.open_cell(Cell("car", "all", first, first + 63))
    assert cell.recovered == {frame: {"rgb": "ok"} for frame in range(first, first + 12)}
    assert not (home / f"all-{first + 20:08d}-{first + 21:08d}.tar").exists()
    assert (home / f"all-{first + 64:08d}-{first + 80:08d}-1.tar").exists()
    cell.append(make_sample(first + 13, ("rgb",)))
    cell.commit()
    frames = read_samples(tmp_path, columns=("frame_index",))["frame_index"].to_pylist()
    assert len(frames) == 6 * 12 + 1
