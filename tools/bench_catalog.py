"""Measure the catalog on synthetic metadata: size on disk, opening, selective predicates, one frame.

    python -m tools.bench_catalog --rows 1000000 --folder /tmp/bench
    python -m tools.bench_catalog --rows 10000000 --folder /tmp/bench --json

The metadata looks like that of a real export: 12 representations a frame, 1,000 frames a video, a run for every 20
videos, computing times equal within a batch of 8, log-normal payload sizes, offsets as in a tar, random checksums.
"""

import argparse
import json
import shutil
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from vrekit import __version__
from vrekit.catalog.dataset import Dataset, open_dataset
from vrekit.catalog.index import INDEX_FOLDER
from vrekit.catalog.manifest import Manifest, RepresentationRecord, write_manifest
from vrekit.catalog.query import Query, select
from vrekit.core.schema import SAMPLES_SCHEMA
from vrekit.core.spec import Kind, OutputSpec, RepresentationSpec
from vrekit.video.base import VideoInfo
from vrekit.writers.webdataset.sidecars import SHARDS_FOLDER, find_sidecars, sidecar_bytes

REPRESENTATIONS = [f"representation_{number:02d}" for number in range(12)]
FRAMES = 1000
VIDEOS_OF_A_RUN = 20
BATCH = 8
REPEATS = 7


