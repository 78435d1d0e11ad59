"""Measure rgb kept as video beside rgb kept as stills: bytes, time to write, time to read in order and shuffled.

    OMP_NUM_THREADS=1 python -m tools.bench_video [VIDEO] [--frames 192] [--rounds 5]

Exports the first frames of a video (default: the demo of `tools.make_demo`, H.264) once for each way to store rgb and
reads them with vrekit's own reader, `FrameDataset.batch` with 8 frames, checksums and collation included: all frames in
order, and all in one random order. The sides take turns, and the median over the rounds counts; each pass opens the
dataset anew. Warm page cache, CPU milliseconds a frame. Reading takes one thread. Writing has decoding the source in it
and, where FFmpeg encodes, FFmpeg's own processes.

The last columns say how many frames a decoder goes through to reach one frame, the mean and the most over all frames:
those from the key frame before it on. Encoders that this FFmpeg lacks are left out.
"""

import argparse
import os
import statistics
import tarfile
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from tools.make_demo import DemoOptions, make_demo
from vrekit.config.loader import parse_config
from vrekit.core.errors import MissingDependencyError
from vrekit.engine.export import export
from vrekit.engine.request import ExportRequest
from vrekit.readers.dataset import FrameDataset
from vrekit.video.packets import read_packets
from vrekit.video.selection import parse_frames

BATCH_SIZE = 8
CODECS = (
    "video",
    "{id: video, encode: h264, gop: 4}",
    "{id: video, encode: h264, gop: 16}",
    "{id: video, encode: h264, gop: 64}",
    "{id: video, encode: hevc}",
    "{id: video, encode: av1}",
    "{id: video, encode: ffv1}",
    "jpg",
    "jxl",
    "rgb-delta",
)


@dataclass(frozen=True, slots=True)
class Side:
    """One way to store rgb.

    Attributes:
        codec: As in a config.
        dataset: Where it is.
        stored_kb: A frame.
        write_ms: CPU milliseconds a frame.
    """

    codec: str
    dataset: Path
    stored_kb: float
    write_ms: float


def write(video: Path, out: Path, codec: str, frame_count: int) -> Side:
    """Export the first frames as one cell."""
    config = parse_config(f"representations:\n  rgb: {{type: color/rgb, codec: {codec}}}\n")
    request = ExportRequest(
        video=str(video),
        dataset=out,
        representations=config.representations,
        frames=parse_frames(f"0..{frame_count}"),
        shard_frames=frame_count,
        threads=1,
    )
    before = sum(os.times()[:4])  # its own and that of its children
    totals = export(request).totals["rgb"]
    spent = sum(os.times()[:4]) - before
    return Side(codec, out, totals.stored_bytes / totals.computed / 1e3, spent / totals.computed * 1e3)


def read_ms(side: Side, order: NDArray[np.int64] | None) -> float:
    """Return the CPU milliseconds a frame of reading all frames once, in this order or as they come."""
    dataset = FrameDataset(side.dataset, ["rgb"])
    rows: NDArray[np.int64] = np.arange(len(dataset)) if order is None else order
    started = time.process_time()
    for first in range(0, len(rows), BATCH_SIZE):
        dataset.batch(rows[first : first + BATCH_SIZE])
    return (time.process_time() - started) / len(rows) * 1e3


def frames_to_reach(dataset: Path) -> list[int]:
    """Return how many frames are decoded to reach each frame of a dataset's clips; 1 for stills."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for path in _members(dataset, Path(folder)):
            packets = read_packets(f"file:{path}", 0) if path.suffix in (".mp4", ".mkv") else None
            is_key = np.ones(1, np.bool_) if packets is None else packets.is_key[packets.shown]
            places = np.arange(len(is_key))
            found += (places - np.maximum.accumulate(np.where(is_key, places, 0)) + 1).tolist()
    return found


def _members(dataset: Path, folder: Path) -> Iterator[Path]:
    for tar in sorted(dataset.glob("shards/*/*.tar")):
        with tarfile.open(tar) as archive:
            archive.extractall(folder, filter="data")
            yield from (folder / name for name in archive.getnames())


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("video", type=Path, nargs="?", help="video file instead of the demo")
    parser.add_argument("--frames", type=int, default=192, help="frames of each dataset; default 192")
    parser.add_argument("--rounds", type=int, default=5, help="times that each is read; default 5")
    options = parser.parse_args(arguments)
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        video = options.video or make_demo(
            folder, DemoOptions(seconds=options.frames / 25, width=960, height=540, truth=False)
        )
        write(video, folder / "warm-up", "jpg", 2)
        sides = []
        for number, codec in enumerate(CODECS):
            try:
                sides.append(write(video, folder / f"dataset-{number}", codec, options.frames))
            except MissingDependencyError:
                continue
        report(sides, options.rounds)


def report(sides: Sequence[Side], rounds: int) -> None:
    """Read all sides in turns and print the table."""
    shuffled = np.random.default_rng(0).permutation(len(FrameDataset(sides[0].dataset)))
    runs = [[(read_ms(side, None), read_ms(side, shuffled)) for side in sides] for _ in range(rounds + 1)][1:]
    print("| rgb as | kB a frame | to write | in order | shuffled | decoded to reach one: mean | most |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for at, side in enumerate(sides):
        in_order, random = (statistics.median(run[at][way] for run in runs) for way in (0, 1))
        reach = frames_to_reach(side.dataset)
        codec = f"`{side.codec}`" + (" (packets copied)" if side.codec == "video" else "")
        print(
            f"| {codec} | {side.stored_kb:.1f} | {side.write_ms:.1f} | {in_order:.2f} | {random:.2f} "
            f"| {statistics.mean(reach):.1f} | {max(reach)} |"
        )


if __name__ == "__main__":
    main()
