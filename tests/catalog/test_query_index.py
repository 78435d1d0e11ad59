"""The consolidated index says what the sidecars say, and follows them."""

import errno
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings

from tests.catalog.query_dataset import (
    add_sidecar,
    expected_samples,
    failed_row,
    make_row,
    random_rows,
    write_dataset,
)
from tests.storages import read_samples
from vrekit.catalog.dataset import TABLES, open_dataset
from vrekit.catalog.index import FRAMES_SCHEMA, INDEX_FOLDER, consolidate, frames_of
from vrekit.core.errors import DatasetError
from vrekit.core.schema import SAMPLES_SCHEMA, SampleRow, rows_to_table


@given(random_rows())
@settings(max_examples=150, deadline=None)
def test_one_row_a_sample_and_a_stored_one_hides_failures(rows: list[SampleRow]) -> None:
    rows = sorted(rows, key=lambda row: row.video_id)
    table = consolidate(rows_to_table(rows))
    assert table.schema == SAMPLES_SCHEMA
    assert table.to_pylist() == rows_to_table(expected_samples(rows)).to_pylist()


@given(random_rows())
@settings(max_examples=100, deadline=None)
def test_frames_add_up_their_samples(rows: list[SampleRow]) -> None:
    samples = expected_samples(rows)
    frames = frames_of(rows_to_table(samples))
    assert frames.schema == FRAMES_SCHEMA
    found = {(row["video_id"], row["frame_index"]): row for row in frames.to_pylist()}
    assert list(found) == sorted({(row.video_id, row.frame_index) for row in samples})
    for (video_id, frame), row in found.items():
        here = [one for one in samples if (one.video_id, one.frame_index) == (video_id, frame)]
        assert row["pts_seconds"] == frame / 8
        assert row["representations"] == [one.representation for one in here if one.status == "ok"]
        assert row["failed"] == [one.representation for one in here if one.status == "failed"]
        assert row["total_bytes"] == sum(one.byte_size or 0 for one in here)
        assert row["total_raw_bytes"] == sum(one.raw_bytes or 0 for one in here)
        assert row["total_seconds"] == sum((one.compute_seconds or 0) + (one.encode_seconds or 0) for one in here)


def test_the_tables(tmp_path: Path) -> None:
    rows = [make_row("car", frame, name) for frame in range(3) for name in ("canny", "rgb")]
    folder = write_dataset(tmp_path / "out", rows)
    with open_dataset(folder) as dataset:
        tables = {name: getattr(dataset, name).to_arrow_table() for name in TABLES}
        assert {name: table.num_rows for name, table in tables.items()} == {
            "frames": 3,
            "items": 0,
            "representations": 3,
            "runs": 1,
            "samples": 6,
            "videos": 1,
        }
        assert tables["samples"].column_names == ["key", *SAMPLES_SCHEMA.names, "duration", "compression_ratio"]
        assert tables["frames"].column_names == ["key", *FRAMES_SCHEMA.names]
        first = tables["samples"].to_pylist()[0]
        assert first["key"] == "car/00000000"
        assert first["compression_ratio"] == first["raw_bytes"] / first["byte_size"]
        assert tables["videos"].to_pylist()[0]["fps"] == 8
        run = tables["runs"].to_pylist()[0]
        assert (run["computed"], run["failed"], run["status"]) == (3, 1, "done")
        assert tables["representations"]["shape"].to_pylist() == [[4, 6]] * 3
        joined = dataset.sql("SELECT count(*) AS n FROM samples JOIN videos USING (video_id) JOIN runs USING (run_id)")
        assert joined["n"].to_pylist() == [6]


def _modified(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in (folder / INDEX_FOLDER).iterdir()}


def _count(folder: Path) -> int:
    with open_dataset(folder) as dataset:
        return int(dataset.sql("SELECT count(*) AS n FROM samples")["n"][0].as_py())


def test_it_is_rebuilt_when_a_sidecar_comes_goes_or_changes_and_only_then(tmp_path: Path) -> None:
    folder = write_dataset(tmp_path / "out", [make_row("car", 0, "rgb")])
    assert _count(folder) == 1
    before = _modified(folder)
    assert set(before) == {"frames.parquet", "samples.parquet"}
    assert _count(folder) == 1
    assert _modified(folder) == before
    shard = "shards/car/all-00000000-00000099-1.tar"
    rows = [make_row("car", frame, name, shard=shard) for frame, name in ((1, "rgb"), (1, "canny"), (2, "canny"))]
    added = add_sidecar(folder, rows[:2], "all-00000000-00000099-1")
    assert _count(folder) == 3
    replaced = add_sidecar(folder, [rows[0], rows[2]], added.stem)
    os.utime(replaced, ns=(1, 1))
    with open_dataset(folder) as dataset:
        assert dataset.sql("SELECT max(frame_index) AS n FROM frames")["n"].to_pylist() == [2]
    added.unlink()
    assert _count(folder) == 1


