"""Items are the rows of boxes, points, sensor values and captions, exactly once each, and queries can use them."""

import errno
import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from typer.testing import CliRunner

from tests.codecs.codec_samples import Array
from vrekit.catalog.dataset import open_dataset
from vrekit.catalog.items import ITEMS_FOLDER, holds_items, items_schema, items_table
from vrekit.catalog.query import Query, select
from vrekit.cli.app import app
from vrekit.config.loader import load_config
from vrekit.core.errors import DatasetError, StorageError, UsageError
from vrekit.core.reports import ProgressListener
from vrekit.core.spec import Kind, OutputSpec
from vrekit.engine.export import export
from vrekit.engine.request import ExportRequest
from vrekit.jobs.items import list_items
from vrekit.video.selection import parse_frames

FRAMES = 70
CONFIG = """
representations:
  rgb: {type: color/rgb}
  boxes: {type: external/files, params: {path: boxes, kind: boxes, columns: [x1, y1, x2, y2, score, item]}}
  gps: {type: external/table, params: {path: gps.csv, frame_column: frame, columns: [lat, alt]}}
  caption: {type: external/table, params: {path: captions.jsonl, frame_column: frame, columns: [caption]}}
  sift: {type: descriptor/sift}
"""


def boxes_of(frame: int) -> NDArray[np.float32]:
    """`frame % 4` boxes."""
    rng = np.random.default_rng(frame)
    return rng.random((frame % 4, 6), dtype=np.float32)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("items")
    (folder / "boxes").mkdir()
    for frame in range(FRAMES):
        np.save(folder / f"boxes/{frame:06d}.npy", boxes_of(frame))
    lines = ["frame,lat,alt", *(f"{frame},{frame / 10},{100 - frame}" for frame in range(FRAMES))]
    (folder / "gps.csv").write_text("\n".join(lines))
    captions = [{"frame": frame, "caption": f"frame {frame}, 河"} for frame in range(FRAMES)]
    (folder / "captions.jsonl").write_text("\n".join(json.dumps(one) for one in captions))
    np.save(folder / "car.npy", np.random.default_rng(0).integers(0, 255, (FRAMES, 32, 48, 3), np.uint8))
    (folder / "my.yaml").write_text(CONFIG)
    return folder


def exported(source: Path, out: Path, *, frames: str = f"0..{FRAMES}", writer: str = "webdataset") -> Path:
    config = load_config(source / "my.yaml")
    export(
        ExportRequest(
            video=str(source / "car.npy"),
            dataset=out,
            representations=config.representations,
            config_folder=source,
            frames=parse_frames(frames),
            writer=writer,
        )
    )
    return out


