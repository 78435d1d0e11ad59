"""A dataset is read by programs that know nothing of vrekit: tar, webdataset, datasets, duckdb."""

import io
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.every_type import FRAMES, every_type
from tests.storages import read_samples
from vrekit.catalog.dataset import open_dataset
from vrekit.catalog.manifest import read_manifest
from vrekit.catalog.query import Query, select
from vrekit.catalog.subset import Subset
from vrekit.config.loader import parse_config
from vrekit.engine.export import export
from vrekit.engine.request import ExportRequest
from vrekit.jobs.materialize import materialize
from vrekit.jobs.merge.run import merge

CONFIG = """
representations:
  rgb: {type: color/rgb, codec: png}
  picture: {type: color/rgb, codec: jpg}
  canny: {type: edges/canny, codec: npy}
"""


@pytest.fixture
def dataset(make_request: Callable[..., ExportRequest]) -> Path:
    request = make_request(config=CONFIG)
    export(request)
    return request.dataset


def test_tar_lists_it(dataset: Path) -> None:
    (first, *_) = sorted(dataset.glob("shards/*/*.tar"))
    listed = subprocess.run(["tar", "tf", str(first)], capture_output=True, text=True, check=True)
    assert listed.stderr == ""
    assert listed.stdout.splitlines()[:4] == [
        "square/00000000.rgb.png",
        "square/00000000.picture.jpg",
        "square/00000000.canny.npy",
        "square/00000001.rgb.png",
    ]


@pytest.mark.filterwarnings("ignore")
def test_webdataset_decodes_it(dataset: Path, clip_array: NDArray[np.uint8]) -> None:
    import webdataset

    urls = [str(path) for path in sorted(dataset.glob("shards/*/*.tar"))]
    samples = list(webdataset.WebDataset(urls, shardshuffle=False).decode("rgb8"))  # pyright: ignore[reportAttributeAccessIssue]  # it names no exports
    assert [sample["__key__"] for sample in samples] == [f"square/{frame:08d}" for frame in range(30)]
    for frame, sample in enumerate(samples):
        np.testing.assert_array_equal(sample["rgb.png"], clip_array[frame])
        assert sample["picture.jpg"].shape == (32, 48, 3)
        assert set(np.unique(sample["canny.npy"])) <= {0, 1, 255}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("streaming", [True, False])
