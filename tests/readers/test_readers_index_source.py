"""The catalog's index and the shards' own metadata give the very same frames, and a stale index is never used."""

import math
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.catalog.query_dataset import (
    NAMES,
    add_sidecar,
    expected_samples,
    failed_row,
    make_row,
    random_rows,
    write_dataset,
)
from tests.contracts.writer_cells import WRITERS, make_manifest, make_sample
from tests.readers.reader_dataset import RGB, DatasetBuilder, record
from tests.storages import open_writer, read_samples
from vrekit.catalog import index as catalog_index
from vrekit.catalog.cells import Cell
from vrekit.catalog.index import INDEX_FOLDER, consolidated_rows, indexed_rows, load_index
from vrekit.catalog.manifest import read_manifest, write_manifest
from vrekit.catalog.parquet_files import table_bytes
from vrekit.catalog.statistics import STATISTICS_SCHEMA, Statistics, write_statistics
from vrekit.catalog.storage import open_storage
from vrekit.core.errors import DatasetError
from vrekit.core.schema import SampleRow
from vrekit.readers import FrameDataset
from vrekit.readers.index import INDEX_COLUMNS, MISSING, FrameIndex, StoredColumn, read_index
from vrekit.testing.cells import make_clip


def assert_same(found: FrameIndex, expected: FrameIndex) -> None:
    """Compare two indexes bit for bit, dtypes included."""
    for field in fields(FrameIndex):
        one, other = getattr(found, field.name), getattr(expected, field.name)
        if isinstance(one, np.ndarray):
            assert (one.dtype, one.tobytes()) == (other.dtype, other.tobytes()), field.name
        elif field.name != "columns":
            assert one == other, field.name
    assert list(found.columns) == list(expected.columns)
    for name, column in found.columns.items():
        for field in fields(StoredColumn):
            one, other = getattr(column, field.name), getattr(expected.columns[name], field.name)
            assert (one.dtype, one.tobytes()) == (other.dtype, other.tobytes()), (name, field.name)


def both_ways(folder: Path, names: list[str]) -> FrameIndex:
    """Read a dataset without and with its index, compare, and return what was read."""
    manifest = read_manifest(folder)
    shutil.rmtree(folder / INDEX_FOLDER, ignore_errors=True)
    assert indexed_rows(open_storage(folder, manifest), INDEX_COLUMNS) is None
    direct = read_index(open_storage(folder, manifest), names)
    assert not (folder / INDEX_FOLDER).exists()
    load_index(open_storage(folder, manifest))
    assert indexed_rows(open_storage(folder, manifest), INDEX_COLUMNS) is not None
    assert_same(read_index(open_storage(folder, manifest), names), direct)
    return direct


def assert_says(index: FrameIndex, rows: list[SampleRow], names: list[str]) -> None:
    """Compare an index with what consolidated rows say, in plain Python."""
    frames = sorted({(row.video_id, row.frame_index) for row in rows})
    assert [(index.videos[index.video[at]], int(index.frame_index[at])) for at in range(len(index))] == frames
    known = {(row.video_id, row.frame_index): row.pts_seconds for row in rows if row.pts_seconds is not None}
    assert [None if np.isnan(pts) else pts for pts in index.pts_seconds.tolist()] == [known.get(key) for key in frames]
    stored = {(row.representation, row.video_id, row.frame_index): row for row in rows if row.status == "ok"}
    assert index.shards == tuple(sorted({row.shard or "" for key, row in stored.items() if key[0] in names}))
    for name in names:
        column = index.columns[name]
        for at, key in enumerate(frames):
            row = stored.get((name, *key))
            assert bool(column.present[at]) == (row is not None)
            if row is None:
                assert [getattr(column, field)[at] for field in ("offset", "size", "checksum", "valid")] == [0] * 4
                assert column.layout[at] == column.payload_index[at] == MISSING
                continue
            layout = index.layouts[column.layout[at]]
            assert (layout.dtype.name, layout.shape) == (row.dtype, row.shape)
            assert index.shards[column.shard[at]] == row.shard
            place = row.byte_offset, row.byte_size, row.checksum, row.valid, row.payload_index
            found = column.offset[at], column.size[at], column.checksum[at], column.valid[at], column.payload_index[at]
            assert tuple(map(int, found)) == tuple(MISSING if value is None else int(value) for value in place)


