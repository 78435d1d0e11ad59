"""The loop of every job that writes samples: what the result has already is not written again."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from tests.jobs.merge_datasets import make_dataset
from vrekit.catalog.cells import CellWriter
from vrekit.catalog.manifest import write_manifest
from vrekit.catalog.rows import SOURCE, GroupedRows
from vrekit.catalog.storage import open_storage
from vrekit.jobs.cells import grouped, write_cells
from vrekit.jobs.copying import Written, write_samples
from vrekit.readers.payloads import StoredPayloads

FAILED = ("car", 3, "depth")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return make_dataset(tmp_path / "a", {"car": range(20)}, ["rgb", "depth"], shard_frames=8, failed=[FAILED])


def rows_of(folder: Path) -> GroupedRows:
    storage = open_storage(folder)
    table = storage.rows(None, ["car"])
    return grouped(table.append_column(SOURCE, pa.repeat(pa.scalar(0, pa.int32()), len(table))), storage.manifest)


def test_rows_are_sorted_by_group_frame_and_representation(source: Path) -> None:
    table = open_storage(source).rows(None, ["car"])
    shuffled = table.take(pa.array(np.random.default_rng(0).permutation(len(table))))
    rows = grouped(shuffled, open_storage(source).manifest)
    places = list(zip(rows.table["frame_index"].to_pylist(), rows.table["representation"].to_pylist(), strict=True))
    assert places == [(frame, name) for frame in range(20) for name in ("rgb", "depth")]


@pytest.mark.parametrize("writer", ["webdataset", "lance", "memory"])
def test_what_the_result_has_is_left_alone(source: Path, tmp_path: Path, writer: str) -> None:
    rows, there = rows_of(source), open_storage(source)
    manifest = make_dataset(tmp_path / "b", {}, ["rgb", "depth"], shard_frames=8, writer=writer)
    target = open_storage(manifest, open_storage(manifest).manifest.with_video("car", there.manifest.videos["car"]))
    write_manifest(target.folder, target.manifest)
    seen: list[int] = []

    def two_cells(cell: CellWriter, table: pa.Table) -> None:
        from vrekit.jobs.copying import _samples

        reader = StoredPayloads.of_rows(there, rows.table, ["rgb", "depth"])
        for sample in _samples(table.to_pylist(), "car", {0: reader}, target):
            if sample.frame_index == 12:
                raise KeyboardInterrupt
            cell.append(sample)
            seen.append(sample.frame_index)

    with pytest.raises(KeyboardInterrupt):
        write_cells(rows, "car", target, target.writer(), two_cells)
    assert seen == list(range(12))

    done: list[int] = []
    written = write_samples(rows, "car", {0: there}, target, target.writer(), done.append)
    assert (written.frames, written.samples) == (8, 16)
    assert sum(done) == rows.payload_bytes  # what was there counts, too
    assert write_samples(rows, "car", {0: there}, target, target.writer()) == Written()
    result = rows_of(target.folder).table
    for name in ("frame_index", "representation", "status", "checksum"):
        assert result[name].to_pylist() == rows.table[name].to_pylist()