@pytest.fixture(scope="module")
def dataset_of(source: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("datasets")
    return {writer: exported(source, folder / writer, writer=writer) for writer in ("webdataset", "lance")}


@pytest.fixture
def out(dataset_of: dict[str, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(dataset_of["webdataset"], tmp_path / "out"))


def rows(folder: Path, sql: str) -> list[dict[str, object]]:
    with open_dataset(folder) as dataset:
        return [dict(row) for row in dataset.sql(sql).to_pylist()]


@pytest.mark.parametrize("writer", ["webdataset", "lance"])
def test_items_are_the_rows_of_the_arrays(dataset_of: dict[str, Path], writer: str, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(dataset_of[writer], tmp_path / "out"))
    assert rows(folder, "SELECT * FROM items") == []
    with open_dataset(folder) as dataset:
        report = list_items(dataset, threads=1)
    counts = {"boxes": sum(frame % 4 for frame in range(FRAMES)), "gps": FRAMES, "caption": FRAMES}
    assert report.items == counts  # sift has too many columns to be listed unasked
    assert (report.frames, report.already, report.failures) == (3 * FRAMES, 0, ())
    found = rows(folder, "SELECT * FROM items WHERE representation = 'boxes' ORDER BY frame_index, item")
    expected = [(frame, at, *row) for frame in range(FRAMES) for at, row in enumerate(boxes_of(frame).tolist())]
    names = ("frame_index", "item", "x1", "y1", "x2", "y2", "score", "item_")
    assert [tuple(row[name] for name in names) for row in found] == expected
    assert {row["key"] for row in found} == {f"car/{frame:08d}" for frame in range(FRAMES) if frame % 4}
    gps = rows(folder, "SELECT key, lat, alt FROM items WHERE representation = 'gps' AND alt < 33 ORDER BY key")
    assert gps == [{"key": f"car/{frame:08d}", "lat": frame / 10, "alt": 100 - frame} for frame in (68, 69)]
    assert rows(folder, "SELECT frame_index FROM items WHERE text LIKE '%7, 河'") == [
        {"frame_index": frame} for frame in range(7, FRAMES, 10)
    ]


def test_queries_select_frames_by_what_is_in_them(out: Path) -> None:
    with open_dataset(out) as dataset:
        list_items(dataset)
    with open_dataset(out) as dataset:
        where = "key IN (SELECT key FROM items WHERE score > 0.9) AND frame_index < 40"
        found = select(dataset, Query(where=where)).keys()["frame_index"].to_pylist()
        assert found == [frame for frame in range(40) if (boxes_of(frame)[:, 4] > 0.9).any()]
        assert dataset.items.filter("representation = 'gps'").count("*").fetchall() == [(FRAMES,)]
        with pytest.raises(UsageError, match=r"no column 'scor'.*did you mean 'score'"):
            dataset.sql("SELECT scor FROM items")


def test_only_what_is_missing_is_read(source: Path, tmp_path: Path) -> None:
    out = exported(source, tmp_path / "out", frames="0..10")
    for frames, new in (("0..10", 10), ("5..30", 20), ("0..10", 0)):
        exported(source, out, frames=frames)
        with open_dataset(out) as dataset:
            report = list_items(dataset, ["gps"])
        assert report.frames == new
        assert report.items == {"gps": new}
    assert report.already == 30
    assert rows(out, "SELECT count(*) AS n, count(DISTINCT key) AS keys FROM items") == [{"n": 30, "keys": 30}]


def test_representations_are_listed_when_they_are_named(out: Path) -> None:
    with open_dataset(out) as dataset:
        report = list_items(dataset, ["sift", "sift"])
        assert list(report.items) == ["sift"]
        with pytest.raises(UsageError, match=r"no representation 'box'.*did you mean 'boxes'"):
            list_items(dataset, ["box"])
        with pytest.raises(UsageError, match=r"'rgb' .* holds no items"):
            list_items(dataset, ["gps", "rgb"])
    assert [path.name.split("-")[0] for path in (out / ITEMS_FOLDER / "car").iterdir()] == ["sift"]
    found = rows(out, "SELECT count(*) AS n, max(descriptor_127) AS largest FROM items")[0]
    assert found["n"] == report.items["sift"]


def test_a_dataset_without_items_says_so(source: Path, tmp_path: Path) -> None:
    (source / "rgb.yaml").write_text("representations: {rgb: {type: color/rgb}}")
    representations = load_config(source / "rgb.yaml").representations
    request = ExportRequest(video=str(source / "car.npy"), dataset=tmp_path / "out", representations=representations)
    export(request)
    with open_dataset(tmp_path / "out") as dataset, pytest.raises(DatasetError, match=r"nothing to list: .* rgb"):
        list_items(dataset)


def test_a_damaged_payload_fails_alone_and_is_tried_again(out: Path) -> None:
    place = rows(out, "SELECT shard, byte_offset FROM samples WHERE representation = 'boxes' AND frame_index = 2")[0]
    shard = out / str(place["shard"])
    content = shard.read_bytes()
    damaged = bytearray(content)
    damaged[int(str(place["byte_offset"]))] ^= 255
    shard.write_bytes(damaged)
    with open_dataset(out) as dataset:
        report = list_items(dataset, ["boxes"])
    assert len(report.failures) == 1
    assert report.failures[0].startswith("car/00000002.boxes: ")
    assert rows(out, "SELECT count(*) AS n FROM items WHERE frame_index = 2") == [{"n": 0}]
    assert rows(out, "SELECT count(*) AS n FROM items WHERE frame_index = 3") == [{"n": 3}]
    shard.write_bytes(content)
    with open_dataset(out) as dataset:
        report = list_items(dataset, ["boxes"])
    assert (report.frames, report.items, report.failures) == (1, {"boxes": 2}, ())


class Stopping(ProgressListener):
    def advanced(self, name: str, done: int, failed: int = 0, stored_bytes: int = 0) -> None:
        raise KeyboardInterrupt


def test_what_was_read_before_an_interruption_is_kept(out: Path) -> None:
    with open_dataset(out) as dataset:
        with pytest.raises(KeyboardInterrupt):
            list_items(dataset, ["gps"], progress=Stopping())
        report = list_items(dataset, ["gps"])
    assert (report.already, report.frames) == (32, FRAMES - 32)
    assert rows(out, "SELECT count(DISTINCT key) AS n FROM items") == [{"n": FRAMES}]
    assert not list((out / ITEMS_FOLDER).rglob(".*"))


def test_a_damaged_list_is_named(out: Path) -> None:
    with open_dataset(out) as dataset:
        list_items(dataset, ["gps"])
        (path,) = (out / ITEMS_FOLDER).rglob("*.parquet")
        path.write_bytes(path.read_bytes()[:-100])
        with pytest.raises(DatasetError, match=f"{path.name} is damaged") as caught:
            list_items(dataset, ["gps"])
    assert "vrekit items" in str(caught.value.hint)


def test_the_files_are_arrow_lists_for_others(out: Path) -> None:
    with open_dataset(out) as dataset:
        list_items(dataset, ["boxes"])
    (path,) = (out / ITEMS_FOLDER).rglob("*.parquet")
    table = pq.ParquetFile(path).read()
    assert table["frame_index"].to_pylist() == list(range(FRAMES))
    assert [len(items) for items in table["items"].to_pylist()] == [frame % 4 for frame in range(FRAMES)]
    assert table["items"][3][2]["score"].as_py() == boxes_of(3)[2, 4].item()


@given(
    arrays=st.lists(
        hnp.arrays(np.float32, st.tuples(st.integers(0, 5), st.just(3)), elements=st.floats(width=32)), max_size=6
    )
)
def test_tables_hold_every_bit(arrays: list[Array]) -> None:
    stored = OutputSpec(kind=Kind.POINTS, dtype="float32", shape=(None, 3), axes="KC", columns=("x", "y", "key"))
    table = items_table(stored, "car", list(range(len(arrays))), arrays)
    assert table.schema == items_schema(stored)
    table.validate(full=True)
    for array, items in zip(arrays, table["items"], strict=True):
        columns = [np.array([item[name].as_py() for item in items], np.float32) for name in ("x", "y", "key_")]
        np.testing.assert_array_equal(np.stack(columns, axis=-1).reshape(-1, 3), array)


def test_the_command(out: Path) -> None:
    runner = CliRunner()
    result = runner.invoke(app, ["items", str(out), "gps", "--json"])
    assert result.exit_code == 0
    assert json.loads(result.stdout)["items"] == {"gps": FRAMES}
    result = runner.invoke(app, ["items", str(out)])
    assert result.exit_code == 0
    assert f"{FRAMES} payloads listed before" in result.stderr
    where = "key IN (SELECT key FROM items WHERE alt > 95.5)"
    found = runner.invoke(app, ["query", str(out), where, "--format", "count"])
    assert found.stdout.strip() == "5"
    result = runner.invoke(app, ["items", str(out), "rgb"])
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("error: 'rgb' ")


def test_column_names_that_queries_cannot_tell_apart(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (source / "case.yaml").write_text(CONFIG.replace("x1, y1, x2, y2, score, item", "x, X, Key, key_, Item, item"))
    config = load_config(source / "case.yaml")
    wanted = tuple(one for one in config.representations if one.name == "boxes")
    export(
        ExportRequest(
            video=str(source / "car.npy"),
            dataset=out,
            representations=wanted,
            config_folder=source,
            frames=parse_frames("0..4"),
        )
    )
    with open_dataset(out) as dataset:
        list_items(dataset)
    found = rows(out, "SELECT * FROM items ORDER BY frame_index, item")
    names = ("x", "X_", "Key_", "key__", "Item_", "item__")
    expected = [tuple(row) for frame in range(4) for row in boxes_of(frame).tolist()]
    assert [tuple(row[name] for name in names) for row in found] == expected


@pytest.mark.parametrize("damage", ["empty", "short", "the second"])
def test_a_damaged_list_disturbs_no_other_query(out: Path, damage: str) -> None:
    with open_dataset(out) as dataset:
        list_items(dataset, ["gps"])
        list_items(dataset, ["caption"])
    path = next((out / ITEMS_FOLDER).rglob("caption*" if damage == "the second" else "gps*"))
    path.write_bytes(b"" if damage == "empty" else path.read_bytes()[:-100])
    assert rows(out, "SELECT count(*) AS n FROM frames") == [{"n": FRAMES}]
    with open_dataset(out) as dataset:
        assert len(select(dataset, Query(where="frame_index < 3")).keys()) == 3
        with pytest.raises(DatasetError, match=path.name) as caught:
            dataset.sql("SELECT count(*) FROM Items")
    assert "vrekit items" in str(caught.value.hint)
    path.unlink()
    with open_dataset(out) as dataset:
        list_items(dataset)
    assert rows(out, "SELECT count(DISTINCT key) AS n FROM ITEMS") == [{"n": FRAMES}]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(errno.ENOSPC, "full")])
def test_no_item_is_listed_twice_when_writing_breaks_off(
    out: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    write, calls = pq.ParquetWriter.write_table, []

    def breaks_off(self: pq.ParquetWriter, table: pa.Table) -> None:
        write(self, table)
        calls.append(table)
        if len(calls) == 1:
            raise error

    with open_dataset(out) as dataset:
        assert len(dataset.sql("SELECT 1 FROM frames")) == FRAMES  # the index is there
        monkeypatch.setattr("vrekit.catalog.items._ROW_GROUP_BYTES", 1)
        monkeypatch.setattr(pq.ParquetWriter, "write_table", breaks_off)
        with pytest.raises((KeyboardInterrupt, StorageError)):
            list_items(dataset, ["gps"])
        assert not list((out / ITEMS_FOLDER).rglob(".*"))
        report = list_items(dataset, ["gps"])
    assert report.already == (32 if isinstance(error, KeyboardInterrupt) else 0)
    assert rows(out, "SELECT count(*) AS n, count(DISTINCT key) AS keys FROM items") == [{"n": FRAMES, "keys": FRAMES}]


def test_columns_that_two_representations_have_keep_their_values(tmp_path: Path, source: Path) -> None:
    for name, dtype in (("whole", np.int32), ("real", np.float32)):
        (source / name).mkdir(exist_ok=True)
        for frame in range(2):
            np.save(source / name / f"{frame:06d}.npy", np.array([[16777217, frame]], dtype))
    entry = "{type: external/files, params: {path: %s, kind: points, columns: [x, y]}}"
    text = f"representations:\n  whole: {entry % 'whole'}\n  real: {entry % 'real'}\n"
    (source / "two.yaml").write_text(text)
    request = ExportRequest(
        video=str(source / "car.npy"),
        dataset=tmp_path / "out",
        representations=load_config(source / "two.yaml").representations,
        config_folder=source,
        frames=parse_frames("0..2"),
    )
    export(request)
    with open_dataset(tmp_path / "out") as dataset:
        list_items(dataset)
    found = rows(tmp_path / "out", "SELECT representation, x, y FROM items WHERE frame_index = 1 ORDER BY 1")
    assert found == [
        {"representation": "real", "x": 16777216.0, "y": 1.0},
        {"representation": "whole", "x": 16777217.0, "y": 1.0},
    ]


@pytest.mark.parametrize("dtype", ["complex64", "float128", "timedelta64"])
def test_numbers_that_arrow_does_not_have_are_no_items(dtype: str) -> None:
    assert not holds_items(OutputSpec(kind=Kind.TABLE, dtype=dtype, shape=(2,), axes="K"))
    assert holds_items(OutputSpec(kind=Kind.TABLE, dtype="float32", shape=(2,), axes="K"))
