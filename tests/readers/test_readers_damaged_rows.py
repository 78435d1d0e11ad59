"""Metadata rows that cannot be true are errors that say so; and frame numbers may be as large as the format says."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.readers.reader_dataset import DEPTH, RGB, DatasetBuilder, make_array, record
from vrekit.core.errors import CodecError, DatasetError, VrekitError
from vrekit.readers import FrameDataset
from vrekit.readers.columns import Gatherer
from vrekit.readers.index import FrameIndex


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    builder = DatasetBuilder(tmp_path, {"rgb": record("rgb", RGB), "depth": record("depth", DEPTH, "log-delta")})
    builder.add("car", range(4))
    return builder.write()


def change(folder: Path, frames: set[int], **values: Any) -> None:
    """Change what the rows of `depth` say about some frames."""
    path = folder / "shards/car/all-00000000.parquet"
    table = pq.read_table(path)
    rows = table.to_pylist()
    for row in rows:
        if row["representation"] == "depth" and row["frame_index"] in frames:
            row.update(values)
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), path)


@pytest.mark.parametrize("frames", [{1}, {0, 1, 2, 3}])
@pytest.mark.parametrize(
    "values",
    [
        {"shape": [10**5, 10**5, 10**5]},
        {"shape": [2**31 - 1] * 5},
        {"shape": [1] * 100},
        {"shape": [-2, 8]},
        {"shape": [6, 9]},
        {"shape": [6]},
        {"dtype": "object"},
        {"dtype": "nothing"},
        {"dtype": ">f4"},
        {"dtype": "f4,f4"},
        {"dtype": "M8[s]"},
        {"dtype": "complex64"},
        {"dtype": "uint8"},
        {"byte_size": 2**62},
        {"byte_offset": 2**60},
        {"byte_offset": -512},
        {"byte_size": 0},
        {"payload_index": 3},
    ],
)
def test_rows_that_cannot_be_true_are_named(folder: Path, frames: set[int], values: dict[str, Any]) -> None:
    change(folder, frames, **values)
    with pytest.raises((DatasetError, CodecError)):
        FrameDataset(folder, ["depth"])[1]
    with pytest.raises((DatasetError, CodecError)):
        FrameDataset(folder, ["depth"])[:]


@pytest.mark.parametrize("frames", [{1}, {0, 1, 2, 3}])
def test_a_frame_larger_than_the_memory_is_an_error_that_names_it(
    folder: Path, frames: set[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    change(folder, frames, shape=[300_000, 300_000])

    def no_memory(*args: Any, **options: Any) -> Any:
        raise MemoryError("Unable to allocate 335 GiB")

    dataset = FrameDataset(folder, ["depth"])
    monkeypatch.setattr("vrekit.readers.batch_reader.empty_tensor", no_memory)
    monkeypatch.setattr("vrekit.codecs.pipeline.np.empty", no_memory)
    with pytest.raises(VrekitError, match="memory") as caught:
        dataset[1]
    assert "depth" in str(caught.value)


@pytest.mark.parametrize("shard", ["/etc/passwd", "../../../etc/passwd", "shards/../../secret.tar"])
def test_no_file_outside_of_the_dataset_is_opened(folder: Path, shard: str) -> None:
    change(folder, {1}, shard=shard)
    with pytest.raises(DatasetError, match="row 3: shard is"):
        FrameDataset(folder, ["depth"])


def test_negative_frame_numbers_are_refused(folder: Path) -> None:
    change(folder, {1}, frame_index=-1)
    with pytest.raises(DatasetError, match="row 3: frame_index is -1"):
        FrameDataset(folder, ["depth"])


def test_frames_numbered_by_their_time_are_found(tmp_path: Path) -> None:
    frames = [0, 7, 2**40 - 1, 2**40, 1_600_000_000_040_000, 2**53 - 1]  # a folder of pictures named by microseconds
    builder = DatasetBuilder(tmp_path, {"rgb": record("rgb", RGB)})
    for video in ("bus", "car"):
        builder.add(video, frames)
    dataset = FrameDataset(builder.write(shard_frames=1 << 51))
    assert len(dataset) == 12
    for at, (video, frame) in enumerate((video, frame) for video in ("bus", "car") for frame in frames):
        for sample in (dataset[at], dataset[f"{video}/{frame:08d}"]):
            assert (sample["video_id"], sample["frame_index"]) == (video, frame)
            assert np.array_equal(sample["rgb"].numpy(), make_array("rgb", video, frame, RGB))
    wanted = np.array([2**40, 2**53 - 1, 2**53, 5])
    assert dataset.index.find(["car"] * 4, wanted).tolist() == [9, 11, -1, -1]


def test_a_large_frame_number_is_no_frame_of_the_next_video(folder: Path) -> None:
    builder = DatasetBuilder(folder, {"rgb": record("rgb", RGB)})
    builder.add("truck", range(4))
    index = FrameDataset(builder.write(), ["rgb"]).index
    assert index.videos == ("car", "truck")
    assert index.find(["car"], np.array([1 << 40])).tolist() == [-1]


def test_more_videos_than_keys_are_refused() -> None:
    rows = {
        "video_id": [f"v{at}" for at in range(1025)],
        "frame_index": pa.array([2**53 - 1] * 1025, pa.int64()),
        "pts_seconds": pa.nulls(1025, pa.float64()),
    }
    names = ("representation", "status", "dtype", "shard")
    table = pa.table({**rows, **{name: pa.nulls(1025, pa.string()) for name in names}})
    with pytest.raises(DatasetError, match="1025 videos with frame numbers of 53 bits"):
        Gatherer([]).add(table)
    small = table.slice(0, 1024)
    index = FrameIndex(**_fields(small))
    assert len(index) == 1024


def _fields(table: pa.Table) -> dict[str, Any]:
    schema = {
        "shape": pa.list_(pa.int32()),
        "valid": pa.bool_(),
        "byte_offset": pa.int64(),
        "byte_size": pa.int64(),
        "payload_index": pa.int32(),
        "checksum": pa.uint32(),
    }
    for name, dtype in schema.items():
        table = table.append_column(name, pa.nulls(len(table), dtype))
    gatherer = Gatherer([])
    gatherer.add(table)
    return gatherer.fields()
