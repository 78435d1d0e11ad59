"""What is odd about a dataset but may be meant: values, gaps between representations, timestamps."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.storages import open_writer
from vrekit.catalog.cells import Cell, Payload, Sample
from vrekit.catalog.manifest import Manifest, RepresentationRecord, write_manifest
from vrekit.codecs.registry import codec_from_config
from vrekit.core.schema import SampleRow
from vrekit.core.spec import Kind, OutputSpec, RepresentationSpec
from vrekit.jobs.validate import validate
from vrekit.video.base import VideoInfo

DEPTH = OutputSpec(kind=Kind.DEPTH, dtype="float32", shape=(4, 5), axes="HW", value_range=(0, 10))
CODEC = codec_from_config("npy")


def write(
    folder: Path,
    arrays: dict[int, NDArray[Any]],
    spec: OutputSpec = DEPTH,
    *,
    pts: dict[int, float | None] | None = None,
    valid: bool = True,
    writer: str = "webdataset",
) -> Path:
    """A dataset with one representation, `x`."""
    record = RepresentationRecord(
        spec=RepresentationSpec(name="x", type="test/x"),
        identity={"name": "x"},
        memory=spec,
        stored=spec,
        codec=CODEC.config(),
        suffix=CODEC.suffix,
        group="all",
    )
    info = VideoInfo(uri="v.mp4", fingerprint="1-0", source="file", frame_count=10, height=4, width=5)
    manifest = Manifest(
        writer=writer,
        layout="sample",
        shard_frames=64,
        shard_size_bytes=1 << 30,
        videos={"v": info},
        representations={"x": record},
    )
    folder.mkdir()
    write_manifest(folder, manifest)
    target = open_writer(folder, manifest)
    with target.open_cell(Cell("v", "all", 0, 63)) as cell:
        for frame, array in arrays.items():
            row = SampleRow(
                video_id="v",
                frame_index=frame,
                pts_seconds=frame / 10 if pts is None else pts[frame],
                representation="x",
                kind=spec.kind,
                run_id="run",
                config_hash=record.config_hash,
                valid=valid,
                codec="npy",
                dtype=array.dtype.name,
                shape=array.shape,
                raw_bytes=array.nbytes,
            )
            cell.append(Sample("v", frame, (Payload(row, CODEC.suffix, CODEC.encode(array)),)))
    target.close()
    return folder


def warnings(folder: Path) -> list[str]:
    report = validate(folder)
    assert report.problems == []
    assert report.to_json()["ok"]
    return [
        f"{one.code} {one.video_id} {one.frame_index} {one.representation}: {one.message}" for one in report.warnings
    ]


def plain(value: float = 5.0) -> NDArray[np.float32]:
    return np.full((4, 5), value, np.float32)


def test_nothing_odd(tmp_path: Path) -> None:
    edge = plain(10.005)  # within what a codec may add
    assert warnings(write(tmp_path / "d", {0: plain(0), 1: plain(10), 2: edge})) == []


@pytest.mark.parametrize("writer", ["webdataset", "lance"])
def test_values(tmp_path: Path, writer: str) -> None:
    bad = plain()
    bad[1, 2] = np.nan
    far = plain()
    far[0, 0] = 11
    infinite = plain()
    infinite[0, 0] = -np.inf
    folder = write(tmp_path / "d", {0: plain(), 1: bad, 2: far, 3: far, 4: infinite}, writer=writer)
    assert warnings(folder) == [
        "values v 1 x: NaN, although it does not stand for 'no measurement' here, in this frame",
        "values v 2 x: values outside 0..10 in 2 frames from this one on",
        "values v 4 x: infinite values in this frame",
    ]


def test_nan_and_invalid_frames_that_are_meant(tmp_path: Path) -> None:
    hole = plain()
    hole[0] = np.nan
    assert warnings(write(tmp_path / "nan", {0: hole}, replace(DEPTH, invalid_value="nan"))) == []
    assert warnings(write(tmp_path / "placeholder", {0: plain(99)}, valid=False)) == []
    assert warnings(write(tmp_path / "mark", {0: plain(-1)}, replace(DEPTH, invalid_value=-1.0))) == []


def test_class_numbers(tmp_path: Path) -> None:
    spec = OutputSpec(
        kind=Kind.INDICES, dtype="uint8", shape=(4, 5), axes="HW", classes=("road", "sky"), invalid_value=255
    )
    good, bad = np.ones((4, 5), np.uint8), np.full((4, 5), 2, np.uint8)
    void = np.full((4, 5), 255, np.uint8)
    assert warnings(write(tmp_path / "d", {0: good, 1: bad, 2: void}, spec)) == [
        "values v 1 x: class numbers beyond the 2 classes in this frame"
    ]


@pytest.mark.parametrize("array", [np.zeros((4, 5)), np.zeros((4, 5, 1), np.float32)], ids=["dtype", "axes"])
def test_another_layout_is_a_problem(tmp_path: Path, array: NDArray[Any]) -> None:
    report = validate(write(tmp_path / "d", {0: plain(), 1: array}))
    (problem,) = report.problems
    assert (problem.code, problem.frame_index) == ("layout", 1)
    assert "dataset.json says float32 (4, 5)" in problem.message


def test_rows_and_columns_differ_between_videos_only(tmp_path: Path) -> None:
    other = np.zeros((8, 9), np.float32)
    assert warnings(write(tmp_path / "other", {0: other, 1: other})) == [
        "values None None x: dataset.json says that frames are arrays (4, 5), but stored are [(8, 9)]"
    ]
    (problem,) = validate(write(tmp_path / "mixed", {0: plain(), 1: other, 2: plain()})).problems
    assert (problem.code, problem.frame_index) == ("layout", 1)
    assert problem.message == "it is an array (8, 9), most frames of the video are (4, 5)"


def test_timestamps(tmp_path: Path) -> None:
    arrays = {frame: plain() for frame in range(5)}
    assert warnings(write(tmp_path / "none", arrays, pts=dict.fromkeys(range(5)))) == []
    times: dict[int, float | None] = {0: 0.0, 1: 0.1, 2: 0.1, 3: 0.05, 4: 0.4}
    assert warnings(write(tmp_path / "back", arrays, pts=times)) == [
        "pts v 2 None: 2 frames are not later than the frame before them, the first is 2"
    ]
    times = {0: 0.0, 1: None, 2: 0.2, 3: 0.3, 4: 0.4}
    assert warnings(write(tmp_path / "gap", arrays, pts=times)) == [
        "pts v 1 None: 1 frames have no timestamp, others have"
    ]


def test_frames_beyond_the_video(tmp_path: Path) -> None:
    assert warnings(write(tmp_path / "d", {0: plain(), 10: plain()})) == [
        "frames v 10 None: frames 0..10 are stored, but the video has 10"
    ]