@pytest.mark.parametrize("name", ["samples.parquet", "frames.parquet"])
def test_a_torn_or_missing_index_is_made_anew(tmp_path: Path, name: str) -> None:
    folder = write_dataset(tmp_path / "out", [make_row("car", 0, "rgb")])
    open_dataset(folder).close()
    path = folder / INDEX_FOLDER / name
    path.write_bytes(path.read_bytes()[:-20])
    assert _count(folder) == 1
    path.unlink()
    assert _count(folder) == 1
    shutil.rmtree(folder / INDEX_FOLDER)
    assert _count(folder) == 1
    assert not list((folder / INDEX_FOLDER).glob(".*"))


def test_a_dataset_that_cannot_be_written_to_opens_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [make_row(video, frame, "rgb") for video in ("bus", "car") for frame in range(4)]
    folder = write_dataset(tmp_path / "out", rows)

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(errno.EROFS, "read-only file system")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with open_dataset(folder) as dataset:
        assert dataset.sql("SELECT count(*) AS n FROM samples WHERE video_id = 'bus'")["n"].to_pylist() == [4]
        assert dataset.frames.to_arrow_table().num_rows == 8
        assert dataset.index.read_frames(["frame_index"]).num_rows == 8
    assert not (folder / INDEX_FOLDER).exists()


def test_a_file_in_the_place_of_the_index_is_left_alone(tmp_path: Path) -> None:
    folder = write_dataset(tmp_path / "out", [make_row("car", 0, "rgb")])
    (folder / INDEX_FOLDER).write_text("mine")
    assert _count(folder) == 1
    assert (folder / INDEX_FOLDER).read_text() == "mine"


def test_threads_may_open_it_at_once(tmp_path: Path) -> None:
    rows = [make_row("car", frame, name) for frame in range(100) for name in ("canny", "rgb")]
    folder = write_dataset(tmp_path / "out", rows)
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(_count, [folder] * 16)) == [200] * 16
    assert {path.name for path in (folder / INDEX_FOLDER).iterdir()} == {"frames.parquet", "samples.parquet"}


@pytest.mark.parametrize("count", [1, 30])  # one by one, and side by side
def test_a_damaged_sidecar_is_named(tmp_path: Path, count: int) -> None:
    folder = write_dataset(tmp_path / "out", [make_row(f"car{number:02d}", 0, "rgb") for number in range(count)])
    assert read_samples(folder)["video_id"].to_pylist() == [f"car{number:02d}" for number in range(count)]
    bad = add_sidecar(folder, [make_row("car", 1, "rgb")], "all-00000100-00000199")
    bad.write_bytes(b"PAR1 nonsense PAR1")
    with pytest.raises(DatasetError, match=r"all-00000100-00000199\.parquet is damaged"):
        open_dataset(folder)


def test_an_empty_dataset_has_empty_tables(tmp_path: Path) -> None:
    folder = write_dataset(tmp_path / "out", [])
    with open_dataset(folder) as dataset:
        for name in ("samples", "frames"):
            assert getattr(dataset, name).to_arrow_table().num_rows == 0


def test_rows_are_sorted_over_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vrekit.writers.webdataset.storage._PART_BYTES", 1)  # a part per video
    rows = [make_row(video, frame, name) for name in ("rgb", "canny") for video in ("c", "a", "b") for frame in (5, 2)]
    folder = write_dataset(tmp_path / "out", [*rows, failed_row("b", 9, "rgb")])
    open_dataset(folder).close()
    table = pq.ParquetFile(folder / INDEX_FOLDER / "samples.parquet").read()
    keys = list(zip(*(table[name].to_pylist() for name in ("video_id", "frame_index", "representation")), strict=True))
    assert keys == sorted(keys)
    assert len(keys) == 13


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(random_rows())
def test_the_files_hold_the_consolidated_rows(tmp_path_factory: pytest.TempPathFactory, rows: list[SampleRow]) -> None:
    folder = write_dataset(tmp_path_factory.mktemp("index") / "out", rows)
    with open_dataset(folder) as dataset:
        assert isinstance(dataset.index.samples, Path)
        table = dataset.index.read_samples()
    assert table.cast(SAMPLES_SCHEMA).to_pylist() == rows_to_table(expected_samples(rows)).to_pylist()
    assert pa.types.is_uint32(table.schema.field("checksum").type)