def test_hugging_face_datasets_loads_the_folder(
    make_request: Callable[..., ExportRequest],
    tmp_path: Path,
    clip_array: NDArray[np.uint8],
    streaming: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    import datasets

    video = tmp_path / "test_a.npy"  # `datasets` takes a file named test_… for the test split, unless told otherwise
    np.save(video, clip_array[:10])
    for request in (make_request(config=CONFIG), make_request(config=CONFIG, video=str(video))):
        export(request)
    loaded: Any = datasets.load_dataset(str(request.dataset), streaming=streaming, cache_dir=str(tmp_path / "cache"))
    assert list(loaded) == ["train"]
    rows = {row["__key__"]: row for row in loaded["train"]}
    assert len(rows) == 40
    np.testing.assert_array_equal(np.asarray(rows["test_a/00000003"]["rgb.png"]), clip_array[3])
    assert np.asarray(rows["square/00000029"]["canny.npy"]).shape == (32, 48)


@pytest.fixture(scope="module")
def merged(tmp_path_factory: pytest.TempPathFactory, clip_array: NDArray[np.uint8]) -> Path:
    """A video of which 6 frames have rgb only, and behind it one with every built-in type."""
    tmp_path = tmp_path_factory.mktemp("merged")
    config = every_type(tmp_path / "external", 32, 48)
    only_rgb = "representations: {rgb: {type: color/rgb}}"
    for name, frames, text in (("few", 255 - clip_array[:6], only_rgb), ("many", clip_array[:FRAMES], config)):
        np.save(tmp_path / f"{name}.npy", frames)
        request = ExportRequest(
            video=str(tmp_path / f"{name}.npy"),
            dataset=tmp_path / name,
            representations=parse_config(text).representations,
            threads=2,
        )
        assert not export(request).failures
    merge([tmp_path / "few", tmp_path / "many"], tmp_path / "merged")
    return tmp_path / "merged"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("streaming", [True, False])
@pytest.mark.parametrize("builder", ["folder", "webdataset"])
def test_hugging_face_datasets_keeps_columns_that_the_first_samples_lack(
    merged: Path, tmp_path: Path, builder: str, streaming: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    import datasets

    options: dict[str, Any] = {"split": "train", "streaming": streaming, "cache_dir": str(tmp_path / "cache")}
    if builder == "webdataset":  # as docs/reading.md says
        files = [str(path) for path in sorted(merged.glob("shards/*/all-*.tar"))]
        features = datasets.load_dataset_builder(str(merged)).info.features
        loaded: Any = datasets.load_dataset("webdataset", data_files=files, features=features, **options)
    else:
        loaded = datasets.load_dataset(str(merged), **options)
    rows = {row["__key__"]: row for row in loaded}
    assert len(rows) == 6 + FRAMES
    records = read_manifest(merged).representations.items()
    columns = {f"{name}.{record.suffix}" for name, record in records if not record.is_virtual}
    assert set(loaded.features) == {*columns, "__key__", "__url__"}
    assert {name for name in columns if rows["few/00000003"][name] is not None} == {"rgb.jxl"}
    assert {name for name in columns if rows["many/00000003"][name] is None} == set()
    assert np.asarray(rows["many/00000003"]["raw_canny.npy"]).shape == (32, 48)
    assert rows["many/00000002"]["caption.txt"] == "frame 2 é"


def test_the_card_says_that_samples_may_differ(merged: Path) -> None:
    assert "A sample may lack representations" in (merged / "README.md").read_text()


@pytest.mark.filterwarnings("ignore")
def test_hugging_face_datasets_finds_the_columns_that_the_card_declares(
    merged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    import datasets

    declared: Any = datasets.load_dataset_builder(str(merged)).info.features
    files = [str(path) for path in sorted(merged.glob("shards/many/all-*.tar"))]
    options: dict[str, Any] = {"split": "train", "streaming": True, "cache_dir": str(tmp_path / "cache")}
    found: Any = datasets.load_dataset("webdataset", data_files=files, **options).features
    assert declared == found


@pytest.mark.filterwarnings("ignore")
def test_hugging_face_datasets_and_a_failed_frame(
    make_request: Callable[..., ExportRequest], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    import datasets

    (tmp_path / "depth").mkdir()
    for frame in range(30):
        if frame != 3:
            np.save(tmp_path / "depth" / f"{frame}.npy", np.full((32, 48), frame, np.float32))
    depth = f"{{type: external/files, params: {{path: {tmp_path}/depth, kind: depth}}, codec: npy}}"
    out = make_request(config=f"representations:\n  rgb: {{type: color/rgb, codec: png}}\n  depth: {depth}\n")
    assert export(out).failed_frames == 1
    options: dict[str, Any] = {"split": "train", "cache_dir": str(tmp_path / "cache")}
    loaded: Any = datasets.load_dataset(str(out.dataset), **options)
    assert [row["__key__"] for row in loaded if row["depth.npy"] is None] == ["square/00000003"]
    assert loaded[4]["depth.npy"][31][47] == 4

    with open_dataset(out.dataset) as dataset:
        whole = Subset.from_selection(select(dataset, Query(where="len(failed) = 0")))
        materialize(whole, dataset, tmp_path / "whole")
    assert datasets.load_dataset(str(tmp_path / "whole"), **options).num_rows == 29


def test_duckdb_and_numpy_find_a_payload(dataset: Path) -> None:
    import duckdb

    rows = duckdb.execute(
        f"select frame_index, shard, byte_offset, byte_size from '{dataset}/shards/*/*.parquet' "
        "where representation = 'canny' and frame_index % 10 = 3 order by frame_index"
    ).fetchall()
    assert [row[0] for row in rows] == [3, 13, 23]
    for _, shard, offset, size in rows:
        with (dataset / shard).open("rb") as file:
            file.seek(offset)
            assert np.load(io.BytesIO(file.read(size))).shape == (32, 48)


def test_the_standard_library_checks_a_checksum(dataset: Path) -> None:
    import zlib

    row = read_samples(dataset).to_pylist()[7]
    with (dataset / row["shard"]).open("rb") as file:
        file.seek(row["byte_offset"])
        assert zlib.crc32(file.read(row["byte_size"])) == row["checksum"]


def test_json_reads_the_manifest(dataset: Path) -> None:
    manifest = json.loads((dataset / "dataset.json").read_text())
    assert manifest["format_version"] == 2
    assert manifest["representations"]["canny"]["stored"]["shape"] == [32, 48]