@st.composite
def sidecars(draw: st.DrawFn) -> list[list[SampleRow]]:
    """Sidecars in the order of their paths: several groups, failures, retries, clips, ragged shapes, no clock."""
    groups: dict[tuple[str, str], list[SampleRow]] = {}
    for row in draw(random_rows()):
        group = draw(st.sampled_from(("all", "later", "retry")))
        changes: dict[str, Any] = {"pts_seconds": draw(st.sampled_from((None, row.pts_seconds)))}
        if row.status == "ok":
            changes["shard"] = f"shards/{row.video_id}/{group}-00000000-00000099.tar"
            changes["dtype"] = draw(st.sampled_from(("float32", "uint8")))
            changes["shape"] = tuple(draw(st.lists(st.integers(0, 3), max_size=3)))
            changes["raw_bytes"] = math.prod(changes["shape"]) * np.dtype(changes["dtype"]).itemsize
            changes["payload_index"] = draw(st.sampled_from((None, 0, 5)))
        groups.setdefault((row.video_id, group), []).append(replace(row, **changes))
    return [groups[key] for key in sorted(groups)]


@given(sidecars(), st.lists(st.sampled_from((*NAMES, "flow")), unique=True), st.integers(1, 9))
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_tar_shards_read_the_same_with_and_without_the_index(
    tmp_path_factory: pytest.TempPathFactory, groups: list[list[SampleRow]], names: list[str], row_group: int
) -> None:
    folder = write_dataset(tmp_path_factory.mktemp("source") / "out", [])
    for number, rows in enumerate(groups):
        group = (next((row.shard for row in rows if row.shard), None) or f"-{number}").split("/")[-1]
        stem = f"{number:03d}-{group.removesuffix('.tar')}"
        shard = f"shards/{rows[0].video_id}/{stem}.tar"
        groups[number] = [replace(row, shard=shard) if row.shard else row for row in rows]
        add_sidecar(folder, groups[number], stem)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(catalog_index, "_ROW_GROUP", row_group)  # groups of rows end in the middle of a frame
        patch.setattr("vrekit.writers.webdataset.storage._PART_BYTES", 1)
        index = both_ways(folder, names)
    rows = [row for group in groups for row in group]
    assert_says(index, expected_samples(rows), names)


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("seed", range(3))
def test_what_the_writers_write_reads_the_same_with_and_without_the_index(
    tmp_path: Path, writer: str, seed: int
) -> None:
    random = np.random.default_rng(seed)
    names = ["rgb", "depth", "flow"]
    manifest = make_manifest(writer, names[:2])
    flow = replace(make_manifest(writer, ["flow"]).representations["flow"], group=None)
    manifest = manifest.with_representations({"flow": flow})  # a group of its own
    info = manifest.videos["car"]
    for video_id in ("bus", "airport"):
        manifest = manifest.with_video(video_id, info)
    write_manifest(tmp_path, manifest)
    for run in range(2):  # what fails in the first is tried again by the second
        dataset = open_writer(tmp_path, manifest)
        for video_id in ("car", "bus", "airport"):
            done = FrameIndex.from_table(read_samples(tmp_path, video_ids=[video_id]), names)
            for group, members in manifest.groups.items():
                present = {name: done.frame_index[done.columns[name].present].tolist() for name in members}
                with dataset.open_cell(Cell(video_id, group, 0, 63)) as cell:
                    for frame in range(20):
                        todo = [name for name in members if frame not in present[name]]
                        failed = [name for name in todo if random.random() < 0.4]
                        if todo and frame % 7:
                            options: dict[str, Any] = {"run_id": f"run{run}", "video_id": video_id}
                            cell.append(make_sample(frame, todo, failed=failed, **options))
        dataset.close()
    index = both_ways(tmp_path, names)
    assert len(manifest.groups) == 2
    table = read_samples(tmp_path)
    assert_same(index, FrameIndex.from_table(table, names))
    statuses = table["status"].to_pylist()
    assert statuses.count("failed") > 20
    stored = sum(int(index.columns[name].present.sum()) for name in names)
    assert statuses.count("ok") == stored > 90
    for some in (["flow"], ["depth", "rgb"], []):
        both_ways(tmp_path, some)
    with open_writer(tmp_path, manifest).open_cell(Cell("car", manifest.groups.popitem()[0], 64, 127)) as cell:
        cell.append(make_sample(70, ["flow"]))
    assert not used(tmp_path)
    assert len(read_index(open_storage(tmp_path, manifest), names)) == len(index) + 1


