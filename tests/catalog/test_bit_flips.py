"""One flipped bit: what is read is what was written, or it is an error; never another value, never a traceback.

Few flips by default; VREKIT_EXHAUSTIVE=1 makes 500 for each kind of file.
"""

import os
import random
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tests.catalog.query_dataset import DEPTH
from tests.storages import open_writer, read_samples
from vrekit.catalog.cells import Cell, Payload, Sample
from vrekit.catalog.dataset import open_dataset
from vrekit.catalog.items import ItemsWriter, items_path, items_schema, items_table, listed_frames
from vrekit.catalog.manifest import Manifest, RepresentationRecord, read_manifest, write_manifest
from vrekit.catalog.query import Query, select
from vrekit.catalog.runs import RunRecord, read_runs, write_run
from vrekit.catalog.statistics import STATISTICS_SCHEMA, Statistics, read_statistics, write_statistics
from vrekit.catalog.subset import Subset, read_subset
from vrekit.codecs.registry import codec_from_config
from vrekit.core.errors import VrekitError
from vrekit.core.schema import SampleRow
from vrekit.core.spec import Kind, OutputSpec, RepresentationSpec
from vrekit.jobs.validate import validate
from vrekit.readers import FrameDataset
from vrekit.video.base import VideoInfo

BOXES = OutputSpec(kind=Kind.BOXES, dtype="float32", shape=(None, 4), axes="KC", columns=("x1", "y1", "x2", "y2"))
SPECS = {"depth": (DEPTH, codec_from_config("npy")), "boxes": (BOXES, codec_from_config("npy"))}
FLIPS = 500 if os.environ.get("VREKIT_EXHAUSTIVE") else 6
RUN = "20260101T000000000-abcdef"


def array_of(name: str, frame: int) -> np.ndarray[Any, Any]:
    rng = np.random.default_rng([frame, len(name)])
    shape = (4, 6) if name == "depth" else (frame % 3, 4)
    return rng.random(shape).astype(np.float32)


def make(folder: Path, writer: str) -> Path:
    """A dataset with every kind of file."""
    records = {
        name: RepresentationRecord(
            spec=RepresentationSpec(name=name, type="test/x"),
            identity={"name": name},
            memory=spec,
            stored=spec,
            codec=codec.config(),
            suffix=codec.suffix,
            group="all",
        )
        for name, (spec, codec) in SPECS.items()
    }
    video = VideoInfo(uri="car.mp4", fingerprint="1-0", source="file", frame_count=9, height=4, width=6, fps=8.0)
    manifest = Manifest(
        writer=writer,
        layout="sample",
        shard_frames=4,
        shard_size_bytes=1 << 30,
        videos={"car": video},
        representations=records,
    )
    folder.mkdir()
    write_manifest(folder, manifest)
    target = open_writer(folder, manifest)
    for first in (0, 4):
        with target.open_cell(Cell("car", "all", first, first + 3)) as cell:
            for frame in range(first, first + 4):
                cell.append(Sample("car", frame, tuple(payload(name, frame, manifest) for name in SPECS)))
    target.close()
    run = RunRecord(run_id=RUN, video_id="car", request={"a": [1, 2]}, command=["x"], started_at="2026-01-01")
    write_run(folder, run.finished("done", shards=target.committed))
    rows = pa.Table.from_pylist(
        [
            {
                "video_id": "car",
                "frame_index": frame,
                "luma_mean": frame / 8,
                "phash": frame**9,
                "class_histogram": [0.5],
            }
            for frame in range(8)
        ],
        STATISTICS_SCHEMA,
    )
    write_statistics(folder, "car", Statistics(rows, {"color": "depth"}))
    boxes = [array_of("boxes", frame) for frame in range(8)]
    items = ItemsWriter(items_path(folder, "car", "boxes", records["boxes"]), items_schema(BOXES))
    items.add(items_table(BOXES, "car", range(8), boxes))
    items.commit()
    with open_dataset(folder) as dataset:
        Subset.from_selection(select(dataset, Query(where="frame_index < 5"))).write(folder / "some.parquet")
    return folder


def payload(name: str, frame: int, manifest: Manifest) -> Payload:
    spec, codec = SPECS[name]
    array = array_of(name, frame)
    row = SampleRow(
        video_id="car",
        frame_index=frame,
        pts_seconds=frame / 8,
        representation=name,
        kind=spec.kind,
        run_id=RUN,
        config_hash=manifest.representations[name].config_hash,
        valid=frame != 3,
        compute_seconds=0.25,
        encode_seconds=0.125,
        codec=codec.id,
        dtype="float32",
        shape=array.shape,
        raw_bytes=array.nbytes,
    )
    return Payload(row, codec.suffix, codec.encode(array))


