"""Statistics measure what they say, only what is missing, and queries can use them."""

from collections.abc import Callable, Mapping
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from tests.readers.reader_dataset import DEPTH, RGB, DatasetBuilder, record
from vrekit.catalog.dataset import open_dataset
from vrekit.catalog.query import Query, select
from vrekit.catalog.statistics import read_statistics, statistics_path
from vrekit.core.errors import DatasetError, UsageError
from vrekit.core.reports import ProgressListener
from vrekit.core.spec import Kind, OutputSpec
from vrekit.engine.export import export
from vrekit.engine.request import ExportRequest
from vrekit.jobs.measures import appearance, class_histogram, depth_range, motion, perceptual_hash
from vrekit.jobs.stats import compute_statistics
from vrekit.video.selection import parse_frames

INDICES = OutputSpec(
    kind=Kind.INDICES, dtype="uint8", shape=(6, 8), axes="HW", classes=("road", "sky", "tree"), invalid_value=255.0
)


def noise(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 255, (height, width, 3), np.uint8)


# -- single measures -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(6, 8), (1, 1), (33, 301), (300, 7)])
def test_luma_and_sharpness(size: tuple[int, int]) -> None:
    image = noise(*size)
    found = appearance(image)
    luma = image @ np.array([0.299, 0.587, 0.114]) / 255
    assert found.luma_mean == pytest.approx(luma.mean(), abs=0.004)
    padded = np.pad(luma, 1, mode="reflect") if min(size) > 1 else np.pad(luma, 1, mode="edge")
    laplacian = padded[2:, 1:-1] + padded[:-2, 1:-1] + padded[1:-1, 2:] + padded[1:-1, :-2] - 4 * luma
    assert found.sharpness == pytest.approx(laplacian.var(), rel=0.03, abs=1e-4)
    flat = appearance(np.full((*size, 3), 51, np.uint8))
    assert flat.luma_mean == pytest.approx(0.2)
    assert flat.sharpness == 0


def test_blur_lowers_sharpness() -> None:
    image = noise(64, 64)
    assert (
        appearance(np.asarray(cv2.GaussianBlur(image, (9, 9), 3), np.uint8)).sharpness
        < appearance(image).sharpness / 50
    )


def test_near_duplicates_have_near_hashes() -> None:
    scene = np.asarray(cv2.resize(noise(12, 16), (320, 240), interpolation=cv2.INTER_CUBIC), np.uint8)
    brighter = np.clip(scene.astype(int) + 10, 0, 255).astype(np.uint8)
    smaller = np.asarray(cv2.resize(scene, (160, 120), interpolation=cv2.INTER_AREA), np.uint8)
    other = np.asarray(cv2.resize(noise(12, 16, 1), (320, 240), interpolation=cv2.INTER_CUBIC), np.uint8)
    reference = appearance(scene).phash
    assert 0 <= reference < 2**64
    assert (reference ^ appearance(brighter).phash).bit_count() <= 4
    assert (reference ^ appearance(smaller).phash).bit_count() <= 4
    assert (reference ^ appearance(other).phash).bit_count() > 16
    assert perceptual_hash(np.zeros((9, 9), np.uint8)) == 0


@pytest.mark.parametrize(("size", "shift"), [((96, 128), 3), ((240, 480), 6)])
def test_motion_is_pixels_a_frame(size: tuple[int, int], shift: int) -> None:
    texture = np.asarray(cv2.GaussianBlur(noise(size[0], size[1] + shift), (0, 0), 4), np.uint8)
    texture = np.asarray(cv2.normalize(texture, None, 0, 255, cv2.NORM_MINMAX), np.uint8)  # type: ignore[call-overload]
    before, now = appearance(texture[:, shift:].copy()), appearance(texture[:, : size[1]].copy())
    assert motion(before, now, 1) == pytest.approx(shift, rel=0.15)
    assert motion(before, now, 3) == pytest.approx(shift / 3, rel=0.15)
    assert motion(now, now, 1) == pytest.approx(0, abs=0.05)
    assert motion(before, appearance(texture), 1) is None


def test_depth_range_ignores_what_is_unknown() -> None:
    depth = np.array([[np.nan, 2.5], [np.inf, -1.0]], np.float32)
    assert depth_range(depth, DEPTH) == (-1.0, 2.5)
    assert depth_range(np.full((2, 2), np.nan, np.float32), DEPTH) == (None, None)
    holes = OutputSpec(kind=Kind.DEPTH, dtype="float32", shape=(2,), axes="H", invalid_value=-1.0)
    assert depth_range(np.array([-1, 3, 4], np.float32), holes) == (3, 4)


def test_class_histogram() -> None:
    image = np.array([[0, 0, 2, 255], [0, 2, 2, 255]], np.uint8)
    np.testing.assert_array_equal(class_histogram(image, INDICES), np.array([3 / 8, 0, 3 / 8], np.float32))
    unnamed = OutputSpec(kind=Kind.INDICES, dtype="int32", shape=(3,), axes="H")
    np.testing.assert_array_equal(class_histogram(np.array([-1, 1, 1]), unnamed), np.array([0, 2 / 3], np.float32))


# -- whole datasets ------------------------------------------------------------------------------------------------


@pytest.fixture
def built(tmp_path: Path) -> DatasetBuilder:
    records = {"rgb": record("rgb", RGB), "depth": record("depth", DEPTH), "classes": record("classes", INDICES)}
    builder = DatasetBuilder(tmp_path / "out", records)
    for frame in range(6):
        depth = np.full((6, 8), frame, np.float32)
        depth[0, 0] = np.nan
        depth[0, 1] = 10
        builder.put("car", frame, "depth", depth)
        if frame != 2:
            builder.put("car", frame, "rgb", np.full((6, 8, 3), 20 * frame, np.uint8))
        builder.put("car", frame, "classes", np.full((6, 8), frame % 3, np.uint8))
    builder.write()
    return builder