@pytest.mark.parametrize("writer", WRITERS)
def test_clips_read_the_same_with_and_without_the_index(tmp_path: Path, writer: str) -> None:
    manifest = make_manifest(writer, ["rgb"])
    write_manifest(tmp_path, manifest)
    with open_writer(tmp_path, manifest).open_cell(Cell("car", "all", 0, 63)) as cell:
        cell.append_clip(make_clip(range(10, 20), failed=(10, 15)))
        cell.append_clip(make_clip(range(20, 30)))
    index = both_ways(tmp_path, ["rgb"])
    column = index.columns["rgb"]
    assert column.payload_index.tolist() == [MISSING, 3, 4, 5, 6, MISSING, 8, 9, 10, 11, *range(2, 12)]
    clips = zip(column.shard.tolist(), column.offset.tolist(), column.payload_index.tolist(), strict=True)
    assert len({(shard, offset) for shard, offset, place in clips if place != MISSING}) == 2


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Frames 0..3 of `car`, with an index."""
    builder = DatasetBuilder(tmp_path / "out", {"rgb": record("rgb", RGB)})
    builder.add("car", range(4))
    folder = builder.write()
    load_index(open_storage(folder, read_manifest(folder)))
    return folder


def frames(folder: Path) -> list[int]:
    frames: list[int] = FrameDataset(folder).index.frame_index.tolist()
    return frames


def files(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in folder.rglob("*")}


def used(folder: Path) -> bool:
    return indexed_rows(open_storage(folder, read_manifest(folder)), INDEX_COLUMNS) is not None


def test_a_reader_follows_the_shards_and_writes_nothing(folder: Path) -> None:
    assert used(folder)
    before = files(folder)
    assert frames(folder) == [0, 1, 2, 3]
    assert files(folder) == before
    builder = DatasetBuilder(folder, {"rgb": record("rgb", RGB)})
    builder.add("car", [20, 21])
    builder.write()
    before = files(folder)
    assert not used(folder)
    assert frames(folder) == [0, 1, 2, 3, 20, 21]
    assert files(folder) == before
    load_index(open_storage(folder, read_manifest(folder)))
    assert used(folder)
    assert frames(folder) == [0, 1, 2, 3, 20, 21]
    (sidecar,) = (folder / "shards/car").glob("*-00000020.parquet")
    sidecar.unlink()
    assert not used(folder)
    assert frames(folder) == [0, 1, 2, 3]


def test_statistics_leave_the_samples_as_they_are(folder: Path) -> None:
    manifest = read_manifest(folder)
    before = (folder / INDEX_FOLDER / "samples.parquet").read_bytes()
    for sharpness in (0.25, 0.5):  # statistics that are new, and statistics that are replaced
        row = {"video_id": "car", "frame_index": 2, "sharpness": sharpness}
        statistics = pa.Table.from_pylist([row], schema=STATISTICS_SCHEMA)
        write_statistics(folder, "car", Statistics(statistics))
        assert used(folder)
        assert load_index(open_storage(folder, manifest)).read_frames()["sharpness"].to_pylist() == [
            None,
            None,
            sharpness,
            None,
        ]
        assert used(folder)
    assert (folder / INDEX_FOLDER / "samples.parquet").read_bytes() == before


def test_a_replaced_sidecar_is_seen_even_when_its_size_is_the_same(tmp_path: Path) -> None:
    folder = write_dataset(tmp_path / "out", [make_row("car", 4, "rgb")])
    load_index(open_storage(folder, read_manifest(folder)))
    (sidecar,) = (folder / "shards/car").iterdir()
    size = sidecar.stat().st_size
    add_sidecar(folder, [replace(make_row("car", 4, "rgb"), frame_index=5)], sidecar.stem)
    assert sidecar.stat().st_size == size
    assert read_index(open_storage(folder, read_manifest(folder)), ["rgb"]).frame_index.tolist() == [5]


@pytest.mark.parametrize("damage", ["pages", "rows", "footer", "empty", "other version", "a folder", "unreadable"])
def test_an_index_that_cannot_be_used_is_passed_over(
    folder: Path, damage: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = folder / INDEX_FOLDER / "samples.parquet"
    data = path.read_bytes()
    if damage == "pages":
        path.write_bytes(data[:4] + bytes(500) + data[504:])
    elif damage == "rows":
        rows = pq.ParquetFile(path).read()
        at = rows.column_names.index("shard")
        path.write_bytes(table_bytes(rows.set_column(at, rows.schema.field(at), pa.repeat("dataset.json", len(rows)))))
    elif damage == "footer":
        path.write_bytes(data[:-20])
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "other version":
        monkeypatch.setattr(catalog_index, "INDEX_VERSION", 2)
    elif damage == "a folder":
        path.unlink()
        path.mkdir()
    else:

        def vanished(*_: Any) -> str:
            raise FileNotFoundError("deleted between listing and looking at it")

        monkeypatch.setattr(catalog_index, "source_digests", vanished)
    dataset = FrameDataset(folder)
    assert dataset.index.frame_index.tolist() == [0, 1, 2, 3]
    assert dataset[:]["key"] == [f"car/{frame:08d}" for frame in range(4)]
    warned = [one.message for one in caplog.records]
    assert len(warned) == (damage == "rows")
    assert all("the index is damaged, so the shards' metadata is read instead" in message for message in warned)


def test_an_index_rebuilt_while_it_is_read_does_not_mix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog_index, "_ROW_GROUP", 2)
    rows = [make_row("car", frame, "rgb") for frame in range(6)]
    folder = write_dataset(tmp_path / "out", rows)
    manifest = read_manifest(folder)
    load_index(open_storage(folder, manifest))
    reading = indexed_rows(open_storage(folder, manifest), INDEX_COLUMNS)
    assert reading is not None
    first = next(reading)

    def rebuilt() -> Iterator[pa.Table]:
        yield first
        add_sidecar(folder, [make_row("bus", 1, "rgb"), make_row("bus", 2, "rgb")], "all-00000000-00000099")
        load_index(open_storage(folder, manifest))
        yield from reading

    index = FrameIndex.from_tables(rebuilt(), ["rgb"])
    assert (index.videos, index.frame_index.tolist()) == (("car",), [0, 1, 2, 3, 4, 5])
    assert read_index(open_storage(folder, manifest), ["rgb"]).videos == ("bus", "car")


def test_a_time_that_only_one_row_knows_is_the_frames(tmp_path: Path) -> None:
    rows = [failed_row("car", 0, "depth", pts_seconds=None), make_row("car", 0, "rgb")]
    rows += [make_row("car", 1, "depth", pts_seconds=None), failed_row("car", 1, "rgb")]
    index = both_ways(write_dataset(tmp_path / "out", rows), ["rgb"])
    assert index.pts_seconds.tolist() == [0.0, 1 / 8]


def test_a_damaged_sidecar_is_named(folder: Path) -> None:
    bad = add_sidecar(folder, [make_row("car", 9, "rgb")], "all-00000100-00000199")
    bad.write_bytes(b"PAR1 nonsense PAR1")
    with pytest.raises(DatasetError, match=r"all-00000100-00000199\.parquet is damaged"):
        FrameDataset(folder)


def test_rows_come_some_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vrekit.writers.webdataset.storage._PART_BYTES", 1)
    rows = [make_row(video_id, frame, name) for video_id in ("bus", "car") for frame in range(3) for name in NAMES]
    folder = write_dataset(tmp_path / "out", rows)
    parts = list(consolidated_rows(open_storage(folder, read_manifest(folder)), ("shard", "byte_size")))
    assert [part.num_rows for part in parts] == [9, 9]
    assert parts[0].column_names == ["shard", "byte_size"]


def test_opening_imports_no_pandas(folder: Path, tmp_path: Path) -> None:
    bare = shutil.copytree(folder, tmp_path / "bare")
    shutil.rmtree(bare / INDEX_FOLDER)
    code = (
        "import sys; from vrekit.readers import FrameDataset; FrameDataset(sys.argv[1]); print('pandas' in sys.modules)"
    )
    for one in (folder, bare):
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-c", code, str(one)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True, env=environment)
        assert done.stdout == "False\n"
