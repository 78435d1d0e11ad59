"""Measure `vrekit merge` against `cp`: the same bytes, warm page cache, in turn, several rounds.

    python -m tools.bench_merge /tmp/bench --size 2GB --rounds 5

Three pairs of sources: full shards that are kept whole, small shards that are repacked, and two layers that are joined
sample by sample. `merge` checks every payload and returns when the disk has everything; `cp` does neither, so it is
measured with the `sync` that makes it as durable, and `merge --no-sync` is what compares to bare `cp`. The speed
ratios are cp's seconds / merge's seconds in the same round: above 1, merge is faster.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from vrekit.catalog.cells import Cell, Payload, Sample
from vrekit.catalog.manifest import Manifest, RepresentationRecord, write_manifest
from vrekit.codecs.registry import codec_from_config
from vrekit.core.schema import SampleRow
from vrekit.core.spec import Kind, OutputSpec, RepresentationSpec
from vrekit.core.units import parse_bytes
from vrekit.jobs.merge.manifests import Layout
from vrekit.jobs.merge.run import merge
from vrekit.video.base import VideoInfo
from vrekit.writers.webdataset.writer import WebDatasetWriter

PAYLOAD_BYTES = 200_000  # about a 540p frame as JPEG XL
SPEC = OutputSpec(kind=Kind.EMBEDDING, dtype="uint8", shape=(PAYLOAD_BYTES,), axes="D")


def make_source(
    folder: Path, names: Iterable[str], frames: range, *, shard_frames: int, shard_size_bytes: int = 1 << 30
) -> None:
    """Write a dataset of random payloads: one video, these representations and frames, cells of `shard_frames`."""
    codec = codec_from_config("npy")
    records = {
        name: RepresentationRecord(
            spec=RepresentationSpec(name=name, type="bench/random"),
            identity={"name": name},
            memory=SPEC,
            stored=SPEC,
            codec=codec.config(),
            suffix=codec.suffix,
            group="all",
        )
        for name in names
    }
    video = VideoInfo(uri="bench", fingerprint="1-0", source="memory", frame_count=1 << 20, height=1, width=1)
    manifest = Manifest(
        writer="webdataset",
        layout="sample",
        shard_frames=shard_frames,
        shard_size_bytes=shard_size_bytes,
        videos={"bench": video},
        representations=records,
    )
    folder.mkdir(parents=True)
    write_manifest(folder, manifest)
    writer = WebDatasetWriter(folder, shard_frames=shard_frames, shard_size_bytes=shard_size_bytes)
    noise = np.random.default_rng(0).bytes(PAYLOAD_BYTES + (1 << 20))
    for first in range(frames.start // shard_frames * shard_frames, frames.stop, shard_frames):
        with writer.open_cell(Cell("bench", "all", first, first + shard_frames - 1)) as cell:
            for frame in range(max(first, frames.start), min(first + shard_frames, frames.stop)):
                cell.append(Sample("bench", frame, tuple(_payload(one, frame, noise) for one in records.values())))


def _payload(record: RepresentationRecord, frame: int, noise: bytes) -> Payload:
    start = frame * 97 % (1 << 20)
    row = SampleRow(
        video_id="bench",
        frame_index=frame,
        pts_seconds=frame / 25,
        representation=record.spec.name,
        kind=SPEC.kind,
        run_id="bench",
        config_hash=record.config_hash,
        codec="npy",
        dtype="uint8",
        shape=(PAYLOAD_BYTES,),
        raw_bytes=PAYLOAD_BYTES,
    )
    return Payload(row, "npy", noise[start : start + PAYLOAD_BYTES])


def make_pairs(folder: Path, size_bytes: int) -> dict[str, tuple[list[Path], Layout]]:
    """Make the sources that are not there yet, and return them with what the result is to look like."""
    count = size_bytes // PAYLOAD_BYTES
    half = count // 4 * 2
    pairs: dict[str, tuple[list[Path], Layout]] = {}
    plans = {
        "whole shards": (512, [(["rgb"], range(half)), (["rgb"], range(half, count))], Layout(shard_frames=512)),
        "repacked": (32, [(["rgb"], range(half)), (["rgb"], range(half, count))], Layout(shard_frames=1024)),
        "joined": (512, [(["rgb"], range(half)), (["depth"], range(half))], Layout(join=True)),
    }
    for title, (shard_frames, sources, layout) in plans.items():
        folders = []
        for number, (names, frames) in enumerate(sources):
            path = folder / title.replace(" ", "-") / f"source{number}"
            if not path.exists():
                make_source(path, names, frames, shard_frames=shard_frames)
            folders.append(path)
        pairs[title] = (folders, layout)
    return pairs


def copy(sources: list[Path], target: Path) -> None:
    """Copy the shards of all sources with cp, into a folder each."""
    target.mkdir()
    for number, source in enumerate(sources):
        subprocess.run(["cp", "-r", str(source / "shards"), str(target / str(number))], check=True)


def measure(sources: list[Path], layout: Layout, scratch: Path, rounds: int) -> dict[str, list[float]]:
    """Return the seconds of each way, round by round; the order changes from round to round."""
    ways: dict[str, Callable[[], object]] = {
        "merge": lambda: merge(sources, scratch, layout=layout),
        "merge --no-sync": lambda: merge(sources, scratch, layout=layout, sync=False),
        "cp": lambda: copy(sources, scratch),
    }
    seconds: dict[str, list[float]] = {name: [] for name in (*ways, "cp + sync")}
    for number in range(rounds + 1):
        names = list(ways)
        for name in names[number % 3 :] + names[: number % 3]:
            shutil.rmtree(scratch, ignore_errors=True)
            os.sync()
            started = time.perf_counter()
            ways[name]()
            taken = {name: time.perf_counter() - started}
            if name == "cp":
                os.sync()
                taken["cp + sync"] = time.perf_counter() - started
            if number:  # the first round warms the cache up
                for one, value in taken.items():
                    seconds[one].append(value)
    shutil.rmtree(scratch, ignore_errors=True)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where to put sources and results")
    parser.add_argument("--size", default="2GB", help="payload bytes of a pair of sources")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    pairs = make_pairs(arguments.folder, parse_bytes(arguments.size, "--size"))
    print("median seconds, and the median of the rounds' speed ratios (their range)")
    for title, (sources, layout) in pairs.items():
        seconds = measure(sources, layout, arguments.folder / "result", arguments.rounds)
        times = ", ".join(f"{name} {statistics.median(values):.2f}" for name, values in seconds.items())
        print(f"{title}: {times}")
        for own, other in (("merge", "cp + sync"), ("merge", "cp"), ("merge --no-sync", "cp")):
            ratios = [b / a for a, b in zip(seconds[own], seconds[other], strict=True)]
            middle = statistics.median(ratios)
            print(f"    {own} is {middle:.2f} times as fast as {other} ({min(ratios):.2f}..{max(ratios):.2f})")


if __name__ == "__main__":
    main()