def test_columns_appear_in_frames(built: DatasetBuilder) -> None:
    with open_dataset(built.folder) as dataset:
        assert dataset.sql("SELECT count(luma_mean) AS n FROM frames")["n"].to_pylist() == [0]
        report = compute_statistics(dataset)
        assert report.sources == {"color": "rgb", "depth": "depth", "indices": "classes"}
        assert (report.measured, report.already, report.failures) == (6, 0, ())
    with open_dataset(built.folder) as dataset:
        rows = dataset.sql("SELECT * FROM frames ORDER BY frame_index").to_pylist()
        for frame, row in enumerate(rows):
            expected = None if frame == 2 else pytest.approx(20 * frame / 255, abs=0.002)
            assert row["luma_mean"] == expected
            assert (row["depth_min"], row["depth_max"]) == (frame, 10)
            assert row["class_histogram"] == [float(number == frame % 3) for number in range(3)]
        where = "depth_min > 1 AND class_histogram[2] > 0.5 AND representation = 'depth'"
        assert select(dataset, Query(where=where)).keys()["frame_index"].to_pylist() == [4]
        assert select(dataset, Query(where="luma_mean IS NULL")).keys()["frame_index"].to_pylist() == [2]


class Counting(ProgressListener):
    def __init__(self) -> None:
        self.total = self.done = 0

    def started(self, totals: Mapping[str, int]) -> None:
        self.total += totals["frames"]

    def advanced(self, name: str, done: int, failed: int = 0, stored_bytes: int = 0) -> None:
        self.done += done


def test_only_what_is_missing_is_measured(
    make_request: Callable[..., ExportRequest], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vrekit.jobs.stats.WRITE_SECONDS", 0.0)
    folder = Path(make_request().dataset)
    for frames, measured, already in (("0..7", 7, 0), ("0..7", 0, 7), ("0..40", 23, 7), ("0..40", 0, 30)):
        export(make_request(frames=parse_frames(frames)))
        progress = Counting()
        with open_dataset(folder) as dataset:
            report = compute_statistics(dataset, progress=progress, threads=1)
        assert (report.measured, report.already) == (measured, already)
        assert progress.total == progress.done == measured
    in_parts = read_statistics(folder, "square").table
    statistics_path(folder, "square").unlink()
    with open_dataset(folder) as dataset:
        compute_statistics(dataset)
    at_once = read_statistics(folder, "square").table
    assert at_once.equals(in_parts)
    motions = at_once["motion"].to_pylist()
    assert motions[0] is None
    assert all(0 < value < 2 for value in motions[1:])  # a square of 12 px moves by a pixel a frame


def test_another_source_measures_again_and_keeps_the_rest(built: DatasetBuilder) -> None:
    built.records = {**built.records, "near": record("near", DEPTH)}
    for frame in range(3):
        built.put("car", frame, "near", np.full((6, 8), 0.5, np.float32))
    built.write(group="near")
    with open_dataset(built.folder) as dataset:
        compute_statistics(dataset)
        before = read_statistics(built.folder, "car").table
        report = compute_statistics(dataset, sources={"depth": "near"})
    assert (report.sources["depth"], report.measured) == ("near", 3)
    after = read_statistics(built.folder, "car")
    assert after.sources["depth"] == "near"
    assert after.table["depth_max"].to_pylist() == [0.5, 0.5, 0.5, None, None, None]
    assert after.table["luma_mean"].equals(before["luma_mean"])


def test_damaged_payloads_are_reported_and_the_others_measured(built: DatasetBuilder) -> None:
    with open_dataset(built.folder) as dataset:
        row = dataset.sql("SELECT * FROM samples WHERE frame_index = 3 AND representation = 'rgb'").to_pylist()[0]
        shard = built.folder / row["shard"]
        data = bytearray(shard.read_bytes())
        data[row["byte_offset"] + row["byte_size"] - 1] ^= 1
        shard.write_bytes(data)
        report = compute_statistics(dataset)
        assert len(report.failures) == 1
        assert report.failures[0].startswith("car/00000003.rgb: ")
        table = read_statistics(built.folder, "car").table
        assert table["luma_mean"].null_count == 2
        assert table["depth_min"].null_count == 0
        assert compute_statistics(dataset).measured == 1  # it is tried again


def test_mistakes(built: DatasetBuilder, tmp_path: Path) -> None:
    with open_dataset(built.folder) as dataset:
        with pytest.raises(UsageError, match=r"no representation 'dept' \(did you mean 'depth'\?\)"):
            compute_statistics(dataset, sources={"depth": "dept"})
        with pytest.raises(UsageError, match=r"'depth' \(depth, float32, axes HW\) cannot be measured as color"):
            compute_statistics(dataset, sources={"color": "depth"})
    boxes = OutputSpec(kind=Kind.BOXES, dtype="float32", shape=(None, 4), axes="KC")
    other = DatasetBuilder(tmp_path / "boxes", {"boxes": record("boxes", boxes)})
    other.add("car", range(2))
    other.write()
    with open_dataset(other.folder) as dataset, pytest.raises(DatasetError, match=r"nothing to measure: .* boxes"):
        compute_statistics(dataset)
    compute_path = statistics_path(built.folder, "car")
    compute_path.parent.mkdir()
    compute_path.write_bytes(b"nonsense")
    with pytest.raises(DatasetError, match=r"car\.parquet is damaged"):
        open_dataset(built.folder)