def make(folder: Path, rows: int) -> None:
    """Write a dataset of metadata only: `rows` rows, rounded up to whole videos."""
    output = OutputSpec(kind=Kind.DEPTH, dtype="float32", shape=(540, 960), axes="HW")
    records = {
        name: RepresentationRecord(
            spec=RepresentationSpec(name=name, type="depth/synthetic"),
            identity={"name": name},
            memory=output,
            stored=output,
            codec={"id": "npy.zst"},
            suffix="npy.zst",
            group="all",
        )
        for name in REPRESENTATIONS
    }
    count = -(-rows // (FRAMES * len(REPRESENTATIONS)))
    videos = {
        f"video_{number:05d}": VideoInfo(
            uri=f"video_{number:05d}.mp4",
            fingerprint=f"1-{number:016x}",
            source="file",
            frame_count=FRAMES,
            height=540,
            width=960,
        )
        for number in range(count)
    }
    folder.mkdir(parents=True)
    manifest = Manifest(
        writer="webdataset",
        layout="sample",
        shard_frames=1024,
        shard_size_bytes=10**9,
        videos=videos,
        representations=records,
        created_with=__version__,
    )
    write_manifest(folder, manifest)
    for number, video_id in enumerate(videos):
        home = folder / SHARDS_FOLDER / video_id
        home.mkdir(parents=True)
        name = f"all-{0:08d}-{FRAMES - 1:08d}"
        table = _rows(video_id, number, f"{SHARDS_FOLDER}/{video_id}/{name}.tar", records)
        (home / f"{name}.parquet").write_bytes(sidecar_bytes(table))


def _rows(video_id: str, number: int, shard: str, records: dict[str, RepresentationRecord]) -> pa.Table:
    random = np.random.default_rng(number)
    kinds = len(REPRESENTATIONS)
    total = FRAMES * kinds
    frame = np.repeat(np.arange(FRAMES), kinds)
    sizes = random.lognormal(11.5, 0.5, total).astype(np.int64)
    padded = 512 + -(-sizes // 512) * 512
    seconds = np.repeat(random.lognormal(-5.5, 0.8, (-(-FRAMES // BATCH), kinds)), BATCH, axis=0)[:FRAMES]
    columns: dict[str, Any] = {
        "video_id": [video_id] * total,
        "frame_index": frame,
        "pts_seconds": frame / 30,
        "representation": REPRESENTATIONS * FRAMES,
        "kind": ["depth"] * total,
        "run_id": [f"20260101T000000-{number // VIDEOS_OF_A_RUN:06x}"] * total,
        "config_hash": [records[name].config_hash for name in REPRESENTATIONS] * FRAMES,
        "status": ["ok"] * total,
        "error": pa.nulls(total, pa.string()),
        "valid": np.ones(total, np.bool_),
        "compute_seconds": seconds.reshape(-1).astype(np.float32),
        "encode_seconds": random.lognormal(-6, 0.3, total).astype(np.float32),
        "codec": ["npy.zst"] * total,
        "dtype": ["float32"] * total,
        "shape": pa.array([[540, 960]] * total, pa.list_(pa.int32())),
        "raw_bytes": np.full(total, 540 * 960 * 4),
        "byte_offset": np.cumsum(padded) - padded + 512,
        "byte_size": sizes,
        "payload_index": pa.nulls(total, pa.int32()),
        "checksum": random.integers(0, 2**32, total, np.uint32),
        "shard": [shard] * total,
    }
    return pa.table(columns, schema=SAMPLES_SCHEMA)


def measure(folder: Path) -> dict[str, Any]:
    """Return the figures of a dataset, times in milliseconds."""
    sidecars = find_sidecars(folder)
    shutil.rmtree(folder / INDEX_FOLDER, ignore_errors=True)
    started = time.perf_counter()
    open_dataset(folder).close()
    build = time.perf_counter() - started
    with open_dataset(folder) as dataset:
        rows = dataset.sql("SELECT count(*) AS n FROM samples")["n"][0].as_py()
        run = "20260101T000000-000001"
        rare = (
            f"run_id = '{run}' AND representation = 'representation_03' AND compute_seconds < 0.0044 "
            "AND frame_index % 2 = 0"
        )
        if rows < 5_000_000:  # so that it stays near 0.04 %
            rare += " AND frame_index % 20 = 0"
        common = (
            "representation IN ('representation_01', 'representation_02') AND compute_seconds < 0.0060 "
            "AND frame_index % 5 = 0"
        )
        point = f"video_id = 'video_{dataset_videos(dataset) // 2:05d}' AND frame_index = 500"
        picked = "video_id, frame_index, representation, shard, byte_offset, byte_size"
        return {
            "rows": rows,
            "sidecars": len(sidecars),
            "sidecars_mb": _megabytes(sidecars),
            "index_mb": _megabytes((folder / INDEX_FOLDER).iterdir()),
            "build_index_s": round(build, 2),
            "open_ms": _time(lambda: open_dataset(folder).close()),
            "rare_rows": _count(dataset, rare),
            "rare_ms": _time(lambda: select(dataset, Query(where=rare, on="samples")).table(picked)),
            "common_rows": _count(dataset, common),
            "common_ms": _time(lambda: select(dataset, Query(where=common, on="samples")).table(picked)),
            "one_frame_rows": _count(dataset, point),
            "one_frame_ms": _time(lambda: select(dataset, Query(where=point, on="samples")).table(picked)),
            "one_frame_sql_ms": _time(lambda: dataset.sql(f"SELECT {picked} FROM samples WHERE {point}")),
        }


def dataset_videos(dataset: Dataset) -> int:
    return len(dataset.manifest.videos)


def _count(dataset: Dataset, where: str) -> int:
    return select(dataset, Query(where=where, on="samples")).count


def _megabytes(paths: Any) -> float:
    return float(round(sum(path.stat().st_size for path in paths) / 1e6, 1))


def _time(work: Callable[[], object]) -> dict[str, float]:
    times = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        work()
        times.append((time.perf_counter() - started) * 1000)
    return {name: round(value, 1) for name, value in (("median", statistics.median(times)), ("best", min(times)))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000, help="metadata rows to make (default: 1000000)")
    parser.add_argument("--folder", type=Path, required=True, help="where the dataset goes, e.g. /tmp/bench")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    dataset = options.folder / f"rows-{options.rows}"
    if not dataset.exists():
        started = time.perf_counter()
        make(dataset, options.rows)
        print(f"made {dataset} in {time.perf_counter() - started:.1f} s", file=sys.stderr)
    figures = measure(dataset)
    if options.json:
        print(json.dumps(figures, indent=2))
        return
    for name, value in figures.items():
        text = f"{value['median']} (best {value['best']})" if isinstance(value, dict) else value
        print(f"{name:18} {text}")


if __name__ == "__main__":
    main()