def batch(folder: Path) -> Any:
    found = FrameDataset(folder, missing="none")[:]
    return {name: [np.asarray(one).tolist() for one in values] for name, values in found.items()}


def query(folder: Path) -> Any:
    with open_dataset(folder) as dataset:
        return [
            dataset.sql(f"SELECT * FROM {table} ORDER BY ALL").to_pylist()
            for table in ("samples", "frames", "items", "representations", "runs", "videos")
        ]


# What is read, each by itself: an error of one hides nothing of the others.
LOOKS: list[Callable[[Path], Any]] = [
    batch,
    query,
    lambda folder: read_samples(folder).to_pylist(),
    lambda folder: read_manifest(folder).to_json(),
    lambda folder: [run.to_json() for run in read_runs(folder, strict=True)],
    lambda folder: (one := read_statistics(folder, "car")).table.to_pylist() and [one.sources, one.table.to_pylist()],
    lambda folder: dict(read_subset(folder / "some.parquet").frames),
    lambda folder: FrameDataset(folder, subset=folder / "some.parquet").index.frame_index.tolist(),
    lambda folder: listed_frames(
        items_path(folder, "car", "boxes", read_manifest(folder).representations["boxes"])
    ).tolist(),
]

TAR = ["shards/*/*.tar", "shards/*/*.parquet", "dataset.json", "runs/*.json", "some.parquet", "index/*.parquet"]
LANCE = ["lance/*.lance/data/*", "lance/*.lance/_*/**/*", "lance/*.checksums"]
PLACES = [
    *(("webdataset", pattern) for pattern in [*TAR, "stats/*.parquet", "items/*/*.parquet"]),
    *(("lance", pattern) for pattern in LANCE),
]


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {writer: make(tmp_path_factory.mktemp(writer) / "d", writer) for writer in ("webdataset", "lance")}


@pytest.mark.parametrize(("writer", "pattern"), PLACES, ids=[f"{writer}-{pattern}" for writer, pattern in PLACES])
def test_no_flipped_bit_is_read_as_another_value(
    originals: dict[str, Path], tmp_path: Path, writer: str, pattern: str, capsys: pytest.CaptureFixture[str]
) -> None:
    original = originals[writer]
    expected = [look(original) for look in LOOKS]
    assert validate(original).problems == []
    files = sorted(path for path in original.glob(pattern) if path.is_file() and path.stat().st_size)
    assert files
    rng = random.Random(pattern)
    outcomes: Counter[str] = Counter()
    unseen = []
    for number in range(FLIPS):
        folder = tmp_path / str(number)
        shutil.copytree(original, folder)  # `copytree` keeps the times, so the index is not stale
        path = folder / rng.choice(files).relative_to(original)
        data = bytearray(path.read_bytes())
        bit = rng.randrange(len(data) * 8)
        data[bit // 8] ^= 1 << bit % 8
        status = path.stat()
        path.write_bytes(data)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        outcome, differs = look_at(folder, expected)
        if differs:
            unseen.append((path.relative_to(folder).as_posix(), bit, differs))
        outcomes[outcome] += 1
        shutil.rmtree(folder)
    with capsys.disabled():
        if os.environ.get("VREKIT_EXHAUSTIVE"):
            print(f"\n{writer} {pattern}: {dict(outcomes)}")
    assert unseen == []
    if pattern != "some.parquet":  # a subset is a file of the user's, not of the dataset
        assert not [one for one in outcomes if one.startswith("reader,")]  # validate finds what a reader refuses


def look_at(folder: Path, expected: list[Any]) -> tuple[str, list[int]]:
    """Return who noticed, and which looks gave other values although nobody did; raises what is no VrekitError."""
    try:
        seen_by_validate = bool(validate(folder).problems)
    except VrekitError:
        seen_by_validate = True
    errors, differs = 0, []
    if seen_by_validate and (folder / "lance").exists():
        return "validate", []  # Lance asks for more memory than there is for some of these
    for at, (look, value) in enumerate(zip(LOOKS, expected, strict=True)):
        try:
            if look(folder) != value:
                differs.append(at)
        except VrekitError:
            errors += 1
    noticed = [who for who, did in (("reader", errors), ("validate", seen_by_validate)) if did]
    outcome = " and ".join(noticed) or "no one"
    if differs:
        return f"{outcome}, other values", [] if noticed else differs
    return f"{outcome}, same values", []
