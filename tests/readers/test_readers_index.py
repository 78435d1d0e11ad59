"""Which frames a reader serves: the index, missing data, subsets."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.readers.reader_dataset import BOXES, DEPTH, LABEL, RGB, DatasetBuilder, make_array, record
from tests.storages import read_samples
from vrekit.core.errors import DatasetError, UsageError
from vrekit.readers import FrameDataset
from vrekit.readers.index import FrameIndex
from vrekit.writers.webdataset.sidecars import read_sidecar, sidecar_bytes


@pytest.fixture
def gappy(tmp_path: Path) -> Path:
    """Frames 0..5 of `car`; depth lacks 1 (never computed) and 4 (failed), boxes lacks 2, flow (int8) holds none."""
    records = {
        "rgb": record("rgb", RGB),
        "depth": record("depth", DEPTH),
        "boxes": record("boxes", BOXES),
        "label": record("label", LABEL),
    }
    builder = DatasetBuilder(tmp_path, records)
    builder.add("car", range(6), ["rgb"])
    builder.add("car", [0, 2, 3, 5], ["depth"])
    builder.put("car", 4, "depth", None)
    builder.add("car", [0, 1, 3, 4, 5], ["boxes"])
    builder.add("car", [0], ["label"])
    return builder.write()


def test_rows_are_sorted_by_video_and_frame(frames_folder: Path) -> None:
    index = FrameDataset(frames_folder).index
    assert index.videos == ("airport", "car")
    assert index.frame_index.tolist() == [*range(100, 108), *range(23)]
    assert [index.key(row) for row in (0, 8, 30)] == ["airport/00000100", "car/00000000", "car/00000022"]
    assert index.pts_seconds[8:].tolist() == [frame / 25 for frame in range(23)]


def test_columns_say_where_payloads_lie(frames_folder: Path) -> None:
    table = read_samples(frames_folder)
    index = FrameIndex.from_table(table, ["depth"])
    for row in table.to_pylist():
        if row["representation"] == "depth":
            at = index.find_key(f"{row['video_id']}/{row['frame_index']:08d}")
            column = index.columns["depth"]
            assert index.shards[column.shard[at]] == row["shard"]
            assert column.offset[at] == row["byte_offset"]
            assert column.size[at] == row["byte_size"]
            assert column.checksum[at] == row["checksum"]
            layout = index.layouts[column.layout[at]]
            assert (layout.dtype.name, list(layout.shape)) == (row["dtype"], row["shape"])


def test_a_failed_frame_is_superseded_by_a_later_shard(tmp_path: Path) -> None:
    builder = DatasetBuilder(tmp_path, {"rgb": record("rgb", RGB)})
    builder.add("car", [0, 2])
    builder.put("car", 1, "rgb", None)
    builder.write()
    assert FrameDataset(tmp_path).index.frame_index.tolist() == [0, 2]
    builder.add("car", [1])
    builder.write(group="retry")
    dataset = FrameDataset(tmp_path)
    assert dataset.index.frame_index.tolist() == [0, 1, 2]
    assert np.array_equal(dataset[1]["rgb"], make_array("rgb", "car", 1, RGB))


def test_no_python_object_per_frame(frames_folder: Path) -> None:
    index = FrameDataset(frames_folder).index
    arrays: list[Any] = [index.video, index.frame_index, index.pts_seconds]
    arrays += [getattr(column, name) for column in index.columns.values() for name in column.__slots__]
    assert all(isinstance(array, np.ndarray) and array.dtype != object for array in arrays)
    assert sum(array.nbytes for array in arrays) == len(index) * (20 + 33 * 3)


def test_digest_stands_for_frames_and_their_order(frames_folder: Path) -> None:
    whole = FrameDataset(frames_folder)
    assert whole.digest == FrameDataset(frames_folder, ["depth"]).digest  # which modality is read does not matter
    keys = [whole.index.key(row) for row in range(5)]
    digests = {FrameDataset(frames_folder, subset=chosen).digest for chosen in (keys, keys[::-1], keys[1:])}
    assert len(digests | {whole.digest}) == 4
    assert whole.digest == "96f922a814287b3b82a8d750fcb61aaec5c8326eb51a1d0ff5f82a876ec2925f"


def test_payloads_shared_by_frames_are_refused_when_the_codec_keeps_one_frame(tmp_path: Path) -> None:
    builder = DatasetBuilder(tmp_path, {"rgb": record("rgb", RGB)})
    builder.add("car", range(3))
    (sidecar,) = builder.write().glob("shards/car/*.parquet")
    table = read_sidecar(sidecar)
    at = table.column_names.index("payload_index")
    shared = table.set_column(at, table.schema.field(at), pa.array([0, 1, 2], pa.int32()))
    sidecar.write_bytes(sidecar_bytes(shared))
    with pytest.raises(DatasetError, match="frames of 'rgb' share payloads"):
        FrameDataset(tmp_path)


def test_drop_leaves_out_incomplete_frames(gappy: Path) -> None:
    dataset = FrameDataset(gappy, ["rgb", "depth", "boxes"])
    assert dataset.index.frame_index.tolist() == [0, 3, 5]
    assert dataset.left_out == 3
    assert repr(dataset) == f"FrameDataset({str(gappy)!r}: 3 frames of 1 videos, 3 left out; rgb, depth, boxes)"
    assert FrameDataset(gappy, ["rgb"]).index.frame_index.tolist() == [0, 1, 2, 3, 4, 5]


def test_fill_marks_what_it_filled(gappy: Path) -> None:
    dataset = FrameDataset(gappy, missing="fill")
    batch = dataset[:]
    assert batch["frame_index"].tolist() == [0, 1, 2, 3, 4, 5]
    assert batch["rgb.valid"].tolist() == [True] * 6
    assert batch["depth.valid"].tolist() == [True, False, True, True, False, True]
    assert batch["depth"].shape == (6, 6, 8)
    assert batch["depth"][[1, 4]].isnan().all()
    assert np.array_equal(batch["depth"][2], make_array("depth", "car", 2, DEPTH))
    assert batch["label"].tolist() == [int(make_array("label", "car", 0, LABEL)), -1, -1, -1, -1, -1]
    assert [len(boxes) for boxes in batch["boxes"]] == [0, 1, 0, 3, 0, 1]  # frame 0 and 4 have 0 boxes, 2 is filled
    assert batch["boxes.valid"].tolist() == [True, True, False, True, True, True]


def test_none_leaves_gaps(gappy: Path) -> None:
    dataset = FrameDataset(gappy, ["rgb", "depth"], missing="none")
    batch = dataset[:]
    assert [depth is None for depth in batch["depth"]] == [False, True, False, False, True, False]
    assert batch["rgb"].shape == (6, 6, 8, 3)
    assert batch["depth.valid"].tolist() == [True, False, True, True, False, True]
    assert dataset["car/00000001"]["depth"] is None
    # the form does not depend on the batch: without a gap it is a list, too
    assert isinstance(dataset[2:4]["depth"], list)


def test_raise_counts_the_gaps(gappy: Path) -> None:
    with pytest.raises(DatasetError) as caught:
        FrameDataset(gappy, ["rgb", "depth", "boxes"], missing="raise")
    assert str(caught.value).splitlines() == [
        "frames lack representations:",
        "  depth: 2 of 6 frames, car/00000001, car/00000004",
        "  boxes: 1 of 6 frames, car/00000002",
    ]
    assert len(FrameDataset(gappy, ["rgb"], missing="raise")) == 6


def test_a_frame_marked_invalid_keeps_its_placeholder(tmp_path: Path) -> None:
    builder = DatasetBuilder(tmp_path, {"rgb": record("rgb", RGB)})
    builder.add("car", [0])
    builder.add("car", [1], valid=False)
    builder.write()
    batch = FrameDataset(tmp_path)[:]
    assert batch["rgb.valid"].tolist() == [True, False]
    assert np.array_equal(batch["rgb"][1], make_array("rgb", "car", 1, RGB))


def test_subsets_of_every_form_keep_their_order(frames_folder: Path, tmp_path: Path) -> None:
    keys = ["car/00000007", "airport/00000103", "car/00000001"]
    table = pa.table(
        {
            "frame_index": pa.array([7, 103, 1], pa.uint16()),
            "video_id": pa.array(["car", "airport", "car"]).dictionary_encode(),
            "score": [0.1, 0.2, 0.3],
        }
    )
    path = tmp_path / "best.parquet"
    pq.write_table(table, path)
    for subset in (keys, table, path, str(path)):
        dataset = FrameDataset(frames_folder, ["label"], subset=subset)
        assert dataset[:]["key"] == keys
        assert dataset[keys[1]]["frame_index"] == 103
    assert len(FrameDataset(frames_folder, subset=[])) == 0


@pytest.mark.parametrize(
    ("subset", "error", "message"),
    [
        (
            ["car/00000001", "car/00000099", "bus/00000001"],
            DatasetError,
            "2 of the subset's 3 frames are not in the dataset: car/00000099, bus/00000001",
        ),
        (["car/00000001", "car/1"], UsageError, "names 1 frames more than once: car/00000001"),
        (["car"], UsageError, "not a sample key: 'car'"),
        ("no/such.parquet", UsageError, r"no subset file no/such.parquet"),
        (pa.table({"video_id": ["car"]}), UsageError, "the subset has no column 'frame_index'; it has video_id"),
        (pa.table({"video_id": ["car"], "frame_index": ["x"]}), UsageError, "frame_index integers"),
        (
            pa.table({"video_id": ["car"], "frame_index": pa.array([None], pa.int64())}),
            UsageError,
            "empty cells",
        ),
    ],
)
def test_impossible_subsets_are_refused(frames_folder: Path, subset: Any, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        FrameDataset(frames_folder, subset=subset)


def test_a_subset_file_that_is_no_parquet_is_refused(frames_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "keys.parquet").write_text("car/00000001")
    with pytest.raises(UsageError, match=r"keys.parquet is no readable Parquet file"):
        FrameDataset(frames_folder, subset=tmp_path / "keys.parquet")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"representations": ["dept"]}, r"has no representation 'dept' \(did you mean 'depth'\?\)"),
        ({"representations": "depth"}, "representations is the text 'depth', expected a list"),
        ({"representations": []}, "no representation is selected"),
        ({"missing": "ignore"}, "missing is 'ignore', expected one of drop, fill, none, raise"),
        ({"on_error": "ignore"}, "on_error is 'ignore', expected 'raise' or 'skip'"),
    ],
)
def test_impossible_options_are_refused(frames_folder: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        FrameDataset(frames_folder, **options)
